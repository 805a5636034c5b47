"""Derivatives by the inputs, compared with PyTorch's autograd and central differences."""

from typing import Any

import numpy as np
import pytest

import nnkit
from tests.support.torch_twin import activation

RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, size=(9, 6))
PREPROCESSING = [None, nnkit.data.Normalization.fit(X), nnkit.data.Whitening.fit(RNG.normal(size=(50, 6)))]
PAIRS = [
    ("quadratic", 2, "identity"), ("quadratic", 2, "gelu"), ("softmax_cross_entropy", 3, "softmax"),
    ("cross_entropy", 1, "sigmoid"), ("quadratic", 3, "softmax"), ("poisson", 2, "exponential"),
]  # fmt: skip


def _network(hidden: str, pair: tuple[str, int, str], **options: Any) -> nnkit.Network:
    cost, outputs, last = pair
    layers = [nnkit.Dense(6, 7, hidden), nnkit.Dropout(0.5), nnkit.Dense(7, 5, "tanh"), nnkit.Dense(5, outputs, last)]
    return nnkit.Network(layers, cost=cost, seed=1, **{"dtype": "float64"} | options)


def _autograd(network: nnkit.Network, x: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    h = torch.tensor(x, requires_grad=True)
    inputs = h
    if network.preprocessing is not None:
        mean, scale = (torch.tensor(np.array(a)) for a in network.preprocessing._constants())  # type: ignore[attr-defined]
        h = (h - mean) / scale if network.preprocessing.kind == "normalization" else (h - mean) @ scale
    for layer, W, b in zip(network.dense, network.parameters.W, network.parameters.b, strict=True):
        h = activation(
            torch, str(layer.activation), h @ torch.tensor(np.array(W, float)).T + torch.tensor(np.array(b, float))
        )
    rows = [torch.autograd.grad(h[:, k].sum(), inputs, retain_graph=True)[0] for k in range(h.shape[1])]
    return np.stack([row.numpy() for row in rows], axis=1)


@pytest.mark.parametrize("preprocessing", PREPROCESSING, ids=["none", "normalization", "whitening"])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("hidden", ["relu", "silu", "selu"])
def test_the_jacobian_agrees_with_autograd(hidden: str, pair: Any, preprocessing: Any) -> None:
    network = _network(hidden, pair, preprocessing=preprocessing)
    found = network.jacobian(X)
    assert found.shape == (9, pair[1], 6)
    np.testing.assert_allclose(found, _autograd(network, X), rtol=1e-11, atol=1e-13)
    for k in range(pair[1]):
        np.testing.assert_array_equal(network.input_gradient(X, k), found[:, k])


def test_on_every_backend(arrays: Any) -> None:
    network = _network("gelu", PAIRS[2], preprocessing=PREPROCESSING[1], backend="numpy")
    expected = network.jacobian(X)
    found = network.to(arrays.backend).jacobian(X)
    np.testing.assert_allclose(arrays.backend.to_numpy(found), expected, rtol=1e-11, atol=1e-13)


def test_float32_and_integers() -> None:
    network = _network("tanh", PAIRS[0], dtype="float32")
    found = network.jacobian(np.arange(12).reshape(2, 6))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _autograd(network, np.arange(12.0).reshape(2, 6)), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="X has no samples"):
        network.jacobian(np.empty((0, 6)))


def test_a_custom_layer() -> None:
    from tests.test_own_layers import Scaled

    network = nnkit.Network([nnkit.Dense(6, 4, "tanh"), Scaled(4, 4), nnkit.Dense(4, 2)], cost="quadratic", seed=0,
                            dtype="float64")  # fmt: skip
    steps = 1e-6 * np.eye(6)
    slopes = [(network.forward(X + e) - network.forward(X - e)) / 2e-6 for e in steps]
    np.testing.assert_allclose(network.jacobian(X), np.stack(slopes, axis=2), atol=1e-8)


def test_nothing_changes() -> None:
    network = _network("relu", PAIRS[0])
    network.gradients(X, RNG.normal(size=(9, 2)))
    before = network.parameters.flat.copy(), network.gradient.flat.copy()
    network.jacobian(X)
    np.testing.assert_array_equal(network.parameters.flat, before[0])
    np.testing.assert_array_equal(network.gradient.flat, before[1])


def test_invalid_arguments() -> None:
    network = _network("relu", PAIRS[0])
    with pytest.raises(ValueError, match="output is 2; expected an index below 2"):
        network.input_gradient(X, 2)
    with pytest.raises(ValueError, match="output is -1; expected a whole number of at least 0"):
        network.input_gradient(X, -1)
    with pytest.raises(ValueError, match="X has shape"):
        network.jacobian(X[:, :3])
