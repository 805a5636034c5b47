"""What passes fuse into one kernel besides formulas: reductions of rows, moves of rows, counters, results unread."""

from collections.abc import Iterator
from contextlib import nullcontext
from random import Random
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import selection
from nnkit.backends.cuda.elementwise import ElementwiseCall
from nnkit.backends.cuda.rows import Advance, RowMoves
from nnkit.backends.formula import Formula
from nnkit.backends.recording import Tape, discard
from nnkit.kernels.cost import output_pair
from nnkit.kernels.updates import adam_clock
from nnkit.training.meter import Meter
from nnkit.training.on_device import Replays
from nnkit.training.sources import ArraySource, Known
from tests.support.host_device import HostDevice, Written
from tests.support.host_memory import on_host
from tests.support.nvrtc import compile_cuda

WRAPPED = Formula(lambda xp, a: a - 4 * xp.floor((a + 2) / 4), "wrapped", ["a"])  # to −2, −1, 0 or 1
SUM = Formula(lambda xp, a, b: a + b, "added", ["a", "b"])
BOTH = Formula(lambda xp, a, b: (a - b, a * b), "both", ["a", "b"])
SHAPES = [(1, 1), (3, 1), (1, 5), (7, 4), (5, 10), (2, 300)]


class Program:
    """A random program over matrices, columns, rows, numbers and a counter, the same for the same seed.

    All numbers are small whole ones, so that every order of a sum gives the same.
    """

    def __init__(self, host: HostDevice, seed: int) -> None:
        self.host, self.choose, rng = host, Random(seed), np.random.default_rng(seed)
        n, d = self.choose.choice(SHAPES)

        def new(*shape: int) -> Any:
            return host.asarray(rng.integers(-2, 2, shape), "float32")

        self.matrices, self.columns = [new(n, d) for _ in range(3)], [new(n, 1) for _ in range(2)]
        self.others, self.large = [new(d), new()], [new(4 * n, d) for _ in range(2)]
        self.order = host.asarray(rng.permutation(4 * n), "int64")
        self.counters = [host.asarray(np.array(number), "int64") for number in (0, n)]
        self.temporary: list[Any] = []

    @property
    def arrays(self) -> list[Any]:
        return [*self.matrices, *self.columns, *self.others, *self.large, *self.counters]

    def call(self) -> None:
        host, choose = self.host, self.choose
        a, b = (choose.choice([*self.matrices, *self.temporary]) for _ in range(2))
        out, column = choose.choice(self.matrices), choose.choice(self.columns)
        what = choose.randrange(11)
        if what < 2:
            kind = (host.sum, host.max)[what]
            if choose.random() < 0.5:
                kind(a, axis=-1, keepdims=True, out=column)
            else:
                other = kind(a, axis=-1, keepdims=True)
                host.elementwise(WRAPPED, (host.elementwise(SUM, (b, other)),), out=out)
        elif what < 5:
            made = host.elementwise(WRAPPED, (host.elementwise(SUM, (a, choose.choice([column, *self.others, b]))),))
            self.temporary = [*self.temporary[-1:], made]
        elif what == 5:
            first, second = choose.sample(self.matrices, 2)
            host.elementwise(BOTH, (a, column), out=(first, second))
            for array in (first, second):
                host.elementwise(WRAPPED, (array,), out=array)
        elif what == 6:
            host.elementwise(WRAPPED, (self.others[1],), out=self.others[1])
        elif what == 7:
            host.put_at(a, choose.choice(self.counters), choose.choice(self.large))
        elif what == 8:
            order = choose.choice([None, self.order])
            host.take_at(choose.choice(self.large), choose.choice(self.counters), out, order)
        elif what == 9:
            counter = choose.choice(self.counters)
            host.advance(counter, self.matrices[0].shape[0])
            if choose.random() < 0.5:
                host.take_at(choose.choice(self.large), counter, out)
            host.advance(counter, -self.matrices[0].shape[0])
        else:
            host.copy(a, out)

    def calls(self, count: int) -> None:
        made = []
        for _ in range(count):
            self.call()
            made += self.temporary
        for column in self.columns:  # results that grow
            self.host.elementwise(WRAPPED, (column,), out=column)
        discard(*made)


def test_any_program_of_rows(host: HostDevice) -> None:
    """The same three times by calls and by a tape with all passes."""
    fused = 0
    for seed in range(12):
        found = []
        for taped in (False, True):
            program, times = Program(host, seed), 1 if taped else 3
            state = program.choose.getstate()
            with host.recording() if taped else nullcontext(Tape()) as tape:
                for _ in range(times):
                    program.choose.setstate(state)
                    program.temporary = []
                    program.calls(9)
            tape.replay(3)
            found.append([on_host(array).copy() for array in program.arrays])
            fused += sum(isinstance(n.call, ElementwiseCall) and n.call.reduces for n in tape.nodes)
        for number, (once, tape_has) in enumerate(zip(*found, strict=True)):
            np.testing.assert_array_equal(tape_has, once, err_msg=f"seed {seed}, array {number}")
    assert fused > 6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (33, 10), (3, 257), (2, 1000)])
def test_softmax_in_one_kernel_has_the_bits_of_four(host: HostDevice, shape: tuple[int, int], dtype: str) -> None:
    rng = np.random.default_rng(1)
    z, y = (host.asarray(rng.normal(0, 9, shape), dtype) for _ in range(2))
    on_host(z)[0, 0], scale = np.inf, host.asarray(0.25, dtype)
    pair = output_pair(nnkit.get_cost("softmax_cross_entropy"))
    expected = host.to_numpy(pair.delta(host, z, y, scale))
    with host.recording() as tape:
        delta = pair.delta(host, z, y, scale)
    (node,) = tape.nodes
    assert (node.name, [a.shape for a in node.written or ()]) == ("max_shifted_exp_sum_softmax_delta", [shape])
    tape.replay()
    assert host.to_numpy(delta).tobytes() == expected.tobytes()
    z64, y64 = (on_host(array).astype(np.float64)[1:] for array in (z, y))
    e = np.exp(z64 - z64.max(axis=1, keepdims=True))
    p = (e / e.sum(axis=1, keepdims=True) - y64) / 4
    np.testing.assert_allclose(host.to_numpy(delta)[1:], p, rtol=0, atol=1e-6 if dtype == "float32" else 1e-14)


@pytest.fixture
def _float32() -> Iterator[None]:
    yield
    nnkit.set_matmul_precision("highest")


@pytest.mark.usefixtures("_float32")
@pytest.mark.parametrize("arch", [75, 80, 90, 100, 120])
def test_a_minibatch_of_fit_compiles(monkeypatch: pytest.MonkeyPatch, arch: int) -> None:
    """With a learning rate for each step, weights, and logits in the meter's buffer; from Hopper on in bfloat16."""
    nnkit.set_matmul_precision("medium" if arch >= 90 else "highest")
    device = Written(pytest.importorskip("cupy", reason="CuPy is not installed"))
    monkeypatch.setitem(selection._made, "cupy", device)
    net = nnkit.Network([12, 20, 10], "relu", seed=1, backend=device, dtype="float64" if arch == 75 else "float32")
    X, Y, w = (device.zeros((16, width), net.dtype) for width in (12, 10, 1))
    source, meter = ArraySource(net, X, Known(Y, w)), Meter(net, 16, 8)
    meter.start(source.start(np.arange(16)))
    way = Replays(net, source, meter, net.optimizer_state(nnkit.Adam()), 8)
    way._give([0.1, 0.2])
    nodes = way._record(8, True).nodes
    assert nodes[0].name == "take"
    assert len(nodes[0].written or ()) == 4  # the rate, y, x and the weights
    kernels = {name: text for text, name in device.texts.items()}
    riders = [name for name in kernels if "advance" in name or "clock" in name]
    assert any("softmax" in name for name in kernels)
    assert len(riders) > 1
    for name, text in kernels.items():
        if any(part in name for part in ("softmax", "take", "adam", "grad", "rounded")) or name in riders:
            assert name.encode() in compile_cuda(text, arch)


def test_a_counter_moves_after_everything_has_read_it(host: HostDevice) -> None:
    a, out, large = (host.zeros((2, 3), "float32") for _ in range(3))
    start = host.asarray(np.array(0), "int64")
    with host.recording() as tape:
        host.elementwise(WRAPPED, (a,), out=out)
        host.take_at(large, start, a)
        host.advance(start, 1)
    assert [type(node.call) for node in tape.nodes] == [ElementwiseCall, RowMoves, Advance]
    with host.recording() as tape:
        host.take_at(large, start, a)
        host.elementwise(WRAPPED, (a,), out=out)
        host.advance(start, 1)
    assert [node.name for node in tape.nodes] == ["take", "wrapped_advance"]
    tape.replay(2)
    assert int(on_host(start)) == 2


def test_a_number_is_computed_before_it_is_read(host: HostDevice) -> None:
    """Adam's clock goes into a kernel before the one that reads it."""
    numbers = [host.asarray(value, "float32") for value in (0.0, 1.0, 1.0)]
    logs = [host.asarray(np.log(beta), "float32") for beta in (0.9, 0.999)]
    a, b = host.asarray(np.ones((2, 8)), "float32"), host.zeros((2, 8), "float32")
    with host.recording() as tape:
        host.elementwise(WRAPPED, (a,), out=b)
        host.elementwise(adam_clock, [numbers[0], *logs], out=tuple(numbers))
        host.elementwise(SUM, (b, numbers[1]), out=a)
    assert [node.name for node in tape.nodes] == ["wrapped_adam_clock", "added"]
    tape.replay(2)
    np.testing.assert_allclose([on_host(n) for n in numbers], [2, 1 - 0.9**2, 1 - 0.999**2], rtol=1e-4)


def test_what_something_reads_is_written(host: HostDevice) -> None:
    """Discarded, but read by a later call, by the next replay, or through another view."""
    for reader, written in (("none", 1), ("later", 2), ("next", 2), ("view", 2)):
        a, b, other = (host.asarray(np.ones((2, 8)), "float32") for _ in range(3))
        with host.recording() as tape:
            if reader == "next":
                host.copy(b, other)
            host.elementwise(BOTH, (a, a), out=(b, host.empty((2, 8), "float32")))
            if reader in ("later", "view"):
                host.copy(b if reader == "later" else b.mT, other if reader == "later" else host.empty((8, 2), "f4"))
            discard(b)
        node = next(node for node in tape.nodes if node.name == "both")
        assert len(node.written or ()) == written, reader
