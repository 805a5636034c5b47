"""Two streams inside a graph: whatever depends on each other is ordered, and the results are those of one stream."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import selection
from nnkit.backends.cuda.graph import Graph, Home
from nnkit.backends.cuda.streams import Placed, chain_length, dependences, on_two_streams
from nnkit.backends.recording import Node, Tape, perform, recording
from nnkit.step import Step
from tests.backends.cuda.test_fewer_launches import Program
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host


def conflicts(one: Node, other: Node) -> bool:
    """Whether one writes what the other reads or writes, by NumPy's exact search for a common byte."""

    def common(ours: Any, theirs: Any) -> bool:
        return any(np.shares_memory(on_host(a), on_host(b)) for a in ours for b in theirs)

    if one.read is None or other.read is None:
        return True
    return (
        common(one.written, other.written) or common(one.written, other.read) or common(one.read, other.written)
    )  # fmt: skip


def ordered(placed: Sequence[Placed]) -> list[set[int]]:
    """For each call those that are done when it starts: the ones before on its stream, and what it waits for."""
    done, last = list[set[int]](), list[set[int]]([set(), set()])
    for number, call in enumerate(placed):
        before = set(last[call.stream])
        for other in call.waits:
            assert other < number
            assert placed[other].stream != call.stream
            before |= done[other] | {other}
        done.append(before)
        last[call.stream] = before | {number}
    return done


def programs(host: HostDevice) -> Iterator[tuple[int, Program, Tape]]:
    """Random programs, with a call of which nothing is known in some."""
    for seed in range(30):
        program = Program(host, seed)
        with recording(Tape()) if seed % 2 else host.recording() as tape:
            program.calls(9)
            if seed % 5 == 0:
                perform(lambda: None)
                program.calls(3)
        yield seed, program, tape


def test_every_pair_that_depends_on_each_other_is_ordered(host: HostDevice) -> None:
    pairs = shorter = 0
    for seed, _, tape in programs(host):
        nodes = tape.nodes
        placed = on_two_streams(nodes)
        number = {id(node.call): i for i, node in enumerate(nodes)}
        assert sorted(number[id(call.call)] for call in placed) == list(range(len(nodes)))
        done = ordered(placed)
        at = {number[id(call.call)]: place for place, call in enumerate(placed)}
        for j in range(len(nodes)):
            for i in range(j):
                if conflicts(nodes[i], nodes[j]):
                    assert at[i] in done[at[j]], f"seed {seed}: {nodes[i].name} {i} before {nodes[j].name} {j}"
                    pairs += 1
        shorter += any(call.stream for call in placed)
    assert pairs > 200
    assert shorter > 10


def test_any_order_that_the_streams_allow_gives_the_same(host: HostDevice) -> None:
    for seed, program, tape in programs(host):
        placed = on_two_streams(tape.nodes)
        start, choose = [on_host(array).copy() for array in program.arrays], Random(seed)
        every = program.arrays + program.temporary
        found = []
        for order in ("recorded", "any", "any"):
            for array, values in zip(program.arrays, start, strict=True):
                on_host(array)[...] = values
            if order == "recorded":
                for node in tape.nodes:
                    node.call()
            else:
                done, left = ordered(placed), list(range(len(placed)))
                while left:
                    number = choose.choice([n for n in left if not done[n] & {*left}])
                    placed[number].call()
                    left.remove(number)
            found.append([on_host(array).tobytes() for array in every])
        assert found[1] == found[0]
        assert found[2] == found[0]


@pytest.mark.parametrize(
    ("cost", "optimizer", "nodes", "chain"),
    [
        ("cross_entropy", nnkit.SGD(), 16, 11),
        ("softmax_cross_entropy", nnkit.SGD(), 16, 11),
        ("softmax_cross_entropy", nnkit.Adam(), 17, 12),
    ],
)
def test_the_longest_chain(
    host: HostDevice, monkeypatch: pytest.MonkeyPatch, cost: str, optimizer: Any, nodes: int, chain: int
) -> None:
    """Of 784-256-128-10: δW and δb of a layer are beside the way back."""
    monkeypatch.setitem(selection._made, "cupy", host)
    net = nnkit.Network([784, 256, 128, 10], "relu", cost, seed=1, backend=host)
    found = Step(net, 64, net.optimizer_state(optimizer)).nodes
    placed = on_two_streams(found)
    number = {id(node.call): i for i, node in enumerate(found)}
    order = [number[id(call.call)] for call in placed]
    streams = dict(zip(order, (call.stream for call in placed), strict=True))
    assert len(found) == nodes
    assert chain_length(dependences(found), order, streams) == chain


class Events:
    """What a graph asks of `cupy.cuda`: streams that keep what is known to be done when a call starts."""

    Event = staticmethod(lambda disable_timing: None)
    memory = SimpleNamespace(OutOfMemoryError=MemoryError)
    runtime = SimpleNamespace(streamCaptureModeThreadLocal=1, CUDARuntimeError=KeyError)

    def __init__(self) -> None:
        self.current: list[Any] = []
        self.made: list[FakeStream] = []
        self.captured: list[tuple[int, set[int]]] = []  # each call, and the calls that it follows
        self.home = FakeStream(self, 0)
        self.current.append(self.home)
        self.workspaces: list[int] = []

    def get_current_stream(self, device: int = -1) -> Any:
        return self.current[-1]

    def Stream(self, non_blocking: bool) -> Any:
        self.made.append(FakeStream(self, len(self.made) + 1))
        return self.made[-1]

    @contextmanager
    def lent(self, workspaces: dict[int, Any]) -> Iterator[None]:
        self.workspaces = list(workspaces.values())
        assert list(workspaces) == [stream.ptr for stream in self.made]
        yield


class FakeStream:
    def __init__(self, cuda: Events, ptr: int) -> None:
        self.cuda, self.ptr, self.known, self.capturing = cuda, ptr, set[int](), False

    def __enter__(self) -> None:
        self.cuda.current.append(self)

    def __exit__(self, *_: object) -> None:
        self.cuda.current.pop()

    def begin_capture(self, mode: object) -> None:
        self.capturing = True

    def end_capture(self) -> Any:
        assert self.capturing
        assert self.known == {number for number, _ in self.cuda.captured}  # else CUDA finds unjoined work
        return SimpleNamespace(launch=lambda: None)

    def record(self, event: object) -> Any:
        assert self.capturing
        return set(self.known)

    def wait_event(self, event: Any) -> None:
        self.capturing, self.known = True, self.known | event


def test_a_capture_forks_and_joins(host: HostDevice) -> None:
    """The calls of the runtime during a capture: each call of the recording follows those on which it depends."""
    forked = 0
    for seed, _, tape in programs(host):
        cuda = Events()

        def noted(number: int, cuda: Events = cuda) -> None:
            stream = cuda.get_current_stream()
            if not cuda.made:
                return  # the first replay, call by call
            assert stream.capturing, "CUDA would run this call instead of capturing it"
            cuda.captured.append((number, set(stream.known)))
            stream.known.add(number)

        def call(number: int, noted: Any = noted) -> Any:
            return lambda: noted(number)

        nodes = [Node(call(number), *node[1:]) for number, node in enumerate(tape.nodes)]
        handle = SimpleNamespace(workspace=lambda stream, number: number, lent=cuda.lent)
        handles: Any = SimpleNamespace(get=lambda handle=handle: handle)
        graph = Graph(nodes, cuda, handles, Home(cuda), captures=True)
        graph()
        graph()
        assert graph.graph is not None
        assert cuda.workspaces == list(range(1, len(cuda.made) + 1))  # one for each stream
        forked += len(cuda.made) == 2
        follows = dict(cuda.captured)
        assert len(follows) == len(nodes)
        for j in range(len(nodes)):
            for i in range(j):
                if conflicts(nodes[i], nodes[j]):
                    assert i in follows[j], f"seed {seed}: {i} before {j}"
    assert forked > 10
