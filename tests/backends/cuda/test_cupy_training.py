"""CuPy on a real GPU beyond formulas: products, sums, recordings, streams, threads, foreign arrays, training."""

import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends import Backend, get_backend
from nnkit.backends.dtypes import FLOATS, compute_type, numpy_dtype
from tests.conftest import gpu_backend
from tests.support.rounding import spacing

pytestmark = pytest.mark.gpu

Array = NDArray[Any]


@pytest.fixture
def gpu() -> Backend:
    return gpu_backend()


def normal(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(numpy_dtype(dtype))


def assert_sums_agree(found: Array, expected: Array, magnitude: Array, terms: int, dtype: str) -> None:
    """Sums of `terms` terms, in any order and in the type of the arithmetic, each rounded once more in a half type.

    Higham, section 4.2: any order errs by at most (terms − 1) u Σ |term|; here two orders and two roundings a term.
    """
    assert found.dtype == numpy_dtype(dtype)
    assert found.shape == expected.shape
    bound = terms * 2 * spacing(magnitude, compute_type(dtype)) + spacing(expected, dtype)
    assert np.all(abs(found.astype(np.float64) - expected) <= bound)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("a", "b"), [((7, 5), (5, 3)), ((3, 7, 5), (3, 5, 2)), ((3, 7, 5), (5, 2)), ((1, 300), (300, 1))]
)
def test_matmul(gpu: Backend, dtype: str, given: bool, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    left, right = normal(a, dtype, 1), normal(b, dtype, 2)
    wide = left.astype(float), right.astype(float)
    expected, magnitude = wide[0] @ wide[1], abs(wide[0]) @ abs(wide[1])
    for x, y in ((gpu.asarray(left), gpu.asarray(right)), (gpu.asarray(left.mT.copy()).mT, gpu.asarray(right))):
        out = gpu.empty(expected.shape, dtype) if given else None
        found = gpu.matmul(x, y, out=out)
        assert out is None or found is out
        assert_sums_agree(gpu.to_numpy(found), expected, magnitude, a[-1], dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_sum_and_max(gpu: Backend, dtype: str, keepdims: bool, axis: int | None) -> None:
    a = np.abs(normal((400, 30), dtype))
    wide = a.astype(float)
    expected = np.asarray(wide.sum(axis=axis, keepdims=keepdims))
    terms = a.size // expected.size
    assert_sums_agree(gpu.to_numpy(gpu.sum(gpu.asarray(a), axis, keepdims)), expected, expected, terms, dtype)
    out = gpu.empty(expected.shape, dtype)
    assert gpu.sum(gpu.asarray(a), axis, keepdims, out=out) is out
    assert_sums_agree(gpu.to_numpy(out), expected, expected, terms, dtype)
    if axis is not None:
        largest = gpu.to_numpy(gpu.max(gpu.asarray(a), axis, keepdims))
        np.testing.assert_array_equal(largest.astype(float), wide.max(axis=axis, keepdims=keepdims))


def test_take_and_max_of_nan(gpu: Backend) -> None:
    rows, order = normal((6, 4)), np.array([5, 0, 0, 3])
    for indices in (order, gpu.asarray(order)):
        np.testing.assert_array_equal(gpu.to_numpy(gpu.take(gpu.asarray(rows), indices)), rows[order])
    rows[2, 1] = np.nan
    largest = gpu.to_numpy(gpu.max(gpu.asarray(rows), axis=0))
    np.testing.assert_array_equal(largest, np.max(rows, axis=0))


def test_a_recording_follows_its_operands(gpu: Backend) -> None:
    a, b = gpu.asarray(np.zeros((2, 3))), gpu.asarray(np.zeros((3, 2)))
    with gpu.recording() as tape:
        product = gpu.matmul(a, b)
        activated = gpu.elementwise(nnkit.relu, (product,))
        total = gpu.sum(activated)
        largest = gpu.max(activated.mT, axis=0)
        columns = gpu.sum(gpu.copy(activated.mT, gpu.empty((2, 2), "float64")), axis=0)
    for seed in (1, 2):
        x, y = normal((2, 3), seed=seed), normal((3, 2), seed=seed)
        gpu.copy(gpu.asarray(x), a)
        gpu.copy(gpu.asarray(y), b)
        tape.replay()
        expected = np.maximum(x @ y, 0)
        for found, value in ((total, expected.sum()), (largest, expected.max(axis=1)), (columns, expected.sum(axis=1))):
            np.testing.assert_allclose(gpu.to_numpy(found), value, rtol=0, atol=20 * np.finfo(float).eps)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "gelu", "identity"])
def test_dense_layer(gpu: Backend, activation: str) -> None:
    x, W, b, delta = normal((33, 17)), normal((9, 17)), normal((9,)), normal((33, 9))
    results = []
    for put in (gpu.asarray, np.asarray):
        z = put(np.empty((33, 9)))
        h = nnkit.dense_forward(put(x), put(W), put(b), activation, z=z)
        results.append([h, z, *nnkit.dense_backward(put(delta), put(x), put(W), h, activation, z=z)])
    for found, expected in zip(*results, strict=True):
        # Entries of size 1, sums of at most 33 of them, and slopes of at most 1.2.
        np.testing.assert_allclose(gpu.to_numpy(found), expected, rtol=0, atol=33 * 100 * np.finfo(float).eps)


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.5), nnkit.SGD(0.1, momentum=0.9, l2=1e-3), nnkit.Adam(l2=1e-3)])
def test_an_epoch_from_one_seed(gpu: Backend, optimizer: Any) -> None:
    X, y = normal((200, 12)), np.arange(200) % 3
    trained = []
    for backend in ("cupy", "numpy"):
        layers = [nnkit.Dense(12, 20, "gelu"), nnkit.Dense(20, 3)]
        net = nnkit.Network(layers, cost="softmax_cross_entropy", seed=4, dtype="float64", backend=backend)
        history = net.fit(X, y, epochs=1, batch_size=32, optimizer=optimizer)
        trained.append((net.backend.to_numpy(net.parameters.flat), history))
    (found, _), (expected, _) = trained
    # Seven steps of some 10³ roundings each on numbers of size 1; Adam divides them by |g|, which is 1e-6 or more.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert not np.array_equal(expected, get_backend("numpy").zeros(expected.shape, "float64"))


def test_on_the_callers_stream(gpu: Backend) -> None:
    cupy = gpu.xp
    a = normal((2000, 2000), "float32")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x = gpu.asarray(a)
        for _ in range(20):  # long enough that another stream would read too early
            x = gpu.elementwise(nnkit.tanh, (x,))
        found = gpu.to_numpy(x)
    for _ in range(20):
        a = np.tanh(a)
    np.testing.assert_allclose(found, a, rtol=200 * float(np.finfo(np.float32).eps))


def test_concurrent_threads(gpu: Backend) -> None:
    results: dict[int, Array] = {}

    def work(number: int) -> None:
        results[number] = gpu.to_numpy(nnkit.relu(gpu.asarray(np.full(1000, float(number)))))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: set(values) for number, values in results.items()} == {n: {float(n)} for n in range(8)}


def test_arrays_of_numpy(gpu: Backend) -> None:
    for array in (
        normal((3, 4)).T,
        normal((3, 4), "bfloat16"),
        np.arange(6).reshape(2, 3),
        np.empty((0, 3)),
        np.asarray(2.0),
    ):
        array.flags.writeable = False
        moved = gpu.asarray(array)
        assert isinstance(moved, gpu.xp.ndarray)
        back = gpu.to_numpy(moved)
        assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert gpu.asarray([1, 2], "bfloat16").dtype == ml_dtypes.bfloat16


def test_arrays_of_torch(gpu: Backend) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(gpu.to_numpy(gpu.asarray(torch.from_numpy(values))), values)
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    tensor = torch.from_numpy(values).cuda()
    shared = gpu.asarray(tensor)
    assert shared.data.ptr == tensor.data_ptr()
    # Two views of one tensor: CuPy does not know that they overlap.
    flat = tensor.reshape(-1)
    nnkit.relu(gpu.asarray(flat[:-1]), out=gpu.asarray(flat[1:]))
    torch.cuda.synchronize()
    np.testing.assert_array_equal(gpu.to_numpy(shared).ravel(), [0, 0, 1, 2, 3, 4])


def test_description(gpu: Backend) -> None:
    assert {"cupy", "GPU", "memory", "CUDA", "cuBLAS"} <= set(gpu.describe())
    assert get_backend("cupy:0") is gpu
    gpu.synchronize()
