"""fit: epochs, batches, orders and histories, against loops written out here."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.step import Step
from tests.support.recorded_steps import before_each_step
from tests.support.torch_twin import Twin

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(1)
X, LABELS = RNG.normal(size=(23, 3)), RNG.integers(0, 4, 23)
OUTPUT = {"cost": "softmax_cross_entropy", "dtype": "float64"}


def network(seed: int = 4, **options: Any) -> nnkit.Network:
    return nnkit.Network([3, 6, 4], activation="tanh", seed=seed, **OUTPUT | options)


def fit(net: nnkit.Network, x: Any = X, y: Any = LABELS, **options: Any) -> nnkit.History:
    return net.fit(x, y, progress=False, **options)


def parameters(net: nnkit.Network) -> list[np.ndarray]:
    return [np.array(net.backend.to_numpy(a)) for a in [*net.parameters.W, *net.parameters.b]]


def assert_same(a: nnkit.Network, b: nnkit.Network) -> None:
    for p, q in zip(parameters(a), parameters(b), strict=True):
        assert p.tobytes() == q.tobytes()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Which samples each step saw, as their places in X (no two rows of X are alike)."""
    seen: list[list[int]] = []

    def watch(step: Step) -> None:
        x, y = (np.array(step.backend.to_numpy(a)) for a in (step.x, step.y))
        places = [int(np.flatnonzero((X.astype(x.dtype) == row).all(axis=1))[0]) for row in x]
        if y.shape[1] == 4:
            assert np.argmax(y, axis=1).tolist() == LABELS[places].tolist()
        seen.append(places)

    before_each_step(monkeypatch, watch)
    return seen


def test_each_epoch_sees_every_sample_once_in_a_new_order(arrays: "Arrays", batches: list[list[int]]) -> None:
    net = network()
    fit(net, arrays(X), epochs=3, batch_size=5)
    assert [len(b) for b in batches] == [5, 5, 5, 5, 3] * 3
    orders = [[i for batch in batches[k : k + 5] for i in batch] for k in (0, 5, 10)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    # A function of the seed and the count of epochs alone: equal on every backend, and in a continued training.
    for epoch, order in enumerate(orders):
        wanted = np.arange(23)
        np.random.default_rng([4, 1, epoch]).shuffle(wanted)
        assert order == wanted.tolist()


def test_without_shuffling_the_order_is_that_of_the_data(arrays: "Arrays", batches: list[list[int]]) -> None:
    fit(network(), arrays(X), epochs=2, batch_size=9, shuffle=False)
    assert batches == [list(range(9)), list(range(9, 18)), list(range(18, 23))] * 2


def test_a_batch_larger_than_the_data_is_all_data(batches: list[list[int]]) -> None:
    large, exact = network(), network()
    fit(large, epochs=2, batch_size=1000)
    fit(exact, epochs=2, batch_size=23)
    assert [len(b) for b in batches] == [23] * 4
    assert_same(large, exact)


@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_equals_a_loop_in_torch(arrays: "Arrays", batches: list[list[int]], shuffle: bool) -> None:
    """Every batch counts as its own mean, the smaller last one too; the cost is the mean over the samples seen."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net = network()
    twin = Twin(torch, net)
    history = fit(net, arrays(X), epochs=3, batch_size=5, shuffle=shuffle, optimizer=nnkit.SGD(0.7))
    for epoch in range(3):
        cost = 0.0
        for places in batches[5 * epoch : 5 * epoch + 5]:
            cost += twin.descend(X[places], np.eye(4)[LABELS[places]], 0.7) * len(places)
        assert history["cost"][epoch] == pytest.approx(cost / 23, rel=1e-12)
    for (W, b), (V, c) in zip(zip(net.parameters.W, net.parameters.b, strict=True), twin.parameters(), strict=True):
        np.testing.assert_allclose(arrays.numpy(W), V, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(arrays.numpy(b), c, rtol=1e-11, atol=1e-13)


def test_a_linear_network_equals_a_loop_in_numpy() -> None:
    """The same by hand, without PyTorch: W ← W − ε (XW − y)ᵀX/n over batches of 4 and a last one of 3."""
    net = nnkit.Network([3, 1], cost="quadratic", seed=0, dtype="float64")
    W, b, y = net.parameters.W[0].copy(), net.parameters.b[0].copy(), X @ [1.0, -2.0, 0.5]
    history = fit(net, y=y, epochs=2, batch_size=4, shuffle=False, optimizer=nnkit.SGD(0.1))
    for epoch in range(2):
        costs = []
        for start in range(0, 23, 4):
            x, error = X[start : start + 4], X[start : start + 4] @ W[0] + b[0] - y[start : start + 4]
            costs.extend(error**2 / 2)
            W, b = W - 0.1 * error[None] @ x / len(x), b - 0.1 * error.mean()
        assert history["cost"][epoch] == pytest.approx(np.mean(costs), rel=1e-12)
    np.testing.assert_allclose(net.parameters.W[0], W, rtol=1e-12)
    np.testing.assert_allclose(net.parameters.b[0], b, rtol=1e-12)


def test_history(arrays: "Arrays") -> None:
    net = network()
    history = fit(net, arrays(X), epochs=4, validation_data=(arrays(X[:7]), LABELS[:7]), optimizer=nnkit.SGD(0.25))
    names = {"cost", "accuracy", "validation_cost", "validation_accuracy", "learning_rate", "seconds"}
    assert history.keys() == names
    assert all(len(numbers) == 4 and all(type(n) is float for n in numbers) for numbers in history.values())
    assert history["learning_rate"] == [0.25] * 4
    assert min(history["seconds"]) > 0
    assert not history.interrupted
    assert history.epochs == net.epochs_trained == 4
    after = net.evaluate(X[:7], LABELS[:7])
    assert history.last["validation_cost"] == pytest.approx(after["cost"], rel=1e-14)
    assert history.last["validation_accuracy"] == after["accuracy"]
    plain = fit(nnkit.Network([3, 2], cost="quadratic", seed=0), y=X[:, :2], epochs=1)
    assert plain.keys() == {"cost", "learning_rate", "seconds"}


def test_accuracy_is_the_share_of_right_answers_while_training(arrays: "Arrays", batches: list[list[int]]) -> None:
    net, twin = network(), network()
    history = fit(net, arrays(X), epochs=2, batch_size=5, optimizer=nnkit.SGD(0.5))
    fitted, rate = batches.copy(), nnkit.SGD(0.5)
    for epoch in range(2):
        right = 0
        for places in fitted[5 * epoch : 5 * epoch + 5]:
            right += int(np.sum(arrays.numpy(twin.predict(X[places])) == LABELS[places]))
            twin.train_step(X[places], LABELS[places], rate)
        assert history["accuracy"][epoch] == right / 23


def test_train_step_and_fit_agree(arrays: "Arrays", batches: list[list[int]]) -> None:
    by_fit, by_steps, optimizer = network(), network(), nnkit.Adam(0.01)
    fit(by_fit, arrays(X), epochs=2, batch_size=5, optimizer=nnkit.Adam(0.01))
    for places in batches.copy():
        by_steps.train_step(arrays(X[places]), LABELS[places], optimizer)
    assert_same(by_fit, by_steps)


def test_equal_seeds_give_equal_runs(arrays: "Arrays") -> None:
    runs = []
    for seed in (4, 4, 5):
        net = network(seed)
        runs.append((net, fit(net, arrays(X), epochs=3, batch_size=4, optimizer=nnkit.SGD(0.5, momentum=0.5))))
    assert_same(runs[0][0], runs[1][0])
    assert runs[0][1]["cost"] == runs[1][1]["cost"]
    assert (parameters(runs[0][0])[0] != parameters(runs[2][0])[0]).all()
    host = network(backend="numpy")
    history = fit(host, epochs=3, batch_size=4, optimizer=nnkit.SGD(0.5, momentum=0.5))
    assert history["cost"] == pytest.approx(runs[0][1]["cost"], rel=1e-12)
    assert history["accuracy"] == runs[0][1]["accuracy"]
    for p, q in zip(parameters(host), parameters(runs[0][0]), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.3, momentum=0.9), nnkit.Adam(0.01)])
def test_two_fits_equal_one_longer_fit(optimizer: Any, batches: list[list[int]]) -> None:
    once, twice = network(), network()
    fit(once, epochs=5, batch_size=6, optimizer=optimizer)
    first = batches.copy()
    fit(twice, epochs=2, batch_size=6, optimizer=optimizer)
    fit(twice, epochs=3, batch_size=6)
    assert batches[len(first) :] == first
    assert once.epochs_trained == twice.epochs_trained == 5
    assert_same(once, twice)
