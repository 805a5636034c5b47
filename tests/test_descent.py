"""Gradient descent inside the gradient's product: the same step as backward and update, with and without SciPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import nnkit
from nnkit.backends.cpu import blas
from nnkit.backends.cpu.blas import AddColumnSums, AddProduct
from nnkit.kernels.descent import dense_descent
from tests.conftest import Arrays


@pytest.fixture
def one_blas_thread() -> Iterator[None]:
    """SciPy's BLAS is used beside NumPy's only where both have one thread."""
    pytest.importorskip("scipy.linalg.blas", reason="SciPy is not installed")
    with threadpoolctl.threadpool_limits(1):
        yield


@pytest.fixture(params=["SciPy", "no SciPy"])
def library(request: pytest.FixtureRequest, one_blas_thread: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with SciPy's BLAS and as if it were not installed."""
    if request.param == "no SciPy":
        monkeypatch.setattr("nnkit.backends.cpu.products.blas_function", lambda name, dtype: None)
    return str(request.param)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "gelu"])
@pytest.mark.parametrize("n", [1, 6])
def test_descent_is_backward_and_then_the_update(arrays: Arrays, activation: str, n: int) -> None:
    rng = np.random.default_rng(0)
    x, W, b, delta = rng.normal(size=(n, 4)), rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=(n, 3))
    z = x @ W.T + b
    h = np.asarray(nnkit.kernels.activations.get_activation(activation).forward(z))
    dx, dW, db = nnkit.dense_backward(delta, x, W, h, activation, z=z)
    new_W, new_b = arrays.backend.asarray(W.copy()), arrays.backend.asarray(b.copy())  # written, so never read-only
    found = dense_descent(
        arrays(delta), arrays(x), new_W, new_b, arrays(h), activation, z=arrays(z),
        minus_rate=arrays(-0.5),
    )  # fmt: skip
    np.testing.assert_allclose(arrays.numpy(found), dx, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(arrays.numpy(new_W), W - 0.5 * dW, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(arrays.numpy(new_b), b - 0.5 * db, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1)])
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("by_columns", [0, 1])
def test_add_product(dtype: str, sizes: tuple[int, int, int], transposed: tuple[int, int], by_columns: int) -> None:
    pytest.importorskip("scipy", reason="SciPy is not installed")
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
    pytest.importorskip("scipy", reason="SciPy is not installed")
    rng = np.random.default_rng(0)
    a, out = rng.normal(size=shape), rng.normal(size=shape[1])
    expected = out - 2 * a.sum(axis=0)
    AddColumnSums(a, out, np.array(-2.0))()
    np.testing.assert_allclose(out, expected, rtol=1e-14)


def test_strided_matrices_are_refused_before_anything_is_written() -> None:
    pytest.importorskip("scipy", reason="SciPy is not installed")
    a, one = np.ones((4, 4)), np.array(1.0)
    with pytest.raises(ValueError, match="expected contiguous, of one dtype"):
        AddProduct(a, a, np.ones((8, 4))[::2], one)
    with pytest.raises(ValueError, match="contiguous"):
        AddProduct(np.ones((4, 8))[:, ::2], a, np.ones((4, 4)), one)


def test_halves_have_no_such_product() -> None:
    assert blas.blas_function("gemm", "float16") is None


def test_two_blas_with_several_threads_are_not_used_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy.linalg.blas", reason="SciPy is not installed")
    numpy = nnkit.get_backend("numpy")
    with threadpoolctl.threadpool_limits(1):
        assert numpy.adds_products(np.ones((2, 2)), 2)
        monkeypatch.setattr(blas, "thread_counts", lambda found: {1, 2})
        assert not numpy.adds_products(np.ones((2, 2)), 2)


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
    monkeypatch.setattr("nnkit.backends.cpu.products.blas_function", lambda name, dtype: None)
    np.testing.assert_allclose(trained(), with_scipy, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("n", [65, 1024])
def test_many_small_terms_are_summed_before_they_are_added(n: int) -> None:
    """One rounding beside the large entry, not one for each term."""
    pytest.importorskip("scipy", reason="SciPy is not installed")
    rng = np.random.default_rng(0)
    a, out = (rng.normal(size=(n, 50)) * 1e-3).astype(np.float32), rng.uniform(1.1, 1.9, 50).astype(np.float32)
    exact = out.astype(float) - 0.25 * a.astype(float).sum(axis=0)
    AddColumnSums(a, out, np.array(-0.25, np.float32))()
    assert np.abs(out - exact).max() <= 0.6 * np.spacing(np.float32(1))  # half a unit, and what the small sum lacks
