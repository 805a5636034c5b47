"""Bytes that the kernels of a wide step move beside its products, and that moving fewer changes no result."""

from random import Random
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import selection
from nnkit.backends.cuda import epilogues
from nnkit.backends.cuda import recording as passes_of_gpus
from nnkit.backends.dtypes import numpy_dtype
from nnkit.backends.formula import Formula
from nnkit.backends.recording import Nodes, Repeated, Tape, discard, note, recording
from nnkit.kernels.activations import activation_names, get_activation
from nnkit.step import step_for
from nnkit.training.meter import Meter
from nnkit.training.on_device import Replays
from nnkit.training.sources import ArraySource, Known
from tests.support import emulated_lt
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host

WIDE, BATCH = 4096, 8192


@pytest.fixture(autouse=True)
def _float32() -> Any:
    yield
    nnkit.set_matmul_precision("highest")


class Untouched(HostDevice):
    """A device whose new arrays are zeros that take no memory until something writes them."""

    def zeros(self, shape: Any, dtype: Any) -> Any:
        kind = numpy_dtype(dtype) if isinstance(dtype, str) else np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        memory = np.zeros(size + 16, np.uint8)
        start = -memory.ctypes.data % 16
        return self.place(memory[start : start + size].view(kind).reshape(shape))

    def empty(self, shape: Any, dtype: Any) -> Any:
        return self.zeros(shape, dtype)


def minibatch(net: nnkit.Network, n: int, batch: int, optimizer: Any) -> tuple[Tape, Replays]:
    """A minibatch of `fit` as it is recorded."""
    X, Y = (net.backend.zeros((n, width), "float32") for width in (net.d_in, net.d_out))
    source, meter = ArraySource(net, X, Known(Y)), Meter(net, n, batch)
    meter.start(source.start(np.arange(n)))
    way = Replays(net, source, meter, net.optimizer_state(optimizer), batch)
    return way._record(batch, False), way


def beside_products(nodes: Nodes) -> float:
    """Gigabytes: of products only what they read and write besides their factors and their result."""
    total = 0
    for node in nodes:
        read, written = node.read or (), node.written or ()
        if node.name.startswith("matmul_"):
            read, written = read[2:], written[1:]
        if node.name not in ("matmul", "add_product"):
            total += sum(array.nbytes for array in (*read, *written))
    return total / 1e9


@pytest.mark.parametrize(
    ("precision", "least", "step", "in_fit", "count"),
    [
        ("highest", 1 << 20, 0.84, 1.65, 14), ("medium", 1 << 20, 1.14, 1.68, 20),
        ("highest", 1 << 30, 1.93, 2.74, 16), ("medium", 1 << 30, 1.96, 2.5, 20),
    ],
)  # fmt: skip
def test_bytes_beside_the_products(
    monkeypatch: pytest.MonkeyPatch, precision: str, least: int, step: float, in_fit: float, count: int
) -> None:
    """Three layers of 4096 units, 8192 samples, descent. A step in bfloat16 had 2.77, with all results written."""
    device = Untouched(pytest.importorskip("cupy", reason="CuPy is not installed"))
    device.multiprocessors = 132
    monkeypatch.setitem(selection._made, "cupy", device)
    emulated_lt.install(monkeypatch)
    monkeypatch.setattr(epilogues, "LEAST", least)
    nnkit.set_matmul_precision(precision)
    net = nnkit.Network([WIDE] * 4, "relu", "cross_entropy", seed=1, backend=device, init="zeros")
    nodes = step_for(net, BATCH, net.optimizer_state(nnkit.SGD()), drops=True).nodes
    made = net.explain_step(BATCH, nnkit.SGD())
    assert [node.name for node in made.nodes] == [node.name for node in nodes]
    assert made.bytes_read == sum(array.nbytes for node in nodes for array in node.read or ())
    assert len(nodes) == count
    assert round(beside_products(nodes), 2) == step
    masks = [array for node in nodes for array in (*(node.read or ()), *(node.written or ())) if array.dtype == "uint8"]
    assert sum(array.nbytes for array in masks) == (4 * BATCH * WIDE // 8 if least == 1 << 20 else 0)  # are counted
    assert round(beside_products(minibatch(net, 2 * BATCH, BATCH, nnkit.SGD())[0].nodes), 2) == in_fit


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "gelu"])
@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.5), nnkit.Adam(0.01)], ids=["SGD", "Adam"])
def test_the_same_bits_with_passes_and_without(
    host: HostDevice, monkeypatch: Any, activation: str, optimizer: Any
) -> None:
    """In bfloat16, in which rounded copies are read and written instead of what they are copies of."""
    monkeypatch.setitem(selection._made, "cupy", host)
    nnkit.set_matmul_precision("medium")
    found, counts, firsts = [], [], []
    for passes in (passes_of_gpus.PASSES, ()):
        monkeypatch.setattr(HostDevice, "recording", lambda _, passes=passes: recording(Tape(passes)))
        net = nnkit.Network([12, 24, 16, 5], activation, seed=1, backend=host)
        tape, way = minibatch(net, 16, 8, optimizer)
        rng = np.random.default_rng(1)
        on_host(way.source.X)[...] = rng.normal(size=(16, 12))
        on_host(way.source.in_order.y)[...] = np.eye(5)[rng.integers(5, size=16)]
        for _ in range(3):
            on_host(way._start)[...] = 0
            tape.replay(2)
            on_host(net.parameters.flat)[...] *= 0.75  # as a user may
        found.append([on_host(array).tobytes() for array in (net.parameters.flat, way.meter.logits)])
        counts.append(len(tape.nodes))
        firsts.append(tape.first)
        assert np.isfinite(on_host(net.parameters.flat)).all()
    assert found[0] == found[1]
    assert counts[0] < counts[1]
    assert bool(firsts[0]) == isinstance(optimizer, nnkit.Adam)
    assert not firsts[1]


def test_which_derivatives_ask_for_signs_only() -> None:
    """Those of the rectifiers that are linear on both sides; a rounded number has the same sign."""
    found = [name for name in activation_names() if get_activation(name).gradient.program().asks_for_sign(0)]
    assert set(found) <= {"relu", "leaky_relu"}
    assert "relu" in found
    assert not any(get_activation(name).gradient.program().asks_for_sign(1) for name in activation_names())


@pytest.mark.parametrize("source", ["float32", "uint8", "int16", "bool"])
def test_rows_are_taken_to_bfloat16(host: HostDevice, source: str) -> None:
    bfloat16 = numpy_dtype("bfloat16")
    values = (np.random.default_rng(1).normal(0, 99, (9, 5))).astype(np.int16).astype(source)
    if source == "float32":
        values = np.random.default_rng(1).normal(size=(9, 5)).astype(source)
    out = host.empty((3, 5), "bfloat16")
    order = host.asarray(np.array([8, 1, 1, 4, 0, 2, 3, 5, 7]), "int64")
    host.take_at(host.asarray(values), host.asarray(np.array(2), "int64"), out, order)
    expected = values[[1, 4, 0]].astype(np.float32).astype(bfloat16)
    assert on_host(out).tobytes() == expected.tobytes()


@pytest.mark.parametrize("reader", ["none", "before", "after", "copy read before", "not discarded", "a part"])
def test_rows_are_taken_to_a_copy_only_if_nothing_reads_the_matrix(host: HostDevice, reader: str) -> None:
    nnkit.set_matmul_precision("medium")
    large, W = (host.asarray(np.random.default_rng(1).normal(size=(8, 8)), "float32") for _ in range(2))
    x, other, start = host.zeros((4, 8), "float32"), host.zeros((4, 8), "float32"), host.asarray(np.array(2), "int64")
    with host.recording() as tape:
        if reader == "before":
            host.copy(x, other)
        host.take_at(large, start, x)
        if reader == "a part":  # which rows of x follow
            host.take_at(large, start, x[1:3])
        if reader == "copy read before":
            host.copy(x, other)
        product = host.matmul(x, W)
        if reader == "after":
            host.copy(x, other)
        if reader != "not discarded":
            discard(x)
    *_, take = (node for node in tape.nodes if node.name == "take")
    assert str((take.written or ())[0].dtype) == ("bfloat16" if reader == "none" else "float32")
    tape.replay(2)
    rounded = [on_host(array).astype(numpy_dtype("bfloat16")).astype(np.float32) for array in (large, W)]
    rows = [2, 2, 3, 5] if reader == "a part" else [2, 3, 4, 5]
    np.testing.assert_allclose(on_host(product), rounded[0][rows] @ rounded[1], rtol=1e-6)
    if reader in ("before", "after", "copy read before"):
        np.testing.assert_array_equal(on_host(other), on_host(large)[2:6])


WRAPPED = Formula(lambda xp, p, g: p + g - 4 * xp.floor((p + g + 2) / 4), "wrapped", ["p", "g"])  # to −2, −1, 0 or 1


@pytest.mark.parametrize("repeated", [True, False])
def test_updates_that_write_copies_in_any_program(host: HostDevice, repeated: bool) -> None:
    """Products and updates of parameters in any order, replayed several times; whole numbers, which are exact."""
    nnkit.set_matmul_precision("medium")
    carried = 0
    for seed in range(40):
        found = []
        for passes in (passes_of_gpus.PASSES, ()):
            choose, rng = Random(seed), np.random.default_rng(seed)
            flat, g = (host.asarray(rng.integers(-2, 2, 160), "float32") for _ in range(2))
            W = [flat[:64].reshape(8, 8), flat[64:128].reshape(8, 8)]
            x, *out = (host.asarray(rng.integers(-2, 2, (8, 8)), "float32") for _ in range(4))
            with recording(Tape(passes)) as tape:
                for _ in range(choose.randint(2, 6)):
                    what, i = choose.randrange(8), choose.randrange(2)
                    if what < 4:
                        factor = choose.choice([x, W[1 - i], W[i].mT])
                        host.matmul(factor, choose.choice([W[i], W[i].mT]), out=choose.choice(out))
                    elif what < 6:
                        part = choose.choice([slice(None), slice(128), slice(64, 128)])
                        host.elementwise(WRAPPED, (flat[part], g[part]), out=flat[part])
                    elif what == 6:
                        host.copy(x, W[i])
                    else:
                        host.elementwise(WRAPPED, (W[i], x), out=W[i])
                if repeated:
                    note(Repeated())
            for times in (1, 3, 2):
                tape.replay(times)
                on_host(flat)[::3] = 1
            found.append([on_host(array).tobytes() for array in (flat, x, *out)])
            carried += bool(tape.first)
        assert found[0] == found[1], seed
    assert (carried > 5) == repeated


@pytest.mark.parametrize("between", ["nothing", "read before", "read after", "written", "no product"])
def test_copies_are_carried_only_if_nothing_else_needs_them(host: HostDevice, between: str) -> None:
    flat, g = (host.zeros((64,), "float32") for _ in range(2))
    copy, x, out = (host.zeros((8, 8), "bfloat16") for _ in range(3))
    with recording(Tape()) as tape:
        if between == "read before":
            host.matmul(x, copy, out=out)
        if between == "written":
            host.copy(x, copy)
        host.round(flat.reshape(8, 8), copy)
        host.matmul(x, copy, out=out)
        if between == "no product":
            host.copy(copy, x)
        host.elementwise(WRAPPED, (flat, g), out=flat)
        if between == "read after":
            host.matmul(x, copy, out=out)
        note(Repeated())
        nodes = list(tape.nodes)
    found = [node.name for node in passes_of_gpus.carry_casts(nodes)]
    assert ("rounded" in found) == (between != "nothing")
