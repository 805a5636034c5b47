"""History: what a training was like, epoch by epoch."""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(dict[str, list[float]]):
    """Lists with one number an epoch, by name, as a dict.

    Names: `cost` and `accuracy`, means over the epoch's minibatches as they were trained on; `validation_cost` and
    `validation_accuracy`, after the epoch; `learning_rate`; `seconds`. Accuracies are there if the network classifies.

    Attributes:
        interrupted: whether Ctrl-C ended the training early.

    >>> history = nnkit.History()
    >>> history.add(cost=0.5, accuracy=0.9)
    >>> history.add(cost=0.25, accuracy=0.95)
    >>> history["cost"], history.last["accuracy"], history.epochs
    ([0.5, 0.25], 0.95, 2)
    """

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = False

    def add(self, **numbers: float) -> None:
        """Append the numbers of one epoch."""
        for name, number in numbers.items():
            self.setdefault(name, []).append(number)

    @property
    def epochs(self) -> int:
        """How many epochs are in it."""
        return max(map(len, self.values()), default=0)

    @property
    def last(self) -> dict[str, float]:
        """The numbers of the last epoch."""
        return {name: numbers[-1] for name, numbers in self.items() if numbers}

    def plot(self, path: str | PathLike[str] | None = None) -> "Figure":
        """Draw the learning curve; written to `path` if one is given (`nnkit.plots.learning_curve`)."""
        from nnkit.plots import learning_curve

        return learning_curve(self, path)
