"""Recording: the operations of a backend become a list of nodes, which is rewritten, lowered and replayed.

Each training step makes the same calls with the same arrays. Inside `recording()`, the operations of a backend are not
executed: each appends a node, a call bound to its arrays with the arrays that it reads and writes, which live as long
as the tape. At the end of the block, passes rewrite the list, each from nodes to nodes. The first replay lowers it to
the calls that run: a backend can make one or several from a node, or one from all nodes, such as a CUDA graph. Later
replays only make these calls, without allocation or dispatch.
"""

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from types import CodeType, FrameType
from typing import Any, NamedTuple

Call = Callable[[], object]


class Node(NamedTuple):
    """A call of a recording.

    Attributes:
        call: executes it, at any time; what passes make of several calls has the same effect.
        read, written: the arrays that it reads and writes; None if unknown.
        name: the name of the formula or operation, for display.
    """

    call: Call
    read: tuple[Any, ...] | None = None
    written: tuple[Any, ...] | None = None
    name: str = ""


Nodes = list[Node]
Pass = Callable[[Nodes], Nodes]
Lowering = Callable[[Nodes], list[Call]]


def calls_of(nodes: Nodes) -> list[Call]:
    """The calls of the nodes: the default lowering."""
    return [node.call for node in nodes]


def _none(x: Any, out: Any) -> None:
    return None


_PAUSE = 0.02  # seconds between two looks at Ctrl-C and the progress bar


class Tape:
    """A recording: nodes, the passes that rewrite them at its end, and the backend's lowering.

    `around` returns the context in which the calls run.

    Attributes:
        nodes: the nodes of a replay. first: those that come once before several replays in a row.
        trains: whether compiled code takes subnormal numbers as 0, which a step's must do however it is replayed.
    """

    def __init__(
        self,
        passes: Sequence[Pass] = (),
        lower: Lowering = calls_of,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.nodes: Nodes = []
        self.first: Nodes = []
        self.trains = False
        self.frame: FrameType | None = None  # that runs the block which records
        self.outer: Tape | None = None  # which records around it
        self._passes, self._lower, self._around = passes, lower, around
        self._calls: list[Call] | None = None
        self._first_calls: list[Call] = []
        self._at_once = 1  # repetitions

    @property
    def calls(self) -> list[Call]:
        """The calls of a replay, lowered on first use."""
        if self._calls is None:
            with self._around():
                self._calls = self._lower(self.nodes)
                self._first_calls = self._lower(self.first) if self.first else []
            for call in self._calls if self.trains else []:
                getattr(call, "flush", bool)()
        return self._calls

    def function(self, x: Any, out: Any) -> Any:
        """The calls as a function from the rows of `x` to those of `out` and others, if compiled code can; else None.

        See `nnkit.backends.cpu.native.runs.NativeFunction`.
        """
        calls = self.calls
        return getattr(calls[0], "function", _none)(x, out) if len(calls) == 1 and not self._first_calls else None

    def rewrite(self) -> None:
        """Apply the passes at the end of the recording, and expand the remaining composite calls."""
        self.nodes.sort(key=lambda node: isinstance(node.call, Note))  # not between calls that passes fuse
        for rewritten in self._passes:
            self.nodes = rewritten(self.nodes)
        self.first += [node for made in self.nodes if isinstance(made.call, First) for node in made.call.nodes]
        expanded = (nodes_of(node.call) if isinstance(node.call, Composite) else [node] for node in self.nodes)
        self.nodes = [node for some in expanded for node in some]
        self._calls = None

    def replay(self, times: int = 1, after: Callable[[int], object] | None = None) -> None:
        """Make all calls, in order, `times` times; if another tape records, append the nodes to it.

        `after` is called with the number of replays since its last call: after each, or after some milliseconds if the
        calls are one that repeats itself, which compiled code does.
        """
        outer = active_tape()
        if outer is not None:
            outer.nodes += self.first + self.nodes * times
            return
        calls = self.calls
        repeat = getattr(calls[0], "repeat", None) if len(calls) == 1 and not self._first_calls else None
        if repeat is not None:
            self._repeat(calls[0], repeat, times, after)
            return
        with self._around():
            for call in self._first_calls:
                call()
            for _ in range(times):
                for call in calls:
                    call()
                if after is not None:
                    after(1)

    def _repeat(
        self, call: Call, repeat: Callable[[int], int], times: int, after: Callable[[int], object] | None
    ) -> None:
        """Repeat a call by itself; compiled code needs no context."""
        if times == 1 and after is None:
            call()
            return
        while times > 0:
            start = time.perf_counter()
            done = repeat(min(times, self._at_once))
            seconds = max(time.perf_counter() - start, 1e-9)
            self._at_once = max(1, min(int(done * _PAUSE / seconds), 8 * self._at_once))
            times -= done
            if after is not None:
                after(done)


class Composite:
    """A call made of others, which replace it at the end of a recording unless a pass replaces it before."""

    def __call__(self) -> None:
        """Make or record these calls."""
        raise NotImplementedError


class Note(Composite):
    """What passes should know of a recording; no call is made of it."""

    def __call__(self) -> None:
        """Make no call."""


class Discard(Note):
    """Nothing outside a recording reads these arrays, so that passes need not write them."""

    def __init__(self, arrays: tuple[Any, ...]) -> None:
        self.arrays = arrays


class Repeated(Note):
    """The recording is replayed many times in a row, between which only its calls write its arrays."""


class First(Note):
    """A pass moved these nodes before several replays in a row."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes


class HostCall:
    """A call of arbitrary Python code at every replay.

    A CUDA graph cannot contain one; a tape with such a call makes its calls one by one.
    """

    def __init__(self, function: Call) -> None:
        self._function = function

    def __call__(self) -> None:
        self._function()


class Break(HostCall):
    """A call of the host between two parts of a recording, each of which can be a CUDA graph."""


_recording: ContextVar[Tape | None] = ContextVar("nnkit_recording", default=None)


def active_tape() -> Tape | None:
    """The tape that records in this context, or None.

    Ctrl-C, or the exception of a signal's handler, can come between any two operations of Python, also where the end of
    a block would reset the variable: a tape counts only while the frame of its block runs below this one. What a
    handler computes in between is computed.
    """
    tape = latest = _recording.get()
    while tape is not None and (above := _above(tape.frame)) is None:
        tape.frame, tape = None, tape.outer
    if tape is not latest:
        _recording.set(tape)
    return None if tape is None or (above and not _handlers().isdisjoint(above)) else tape


def _above(frame: FrameType | None) -> list[CodeType] | None:
    """The code of users that runs above a frame of this thread; None if that does not run."""
    here: FrameType | None = sys._getframe(2)
    codes = []
    while here is not None and here is not frame:
        if not here.f_globals.get("__name__", "").startswith(_NOT_USERS):
            codes.append(here.f_code)
        here = here.f_back
    return None if here is None else codes


_NOT_USERS = ("nnkit.", "numpy.", "contextlib")


def _handlers() -> set[CodeType]:
    """The code of the handlers of signals."""
    codes = set[CodeType]()
    for handler in map(signal.getsignal, signal.valid_signals()):
        while isinstance(handler, partial):
            handler = handler.func
        code = getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
        codes |= set() if code is None else {code}
    return codes


def by_handler(error: BaseException) -> bool:
    """Whether the handler of a signal raised an exception, so that it says nothing of the code that it interrupted."""
    codes = _handlers()
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


@contextmanager
def recording(tape: Tape) -> Iterator[Tape]:
    """Record the operations of backends in the `with` block on `tape`."""
    active_tape()  # forgets those whose blocks have ended
    tape.outer, frame = _recording.get(), sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == "contextlib":
        frame = frame.f_back
    tape.frame = frame
    try:
        _recording.set(tape)
        yield tape
    finally:
        if _recording.get() is tape:  # not in another thread, whose garbage collection may end this
            _recording.set(tape.outer)
        tape.frame = tape.outer = None
    tape.rewrite()


def perform(
    call: Call, read: tuple[Any, ...] | None = None, written: tuple[Any, ...] | None = None, name: str = ""
) -> None:
    """Make a call, or append it to the tape that records; the other arguments are those of `Node`."""
    tape = None if _recording.get() is None else active_tape()
    if tape is None:
        call()
    else:
        tape.nodes.append(Node(call, read, written, name))


def note(what: Note) -> None:
    """Tell the passes over the recording, if there is one."""
    if active_tape() is not None:
        perform(what, (), (), "note")


def discard(*arrays: Any) -> None:
    """Note, while recording, that only recorded calls read what they write to these arrays."""
    note(Discard(arrays))


def nodes_of(do: Callable[[], object]) -> Nodes:
    """The operations of a function as nodes, not rewritten; for use in passes."""
    with recording(Tape()) as tape:
        do()
    return tape.nodes
