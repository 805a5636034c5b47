"""History: what a training was like, epoch by epoch."""

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(dict[str, list[float]]):
    """Lists with one number an epoch, by name, as a dict.

    Names: `cost`, `accuracy` if the network classifies, and the metrics that were asked for, over the epoch's
    minibatches as they were trained on; each with `validation_` before it, after the epoch; `learning_rate`, of the
    epoch's last step; `seconds`. `dict(history)` is a plain dict, which JSON takes.

    Attributes:
        stopped: why the training ended: "epochs", as all were done; "early stopping"; "callback"; "interrupted", by
            Ctrl-C; or "diverged". None while it runs, and where another exception ended it.
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
        """A history with these lists, as a file keeps them; ValueError if they are not numbers of equal count."""
        history = cls()
        for name, numbers in lists.items():
            history[str(name)] = [float(number) for number in numbers]
        if len({len(numbers) for numbers in history.values()}) > 1:
            raise ValueError("the lists of a history differ in length")
        return history

    def add(self, **numbers: float) -> None:
        """Append the numbers of one epoch."""
        for name, number in numbers.items():
            self.setdefault(name, []).append(number)

    @property
    def epochs(self) -> int:
        """How many epochs are in it: how many costs, if there are any; lists of one's own may have other lengths."""
        return len(self["cost"]) if "cost" in self else max(map(len, self.values()), default=0)

    @property
    def last(self) -> dict[str, float]:
        """The numbers of the last epoch."""
        return {name: numbers[-1] for name, numbers in self.items() if numbers}

    def plot(self, path: str | PathLike[str] | None = None) -> "Figure":
        """Draw the learning curve; written to `path` if one is given (`nnkit.plots.learning_curve`)."""
        from nnkit.plots import learning_curve

        return learning_curve(self, path)


def highest_is_best(owner: str, monitor: str, mode: str) -> bool:
    """Whether the highest number of a name is the best: as `mode` says, or by the name where it is "auto".

    Raises ValueError for another mode, and for "auto" where the name does not tell: a metric of the user's own.

    >>> [highest_is_best("", name, "auto") for name in ("validation_accuracy", "top_5", "r2", "cost", "validation_mae")]
    [True, True, True, False, False]
    """
    if mode in ("min", "max"):
        return mode == "max"
    if mode != "auto":
        raise ValueError(f"{owner}: mode is {mode!r}; expected 'auto', 'min' or 'max'")
    name = monitor.removeprefix("validation_")
    if re.fullmatch(r"accuracy|top_\d+|r2", name):
        return True
    if name not in ("cost", "mae", "mean_absolute_error"):
        hint = "give mode='max' if its highest number is the best, else mode='min'"
        raise ValueError(f"{owner}: the name {monitor!r} does not say which of its numbers is the best; {hint}")
    return False
