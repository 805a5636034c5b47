"""Early stopping: an end to a training that no longer improves, with the best parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnkit.history import highest_is_best
from nnkit.ranges import flag, in_range, whole


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Stop when a number of the history has not improved for `patience` epochs (Prechelt, 1998).

    Args:
        monitor: the number's name, such as "validation_cost" or "validation_accuracy".
        patience: epochs without improvement, at least 1.
        min_delta: by how much an epoch must be better to count, at least 0.
        restore_best: whether the network gets the parameters of its best epoch when the training ends, early or not.
        mode: whether the lowest ("min") or the highest ("max") is the best; "auto" takes the highest of accuracies,
            "top_5" and the like and "r2", and the lowest of costs and "mae". Other names need a mode.

    Raises ValueError for numbers out of range and a name whose best number is not known; `fit` does for a name that its
    history will not have.

    >>> rule = nnkit.EarlyStopping("validation_cost", patience=2)
    >>> rule.best({"validation_cost": [0.9, 0.5, 0.6, 0.7]}), rule.stops({"validation_cost": [0.9, 0.5, 0.6, 0.7]})
    (1, True)
    """

    monitor: str = "validation_cost"
    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True
    mode: str = "auto"

    def __post_init__(self) -> None:
        whole("EarlyStopping", "patience", self.patience, 1)
        if not isinstance(self.monitor, str):
            raise TypeError(f"EarlyStopping: monitor is {self.monitor!r}; expected a name, such as 'validation_cost'")
        in_range("EarlyStopping", "min_delta", self.min_delta)
        flag("EarlyStopping", "restore_best", self.restore_best)
        highest_is_best("EarlyStopping", self.monitor, self.mode)

    def best(self, history: Mapping[str, Sequence[float]]) -> int | None:
        """The best epoch, counted from 0; None if none has a finite number."""
        sign = -1 if highest_is_best("EarlyStopping", self.monitor, self.mode) else 1
        best, lowest = None, math.inf
        for epoch, value in enumerate(history.get(self.monitor, ())):
            if sign * value < lowest - (self.min_delta if best is not None else 0):
                best, lowest = epoch, sign * value
        return best

    def stops(self, history: Mapping[str, Sequence[float]]) -> bool:
        """Whether the training should end after these epochs."""
        best = self.best(history)
        return len(history.get(self.monitor, ())) - 1 - (-1 if best is None else best) >= self.patience
