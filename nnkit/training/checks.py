"""The arguments of `fit`, checked before anything changes."""

from collections.abc import Callable, Sequence
from typing import Any

from nnkit.history import History
from nnkit.metrics import Metric
from nnkit.model import Model
from nnkit.training.early_stopping import EarlyStopping


def refuse(reason: str, **arguments: object) -> None:
    """TypeError for the first of these arguments that was given: it would have no effect.

    >>> refuse("without a checkpoint", checkpoint_every=None)
    >>> refuse("without a checkpoint", checkpoint_every=2)
    Traceback (most recent call last):
    TypeError: checkpoint_every is 2, which has no effect without a checkpoint; leave it out
    """
    for name, value in arguments.items():
        if value is not None:
            raise TypeError(f"{name} is {value!r}, which has no effect {reason}; leave it out")


def numbers_to_come(model: Model, metrics: Sequence[Metric], validated: bool) -> list[str]:
    """The names of the numbers that the history will have of each epoch."""
    names = ["cost", *(["accuracy"] if model.classifies else []), *(metric.name for metric in metrics)]
    return names + ([f"validation_{name}" for name in names] if validated else [])


def checked_rule(rule: EarlyStopping | None, numbers: Sequence[str]) -> EarlyStopping | None:
    """A rule of early stopping whose number the history will have, as it is; TypeError or ValueError for others."""
    if not isinstance(rule, EarlyStopping | None):
        raise TypeError(f"early_stopping is {rule!r}; expected nnkit.EarlyStopping(patience=5) or the like")
    check_monitor("early_stopping", None if rule is None else rule.monitor, numbers)
    return rule


def check_monitor(option: str, monitor: str | None, numbers: Sequence[str]) -> None:
    """ValueError for a number that the history will not have."""
    if monitor is not None and monitor not in numbers:
        hint = "; give validation_data" if monitor.startswith("validation_") else ""
        raise ValueError(f"{option} monitors {monitor!r}; this training has {', '.join(numbers)}{hint}")


def checked_callbacks(callbacks: Any) -> list[Callable[[Any, History], object]]:
    """The callbacks as a list; TypeError for what cannot be called."""
    found = list(callbacks) if hasattr(callbacks, "__iter__") else [callbacks]
    for callback in found:
        if not callable(callback):
            raise TypeError(f"callbacks holds {callback!r}; expected functions of the network and its history")
    return found
