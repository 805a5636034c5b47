"""Checks of the options of `fit`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnkit.history import History
from nnkit.metrics import Metric
from nnkit.model import Model
from nnkit.parallel.division import Team
from nnkit.training.data import is_stream
from nnkit.training.stopping import EarlyStopping
from nnkit.training.weights import ClassWeight


def check_team(team: Team, model: Model, X: Any, shards: int | None, sharded: bool) -> None:
    """Raise TypeError for options of a team without effect, and ValueError for fewer shards than ranks."""
    if sharded and not is_stream(X):
        refuse("for arrays: all ranks give the same ones, and each reads its own rows", sharded=sharded)
    if sharded and shards is not None:
        refuse("on minibatches that the ranks divide themselves (sharded=True)", shards=shards)
    if team.divisor < team.communicator.size:
        raise ValueError(f"shards is {shards}; expected at least one for each of {team.communicator.size} ranks")


def class_weight_in_words(weight: ClassWeight) -> str:
    """The class weights as text, to be compared with those of a checkpoint."""
    if not isinstance(weight, Mapping):
        return str(weight)
    return ", ".join(sorted(f"{name}: {float(number)!r}" for name, number in weight.items()))


def refuse(reason: str, **arguments: object) -> None:
    """TypeError for the first given argument among these, which have no effect.

    >>> refuse("without a checkpoint", checkpoint_every=2)
    Traceback (most recent call last):
    TypeError: checkpoint_every is 2, which has no effect without a checkpoint; leave it out
    """
    for name, value in arguments.items():
        if value is not None:
            raise TypeError(f"{name} is {value!r}, which has no effect {reason}; leave it out")


def numbers_to_come(model: Model, metrics: Sequence[Metric], validated: bool) -> list[str]:
    """The names of the costs and metrics that the history will contain."""
    names = ["cost", *(["accuracy"] if model.classifies else []), *(metric.name for metric in metrics)]
    return names + ([f"validation_{name}" for name in names] if validated else [])


def checked_rule(rule: EarlyStopping | None, numbers: Sequence[str]) -> EarlyStopping | None:
    """The given rule; TypeError if it is not an EarlyStopping, ValueError if the history will not have its number."""
    if not isinstance(rule, EarlyStopping | None):
        raise TypeError(f"early_stopping is {rule!r}; expected a rule, such as nnkit.EarlyStopping(patience=5)")
    kind: Any = type(rule)
    if rule is not None and (kind.best, kind.stops) != (EarlyStopping.best, EarlyStopping.stops):
        hint = "a callback that returns True ends a training"
        raise TypeError(f"early_stopping is a {kind.__name__} with methods of its own, which fit does not call; {hint}")
    check_monitor("early_stopping", None if rule is None else rule.monitor, numbers)
    return rule


def check_monitor(option: str, monitor: str | None, numbers: Sequence[str]) -> None:
    """ValueError for a number that the history will not have."""
    if monitor is not None and monitor not in numbers:
        hint = "; give validation_data" if monitor.startswith("validation_") else ""
        raise ValueError(f"{option} monitors {monitor!r}; this training has {', '.join(numbers)}{hint}")


def checked_callbacks(callbacks: Any) -> list[Callable[[Any, History], object]]:
    """The callbacks as a list; TypeError if one is not callable."""
    found = list(callbacks) if hasattr(callbacks, "__iter__") else [callbacks]
    for callback in found:
        if not callable(callback):
            raise TypeError(f"callbacks contains {callback!r}; expected functions of the network and its history")
    return found
