"""History: cost, metrics and times of a training run, epoch by epoch."""

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

from nnkit.checks import one_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(dict[str, list[float]]):
    """A dict of lists with one number per epoch.

    Keys: `cost`, `accuracy` for classifiers, and the requested metrics, all computed on the minibatches during the
    epoch; the same with the prefix `validation_`, computed after the epoch; `learning_rate` of the epoch's last step;
    `seconds`. `dict(history)` is a plain dict, which JSON can encode.

    Attributes:
        stopped: why the training ended: "epochs" (all epochs done), "early stopping", "callback", "interrupted"
            (Ctrl-C) or "diverged". None while it runs, and after any other exception.
        interrupted: whether Ctrl-C ended the training early.

    >>> history = nnkit.History()
    >>> history.add(cost=0.5, accuracy=0.9)
    >>> history.add(cost=0.25, accuracy=0.95)
    >>> history["cost"], history.last["accuracy"], history.epochs
    ([0.5, 0.25], 0.95, 2)
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped: str | None = None

    @property
    def interrupted(self) -> bool:
        return self.stopped == "interrupted"

    @classmethod
    def of(cls, lists: Mapping[str, Sequence[float]]) -> "History":
        """A history from lists, as stored in a file; raises ValueError unless they are numbers and of equal length."""
        history = cls()
        for name, numbers in lists.items():
            history[str(name)] = [float(number) for number in numbers]
        if len({len(numbers) for numbers in history.values()}) > 1:
            raise ValueError("the lists of a history differ in length; expected equal lengths")
        return history

    def add(self, **numbers: float) -> None:
        """Append the numbers of one epoch."""
        for name, number in numbers.items():
            self.setdefault(name, []).append(number)

    @property
    def epochs(self) -> int:
        """The number of epochs: the length of `cost` if present; custom lists may have other lengths."""
        return len(self["cost"]) if "cost" in self else max(map(len, lists_of(self).values()), default=0)

    @property
    def last(self) -> dict[str, float]:
        """The numbers of the last epoch."""
        return {name: numbers[-1] for name, numbers in lists_of(self).items() if numbers}

    def plot(self, path: str | PathLike[str] | None = None) -> "Figure":
        """Draw the learning curve, and write it to `path` if given (see `nnkit.plots.learning_curve`)."""
        from nnkit.plots import learning_curve

        return learning_curve(self, path)


def lists_of(history: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The entries with a number for each epoch; a callback may have added others."""
    return {name: numbers for name, numbers in history.items() if isinstance(numbers, list)}


def highest_is_best(owner: str, monitor: str, mode: str) -> bool:
    """Whether higher values of a metric are better: given by `mode`, or by the metric's name if `mode` is "auto".

    Raises ValueError for another mode, and for "auto" with a custom metric.

    >>> [highest_is_best("", name, "auto") for name in ("validation_accuracy", "top_5", "r2", "cost", "validation_mae")]
    [True, True, True, False, False]
    """
    if one_of(owner, "mode", mode, ["auto", "min", "max"]) != "auto":
        return mode == "max"
    name = monitor.removeprefix("validation_")
    if re.fullmatch(r"accuracy|balanced_accuracy|top_\d+|r2|f1|precision|recall|roc_auc", name):
        return True
    if name not in ("cost", "mae", "mean_absolute_error", "rmse", "root_mean_squared_error"):
        hint = "give mode='max' if its highest number is the best, else mode='min'"
        raise ValueError(f"{owner}: the name {monitor!r} does not say which of its numbers is the best; {hint}")
    return False
