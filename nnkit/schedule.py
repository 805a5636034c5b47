"""What a schedule of the learning rate is: a factor on the optimizer's rate for each position in a training.

A schedule keeps no state: its factor follows from the position and from the history alone, so that a resumed training
goes on as it would have.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

Numbers = Mapping[str, Sequence[float]]  # a history: one number an epoch, by name


Factor = Callable[["Schedule", float, float, Numbers], float]


def _checked(factor: Factor) -> Factor:
    """The method `factor` of a schedule, whose numbers are finite and at least 0."""

    @functools.wraps(factor)
    def checked(self: "Schedule", epoch: float, epochs: float, history: Numbers) -> float:
        try:
            found = factor(self, epoch, epochs, history)
        except OverflowError:
            found = math.inf
        try:
            number = float(found)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf:
            raise ValueError(
                f"{self}: the factor is {found!r} at epoch {epoch:g}; expected a finite number of at least 0"
            )
        return number

    return checked


class Schedule(ABC):
    """Base of the schedules; for one of your own, a function of the epoch that returns a factor will do.

    Attributes:
        monitor: the number of the history that it looks at, if it does.
        uses_epochs: whether the factor depends on the length of the training, which a resumed one must then keep.

    What `factor` returns is checked, also in a subclass: ValueError if it is not a finite number of at least 0.
    """

    monitor: str | None = None
    uses_epochs: bool = True

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "factor" in vars(cls):
            setattr(cls, "factor", _checked(vars(cls)["factor"]))  # noqa: B010  mypy takes no other method

    @abstractmethod
    def factor(self, epoch: float, epochs: float, history: Numbers) -> float:
        """The factor on the optimizer's learning rate: finite and at least 0.

        Args:
            epoch: the position, from 0; 2.5 is the middle of the third epoch.
            epochs: the length of the whole training.
            history: the numbers of the epochs that are done.

        >>> nnkit.schedules.cosine().factor(2.5, 10, {})
        0.8535533905932737
        """


class FunctionSchedule(Schedule):
    """A schedule that is a function of (epoch, epochs, history), and how it was written.

    `given` is what of it is a user's, a function or a schedule: its text does not say what that computes.
    """

    def __init__(
        self,
        compute: Callable[[float, float, Numbers], float],
        text: str,
        monitor: str | None = None,
        uses_epochs: bool = False,
        given: object = None,
    ) -> None:
        self._compute, self._text, self.monitor = compute, text, monitor
        self.uses_epochs, self.given = uses_epochs, given

    def factor(self, epoch: float, epochs: float, history: Numbers) -> float:
        return self._compute(epoch, epochs, history)

    def __repr__(self) -> str:
        return self._text
