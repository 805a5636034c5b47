"""Learning rate schedules, named as in PyTorch and Keras.

Step schedules are constant within an epoch; smooth schedules change with each minibatch.
"""

import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from nnkit.checks import in_range, named, whole
from nnkit.history import highest_is_best, lists_of

Numbers = Mapping[str, Sequence[float]]  # a history: one number per epoch, by name


Factor = Callable[["Schedule", float, float, Numbers], float]


def _checked(factor: Factor) -> Factor:
    """The method `factor` of a schedule, with a check that the result is finite and at least 0."""

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
    """Base class of schedules; a function of the epoch that returns a factor is also a custom schedule.

    Attributes:
        monitor: the name of the history's number that it monitors, or None.
        uses_epochs: whether the factor depends on the number of epochs, which must then not change on resuming.

    The result of `factor` is checked, also in subclasses: ValueError if it is not a finite number of at least 0.
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
            epochs: the total number of epochs.
            history: the numbers of the completed epochs.

        >>> nnkit.schedules.cosine().factor(2.5, 10, {})
        0.8535533905932737
        """


class FunctionSchedule(Schedule):
    """A schedule from a function of (epoch, epochs, history) and its repr.

    `given` is the user's function or schedule in it, if any, which the repr does not describe.
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


ScheduleLike = Schedule | Callable[[float], float] | str | None

__all__ = [
    "Schedule", "ScheduleLike", "as_schedule", "constant", "cosine", "coslog", "exponential", "halving", "one_cycle",
    "reduce_on_plateau", "schedule_names", "step", "warmup",
]  # fmt: skip


def constant() -> Schedule:
    """The optimizer's learning rate, unchanged: the factor is 1."""
    return FunctionSchedule(lambda epoch, epochs, history: 1.0, "constant()")


def step(every: int, factor: float = 0.1) -> Schedule:
    """Multiplied by `factor` every `every` epochs: factor^⌊epoch/every⌋, like PyTorch's StepLR.

    Args:
        every: epochs between two changes, at least 1.
        factor: positive.

    Raises ValueError otherwise.

    >>> schedule = nnkit.schedules.step(30)
    >>> schedule, [schedule.factor(epoch, 90, {}) for epoch in (0, 29.9, 30)]
    (step(every=30, factor=0.1), [1.0, 1.0, 0.1])
    """
    every, factor = whole("step", "every", every, 1), in_range("step", "factor", factor, above=True)
    return FunctionSchedule(
        lambda epoch, epochs, history: factor ** (epoch // every), f"step(every={every}, factor={factor!r})"
    )


def halving(every: int = 1) -> Schedule:
    """Halved every `every` epochs; the lecture halves after each epoch.

    Args:
        every: at least 1.

    >>> [nnkit.schedules.halving().factor(epoch, 3, {}) for epoch in (0, 1, 2)]
    [1.0, 0.5, 0.25]
    """
    every = whole("halving", "every", every, 1)
    return FunctionSchedule(lambda epoch, epochs, history: 0.5 ** (epoch // every), f"halving(every={every})")


def exponential(factor: float) -> Schedule:
    """Smooth, factor^epoch, like PyTorch's ExponentialLR.

    Args:
        factor: the factor of each epoch, positive.

    >>> nnkit.schedules.exponential(0.25).factor(1.5, 10, {})
    0.125
    """
    factor = in_range("exponential", "factor", factor, above=True)
    return FunctionSchedule(lambda epoch, epochs, history: factor**epoch, f"exponential({factor!r})")


def cosine(final: float = 0.0) -> Schedule:
    """Smooth, half a cosine from 1 to `final` over all epochs (Loshchilov and Hutter, ICLR 2017, eq. 5).

    Args:
        final: at least 0; PyTorch's CosineAnnealingLR has final · learning rate as eta_min.

    >>> nnkit.schedules.cosine(final=0.1).factor(5, 10, {})
    0.55
    """
    final = in_range("cosine", "final", final)
    return FunctionSchedule(
        lambda epoch, epochs, history: _bend(1, final, _share(epoch, epochs)),
        f"cosine(final={final!r})",
        uses_epochs=True,
    )


def coslog(cycles: int = 4) -> Schedule:
    """Smooth, periods of a cosine from 0 over 1 to 0 that double in length, `cycles` of them in all epochs.

    ½(1 − cos(2π log₂(1 + (2ᶜ − 1) t))) with the share t of the training and c cycles, at least 1: coslog4 of Holzmüller
    et al. (2024, arXiv 2407.04491), which tests both large and small rates and ends at 0.

    >>> schedule = nnkit.schedules.coslog(2)
    >>> [round(schedule.factor(epoch, 3, {}), 12) for epoch in (0, 3 * (2**0.5 - 1) / 3, 1, 3)]
    [0.0, 1.0, 0.0, 0.0]
    """
    cycles = whole("coslog", "cycles", cycles, 1)

    def compute(epoch: float, epochs: float, history: Numbers) -> float:
        return _bend(0, 1, math.log2(1 + (2**cycles - 1) * _share(epoch, epochs)) * 2)

    return FunctionSchedule(compute, f"coslog({cycles})", uses_epochs=True)


def warmup(epochs: float, then: ScheduleLike = None, start: float = 0.0) -> Schedule:
    """Smooth, linear from `start` at the first step to 1 after `epochs`, then another schedule (Goyal et al. 2017).

    Args:
        epochs: the length of the rise, above 0; total_iters of PyTorch's LinearLR.
        then: any argument of `as_schedule`; it sees only the remaining epochs, as if training started there. None
            stays at 1.
        start: the first factor, at least 0; if it is 0, the first step changes nothing. start_factor of PyTorch.

    >>> schedule = nnkit.schedules.warmup(5, nnkit.schedules.cosine())
    >>> [round(schedule.factor(epoch, 25, {}), 3) for epoch in (0, 2.5, 5, 15, 25)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    length, start = in_range("warmup", "epochs", epochs, above=True), in_range("warmup", "start", start)
    rest = as_schedule(then, "warmup: then")
    latest: tuple[Numbers, int, Numbers] = {}, 0, {}  # a history, its length, and the part that `rest` sees

    def compute(epoch: float, epochs: float, history: Numbers) -> float:
        nonlocal latest
        if epoch < length:
            return start + (1 - start) * epoch / length
        known, count, seen = latest
        lists = lists_of(history)
        done = max(map(len, lists.values()), default=0)
        if known is not history or count != done:  # called in each step, but changed only after an epoch
            seen = dict(history) | {name: numbers[math.ceil(length) :] for name, numbers in lists.items()}
            latest = history, done, seen
        return rest.factor(epoch - length, epochs - length, seen)

    given = rest.given if isinstance(rest, FunctionSchedule) else rest
    text = f"warmup({epochs!r}, {in_words(rest)}, start={start!r})"
    return FunctionSchedule(compute, text, rest.monitor, rest.uses_epochs, given)


def one_cycle(pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4) -> Schedule:
    """Smooth, up from 1/25 to 1 in the first 30 % of the training and down to 1/25 · 10⁻⁴ (Smith and Topin 2017).

    Both parts are half cosines, like PyTorch's OneCycleLR with the optimizer's learning rate as max_lr.

    Args:
        pct_start: the fraction of rising rates, in [0, 1).
        div_factor: positive; the first factor is 1/div_factor.
        final_div_factor: positive; the last factor is the first divided by it.

    >>> schedule = nnkit.schedules.one_cycle()
    >>> [round(schedule.factor(epoch, 100, {}), 6) for epoch in (0, 15, 30, 65, 100)]
    [0.04, 0.52, 1.0, 0.500002, 4e-06]
    """
    rise = in_range("one_cycle", "pct_start", pct_start, 1.0)
    first = 1 / in_range("one_cycle", "div_factor", div_factor, above=True)
    last = first / in_range("one_cycle", "final_div_factor", final_div_factor, above=True)

    def compute(epoch: float, epochs: float, history: Numbers) -> float:
        share = _share(epoch, epochs)
        return _bend(first, 1, share / rise) if share < rise else _bend(1, last, (share - rise) / (1 - rise))

    numbers = f"pct_start={pct_start!r}, div_factor={div_factor!r}, final_div_factor={final_div_factor!r}"
    return FunctionSchedule(compute, f"one_cycle({numbers})", uses_epochs=True)


def reduce_on_plateau(
    monitor: str = "validation_cost",
    factor: float = 0.1,
    patience: int = 10,
    min_factor: float = 0.0,
    min_delta: float = 1e-4,
    mode: str = "auto",
) -> Schedule:
    """Multiplied by `factor` if a number of the history has not improved for more than `patience` epochs.

    Like PyTorch's ReduceLROnPlateau with threshold_mode="abs": an epoch is an improvement if it is better than the best
    one by more than `min_delta`; a reduction resets the count of epochs.

    Args:
        monitor: the number's name.
        factor: in [0, 1).
        patience: at least 0.
        min_factor: the lowest factor on the optimizer's rate, in [0, 1).
        min_delta: at least 0.
        mode: "min" if lower is better, "max" if higher; "auto" is "max" for accuracies, "top_5" etc. and "r2", and
            "min" for costs, "mae" and "rmse". Other names need a mode.

    Raises ValueError for numbers out of range; `factor` raises it if the history does not have the number.

    >>> schedule = nnkit.schedules.reduce_on_plateau("cost", factor=0.5, patience=1)
    >>> schedule.factor(4, 10, {"cost": [0.9, 0.5, 0.5, 0.6]})
    0.5
    """
    if not isinstance(monitor, str):
        raise TypeError(f"reduce_on_plateau: monitor is {monitor!r}; expected a name, such as 'validation_cost'")
    owner, sign = "reduce_on_plateau", -1 if highest_is_best("reduce_on_plateau", monitor, mode) else 1
    factor, min_factor = in_range(owner, "factor", factor, 1.0), in_range(owner, "min_factor", min_factor, 1.0)
    patience, min_delta = whole(owner, "patience", patience, 0), in_range(owner, "min_delta", min_delta)

    latest: tuple[Sequence[float], int, float, float, int, float] = (), 0, math.nan, math.inf, 0, 1.0

    def reduced(numbers: Sequence[float]) -> float:
        """The factor after these numbers; only new entries of the last list are read."""
        nonlocal latest
        known, count, last, best, bad, found = latest
        if known is not numbers or not 0 < count <= len(numbers) or numbers[count - 1] is not last:
            count, best, bad, found = 0, math.inf, 0, 1.0
        for number in numbers[count:]:
            better = sign * number < best - min_delta
            best, bad = (sign * number, 0) if better else (best, bad + 1)
            if bad > patience:
                found, bad = max(found * factor, min_factor), 0
        latest = numbers, len(numbers), numbers[-1] if numbers else math.nan, best, bad, found
        return found

    def compute(epoch: float, epochs: float, history: Numbers) -> float:
        if history and monitor not in history:
            raise ValueError(f"{owner} monitors {monitor!r}; this training has {', '.join(history)}")
        return reduced(history.get(monitor, ()))

    numbers = f"factor={factor!r}, patience={patience}, min_factor={min_factor!r}, min_delta={min_delta!r}"
    numbers += "" if mode == "auto" else f", mode={mode!r}"  # checkpoints of earlier versions have none
    return FunctionSchedule(compute, f"{owner}({monitor!r}, {numbers})", monitor)


_named: dict[str, Callable[[], Schedule]] = {
    made.__name__: made for made in (constant, halving, cosine, coslog, one_cycle, reduce_on_plateau)
}


def schedule_names() -> list[str]:
    """The names of schedules, each with its defaults.

    >>> nnkit.schedules.schedule_names()
    ['constant', 'halving', 'cosine', 'coslog', 'one_cycle', 'reduce_on_plateau']
    """
    return list(_named)


def as_schedule(value: ScheduleLike, name: str = "schedule") -> Schedule:
    """A schedule from itself, a name, None (constant) or a function of the epoch, fractional and from 0.

    Raises ValueError for an unknown name, with the closest one, and TypeError for anything else.

    >>> nnkit.schedules.as_schedule(lambda epoch: 1 / (1 + epoch)).factor(1.5, 10, {})
    0.4
    """
    if isinstance(value, Schedule):
        return value
    if value is None:
        return constant()
    if isinstance(value, str):
        return named("schedule", value, _named, ["step(every)", "exponential(factor)", "warmup(epochs)"])()
    if any(value is known for known in (*_named.values(), step, exponential, warmup)):
        raise TypeError(f"{name} is the function {value.__name__}; call it: nnkit.schedules.{value.__name__}(...)")
    if not callable(value):
        raise TypeError(f"{name} is {value!r}; expected a schedule, such as schedules.cosine(), a name or a function")
    function = value
    name = getattr(function, "__name__", type(function).__name__)
    return FunctionSchedule(lambda epoch, epochs, history: function(epoch), name, given=function)


def in_words(schedule: Schedule | None) -> str:
    """The repr of a schedule without addresses, or its class name if it has only the default repr."""
    text = repr(schedule) if type(schedule).__repr__ is not object.__repr__ else type(schedule).__name__
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _share(epoch: float, epochs: float) -> float:
    """The completed fraction of training, at most 1."""
    return min(epoch / epochs, 1.0) if epochs > 0 else 1.0


def _bend(a: float, b: float, t: float) -> float:
    """Half a cosine from a at t = 0 to b at t = 1."""
    return b + (a - b) * (1 + math.cos(math.pi * t)) / 2


def __dir__() -> list[str]:
    return sorted(__all__)
