"""Recording: what a backend is asked to do becomes a list of nodes, which is rewritten, lowered and replayed.

A step of training makes the same calls on the same arrays every time. While `recording()` is open, the operations of a
backend are not done: each appends a node, a call bound to its arrays with the arrays that it reads and writes, which
stay alive with the tape. At the end of the block passes rewrite the list, each from nodes to nodes. The first replay
lowers it to the calls that run, of which a backend may make one or many from a node, or one from all nodes, such as a
CUDA graph. From then on a replay makes these calls: no allocation, no dispatch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

Call = Callable[[], object]


class Node(NamedTuple):
    """A call of a recording.

    Attributes:
        call: does it, and can be called at any time: what passes make of several calls does the same.
        read, written: the arrays that it reads and writes; None where that is not known.
        name: of the formula or operation, for people.
    """

    call: Call
    read: tuple[Any, ...] | None = None
    written: tuple[Any, ...] | None = None
    name: str = ""


Nodes = list[Node]
Pass = Callable[[Nodes], Nodes]
Lowering = Callable[[Nodes], list[Call]]


def calls_of(nodes: Nodes) -> list[Call]:
    """The calls of the nodes as they are: the lowering of a backend that has none of its own."""
    return [node.call for node in nodes]


class Tape:
    """A recording: nodes, the passes that rewrite them once it has ended, and how a backend lowers them.

    `around` makes the context in which the calls run.
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
        """The calls of a replay, lowered when they are first asked for."""
        if self._calls is None:
            with self._around():
                self._calls = self._lower(self.nodes)
        return self._calls

    def rewrite(self) -> None:
        """Let the passes rewrite the nodes at the end of the recording; composite calls that are left become others."""
        for rewritten in self._passes:
            self.nodes = rewritten(self.nodes)
        expanded = (nodes_of(node.call) if isinstance(node.call, Composite) else [node] for node in self.nodes)
        self.nodes = [node for some in expanded for node in some]
        self._calls = None

    def replay(self, times: int = 1, after_each: Call | None = None) -> None:
        """Make every call, in order, `times` in a row; while another tape records, append the nodes to that one."""
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
    """A call that asks a backend for others, which take its place at the end of a recording: a pass may do better."""

    def __call__(self) -> None:
        """Ask for them."""
        raise NotImplementedError


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
    tape.rewrite()


def perform(
    call: Call, read: tuple[Any, ...] | None = None, written: tuple[Any, ...] | None = None, name: str = ""
) -> None:
    """Make a call now, or append it to the tape if one records; the other arguments are those of its `Node`."""
    tape = _recording.get()
    if tape is None:
        call()
    else:
        tape.nodes.append(Node(call, read, written, name))


def nodes_of(do: Callable[[], object]) -> Nodes:
    """What a function asks a backend to do, as nodes that no pass has seen: passes make nodes so."""
    with recording(Tape()) as tape:
        do()
    return tape.nodes
