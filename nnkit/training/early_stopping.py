"""Early stopping: an end to a training that no longer improves, with the best parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnkit.history import higher_is_better


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Stop when a number of the history has not improved for `patience` epochs (Prechelt, 1998).

    Args:
        monitor: the number's name, such as "validation_cost" or "validation_accuracy". Of accuracies, "top_5" and the
            like and "r2" the highest is the best, of all else the lowest.
        patience: epochs without improvement, at least 1.
        min_delta: by how much an epoch must be better to count, at least 0.
        restore_best: whether the network gets the parameters of its best epoch when the training ends, early or not.

    Raises ValueError for numbers out of range; `fit` does for a name that its history will not have.

    >>> rule = nnkit.EarlyStopping("validation_cost", patience=2)
    >>> rule.best({"validation_cost": [0.9, 0.5, 0.6, 0.7]}), rule.stops({"validation_cost": [0.9, 0.5, 0.6, 0.7]})
    (1, True)
    """

    monitor: str = "validation_cost"
    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise ValueError(f"EarlyStopping: patience is {self.patience!r}; expected a whole number of at least 1")
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"EarlyStopping: min_delta is {self.min_delta!r}; expected a finite number of at least 0")

    def best(self, history: Mapping[str, Sequence[float]]) -> int | None:
        """The best epoch, counted from 0; None if none has a finite number."""
        sign = -1 if higher_is_better(self.monitor) else 1
        best, lowest = None, math.inf
        for epoch, value in enumerate(history.get(self.monitor, ())):
            if sign * value < lowest - (self.min_delta if best is not None else 0):
                best, lowest = epoch, sign * value
        return best

    def stops(self, history: Mapping[str, Sequence[float]]) -> bool:
        """Whether the training should end after these epochs."""
        best = self.best(history)
        return len(history.get(self.monitor, ())) - 1 - (-1 if best is None else best) >= self.patience
