"""The passes over a recording on a GPU, each alone and in any order: the same numbers, and fewer or other nodes."""

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends.cuda import elementwise
from nnkit.backends.cuda.elementwise import ElementwiseCall
from nnkit.backends.cuda.recording import PASSES, begin_sums, cast_factors, chain
from nnkit.backends.formula import Formula
from nnkit.backends.recording import Node, Pass, Tape, perform, recording
from tests.backends.cuda.test_recorded_programs import Layer
from tests.support.accumulating import accumulate
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host

CHOICES = [chosen for count in range(3) for chosen in itertools.permutations(PASSES, count)]
CHOICES += [tuple(Random(seed).sample(PASSES, len(PASSES))) for seed in range(20)]
TWICE = Formula(lambda xp, a: a * 2, "twice", ["a"])
SUM = Formula(lambda xp, a, b: a + b, "added", ["a", "b"])


@pytest.fixture
def medium() -> Any:
    nnkit.set_matmul_precision("medium")
    yield
    nnkit.set_matmul_precision("highest")


def asked(do: Callable[[], object]) -> list[Node]:
    """The nodes of a recording before its end, when calls that ask for others become these."""
    with recording(Tape()) as tape:
        do()
        return list(tape.nodes)


def names(nodes: list[Node]) -> list[str]:
    return [node.name for node in nodes]


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("passes", CHOICES, ids=lambda passes: "-".join(p.__name__ for p in passes) or "none")
def test_any_passes_in_any_order(host: HostDevice, monkeypatch: pytest.MonkeyPatch, passes: tuple[Pass, ...]) -> None:
    """A layer's six calls, twice, and an update, on whole numbers, which all of these ways compute exactly."""
    monkeypatch.setattr(elementwise, "_FEWER", 0)
    layer = Layer(host)
    with recording(Tape(passes)) as tape:
        for number in (*range(6), *range(6)):
            layer.calls[number]()
            layer.by_numpy(number)
        arrays, expected = layer.arrays, layer.expected
        accumulate(host, [(arrays["W"], arrays["δW"]), (arrays["b"], arrays["δb"])], host.asarray(-2.0, "float32"))
        for parameters, gradients in (("W", "δW"), ("b", "δb")):  # which may not have been written
            host.copy(arrays[parameters], arrays[gradients])
            expected[parameters] -= 2 * expected[gradients]
            expected[gradients][...] = expected[parameters]
    tape.replay()
    layer.check(passes)


def test_chain_fuses_only_adjacent_kernels(host: HostDevice) -> None:
    a, b, c = (host.zeros((4, 8), "float32") for _ in range(3))
    with recording(Tape()) as tape:
        host.elementwise(TWICE, (a,), out=b)
        host.elementwise(SUM, (b, a), out=c)
        host.copy(c, a)
        host.elementwise(TWICE, (c,), out=c)
        host.elementwise(TWICE, (a,), out=b)  # of nothing that the one before gives
    assert names(chain(tape.nodes)) == ["twice_added", "copy", "twice", "twice"]
    assert len(tape.nodes) == 5  # a pass makes a new list
    (first, *_) = chain(tape.nodes)
    assert first.read is not None
    assert first.written is not None
    assert [id(array) for array in first.read] == [id(a)] * 2
    assert [id(array) for array in first.written] == [id(b), id(c)]


@pytest.mark.usefixtures("medium")
def test_casts_follow_the_kernel_that_computes_the_matrix(host: HostDevice) -> None:
    x, W = host.zeros((4, 8), "float32"), host.zeros((8, 8), "float32")
    with recording(Tape()) as tape:
        h = host.elementwise(TWICE, (x,))
        host.copy(x, host.empty((4, 8), "float32"))
        host.matmul(h, W)
        host.matmul(h.mT, x)
        host.copy(W, W)
        host.matmul(h, W)
    found = cast_factors(tape.nodes)
    assert names(found) == [
        "twice", "rounded", "copy", "rounded", "matmul", "rounded", "matmul", "copy", "rounded", "matmul",
    ]  # fmt: skip
    types = [[str(array.dtype) for array in node.read or ()][:2] for node in found if node.name == "matmul"]
    assert types == [["bfloat16"] * 2] * 3
    assert [id(node) for node in cast_factors(found)] == [id(node) for node in found]
    assert names(chain(found))[:2] == ["twice_rounded", "copy"]


def test_sums_begin_in_the_kernel_that_computes_the_matrix(host: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "_FEWER", 0)
    a = host.asarray(np.arange(32.0).reshape(4, 8), "float32")
    sums: list[Any] = []

    def do() -> None:
        b = host.elementwise(TWICE, (a,))
        sums.extend((host.sum(b, axis=0), host.sum(a, axis=0)))  # no kernel gives a

    nodes = asked(do)
    begun = begin_sums(nodes)
    assert names(begun) == ["twice", "sum", "sum"]
    assert isinstance(begun[0].call, ElementwiseCall)
    assert len(begun[0].written or ()) == 2
    assert (begun[1].read or ())[0] is (begun[0].written or ())[1]
    for some in (nodes, begun):
        for node in some:
            node.call()
        np.testing.assert_array_equal(on_host(sums[0]), 2 * np.arange(32.0).reshape(4, 8).sum(axis=0))
        np.testing.assert_array_equal(on_host(sums[1]), np.arange(32.0).reshape(4, 8).sum(axis=0))


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("rewrite", [cast_factors, begin_sums], ids=lambda rewrite: rewrite.__name__)
def test_an_unknown_call_may_write_anything(host: HostDevice, rewrite: Pass) -> None:
    x = host.zeros((4096, 8), "float32")

    def do() -> None:
        h = host.elementwise(TWICE, (x,))
        perform(lambda: None)
        host.matmul(h, host.zeros((8, 8), "float32"))
        host.sum(h, axis=0)

    nodes = asked(do)
    assert names(rewrite(nodes))[:2] == ["twice", ""]
    assert rewrite(nodes)[0] is nodes[0]
