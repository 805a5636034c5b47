"""Ctrl-C during a training: the step that runs is finished first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Interrupt:
    """Whether Ctrl-C has been pressed; `check` raises KeyboardInterrupt if so, between two steps.

    A step is never left half done. What may take any time, such as a stream of data, a callback or a file, and changes
    no parameters is done inside `with interrupt.at_once`: there the second Ctrl-C acts at once.
    """

    def __init__(self) -> None:
        self.presses = 0
        self.at_once = _AtOnce(self)

    @property
    def requested(self) -> bool:
        """Whether Ctrl-C has been pressed."""
        return self.presses > 0

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C has been pressed."""
        if self.presses:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Let nothing be left at once any more, as everything is put in order."""
        self.at_once.depth = 0

    def press(self) -> None:
        """Note a Ctrl-C; raise KeyboardInterrupt if it is the second and what runs may be left."""
        self.presses += 1
        if self.presses > 1 and self.at_once.depth:
            raise KeyboardInterrupt


class _AtOnce:
    """A block that the second Ctrl-C leaves."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt, self.depth = interrupt, 0

    def __enter__(self) -> None:
        if self.interrupt.presses > 1:
            raise KeyboardInterrupt
        self.depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.depth = 0  # such blocks are not nested


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Let Ctrl-C wait for `check`; the second need not, where what runs may be left.

    In another thread than the main one, which gets no signals, and where a program has its own handler for Ctrl-C,
    nothing is changed.
    """
    interrupt = Interrupt()

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.press()

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
