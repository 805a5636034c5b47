"""Epilogues on a real GPU: what the kernels compute, with the same bits each time, in a graph as call by call."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends import Backend
from nnkit.kernels.activations import get_activation
from nnkit.kernels.dense import dense_backward, dense_forward
from tests.conftest import gpu_backend
from tests.test_epilogues import taken

pytestmark = pytest.mark.gpu

Array = NDArray[Any]
PRECISIONS = {"highest": 2e-6, "high": 4e-3, "medium": 2e-2}  # of numbers of size 1, in sums of some hundred
# Units whose h̄ is nearer to 0 than its rounding may come out on either side: some u of all, √u of the norm.
KINKS = {name: 2 * bound**0.5 for name, bound in {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}.items()}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setenv("NNKIT_EPILOGUES", "1")
    monkeypatch.setenv("NNKIT_ONE_LAUNCH", "0")
    yield gpu_backend()
    nnkit.set_matmul_precision("highest")


def layer(samples: int, inputs: int, units: int) -> list[Array]:
    """x, W, b of a layer, Δ and V of the one behind; some samples and units are all 0, so that h̄ = 0."""
    rng = np.random.default_rng([samples, units])
    x, W, b = rng.normal(size=(samples, inputs)), rng.normal(size=(units, inputs)), rng.normal(size=units)
    x[::5], b[::3] = 0, 0
    delta, V = rng.normal(size=(samples, 40)), rng.normal(size=(40, units))
    return [x, W / inputs**0.5, b, delta / 40**0.5, V]


def passes(backend: Backend, arrays: list[Any], activation: str) -> list[Any]:
    """h, then δV and δc of the layer behind, then δW and δb, as calls of the kernels."""
    x, W, b, delta, V = arrays
    saves = get_activation(activation).gradient_from == "preactivation"
    z = backend.empty((x.shape[0], W.shape[0]), x.dtype) if saves else None
    h = dense_forward(x, W, b, activation, z=z)
    dh, dV, dc = dense_backward(delta, h, V)
    _, dW, db = dense_backward(dh, x, W, h, activation, z=z, need_dx=False, overwrite_delta=True)
    return [h, dV, dc, dW, db]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sizes", [(64, 128, 128), (96, 784, 104), (33, 50, 64), (7, 12, 10), (1024, 512, 512)])
@pytest.mark.parametrize("activation", ["relu", "gelu_tanh", "identity", "sigmoid"])
def test_each_against_numpy(gpu: Backend, activation: str, sizes: tuple[int, int, int], precision: str) -> None:
    nnkit.set_matmul_precision(precision)
    arrays = layer(*sizes)
    on_device = [gpu.asarray(array, "float32") for array in arrays]
    with gpu.recording() as tape:
        found = passes(gpu, on_device, activation)
    assert taken(tape.calls)
    # By the numbers that the GPU has: those that are rounded to float32 before anything is computed.
    single = [array.astype(np.float32).astype(np.float64) for array in arrays]
    expected = passes(nnkit.get_backend("numpy"), single, activation)
    bits = []
    for _ in range(3):  # call by call, captured, replayed
        tape.replay()
        bits.append([gpu.to_numpy(array) for array in found])
        for name, ours, exact in zip(("h", "δV", "δc", "δW", "δb"), bits[-1], expected, strict=True):
            off = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
            assert off < (KINKS if activation == "relu" else PRECISIONS)[precision], name
    for again in bits[1:]:
        assert [array.tobytes() for array in again] == [array.tobytes() for array in bits[0]]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_relu_of_0_has_no_slope(gpu: Backend, precision: str) -> None:
    """H(0) = 0, as in the kernels: units whose h̄ is exactly 0 send nothing back."""
    nnkit.set_matmul_precision(precision)
    x, W, b = (gpu.zeros(shape, "float32") for shape in ((16, 32), (64, 32), (64,)))
    delta, V = (gpu.asarray(np.ones(shape), "float32") for shape in ((16, 32), (32, 64)))
    relu = get_activation("relu")
    with gpu.recording() as tape:
        h = dense_forward(x, W, b, "relu")
        dh = gpu.matmul(delta, V)
        gpu.elementwise(relu.gradient, (h, dh), out=dh)
    tape.replay()
    assert not gpu.to_numpy(dh).any()


def trained(optimizer: Any, activation: str) -> tuple[bytes, Array]:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(300, 64)).astype(np.float32), rng.integers(0, 10, 300)
    layers: list[Any] = [nnkit.Dense(64, 128, activation), nnkit.Dropout(0.2), nnkit.Dense(128, 96, activation)]
    layers.append(nnkit.Dense(96, 10))
    net = nnkit.Network(layers, cost="softmax_cross_entropy", seed=3, backend="cupy")
    history = net.fit(X, y, epochs=2, batch_size=64, optimizer=optimizer, progress=False)
    parameters = net.backend.to_numpy(net.parameters.flat)
    return parameters.tobytes() + repr(history["cost"]).encode(), parameters


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.1), nnkit.SGD(0.1, momentum=0.9, l2=1e-3)], ids=["sgd", "momentum"])
@pytest.mark.parametrize("activation", ["relu", "gelu_tanh", "tanh"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training(
    gpu: Backend, precision: str, activation: str, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nnkit.set_matmul_precision(precision)
    first, parameters = trained(optimizer, activation)
    assert trained(optimizer, activation)[0] == first
    monkeypatch.setenv("NNKIT_CUDA_GRAPHS", "0")
    assert trained(optimizer, activation)[0] == first
    monkeypatch.setenv("NNKIT_EPILOGUES", "0")
    apart, without = trained(optimizer, activation)
    assert apart != first  # it did something else
    off = np.linalg.norm(parameters - without) / np.linalg.norm(without)
    assert off < 10 * PRECISIONS[precision]  # ten steps, in which small differences grow


def test_float64_has_none(gpu: Backend) -> None:
    with gpu.recording() as tape:
        passes(gpu, [gpu.asarray(array, "float64") for array in layer(64, 128, 128)], "relu")
    assert taken(tape.calls) == []
