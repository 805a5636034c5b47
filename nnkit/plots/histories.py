"""Histories as curves: what of a history can be drawn, checked."""

import re
from collections.abc import Mapping, Sequence, Sized
from numbers import Real
from typing import Any, NamedTuple

History = Mapping[str, Sequence[float | None]]

# Beyond it, and below its inverse on a logarithmic axis, Matplotlib's margins overflow.
LARGEST = 1e100
_HEADINGS = {"r2": "R²", "mae": "Mean absolute error"}


class Curve(NamedTuple):
    """One line: "training" or "validation", the epochs (from 1) that have a drawable value, and the values."""

    label: str
    epochs: list[int]
    values: list[float]


def is_share(metric: str) -> bool:
    """Whether a metric goes from 0 to 1 and is drawn in percent: the accuracy and the top k."""
    return re.fullmatch(r"(validation_)?(accuracy|top_\d+)", metric) is not None


def heading(metric: str) -> str:
    """What stands above a metric's panel.

    >>> [heading(name) for name in ("cost", "accuracy", "top_5", "r2", "my_metric")]
    ['Cost', 'Accuracy (%)', 'Top-5 accuracy (%)', 'R²', 'My metric']
    """
    if metric.startswith("top_") and is_share(metric):
        return f"Top-{metric[4:]} accuracy (%)"
    words = _HEADINGS.get(metric, metric.replace("_", " ").capitalize())
    return f"{words} (%)" if is_share(metric) else words


def count_epochs(history: Any, name: str = "history") -> int:
    """How many epochs a history has; TypeError if it is no mapping, ValueError if it has no costs."""
    if not isinstance(history, Mapping):
        raise TypeError(f"{name} must be a mapping from names to lists, got {type(history).__name__}")
    costs = history.get("cost")
    if not isinstance(costs, Sized) or len(costs) == 0:
        raise ValueError(f'{name} must have one number per epoch under "cost", got {costs!r}')
    return len(costs)


def curve(history: History, key: str, name: str = "history") -> Curve:
    """The values under `key` that can be drawn, shares in percent.

    Raises TypeError for what is no number, ValueError for a list of another length than that of the costs and a share
    outside 0 to 1.
    """
    values, epochs = history[key], len(history["cost"])
    if not isinstance(values, Sized) or len(values) != epochs:
        got = len(values) if isinstance(values, Sized) else repr(values)
        raise ValueError(f'{name}["{key}"] must have {epochs} entries, as many as "cost", got {got}')
    drawn = Curve("validation" if key.startswith("validation") else "training", [], [])
    share = is_share(key)
    for index, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, Real):
            raise TypeError(f'{name}["{key}"][{index}] must be a number or None, got {value!r}')
        number = float(value)
        if abs(number) <= LARGEST:
            if share and not 0 <= number <= 1:
                raise ValueError(f'{name}["{key}"][{index}] must be from 0 to 1, got {value}')
            drawn.epochs.append(index + 1)
            drawn.values.append(100 * number if share else number)
    return drawn
