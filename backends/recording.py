"""Recording: the operations of a backend become a list of nodes, which is rewritten, lowered and replayed.

Each training step makes the same calls with the same arrays. Inside `recording()`, the operations of a backend are not
executed: each appends a node, a call bound to its arrays with the arrays that it reads and writes, which live as long
as the tape. At the end of the block, passes rewrite the list, each from nodes to nodes. The first replay lowers it to
the calls that run: a backend can make one or several from a node, or one from all nodes, such as a CUDA graph. Later
replays only make these calls, without allocation or dispatch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
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


class Tape:
    """A recording: nodes, the passes that rewrite them at its end, and the backend's lowering.

    `around` returns the context in which the calls run.
    """

    def __init__(
        self,
        passes: Sequence[Pass] = (),
        lower: Lowering = calls_of,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.nodes: Nodes = []
        self._passes, self._lower, self._around = passes, lower, around
        self._calls: list[Call] | None = None

    @property
    def calls(self) -> list[Call]:
        """The calls of a replay, lowered on first use."""
        if self._calls is None:
            with self._around():
                self._calls = self._lower(self.nodes)
        return self._calls

    def rewrite(self) -> None:
        """Apply the passes at the end of the recording, and expand the remaining composite calls."""
        for rewritten in self._passes:
            self.nodes = rewritten(self.nodes)
        expanded = (nodes_of(node.call) if isinstance(node.call, Composite) else [node] for node in self.nodes)
        self.nodes = [node for some in expanded for node in some]
        self._calls = None

    def replay(self, times: int = 1, after_each: Call | None = None) -> None:
        """Make all calls, in order, `times` times; if another tape records, append the nodes to it."""
        outer = _recording.get()
        if outer is not None:
            outer.nodes += self.nodes * times
            return
        calls = self.calls
        with self._around():
            for _ in range(times):
                for call in calls:
                    call()
                if after_each is not None:
                    after_each()


class Composite:
    """A call made of others, which replace it at the end of a recording unless a pass replaces it before."""

    def __call__(self) -> None:
        """Make or record these calls."""
        raise NotImplementedError


class HostCall:
    """A call of arbitrary Python code at every replay.

    A CUDA graph cannot contain one; a tape with such a call makes its calls one by one.
    """

    def __init__(self, function: Call) -> None:
        self._function = function

    def __call__(self) -> None:
        self._function()


_recording: ContextVar[Tape | None] = ContextVar("nnkit_recording", default=None)


def active_tape() -> Tape | None:
    """The tape that records in this context, or None."""
    return _recording.get()


@contextmanager
def recording(tape: Tape) -> Iterator[Tape]:
    """Record the operations of backends in the `with` block on `tape`."""
    token = _recording.set(tape)
    try:
        yield tape
    finally:
        _recording.reset(token)
    tape.rewrite()


def perform(
    call: Call, read: tuple[Any, ...] | None = None, written: tuple[Any, ...] | None = None, name: str = ""
) -> None:
    """Make a call, or append it to the tape that records; the other arguments are those of `Node`."""
    tape = _recording.get()
    if tape is None:
        call()
    else:
        tape.nodes.append(Node(call, read, written, name))


def nodes_of(do: Callable[[], object]) -> Nodes:
    """The operations of a function as nodes, not rewritten; for use in passes."""
    with recording(Tape()) as tape:
        do()
    return tape.nodes
