"""History: what a training was like, epoch by epoch."""

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


def higher_is_better(name: str) -> bool:
    """Whether the highest number of this name is the best: accuracies, the top k and R².

    >>> [higher_is_better(name) for name in ("validation_accuracy", "top_5", "r2", "cost", "validation_mae")]
    [True, True, True, False, False]
    """
    return name.removeprefix("validation_").startswith(("accuracy", "top_", "r2"))
