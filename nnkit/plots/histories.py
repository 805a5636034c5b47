"""Histories as curves: validation, and the values that can be drawn."""

import re
from collections.abc import Mapping, Sequence, Sized
from numbers import Real
from typing import Any, NamedTuple

History = Mapping[str, Sequence[float | None]]

# Above it, and below its inverse on a logarithmic axis, Matplotlib's margins overflow.
LARGEST = 1e100
_HEADINGS = {"r2": "R²", "mae": "Mean absolute error"}


class Curve(NamedTuple):
    """One line: "training" or "validation", the epochs (from 1) that have a drawable value, and the values."""

    label: str
    epochs: list[int]
    values: list[float]


def is_share(metric: str) -> bool:
    """Whether a metric ranges from 0 to 1 and is drawn in percent: the accuracy and the top-k accuracies."""
    return re.fullmatch(r"(validation_)?(accuracy|top_\d+)", metric) is not None


def heading(metric: str) -> str:
    """The heading of a metric's panel.

    >>> [heading(name) for name in ("cost", "accuracy", "top_5", "r2", "my_metric")]
    ['Cost', 'Accuracy (%)', 'Top-5 accuracy (%)', 'R²', 'My metric']
    """
    if metric.startswith("top_") and is_share(metric):
        return f"Top-{metric[4:]} accuracy (%)"
    words = _HEADINGS.get(metric, metric.replace("_", " ").capitalize())
    return f"{words} (%)" if is_share(metric) else words


def count_epochs(history: Any, name: str = "history") -> int:
    """The number of epochs in a history; raises TypeError if it is not a mapping, ValueError if it has no costs."""
    if not isinstance(history, Mapping):
        raise TypeError(f"{name} is a {type(history).__name__}; expected a mapping from names to lists")
    costs = history.get("cost")
    if not isinstance(costs, Sized) or len(costs) == 0:
        raise ValueError(f'{name}["cost"] is {costs!r}; expected one number per epoch')
    return len(costs)


def curve(history: History, key: str, name: str = "history") -> Curve:
    """The values under `key` that can be drawn, shares in percent.

    Raises TypeError if a value is not a number, ValueError if the list differs in length from the costs or a share is
    outside [0, 1].
    """
    values, epochs = history[key], len(history["cost"])
    if not isinstance(values, Sized) or len(values) != epochs:
        found = f"has {len(values)} entries" if isinstance(values, Sized) else f"is {values!r}"
        raise ValueError(f'{name}["{key}"] {found}; expected a list of {epochs}, as long as "cost"')
    drawn = Curve("validation" if key.startswith("validation") else "training", [], [])
    share = is_share(key)
    for index, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, Real):
            raise TypeError(f'{name}["{key}"][{index}] is {value!r}; expected a number or None')
        number = float(value)
        if abs(number) <= LARGEST:
            if share and not 0 <= number <= 1:
                raise ValueError(f'{name}["{key}"][{index}] is {value}; expected a number from 0 to 1')
            drawn.epochs.append(index + 1)
            drawn.values.append(100 * number if share else number)
    return drawn
