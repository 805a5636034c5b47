"""Training on a GPU, in all its variants: from one seed it is the training of the CPU but for rounding."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends import Backend
from nnkit.training import meter
from tests.conftest import gpu_backend

pytestmark = pytest.mark.gpu

Array = NDArray[Any]
Options = dict[str, Any]
N, WIDTH = 150, 12
RNG = np.random.default_rng(7)
X = RNG.normal(size=(N, WIDTH))
LABELS = np.arange(N) % 3
TARGETS = np.stack([X[:, :3].sum(axis=1), np.tanh(X[:, 3]), abs(X[:, 4])], axis=1)
BYTES = RNG.integers(256, size=(N, WIDTH), dtype=np.uint8)
# Some dozen steps of some 10³ roundings each on numbers of size 1, which optimizers divide by |g|: 1e-6 or more.
NEAR = 1e-9


@pytest.fixture
def gpu() -> Backend:
    return gpu_backend()


def network(backend: Any, **options: Any) -> nnkit.Network:
    layers = [nnkit.Dense(WIDTH, 20, "gelu"), nnkit.Dense(20, 3)]
    defaults: Options = {"layers": layers, "cost": "softmax_cross_entropy", "seed": 4, "dtype": "float64"}
    return nnkit.Network(**defaults | options, backend=backend)


def trained(net: nnkit.Network, x: Any = X, y: Any = LABELS, **options: Any) -> tuple[Array, dict[str, list[float]]]:
    """The parameters after a training, and its history without the times."""
    defaults: Options = {"epochs": 2, "optimizer": nnkit.SGD(0.5), "progress": False}
    defaults |= {} if y is None else {"batch_size": 32}
    history = net.fit(x, y, **defaults | options)
    numbers = {name: values for name, values in history.items() if name != "seconds"}
    return net.parameters.saved(net.parameters.flat), numbers


def assert_the_same(
    found: tuple[Array, dict[str, list[float]]], expected: tuple[Array, dict[str, list[float]]]
) -> None:
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=NEAR)
    assert found[1].keys() == expected[1].keys()
    for name, values in expected[1].items():
        np.testing.assert_allclose(found[1][name], values, rtol=NEAR, atol=NEAR, err_msg=name)


def check(gpu: Backend, build: Options | None = None, x: Any = X, y: Any = LABELS, **options: Any) -> None:
    """Train on both, with options that are made anew for each where they are functions of nothing."""
    both = []
    for backend in (gpu, "numpy"):
        net = network(backend, **build or {})
        before = net.parameters.saved(net.parameters.flat)
        both.append(trained(net, x, y, **options))
        assert float(abs(both[-1][0] - before).max()) > 1e-4  # it did learn something
    assert_the_same(*both)


@pytest.mark.parametrize("cost", nnkit.cost_names())
def test_costs(gpu: Backend, cost: str) -> None:
    about = nnkit.get_cost(cost)
    y: Array = LABELS if about.classifies else TARGETS if about.domain == "any" else abs(TARGETS) + 0.1
    check(gpu, {"cost": cost}, y=y, optimizer=nnkit.SGD(0.05))


@pytest.mark.parametrize("activation", nnkit.activation_names())
def test_activations(gpu: Backend, activation: str) -> None:
    layers = [nnkit.Dense(WIDTH, 16, activation), nnkit.Dense(16, 8, activation), nnkit.Dense(8, 3)]
    check(gpu, {"layers": layers}, x=X / 4, optimizer=nnkit.SGD(0.05))


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "momentum": lambda: nnkit.SGD(0.1, momentum=0.9, l2=1e-3),
    "nesterov": lambda: nnkit.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=0.5),
    "clip_value": lambda: nnkit.SGD(0.5, clip_value=0.01, l1=1e-4),
    "rmsprop": lambda: nnkit.RMSprop(0.003, momentum=0.5),
    "adagrad": lambda: nnkit.Adagrad(0.05, weight_decay=1e-2),
    "adam": lambda: nnkit.Adam(0.01, l2=1e-3),
    "adamw": lambda: nnkit.AdamW(0.01, clip_norm=1.0),
    "lion": lambda: nnkit.Lion(1e-3, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(gpu: Backend, name: str) -> None:
    check(gpu, optimizer=OPTIMIZERS[name]())


@pytest.mark.parametrize("batch_size", [1, 7, 32, 150, 1000])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batch_sizes(gpu: Backend, batch_size: int, shuffle: bool) -> None:
    check(gpu, batch_size=batch_size, shuffle=shuffle, optimizer=nnkit.SGD(0.1))


def test_dropout(gpu: Backend) -> None:
    layers = [
        nnkit.Dropout(0.1), nnkit.Dense(WIDTH, 20, "relu"), nnkit.Dropout(0.4), nnkit.Dropout(0.2), nnkit.Dense(20, 3),
    ]  # fmt: skip
    check(gpu, {"layers": layers}, optimizer=nnkit.AdamW(0.01))


@pytest.mark.parametrize("kind", [nnkit.data.Normalization, nnkit.data.Whitening])
@pytest.mark.parametrize("samples", [X, BYTES])
def test_preprocessing_and_bytes(gpu: Backend, kind: Any, samples: Array) -> None:
    check(gpu, {"preprocessing": kind.fit(samples.astype(np.float64))}, x=samples, validation_data=(samples, LABELS))


def test_bytes_alone(gpu: Backend) -> None:
    check(gpu, x=BYTES // 64, optimizer=nnkit.SGD(0.05))


@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "cross_entropy"])
def test_weights(gpu: Backend, cost: str) -> None:
    weights = RNG.random(N)
    weights[::5] = 0
    check(gpu, {"cost": cost}, sample_weight=weights, class_weight="balanced", metrics=["top_2"])
    check(gpu, {"cost": cost}, class_weight={0: 1.0, 1: 3.0, 2: 0.5}, batch_size=64)


@pytest.mark.parametrize(
    "schedule",
    ["cosine", "one_cycle", lambda epoch: 1 / (1 + epoch), nnkit.schedules.warmup(1, nnkit.schedules.exponential(0.8))],
)
@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.5), nnkit.Adam(0.01)])
def test_schedules(gpu: Backend, schedule: Any, optimizer: Any) -> None:
    check(gpu, epochs=3, schedule=schedule, optimizer=optimizer)


@pytest.mark.parametrize("count", [2, 3, 100])
def test_accumulation(gpu: Backend, count: int) -> None:
    check(gpu, batch_size=20, gradient_accumulation_steps=count, optimizer=nnkit.SGD(0.5, momentum=0.5))


def test_early_stopping(gpu: Backend) -> None:
    rule = nnkit.EarlyStopping("validation_cost", patience=2)
    options: Options = {"epochs": 40, "early_stopping": rule, "validation_data": (X[:40], LABELS[::-1][:40])}
    both = [trained(network(backend), X[40:], LABELS[40:], **options) for backend in (gpu, "numpy")]
    assert 3 <= len(both[0][1]["cost"]) < 40
    assert_the_same(*both)


def test_a_stream_of_minibatches(gpu: Backend) -> None:
    def batches() -> Iterator[tuple[Array, Array]]:
        for start in range(0, N, 40):
            yield X[start : start + 40], LABELS[start : start + 40]

    check(gpu, x=batches, y=None, optimizer=nnkit.SGD(0.1), schedule="cosine")


def test_samples_on_a_disk(gpu: Backend, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", X)
    check(gpu, x=nnkit.data.open_npy(tmp_path / "X.npy"))
    found = network(gpu).predict(nnkit.data.open_npy(tmp_path / "X.npy"))
    np.testing.assert_array_equal(gpu.to_numpy(found), network("numpy").predict(X))


def test_samples_already_on_the_device(gpu: Backend) -> None:
    expected = trained(network("numpy"), sample_weight=np.arange(1.0, N + 1))
    on_device = [gpu.asarray(a) for a in (X, LABELS, np.arange(1.0, N + 1))]
    given = [a.copy() for a in on_device]
    assert_the_same(trained(network(gpu), *on_device[:2], sample_weight=on_device[2]), expected)
    for array, before in zip(on_device, given, strict=True):
        np.testing.assert_array_equal(gpu.to_numpy(array), gpu.to_numpy(before))


def test_a_custom_loop(gpu: Backend) -> None:
    nets = [network(backend, cost="quadratic") for backend in (gpu, "numpy")]
    for turn in range(12):
        rows = slice(turn * 7, turn * 7 + (20, 13)[turn % 2])
        rate = nnkit.SGD(0.02, momentum=0.9) if turn == 0 else None
        costs = [float(net.train_step(X[rows], TARGETS[rows], rate)) for net in nets]
        assert costs[0] == pytest.approx(costs[1], rel=NEAR)
        nets[0].optimizer.learning_rate = nets[1].optimizer.learning_rate = 0.02 / (1 + turn)
    ours, theirs = (net.gradients(X, TARGETS, sample_weight=np.arange(N)) for net in nets)
    for found, expected in zip([ours[0], *sum(ours[1], ())], [theirs[0], *sum(theirs[1], ())], strict=True):
        np.testing.assert_allclose(gpu.to_numpy(found), expected, rtol=0, atol=NEAR)
    for n in (1, 5, 5, 5, N):
        np.testing.assert_allclose(gpu.to_numpy(nets[0].forward(X[:n])), nets[1].forward(X[:n]), rtol=0, atol=NEAR)
    assert nets[0].evaluate(X, TARGETS) == pytest.approx(nets[1].evaluate(X, TARGETS), rel=NEAR)


def test_divergence_restores_the_state(gpu: Backend) -> None:
    with pytest.raises(nnkit.DivergenceError) as found:
        network(gpu, cost="quadratic").fit(X * 1e30, TARGETS, epochs=3, optimizer=nnkit.SGD(1e30), progress=False)
    with pytest.raises(nnkit.DivergenceError) as expected:
        network("numpy", cost="quadratic").fit(X * 1e30, TARGETS, epochs=3, optimizer=nnkit.SGD(1e30), progress=False)
    assert (found.value.epoch, found.value.step) == (expected.value.epoch, expected.value.step)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_runs_have_the_same_bits(gpu: Backend, dtype: str) -> None:
    layers = [nnkit.Dense(WIDTH, 130, "sigmoid"), nnkit.Dropout(0.2), nnkit.Dense(130, 3)]
    runs = [
        trained(network(gpu, layers=layers, dtype=dtype), epochs=5, batch_size=17, optimizer=nnkit.Adam(0.01))
        for _ in range(2)
    ]
    assert runs[0][0].tobytes() == runs[1][0].tobytes()
    assert runs[0][1] == runs[1][1]


def test_float32_is_close_to_float64(gpu: Backend) -> None:
    """Steps of plain descent in float32, as users train: within some hundred roundings of the CPU's."""
    both = [
        trained(network(backend, dtype="float32", cost="cross_entropy"), optimizer=nnkit.SGD(0.1))
        for backend in (gpu, "numpy")
    ]
    np.testing.assert_allclose(both[0][0], both[1][0], rtol=0, atol=500 * float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("kept", [1 << 20, 700])
@pytest.mark.parametrize("options", [{}, {"schedule": "cosine"}, {"shuffle": False}], ids=str)
@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.5, momentum=0.5), nnkit.Adam(1e-3)], ids=["SGD", "Adam"])
@pytest.mark.parametrize("lies", ["rows", "columns"])
def test_one_launch_per_epoch_is_close_to_graphs(
    gpu: Backend, lies: str, optimizer: Any, options: Any, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lecture's network, with a smaller last minibatch: both ways sum in another order, and no more."""
    monkeypatch.setattr(meter, "_KEPT", kept)
    rng = np.random.default_rng(0)
    X, labels = rng.random((205, 784), np.float32), rng.integers(0, 10, 205)
    X = np.asfortranarray(X) if lies == "columns" else X
    found = []
    for way in ("1", "0"):
        monkeypatch.setenv("NNKIT_ONE_LAUNCH", way)
        net = nnkit.Network([784, 30, 10], cost="cross_entropy", seed=1, backend=gpu)
        history = net.fit(X, labels, epochs=3, batch_size=10, optimizer=optimizer, progress=False, **options)
        found.append((net.backend.to_numpy(net.parameters.flat), history))
    (one, first), (graphs, second) = found
    # 63 steps of some 800 roundings each on numbers of size 1; Adam's have no bound but that of its steps.
    np.testing.assert_allclose(one, graphs, rtol=0, atol=2e-3)
    for name in ("cost", "accuracy"):
        assert first[name] == pytest.approx(second[name], rel=1e-2)
