"""The ends of a training: early stopping, when it no longer improves, and Ctrl-C, which first finishes the step."""

import _signal  # type: ignore[import-not-found]  # see nnkit.backends.loading
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType

from nnkit.checks import flag, in_range, whole
from nnkit.history import highest_is_best
from nnkit.parallel.communicator import ALONE, Communicator


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Stop when a monitored value of the history has not improved for `patience` epochs (Prechelt, 1998).

    Args:
        monitor: name of the value, such as "validation_cost" or "validation_accuracy".
        patience: epochs without improvement, at least 1.
        min_delta: minimum change that counts as an improvement, at least 0.
        restore_best: whether to restore the parameters of the best epoch when the training ends, early or not.
        mode: whether the lowest ("min") or the highest ("max") value is best; "auto" means the highest for accuracies,
            "top_<k>" and "r2", and the lowest for costs, "mae" and "rmse". Other names need a mode.

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
        """The best epoch, counted from 0; None if all numbers are NaN or infinitely bad."""
        return Improvement(self).follow(history).best

    def stops(self, history: Mapping[str, Sequence[float]]) -> bool:
        """Whether the training should end after these epochs."""
        return Improvement(self).follow(history).stops


class Improvement:
    """Applies a rule to a growing history, and reads each number once.

    Attributes:
        best: the best epoch, counted from 0; None if all numbers are NaN or infinitely bad.
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


class Interrupt:
    """Whether Ctrl-C has been pressed; `check` raises KeyboardInterrupt if so, between two steps.

    A step is never left half done. Code that may take long and changes no parameters, such as a data stream, a callback
    or a file, runs inside `with interrupt.at_once`: there a second Ctrl-C acts at once.
    """

    def __init__(self, communicator: Communicator = ALONE) -> None:
        self.presses = 0
        self.at_once = _AtOnce(self)
        self._communicator = communicator

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C has been pressed; on all ranks after the same step, if on one."""
        if self._communicator.stops(self.presses > 0):
            raise KeyboardInterrupt

    def slowest(self, seconds: float) -> float:
        """The longest time of all ranks, which also learn whether Ctrl-C has been pressed on one."""
        found = self._communicator.everyone((seconds, self.presses > 0))
        self._communicator.stopped = any(pressed for _, pressed in found)
        return max(taken for taken, _ in found)

    def hold(self) -> None:
        """Disable `at_once` during cleanup."""
        self.at_once.depth = 0

    def press(self) -> None:
        """Count a Ctrl-C; raise KeyboardInterrupt if it is the second and in an `at_once` block."""
        self.presses += 1
        if self.presses > 1 and self.at_once.depth:
            raise KeyboardInterrupt


class _AtOnce:
    """A block that a second Ctrl-C interrupts."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt, self.depth = interrupt, 0

    def __enter__(self) -> None:
        if self.interrupt.presses > 1:
            raise KeyboardInterrupt
        self.depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.depth = 0  # such blocks are not nested


_running: list[Interrupt] = []  # of the main thread


def press() -> None:
    """Do what Ctrl-C does, also where that is ignored, as in the background of a shell script."""
    if not _running:
        raise KeyboardInterrupt
    _running[-1].press()


@contextmanager
def interruptible(communicator: Communicator = ALONE) -> Iterator[Interrupt]:
    """Defer Ctrl-C until `check`; a second one is not deferred in an `at_once` block.

    Changes nothing in threads other than the main one, which get no signals, or if a program has its own handler.
    """
    interrupt = Interrupt(communicator)

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.press()

    main = threading.current_thread() is threading.main_thread()
    ours = main and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if ours:
        _signal.signal(_signal.SIGINT, note)
    if main:
        _running.append(interrupt)
    try:
        yield interrupt
    finally:
        if main:
            _running.remove(interrupt)
        if ours:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
