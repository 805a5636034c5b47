"""Network.to: parameters and the optimizer's state move, and training goes on as if nothing had happened."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.optimizers import Optimizer

if TYPE_CHECKING:
    from tests.conftest import Arrays

X = np.random.default_rng(0).normal(size=(20, 3))
LABELS = np.arange(20) % 4
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "descent": lambda: nnkit.SGD(0.3, l2=0.01),
    "momentum": lambda: nnkit.SGD(0.1, momentum=0.9),
    "adam": lambda: nnkit.Adam(0.02),
}


def network(backend: Any = "numpy") -> nnkit.Network:
    return nnkit.Network([3, 5, 4], activation="gelu", seed=2, dtype="float64", backend=backend)


def parameters(net: nnkit.Network) -> list[np.ndarray]:
    return [np.array(net.backend.to_numpy(a)) for a in [*net.parameters.W, *net.parameters.b]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_continues_in_the_same_way(arrays: "Arrays", name: str) -> None:
    stayed, moving = network(), network()
    for net in (stayed, moving):
        net.fit(X, LABELS, epochs=3, batch_size=8, optimizer=OPTIMIZERS[name](), progress=False)
    for target in (arrays.backend, "numpy"):
        before, optimizer = parameters(moving), moving.optimizer
        assert moving.to(target) is moving
        assert moving.backend is nnkit.get_backend(target)
        assert moving.optimizer is optimizer
        for a, b in zip(parameters(moving), before, strict=True):
            assert a.tobytes() == b.tobytes()
        histories = [net.fit(X, LABELS, epochs=3, batch_size=8, progress=False) for net in (stayed, moving)]
        assert stayed.epochs_trained == moving.epochs_trained
        assert histories[1]["cost"] == pytest.approx(histories[0]["cost"], rel=1e-12)
        for a, b in zip(parameters(moving), parameters(stayed), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_the_state_matters(name: str) -> None:
    """Without it the continued training would be another: so the test above can fail."""
    kept, fresh = network(), network()
    for net in (kept, fresh):
        net.fit(X, LABELS, epochs=3, batch_size=8, optimizer=OPTIMIZERS[name](), progress=False)
    kept.fit(X, LABELS, epochs=1, batch_size=8, progress=False)
    fresh.fit(X, LABELS, epochs=1, batch_size=8, optimizer=OPTIMIZERS[name](), progress=False)
    assert max(float(np.abs(a - b).max()) for a, b in zip(parameters(kept), parameters(fresh), strict=True)) > 1e-3


def test_predictions_come_from_the_new_backend(arrays: "Arrays") -> None:
    net = network("numpy")
    wanted = net.forward(X)
    net.to(arrays.backend)
    np.testing.assert_allclose(arrays.numpy(net.forward(X), "float64"), wanted, rtol=1e-13)
    assert arrays.numpy(net.predict(X)).tolist() == np.argmax(wanted, axis=1).tolist()


def test_moving_to_the_current_backend_changes_nothing() -> None:
    net = network("numpy")
    net.train_step(X, LABELS, nnkit.Adam())
    place, state = net.parameters.flat, net.optimizer_state()
    assert net.to("numpy").parameters.flat is place
    assert net.optimizer_state() is state


def test_an_unavailable_backend_does_not_move_the_network() -> None:
    net = network("numpy")
    net.train_step(X, LABELS, nnkit.SGD(0.1, momentum=0.5))
    before, state = parameters(net), net.optimizer_state()
    with pytest.raises(nnkit.BackendUnavailableError, match="nowhere"):
        net.to("standard:nowhere")
    assert net.backend.name == "numpy"
    assert net.optimizer_state() is state
    assert all((a == b).all() for a, b in zip(parameters(net), before, strict=True))
