"""Gradient descent inside the gradient's product: the same step as backward and update, with and without SciPy."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import nnkit
from nnkit.backends.cpu import products
from nnkit.backends.cpu.products import AddColumnSums, AddProduct
from nnkit.backends.recording import perform
from tests.conftest import Arrays
from tests.support.accumulating import accumulate, add_product, replayed
from tests.support.host_memory import on_host


@pytest.fixture
def one_blas_thread() -> Iterator[None]:
    """SciPy's BLAS is used beside NumPy's only where both have one thread."""
    pytest.importorskip("scipy.linalg.blas", reason="scipy is not installed")
    with threadpoolctl.threadpool_limits(1):
        yield


@pytest.fixture(params=["SciPy", "no SciPy"])
def library(request: pytest.FixtureRequest, one_blas_thread: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with SciPy's BLAS and as if it were not installed."""
    if request.param == "no SciPy":
        monkeypatch.setattr("nnkit.backends.cpu.recording.blas_function", lambda name, dtype: None)
    return str(request.param)


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "gelu"])
@pytest.mark.parametrize("n", [1, 6])
def test_descent_is_backward_and_then_the_update(arrays: Arrays, library: str, activation: str, n: int) -> None:
    rng, backend = np.random.default_rng(0), arrays.backend
    x, W, b, delta = rng.normal(size=(n, 4)), rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=(n, 3))
    z = x @ W.T + b
    h = np.asarray(nnkit.kernels.activations.get_activation(activation).forward(z))
    dx, dW, db = nnkit.dense_backward(delta, x, W, h, activation, z=z)
    new_W, new_b = backend.asarray(W.copy()), backend.asarray(b.copy())  # written, so never read-only
    gradients = backend.empty(W.shape, "float64"), backend.empty(b.shape, "float64")
    with backend.recording() as tape:
        found, _, _ = nnkit.dense_backward(
            arrays(delta), arrays(x), new_W, arrays(h), activation, z=arrays(z), out=(None, *gradients)
        )
        accumulate(backend, [(new_W, gradients[0]), (new_b, gradients[1])], arrays(-0.5))
    names = [node.name for node in tape.nodes]
    inside = backend.name == "cupy" or (backend.name == "numpy" and library == "SciPy")
    assert ("add_product" in names) == inside
    tape.replay()
    np.testing.assert_allclose(arrays.numpy(found), dx, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(arrays.numpy(new_W), W - 0.5 * dW, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(arrays.numpy(new_b), b - 0.5 * db, rtol=1e-13, atol=1e-13)


BETWEEN = {
    "nothing": True,
    "W is read": True,  # the product goes behind
    "W is written": True,
    "x is written": True,  # which is as if it were not: W is not touched after the product
    "x is written, then W is read": False,
    "the gradient is read": False,
    "the gradient is written": False,
    "W is read before a part of δ is written": True,
    "the rate is written": False,
    "who knows": False,
    "W is a factor": False,
}


@pytest.mark.usefixtures("one_blas_thread")
@pytest.mark.parametrize("what", BETWEEN)
@pytest.mark.parametrize("backend", ["numpy", "cupy"])
def test_nodes_between_the_product_and_the_update(request: pytest.FixtureRequest, backend: str, what: str) -> None:
    """The update moves into the product only where nobody sees the difference; the numbers are the same always."""
    device: Any = request.getfixturevalue("host") if backend == "cupy" else nnkit.get_backend("numpy")
    view = on_host if backend == "cupy" else np.asarray
    rng = np.random.default_rng(0)
    values = {"delta": (5, 3), "x": (5, 4), "g": (3, 4), "seen": (3, 4), "tall": (5, 4), "rate": (), "new": ()}
    host = {name: rng.integers(-4, 5, shape).astype(float) for name, shape in values.items()}
    a = {name: device.asarray(array.copy(), "float64") for name, array in host.items()}
    a["W"], a["tall"] = a["tall"][1:4], a["tall"]  # W is part of a matrix of the shape of x
    copy, tall = device.copy, host["tall"].copy()
    host["W"] = tall[1:4]
    with device.recording() as tape:
        device.matmul(a["delta"].mT, a["x"] if what != "W is a factor" else a["tall"], out=a["g"])
        if what == "who knows":
            perform(lambda: None)
        if what.startswith("x is written"):
            copy(a["x"][::-1], a["x"]) if backend == "numpy" else copy(a["x"], a["x"])
        if "W is read" in what:
            copy(a["W"], a["seen"])
        if what == "W is written":
            copy(a["seen"], a["W"])
        if what == "the gradient is read":
            copy(a["g"], a["seen"])
        if what == "the gradient is written":
            copy(a["seen"], a["g"])
        if what.startswith("W is read before"):
            copy(a["delta"][:1], a["delta"][1:2])
        if what == "the rate is written":
            copy(a["new"], a["rate"])
        accumulate(device, [(a["W"], a["g"])], a["rate"])
    assert ("add_product" in [node.name for node in tape.nodes]) == BETWEEN[what]
    tape.replay()
    gradient = host["delta"].T @ (tall if what == "W is a factor" else host["x"])
    gradient = host["seen"] if what == "the gradient is written" else gradient
    before = host["seen"] if what == "W is written" else host["W"]
    rate = host["new"] if what == "the rate is written" else host["rate"]
    np.testing.assert_array_equal(view(a["W"]), before + rate * gradient)
    if "W is read" in what:
        np.testing.assert_array_equal(view(a["seen"]), host["W"])
    if what == "the gradient is read":
        np.testing.assert_array_equal(view(a["seen"]), gradient)


def test_all_pairs_or_none(one_blas_thread: None) -> None:
    """One update of the whole vector is faster than a part of it in products."""
    numpy, alpha = nnkit.get_backend("numpy"), np.array(-1.0)
    a, W, b, g, h = np.ones((4, 4)), np.zeros((4, 4)), np.zeros(4), np.empty((4, 4)), np.empty(4)
    with numpy.recording() as tape:
        numpy.matmul(a, a, out=g)
        numpy.copy(a[0], h)
        accumulate(numpy, [(W, g), (b, h)], alpha)
    assert [node.name for node in tape.nodes] == ["matmul", "copy", "scaled_sum", "scaled_sum"]
    tape.replay()
    np.testing.assert_array_equal(W, -4.0)
    np.testing.assert_array_equal(b, -1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1)])
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("by_columns", [0, 1])
def test_add_product(dtype: str, sizes: tuple[int, int, int], transposed: tuple[int, int], by_columns: int) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    m, k, n = sizes
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int, flip: int) -> Any:
        return (
            rng.normal(size=(columns, rows)).astype(dtype).T if flip else rng.normal(size=(rows, columns)).astype(dtype)
        )

    a, b, out = matrix(m, k, transposed[0]), matrix(k, n, transposed[1]), matrix(m, n, by_columns)
    expected = out.astype(float) - 2 * a.astype(float) @ b
    alpha = np.array(1, dtype)
    call = AddProduct(a, b, out, alpha)
    alpha[...] = -2  # read at the call
    call()
    np.testing.assert_allclose(out, expected, rtol=0, atol=40 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (4, 1)])
def test_add_column_sums(shape: tuple[int, int]) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    rng = np.random.default_rng(0)
    a, out = rng.normal(size=shape), rng.normal(size=shape[1])
    expected = out - 2 * a.sum(axis=0)
    AddColumnSums(a, out, np.array(-2.0))()
    np.testing.assert_allclose(out, expected, rtol=1e-14)


def test_strided_matrices_are_refused_before_anything_is_written() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    a, one = np.ones((4, 4)), np.array(1.0)
    with pytest.raises(ValueError, match="expected contiguous, of one dtype"):
        AddProduct(a, a, np.ones((8, 4))[::2], one)
    with pytest.raises(ValueError, match="contiguous"):
        AddProduct(np.ones((4, 8))[:, ::2], a, np.ones((4, 4)), one)


def test_half_precision_products_do_not_accumulate() -> None:
    assert products.blas_function("gemm", "float16") is None


def test_two_blas_with_several_threads_are_not_used_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy.linalg.blas", reason="scipy is not installed")
    numpy = nnkit.get_backend("numpy")
    a, alpha = np.ones((2, 2)), np.array(1.0)
    with threadpoolctl.threadpool_limits(1):
        assert replayed(numpy, lambda: add_product(numpy, a, a, a.copy(), alpha)) == ["add_product"]
        monkeypatch.setattr(products, "thread_counts", lambda found: {1, 2})
        assert replayed(numpy, lambda: add_product(numpy, a, a, a.copy(), alpha)) == ["matmul", "scaled_sum"]


@pytest.mark.usefixtures("one_blas_thread")
@pytest.mark.parametrize("native", ["0", "1"])
def test_many_rows_of_float32_are_multiplied_by_numpy(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without native code, whose products add in any case."""
    if native == "1":
        pytest.importorskip("numba", reason="compiles")
    monkeypatch.setenv("NNKIT_NATIVE", native)
    numpy = nnkit.get_backend("numpy")
    for dtype, rows, added in (("float32", 256, True), ("float32", 257, native == "1"), ("float64", 257, True)):
        a, alpha, out = np.ones((rows, 2), dtype), np.array(1, dtype), np.zeros((2, 2), dtype)
        names = replayed(numpy, partial(add_product, numpy, a.T, a, out, alpha))
        assert ("add_product" in names) == added
        np.testing.assert_array_equal(out, rows)


@pytest.mark.usefixtures("one_blas_thread")
@pytest.mark.parametrize("options", [{}, {"l2": 0.01}, {"clip_norm": 0.1}], ids=str)
def test_training_with_and_without_scipy_agrees(monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    X, y = nnkit.data.digits()

    def trained() -> np.ndarray:
        net = nnkit.Network([64, 12, 10], "silu", "cross_entropy", seed=1, dtype="float64")
        net.fit(X[:100], y[:100], epochs=2, batch_size=7, optimizer=nnkit.SGD(0.2, **options), progress=False)
        net.optimizer.learning_rate = 0.05
        net.fit(X[:100], y[:100], epochs=1, batch_size=7, progress=False)
        return np.array(net.parameters.flat)

    with_scipy = trained()
    monkeypatch.setattr("nnkit.backends.cpu.recording.blas_function", lambda name, dtype: None)
    np.testing.assert_allclose(trained(), with_scipy, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("n", [65, 1024])
def test_many_small_terms_are_summed_before_they_are_added(n: int) -> None:
    """One rounding beside the large entry, not one for each term."""
    pytest.importorskip("scipy", reason="scipy is not installed")
    rng = np.random.default_rng(0)
    a, out = (rng.normal(size=(n, 50)) * 1e-3).astype(np.float32), rng.uniform(1.1, 1.9, 50).astype(np.float32)
    exact = out.astype(float) - 0.25 * a.astype(float).sum(axis=0)
    AddColumnSums(a, out, np.array(-0.25, np.float32))()
    assert np.abs(out - exact).max() <= 0.6 * np.spacing(np.float32(1))  # half a unit, and what the small sum lacks
