"""The meter: costs and accuracies of many samples are measured in pieces, and add up to those of all."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

import nnkit
from nnkit.training import evaluation, meter

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(8)
X, LABELS = RNG.normal(size=(53, 3)), RNG.integers(0, 4, 53)


def network() -> nnkit.Network:
    return nnkit.Network([3, 4], cost="softmax_cross_entropy", seed=1, dtype="float64")


def by_hand(net: nnkit.Network) -> dict[str, float]:
    W, b = (np.array(net.backend.to_numpy(a)) for a in (net.parameters.W[0], net.parameters.b[0]))
    p = np.exp(X @ W.T + b)
    p /= p.sum(axis=1, keepdims=True)
    right = np.argmax(p, axis=1) == LABELS
    return {"cost": float(-np.log(p[np.arange(53), LABELS]).mean()), "accuracy": float(right.mean())}


@pytest.mark.parametrize("kept", [1 << 20, 40, 1])
@pytest.mark.parametrize("evaluation_batch", [4096, 53, 10, 1])
def test_pieces_add_up(arrays: "Arrays", kept: int, evaluation_batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_KEPT", kept)
    monkeypatch.setattr(evaluation, "ROWS", evaluation_batch)
    net = network()
    measured = net.evaluate(arrays(X), LABELS)
    assert measured["cost"] == pytest.approx(by_hand(net)["cost"], rel=1e-13)
    assert measured["accuracy"] == by_hand(net)["accuracy"]


@pytest.mark.parametrize("kept", [1 << 20, 60, 1])
def test_training_is_measured_alike(arrays: "Arrays", kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a learning rate that moves nothing, an epoch's numbers are those of the network."""
    monkeypatch.setattr(meter, "_KEPT", kept)
    net = network()
    wanted = by_hand(net)
    history = net.fit(arrays(X), LABELS, epochs=2, batch_size=7, optimizer=nnkit.SGD(1e-300), progress=False)
    assert history["cost"] == pytest.approx([wanted["cost"]] * 2, rel=1e-13)
    assert history["accuracy"] == [wanted["accuracy"]] * 2
