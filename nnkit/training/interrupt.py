"""Ctrl-C during training: the current step is finished first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Interrupt:
    """Whether Ctrl-C has been pressed; `check` raises KeyboardInterrupt if so, between two steps.

    A step is never left half done. Code that may take long and changes no parameters, such as a data stream, a callback
    or a file, runs inside `with interrupt.at_once`: there a second Ctrl-C acts at once.
    """

    def __init__(self) -> None:
        self.presses = 0
        self.at_once = _AtOnce(self)

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C has been pressed."""
        if self.presses:
            raise KeyboardInterrupt

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


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Defer Ctrl-C until `check`; a second one is not deferred in an `at_once` block.

    Changes nothing in threads other than the main one, which get no signals, or if a program has its own handler.
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
