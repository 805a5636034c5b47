"""Recording: what a backend is asked to do while a tape runs is written down, and replayed without Python's decisions.

A step of training makes the same calls on the same arrays every time. While `recording()` is open, the operations of a
backend are not done: each leaves the calls that it consists of on the tape, bound to its arrays, and those arrays stay
alive with the tape. `replay` makes the calls: no allocation, no dispatch. It is what a CUDA graph is to a GPU.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from nnkit.backends.scratch import Scratch

Call = Callable[[], object]


class Tape:
    """A list of bound calls, and the scratch arrays they use."""

    def __init__(self, around: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self.calls: list[Call] = []
        self.scratch = Scratch()
        self._around = around

    def replay(self, times: int = 1, after_each: Call | None = None) -> None:
        """Make every call, in order, `times` in a row; while another tape records, leave them on that one."""
        if active_tape() is not None:
            perform(self.calls * times)
            return
        with self._around():
            for _ in range(times):
                for call in self.calls:
                    call()
                if after_each is not None:
                    after_each()


class HostCall:
    """A call of Python code that has to run at every replay: what it computes is known to no backend.

    A CUDA graph cannot hold one; a tape with such a call makes its calls one by one.
    """

    def __init__(self, function: Call) -> None:
        self._function = function

    def __call__(self) -> None:
        self._function()


_recording: ContextVar[Tape | None] = ContextVar("nnkit_recording", default=None)


def active_tape() -> Tape | None:
    """The tape that records in this context, if one does."""
    return _recording.get()


@contextmanager
def recording(tape: Tape) -> Iterator[Tape]:
    """Write on `tape` what backends are asked to do inside the `with` block."""
    token = _recording.set(tape)
    try:
        yield tape
    finally:
        _recording.reset(token)


def perform(calls: Iterable[Call]) -> None:
    """Make calls now, or leave them on the tape if one records."""
    tape = _recording.get()
    if tape is not None:
        tape.calls.extend(calls)
        return
    for call in calls:
        call()
