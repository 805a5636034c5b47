"""Early stopping: end a training that no longer improves, with the best parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnkit.checks import flag, in_range, whole
from nnkit.history import highest_is_best


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Stop when a monitored value of the history has not improved for `patience` epochs (Prechelt, 1998).

    Args:
        monitor: name of the value, such as "validation_cost" or "validation_accuracy".
        patience: epochs without improvement, at least 1.
        min_delta: minimum change that counts as an improvement, at least 0.
        restore_best: whether to restore the parameters of the best epoch when the training ends, early or not.
        mode: whether the lowest ("min") or the highest ("max") value is best; "auto" means the highest for accuracies,
            "top_<k>" and "r2", and the lowest for costs and "mae". Other names need a mode.

    Raises ValueError for numbers out of range and for "auto" with an unknown name; `fit` for a name not in its history.

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
        return Improvement(self).follow(history).best

    def stops(self, history: Mapping[str, Sequence[float]]) -> bool:
        """Whether the training should end after these epochs."""
        return Improvement(self).follow(history).stops


class Improvement:
    """Applies a rule to a growing history, and reads each number once.

    Attributes:
        best: the best epoch, counted from 0; None if none has a finite number.
    """

    def __init__(self, rule: EarlyStopping) -> None:
        self.rule = rule
        self._sign = -1 if highest_is_best("EarlyStopping", rule.monitor, rule.mode) else 1
        self.best: int | None = None
        self._count, self._lowest, self._last = 0, math.inf, math.nan

    def follow(self, history: Mapping[str, Sequence[float]]) -> "Improvement":
        """Read the numbers added since the last call; all of them, if the last number read has been replaced."""
        numbers = history.get(self.rule.monitor, ())
        if self._count and (self._count > len(numbers) or numbers[self._count - 1] is not self._last):
            self.best, self._count, self._lowest = None, 0, math.inf
        for number in numbers[self._count :]:
            value = self._sign * number
            if value < self._lowest - (self.rule.min_delta if self.best is not None else 0):
                self.best, self._lowest = self._count, value
            self._count, self._last = self._count + 1, number
        return self

    @property
    def stops(self) -> bool:
        """Whether there has been no improvement for `patience` epochs."""
        return self._count - 1 - (-1 if self.best is None else self.best) >= self.rule.patience
