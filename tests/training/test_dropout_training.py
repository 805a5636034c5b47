"""Dropout in training: against PyTorch's backpropagation with the same masks, and on its way through files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.placement import DropoutState
from tests.kernels.test_dropout_kernel import expected_factors

if TYPE_CHECKING:
    from tests.conftest import Arrays

Dense, Dropout = nnkit.Dense, nnkit.Dropout
RNG = np.random.default_rng(9)
X, LABELS = RNG.normal(size=(40, 5)), RNG.integers(0, 3, 40)
LAYERS = [Dropout(0.2), Dense(5, 16, "relu"), Dropout(0.5), Dense(16, 12, "gelu"), Dropout(0.3), Dense(12, 3)]


def network(**options: Any) -> nnkit.Network:
    return nnkit.Network(LAYERS, cost="softmax_cross_entropy", seed=4, **{"dtype": "float64"} | options)


def masks(net: nnkit.Network, n: int) -> list[np.ndarray]:
    """The factors of the next step, as the state of the network's random numbers has them."""
    assert isinstance(net.dropout, DropoutState)
    found = []
    for number, (layer, width) in enumerate(zip(net.layers, (5, 0, 16, 0, 12, 0), strict=True)):
        if isinstance(layer, Dropout):
            ones = net.backend.asarray(np.ones((n, width)), net.dtype)
            dropped, scale = net.dropout.apply(ones, layer.rate, number)
            assert net.backend.to_numpy(dropped).tobytes() == net.backend.to_numpy(scale).tobytes()
            found.append(np.array(net.backend.to_numpy(scale)))
    return found


def test_gradients_with_dropout_match_autograd(arrays: "Arrays") -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net = network()
    for _ in range(2):
        factors = [torch.tensor(mask) for mask in masks(net, 40)]
        tensors = [
            tuple(torch.tensor(np.array(arrays.numpy(a)), requires_grad=True) for a in pair)
            for pair in zip(net.parameters.W, net.parameters.b, strict=True)
        ]
        h = torch.tensor(X)
        for (W, b), factor, activation in zip(
            tensors, factors, (torch.relu, torch.nn.functional.gelu, lambda z: z), strict=True
        ):
            h = activation((h * factor) @ W.T + b)
        cost = torch.nn.functional.cross_entropy(h, torch.tensor(LABELS))
        cost.backward()
        value, gradients = net.gradients(arrays(X), LABELS, training=True)
        assert float(value) == pytest.approx(cost.item(), rel=1e-12)
        for pair, tensor_pair in zip(gradients, tensors, strict=True):
            for found, tensor in zip(pair, tensor_pair, strict=True):
                np.testing.assert_allclose(arrays.numpy(found), tensor.grad.numpy(), rtol=1e-10, atol=1e-14)


def test_equal_seeds_drop_the_same_entries_on_every_backend(arrays: "Arrays") -> None:
    """The same masks on every backend, for both dtypes, and for a row whatever the batch."""
    reference = network(backend="numpy")
    for dtype in ("float32", "float64"):
        net = network(dtype=dtype)
        for found, wanted in zip(masks(net, 7), masks(reference, 40), strict=True):
            np.testing.assert_array_equal(found, wanted[:7].astype(dtype))


def test_masks_match_the_hash() -> None:
    """The key is drawn once from NumPy's generator of the seed: no version may give a seed other masks."""
    key, rates = int(np.random.default_rng([4, 2]).integers(2**32)), {0: 0.2, 2: 0.5, 4: 0.3}
    found = masks(network(backend="numpy"), 6)
    for mask, (layer, rate) in zip(found, rates.items(), strict=True):
        np.testing.assert_array_equal(mask, expected_factors((key, 0, layer, rate), (6, mask.shape[1])))


def test_training_agrees_with_numpy(arrays: "Arrays") -> None:
    nets = [network(), network(backend="numpy")]
    for net in nets:
        net.fit(X, LABELS, epochs=4, batch_size=8, optimizer=nnkit.SGD(0.1, momentum=0.9), progress=False)
    found, wanted = (net.parameters.vector for net in nets)  # by rows, as `flat` need not be
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_dropout_is_active_only_in_training(arrays: "Arrays") -> None:
    net = network()
    plain = nnkit.Network(net.dense, cost="softmax_cross_entropy", seed=4, dtype="float64")
    assert arrays.numpy(net.forward(X)).tobytes() == arrays.numpy(plain.forward(X)).tobytes()
    assert net.evaluate(X, LABELS) == plain.evaluate(X, LABELS)
    for found, wanted in zip(net.gradients(X, LABELS)[1], plain.gradients(X, LABELS)[1], strict=True):
        assert arrays.numpy(found[0]).tobytes() == arrays.numpy(wanted[0]).tobytes()
    assert nnkit.check_gradients(net, X, LABELS).max_error < 1e-13


def test_a_rate_of_0_changes_nothing() -> None:
    nets = [
        nnkit.Network([Dense(5, 6, "tanh"), Dropout(0), Dense(6, 3)], seed=0),
        nnkit.Network([Dense(5, 6, "tanh"), Dense(6, 3)], seed=0),
    ]
    for net in nets:
        net.fit(X, LABELS, epochs=3, progress=False)
    assert np.array_equal(nets[0].parameters.flat, nets[1].parameters.flat)


def test_masks_differ_from_step_to_step_and_from_seed_to_seed() -> None:
    net = network()
    first = masks(net, 40)
    net.train_step(X, LABELS)
    second, other = masks(net, 40), masks(network(backend="numpy"), 40)
    assert all((a == b).all() for a, b in zip(first, other, strict=True))
    elsewhere = nnkit.Network(LAYERS, cost="softmax_cross_entropy", seed=5, dtype="float64")
    for different in (second, masks(elsewhere, 40)):
        for a, b in zip(first, different, strict=True):
            assert 0.2 < np.mean(a == b) < 0.8


def test_the_counter_is_moved_with_the_network(arrays: "Arrays") -> None:
    net, stayed = network(backend="numpy"), network(backend="numpy")
    for each in (net, stayed):
        each.fit(X, LABELS, epochs=2, progress=False)
    net.to(arrays.backend)
    for found, wanted in zip(masks(net, 9), masks(stayed, 9), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_dropout_is_saved_with_the_network(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net = network()
    net.save(tmp_path / "net.safetensors")
    assert nnkit.load(tmp_path / "net.safetensors").layers == net.layers == [*LAYERS[:5], Dense(12, 3, "softmax")]


@pytest.mark.parametrize("rate", [1.0, -0.1, 1.5, np.nan, "0.5", True, None])
def test_rates_out_of_range(rate: Any) -> None:
    error = ValueError if type(rate) is float else TypeError
    with pytest.raises(error, match=rf"Dropout: rate is {rate!r}; expected a finite number of at least 0 and below 1"):
        Dropout(rate)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Dense(2, 3), Dropout(0.5)], r"layers: the last layer is Dropout\(rate=0.5\); expected a Dense layer"),
        ([Dropout(0.5)], "expected a Dense layer"),
    ],
)
def test_dropout_applies_to_the_input_of_a_layer(layers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nnkit.Network(layers)
