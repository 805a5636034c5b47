"""Training by the CuPy backend without a GPU: its kernels compiled for the host give the steps that NumPy gives."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.step import Step, step_for
from nnkit.training.meter import Meter
from nnkit.training.on_device import Replays
from nnkit.training.sources import ArraySource, BytesSource, Known
from tests.support.host_device import HostDevice

Array = NDArray[Any]
SAMPLES = np.random.default_rng(0).normal(size=(40, 12))
TARGETS = np.eye(3)[np.arange(40) % 3]


def train(
    backend: Any, optimizer: Any, dtype: str, precision: str = "highest", steps: int = 9
) -> tuple[Array, Step, nnkit.Network]:
    """The parameters after some steps on minibatches of 16 and a last one of 8, with another rate for each."""
    nnkit.set_matmul_precision(precision)
    layers = [nnkit.Dense(12, 20, "tanh"), nnkit.Dropout(0.3), nnkit.Dense(20, 3)]
    net = nnkit.Network(layers, cost="softmax_cross_entropy", seed=4, dtype=dtype, backend=backend)
    state = net.optimizer_state(optimizer)
    for i in range(steps):
        rows = slice(16 * (i % 3), min(16 * (i % 3) + 16, 40))
        step = step_for(net, rows.stop - rows.start, state, drops=True)
        for values, array in ((SAMPLES, step.x), (TARGETS, step.y)):
            net.backend.copy(net.backend.asarray(values[rows], dtype), array)
        step.run(state.optimizer.learning_rate / (1 + i))
        assert np.isfinite(net.backend.to_numpy(step.cost()))
    parts = [net.backend.to_numpy(array).ravel() for array in (*net.parameters.W, *net.parameters.b)]
    return np.concatenate(parts), step, net


OPTIMIZERS = [nnkit.SGD(0.5), nnkit.SGD(0.1, momentum=0.9, l2=1e-3, clip_norm=1.0)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_agree_with_numpy(host: HostDevice, optimizer: Any) -> None:
    (found, *_), (expected, *_) = (train(backend, optimizer, "float64") for backend in (host, "numpy"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_steps_in_each_precision(host: HostDevice) -> None:
    exact, *_ = train("numpy", OPTIMIZERS[0], "float64")
    off = {}
    for precision in ("highest", "medium"):
        found, *_ = train(host, OPTIMIZERS[0], "float32", precision)
        off[precision] = abs(found - exact).max()
        again, *_ = train(host, OPTIMIZERS[0], "float32", precision)
        assert again.tobytes() == found.tobytes()
    assert off["highest"] < 2e-6
    assert 1e-5 < off["medium"] < 1e-2


def test_a_network_follows_a_change_of_precision(host: HostDevice) -> None:
    _, exact, net = train(host, OPTIMIZERS[0], "float32", "highest")
    nnkit.set_matmul_precision("medium")
    rounded = step_for(net, 8, net.state, drops=True)
    assert rounded is not exact
    nnkit.set_matmul_precision("highest")
    assert step_for(net, 8, net.state, drops=True) is exact
    for _ in range(2):
        before = host.to_numpy(net.logits(host.asarray(SAMPLES, "float32")))
    nnkit.set_matmul_precision("medium")
    assert not np.array_equal(host.to_numpy(net.logits(host.asarray(SAMPLES, "float32"))), before)


def test_how_many_launches_a_step_takes(host: HostDevice) -> None:
    """Two layers with dropout, softmax and its cost, plain gradient descent: no weight's gradient is written."""
    calls = {}
    for precision in ("highest", "medium"):
        _, step, _ = train(host, OPTIMIZERS[0], "float32", precision, steps=1)
        calls[precision] = len(step._tape.nodes)
    # Forward: 2 products, tanh with dropout, softmax; backward: 3 products, 2 sums, dropout with tanh and the clock.
    assert calls["highest"] == 10
    assert calls["medium"] == 10 + 3  # x and two weights are rounded; h and two deltas by the kernels that give them


@pytest.mark.parametrize("rates", [None, [0.5, 0.25, 0.125]])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_an_epoch_by_replays(host: HostDevice, dtype: str, rates: list[float] | None) -> None:
    """Minibatches of 16, 16 and 8 by counters on the device; bytes become numbers as they are gathered."""
    order, weights = np.random.default_rng(1).permutation(40), 1 + np.arange(40.0)[:, None] % 3
    X = (10 * SAMPLES).astype(np.int8).astype(dtype) if dtype == "uint8" else SAMPLES
    found = []

    def given(steps: range) -> list[float]:
        return (rates or [0.1] * 3)[steps.start : steps.stop]

    for backend in (host, "numpy"):
        net = nnkit.Network([12, 20, 3], cost="softmax_cross_entropy", seed=4, dtype="float64", backend=backend)
        state = net.optimizer_state(nnkit.SGD(0.1))
        kind, numbers = (BytesSource, dtype) if dtype == "uint8" else (ArraySource, "float64")
        parts = [net.backend.asarray(a, t) for a, t in ((X, numbers), (TARGETS, "float64"), (weights, "float64"))]
        source, meter = kind(net, parts[0], Known(*parts[1:])), Meter(net, 40, 16)
        meter.start(source.start(order))
        Replays(net, source, meter, state, 16).run(given, lambda count: None)
        arrays = [*net.parameters.W, *net.parameters.b, meter.logits]
        found.append([net.backend.to_numpy(array).ravel() for array in arrays])
    for ours, numpys in zip(*found, strict=True):
        np.testing.assert_allclose(ours, numpys, rtol=0, atol=1e-12)


def test_samples_that_would_fill_the_device_stay_on_the_host(host: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of what is free is left for minibatches and activations."""
    monkeypatch.setattr(host, "_room", lambda: (1000, 4000))
    assert [host.has_room(size) for size in (0, 700, 900, 1000, 2000)] == [True, True, False, False, False]
