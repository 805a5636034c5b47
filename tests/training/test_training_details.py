"""What fit does that only some trainings show: streams beside arrays, accumulation, what is kept, what is freed."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import Backend
from nnkit.training import meter

RNG = np.random.default_rng(12)
X, LABELS = RNG.normal(size=(48, 4)), RNG.integers(0, 3, 48)
Y = RNG.normal(size=(48, 2))


def network(**options: Any) -> nnkit.Network:
    return nnkit.Network([4, 5, 3], "tanh", "softmax_cross_entropy", seed=3, dtype="float64", **options)


def flat(net: nnkit.Network) -> np.ndarray:
    return np.array(net.parameters.flat)


def fit(net: nnkit.Network, *data: Any, **options: Any) -> nnkit.History:
    defaults: dict[str, Any] = {"epochs": 2, "progress": False}
    if hasattr(data[0], "shape"):  # an iterable has its own minibatches
        defaults |= {"batch_size": 16, "shuffle": False}
    return net.fit(*data, **{**defaults, "optimizer": nnkit.SGD(0.3), **options})


def stream(*arrays: np.ndarray, size: int = 16) -> Any:
    def made() -> Iterator[tuple[np.ndarray, ...]]:
        for start in range(0, len(arrays[0]), size):
            yield tuple(a[start : start + size] for a in arrays)

    return made


def test_the_labels_of_a_stream_are_smoothed() -> None:
    cost = nnkit.get_cost("softmax_cross_entropy", label_smoothing=0.2)
    nets = [nnkit.Network([4, 3], cost=cost, seed=0, dtype="float64") for _ in range(2)]
    histories = [fit(nets[0], X, LABELS), fit(nets[1], stream(X, LABELS))]
    np.testing.assert_allclose(flat(nets[1]), flat(nets[0]), rtol=1e-13)
    np.testing.assert_allclose(histories[1]["cost"], histories[0]["cost"], rtol=1e-13)


def test_weights_of_a_stream_are_not_normalized() -> None:
    """Of mean 3 they make steps three times as long; those of an array are divided by their mean."""
    weights = RNG.uniform(1, 5, 48)
    weights *= 3 / weights.mean()
    of_array, of_stream = network(), network()
    fit(of_array, X, LABELS, sample_weight=weights, batch_size=48, optimizer=nnkit.SGD(0.3))
    fit(of_stream, stream(X, LABELS, weights, size=48), None, optimizer=nnkit.SGD(0.1))
    np.testing.assert_allclose(flat(of_stream), flat(of_array), rtol=1e-12)


def test_minibatches_of_a_stream_may_be_larger_than_the_usual_32() -> None:
    nets = [network(), network()]
    wanted = fit(nets[0], X, LABELS, batch_size=40)
    found = fit(nets[1], stream(X, LABELS, size=40))
    np.testing.assert_allclose(flat(nets[1]), flat(nets[0]), rtol=1e-13)
    np.testing.assert_allclose(found["cost"], wanted["cost"], rtol=1e-13)
    assert found["accuracy"] == wanted["accuracy"]


@pytest.mark.parametrize(
    "schedule", ["cosine", "one_cycle", nnkit.schedules.warmup(1), lambda epoch: 0.5 ** int(epoch)]
)
def test_accumulation_with_a_schedule_equals_a_larger_batch(schedule: Any) -> None:
    """The rate of an update is that of its first minibatch."""
    nets = [network(), network()]
    for net, options in zip(nets, ({"batch_size": 48}, {"gradient_accumulation_steps": 3}), strict=True):
        fit(net, X, LABELS, epochs=4, schedule=schedule, **options)
    np.testing.assert_allclose(flat(nets[1]), flat(nets[0]), rtol=1e-12)


def test_after_a_schedule_the_optimizers_rate_is_used() -> None:
    net, twin = network(), network()
    fit(net, X, LABELS, schedule="cosine", epochs=3)
    twin.parameters.flat[...] = net.parameters.flat
    fit(net, X, LABELS, epochs=1, optimizer=None)
    fit(twin, X, LABELS, epochs=1)
    assert np.array_equal(flat(net), flat(twin))


def test_two_dropouts_in_a_row_both_count_in_the_gradient() -> None:
    """∂C/∂b of a unit before them is δ W s, and s is 0 or 1/(1 − ½) · 1/(1 − ½)."""
    layers = [nnkit.Dense(4, 300, "identity"), nnkit.Dropout(0.5), nnkit.Dropout(0.5), nnkit.Dense(300, 1, "identity")]
    net = nnkit.Network(layers, cost="quadratic", seed=0, dtype="float64")
    before = net.parameters.b[0].copy(), net.parameters.b[1].copy(), net.parameters.W[1].copy()
    net.train_step(X[:1], [[5.0]], nnkit.SGD(1.0))
    delta = before[1] - net.parameters.b[1]
    factors = (before[0] - net.parameters.b[0]) / (delta * before[2][0])
    assert set(np.round(factors, 9)) == {0.0, 4.0}
    assert 0.15 < np.mean(factors > 0) < 0.35


def test_few_recorded_steps_are_kept() -> None:
    net = network()
    for n in range(1, 20):
        net.train_step(X[:n], LABELS[:n], nnkit.SGD(0.1))
    assert 1 < len(net.recorded) <= 6


def test_outputs_are_kept_when_the_buffer_is_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    """R² is of all outputs; identity's are the logits, whose room the next minibatch takes."""
    monkeypatch.setattr(meter, "_KEPT", 1)
    net = nnkit.Network([4, 2], cost="quadratic", seed=0, dtype="float64")
    h = X @ net.parameters.W[0].T + net.parameters.b[0]
    wanted = 1 - ((Y - h) ** 2).sum(0) / ((Y - Y.mean(0)) ** 2).sum(0)
    history = fit(net, X, Y, metrics=["r2"], optimizer=nnkit.SGD(1e-300), batch_size=7)
    assert history["r2"] == pytest.approx([wanted.mean()] * 2, rel=1e-12)


@pytest.mark.parametrize("restore", [True, False])
def test_the_best_parameters_are_restored_only_if_requested(restore: bool) -> None:
    scores = iter([3.0, 2.0, 1.0])

    def score(y: np.ndarray, h: np.ndarray) -> float:
        return next(scores)

    net, twin = network(), network()
    rule = nnkit.EarlyStopping("score", patience=2, restore_best=restore, mode="max")
    assert fit(net, X, LABELS, epochs=9, metrics=[score], early_stopping=rule).epochs == 3
    fit(twin, X, LABELS, epochs=1 if restore else 3)
    assert np.array_equal(flat(net), flat(twin))


def test_ctrl_c_in_a_stream_ends_the_training_after_that_step() -> None:
    given: list[int] = []

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number in range(9):
            given.append(number)
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            yield X[:16], LABELS[:16]

    net, twin = network(), network()
    assert fit(net, batches).interrupted
    assert given == [0, 1, 2]
    for _ in range(3):
        twin.train_step(X[:16], LABELS[:16], nnkit.SGD(0.3))
    np.testing.assert_allclose(flat(net), flat(twin), rtol=1e-13)


def test_repeated_steps_are_not_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A divergence is known at the end of an epoch, which is done again up to the step that failed."""
    shown = []

    class Bar:
        def update(self, steps: int) -> None:
            shown.append(steps)

        def set_postfix(self, *_: Any, **__: Any) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr("nnkit.training.progress._bar", lambda *_: Bar())
    net = nnkit.Network([4, 2], cost="quadratic", seed=0)
    with pytest.raises(nnkit.DivergenceError):
        fit(net, X, Y, optimizer=nnkit.SGD(1e30), batch_size=4, epochs=1, progress=True)
    assert sum(shown) == 12


def test_the_bar_of_a_resumed_training_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    tqdm = pytest.importorskip("tqdm", reason="tqdm is not installed")
    asked: list[Any] = []

    class Bar(tqdm.tqdm):  # type: ignore[misc, name-defined]
        def __init__(self, **options: Any) -> None:
            asked.append((options["total"], options["initial"]))
            super().__init__(**options | {"disable": True})

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)  # another test may have imported it
    for epochs in (2, 5):
        fit(network(), X, LABELS, epochs=epochs, checkpoint=tmp_path / "run", resume=True, progress=True)
    assert asked == [(6, 0), (15, 6)]


def test_a_stop_by_a_callback_is_always_written(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "run.safetensors"
    stop = [lambda net, history: history.epochs == 2]
    net = network()
    fit(net, X, LABELS, epochs=9, checkpoint=path, checkpoint_every=5, callbacks=stop)
    loaded = nnkit.load(path)
    assert loaded.epochs_trained == 2
    assert np.array_equal(flat(loaded), flat(net))


def test_a_kept_exception_holds_no_lock(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path, held = tmp_path / "run.safetensors", []

    def fails(net: nnkit.Network, history: nnkit.History) -> None:
        raise LookupError("a callback's own")

    for callbacks in ([fails], []):
        try:
            fit(network(), X, LABELS, checkpoint=path, callbacks=callbacks)
        except LookupError as error:
            held.append(error)
    assert len(held) == 1
    assert nnkit.load(path).epochs_trained == 2


def test_another_matmul_precision_is_recorded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback may set it between two epochs; what was recorded with the old one is not replayed."""
    recordings = []
    recording = type(network().backend).recording

    def counted(backend: Backend) -> Any:
        recordings.append(nnkit.get_matmul_precision())
        return recording(backend)

    monkeypatch.setattr(type(network().backend), "recording", counted)

    def medium(net: nnkit.Network, history: nnkit.History) -> None:
        nnkit.set_matmul_precision("medium")

    try:
        fit(network(), X, LABELS, callbacks=[medium])
    finally:
        nnkit.set_matmul_precision("highest")
    assert recordings.count("medium") == recordings.count("highest") > 0
