"""Sums of columns that begin in the kernel that gives the matrix: a bias's gradient without reading δh̄ again."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnkit
from nnkit.backends import selection
from nnkit.backends.cuda import elementwise
from nnkit.backends.cuda.elementwise import ElementwiseCall
from nnkit.backends.cuda.launch import THREADS, grid, grid_of_rows
from nnkit.backends.formula import Formula
from nnkit.step import step_for
from tests.conftest import gpu_backend
from tests.support.accumulating import add_column_sums
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host
from tests.support.nvrtc import ARCHITECTURES, compile_cuda
from tests.support.rounding import spacing

Array = NDArray[Any]


@pytest.fixture
def host() -> HostDevice:
    return HostDevice(pytest.importorskip("cupy", reason="CuPy is not installed"), multiprocessors=1)


def normal(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    values: Array = np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)
    return values


@given(st.integers(1, 10**7), st.integers(1, 5000), st.sampled_from([1, 2, 4]), st.integers(1, 200))
def test_a_stride_is_of_whole_rows(rows: int, columns: int, lanes: int, multiprocessors: int) -> None:
    blocks = grid_of_rows(rows * columns, columns, lanes, multiprocessors)
    assert blocks * THREADS * lanes % columns == 0
    unit = columns // math.gcd(columns, THREADS * lanes)
    assert blocks <= max(unit, grid(rows * columns, lanes, multiprocessors))


# In the first ones a stride of the grid is of many rows; 5, 7 and 49 blocks together make whole ones of 40, 7 and 784.
BEGUN = [(2000, 40), (10_000, 7), (1300, 64), (70_000, 1), (300, 784)]
SHAPES = [*BEGUN, (1700, 49), (1, 900), (50, 30)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "adds"), [*((shape, False) for shape in SHAPES), (BEGUN[0], True), (SHAPES[-1], True)]
)
def test_sums(host: HostDevice, shape: tuple[int, int], dtype: str, adds: bool) -> None:
    """By the kernel where it is worth it; of the numbers that it leaves, whichever way."""
    s, delta = normal(shape, dtype, 1), normal(shape, dtype, 2)
    alpha, out = host.asarray(-0.25, dtype), host.asarray(np.full(shape[1], 3.0), dtype)
    on_device = [host.asarray(s), host.asarray(delta)]
    with host.recording() as tape:
        dz = host.elementwise(nnkit.sigmoid_grad, on_device)
        if adds:
            add_column_sums(host, dz, out, alpha)
        else:
            host.sum(dz, axis=0, out=out)
    (kernel, *_) = tape.calls
    assert isinstance(kernel, ElementwiseCall)
    assert len(kernel.written) == 1 + (shape in BEGUN)
    found = []
    for _ in range(2):
        on_host(out)[...] = 3
        tape.replay()
        found.append(on_host(out).tobytes())
    assert found[0] == found[1]
    at_once = host.elementwise(nnkit.sigmoid_grad, on_device)
    np.testing.assert_array_equal(on_host(dz), on_host(at_once))
    terms = on_host(dz).astype(np.longdouble)
    exact, magnitude = terms.sum(axis=0).astype(float), abs(terms).sum(axis=0).astype(float)
    expected = 3 - 0.25 * exact if adds else exact
    assert np.all(abs(on_host(out) - expected) <= shape[0] * spacing(magnitude, dtype) + spacing(3 + magnitude, dtype))


@pytest.mark.parametrize("between", ["nothing", "a copy", "a product", "a write", "another kernel"])
def test_nodes_in_between(host: HostDevice, between: str) -> None:
    """The sums are of what the matrix holds when they are asked for."""
    a = host.asarray(normal((2000, 40), "float32"))
    nnkit.set_matmul_precision("medium")
    try:
        with host.recording() as tape:
            h = host.elementwise(nnkit.tanh, (a,))
            if between == "a product":
                host.matmul(h.mT, h)
            if between == "a copy":
                host.copy(h, host.empty((2000, 40), "float32"))
            if between == "a write":
                host.copy(a, h)
            if between == "another kernel":
                host.elementwise(nnkit.relu, (h,), out=h)
            sums = host.sum(h, axis=0)
    finally:
        nnkit.set_matmul_precision("highest")
    tape.replay()
    begun = [len(call.written) > len(call.outs) for call in tape.calls if isinstance(call, ElementwiseCall)]
    assert begun == [between != "a write"]
    expected = on_host(h).astype(float).sum(axis=0)
    np.testing.assert_allclose(on_host(sums), expected, rtol=0, atol=2000 * 2.0**-24)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (6, 7), (8, 4), (9, 12)])
def test_small_ones(host: HostDevice, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], dtype: str) -> None:
    """Begun where it is not worth it: threads without an entry, and two results of which one is summed."""
    monkeypatch.setattr(elementwise, "_FEWER", 0)
    rng = np.random.default_rng(shape[0])
    a, b = (rng.integers(-8, 9, shape).astype(dtype) for _ in range(2))
    x, y = host.asarray(a), host.asarray(b)
    both = Formula(lambda xp, a, b: (a - b, a + b), "both", ["a", "b"])
    with host.recording() as tape:
        _, plus = host.elementwise(both, (x, y), out=(x, y))
        sums = host.sum(plus, axis=0)
        host.copy(host.zeros(shape, dtype), y)
    (kernel, *_) = tape.calls
    assert isinstance(kernel, ElementwiseCall)
    assert len(kernel.written) == 3
    tape.replay()
    np.testing.assert_array_equal(on_host(x), a - b)
    np.testing.assert_array_equal(on_host(sums), (a + b).sum(axis=0))


def test_rounded_results_are_summed_as_stored(host: HostDevice) -> None:
    a = host.asarray(normal((4000, 40), "float16"))
    with host.recording() as tape:
        h = host.elementwise(nnkit.tanh, (a,))
        host.sum(h, axis=0)
    (kernel, *_) = tape.calls
    assert isinstance(kernel, ElementwiseCall)
    assert len(kernel.written) == 1


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.1), nnkit.Adam(1e-3)])
def test_steps(monkeypatch: pytest.MonkeyPatch, host: HostDevice, optimizer: Any) -> None:
    """A wide enough minibatch: every bias's gradient begins in the kernel of its δh̄; the parameters are NumPy's."""
    monkeypatch.setitem(selection._made, "cupy", host)
    X, Y = normal((2048, 6), "float64", 3), abs(normal((2048, 16), "float64", 4)) % 1
    found = []
    for backend in (host, "numpy"):
        net = nnkit.Network([6, 32, 16], cost="cross_entropy", seed=4, dtype="float64", backend=backend)
        step = step_for(net, 2048, net.optimizer_state(optimizer))
        for values, array in ((X, step.x), (Y, step.y)):
            net.backend.copy(net.backend.asarray(values, "float64"), array)
        for _ in range(3):
            step.run()
        found.append(np.concatenate([net.backend.to_numpy(a).ravel() for a in (*net.parameters.W, *net.parameters.b)]))
        if backend is host:
            calls = [node.call for node in step._tape.nodes if isinstance(node.call, ElementwiseCall)]
            assert sum(len(call.written) > len(call.outs) for call in calls) == 2
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [40, 63])  # of the latter an odd number of entries, one at a time
def test_the_kernel_compiles(arch: int, dtype: str, columns: int) -> None:
    texts: dict[str, str] = {}

    class Written(HostDevice):
        def kernel(self, text: str, name: str) -> Any:  # type: ignore[override]
            texts[text] = name
            return super().kernel(text, name)

    host = Written(pytest.importorskip("cupy", reason="CuPy is not installed"), multiprocessors=1)
    with host.recording():
        host.sum(host.elementwise(nnkit.tanh, (host.zeros((2001, columns), dtype),)), axis=0)
    (text,) = (text for text in texts if "sums_p" in text)
    assert texts[text].encode() in compile_cuda(text, arch)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(8192, 4096), (20_000, 784), (200_000, 10), (60_000, 49), (3, 5)])
@pytest.mark.parametrize("adds", [False, True])
def test_on_a_gpu(shape: tuple[int, int], adds: bool) -> None:
    """Call by call, as it is captured and from the graph: the same bits, and the sums of what is there."""
    gpu = gpu_backend()
    s, delta = (gpu.asarray(normal(shape, "float32", seed)) for seed in (1, 2))
    alpha, out = gpu.asarray(-0.25, "float32"), gpu.zeros((shape[1],), "float32")
    with gpu.recording() as tape:
        dz = gpu.elementwise(nnkit.sigmoid_grad, (s, delta))
        if adds:
            add_column_sums(gpu, dz, out, alpha)
        else:
            gpu.sum(dz, axis=0, out=out)
    found = []
    for _ in range(3):
        out[...] = 0
        tape.replay()
        found.append(gpu.to_numpy(out))
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    terms = gpu.to_numpy(dz).astype(np.float64)
    expected, magnitude = terms.sum(axis=0), abs(terms).sum(axis=0)
    off = abs(found[0] - (-0.25 * expected if adds else expected))
    assert np.all(off <= shape[0] * spacing(magnitude, "float32"))
