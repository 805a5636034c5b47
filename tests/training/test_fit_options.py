"""fit's options: gradient accumulation, schedules, metrics, early stopping, callbacks, class names."""

import copy
import pickle
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.step import Step

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(7)
X, LABELS = RNG.normal(size=(45, 4)), RNG.integers(0, 3, 45)
WEIGHTS = RNG.uniform(0.5, 2.0, 45)
OPTIMIZERS: dict[str, Any] = {
    "descent": lambda: nnkit.SGD(0.3),
    "descent-l2": lambda: nnkit.SGD(0.3, l2=0.01),
    "momentum": lambda: nnkit.SGD(0.1, momentum=0.9),
    "adam": lambda: nnkit.Adam(0.01),
}


def network(**options: Any) -> nnkit.Network:
    return nnkit.Network([4, 6, 3], "tanh", "softmax_cross_entropy", seed=3, dtype="float64", **options)


def flat(net: nnkit.Network) -> np.ndarray:
    return np.array(net.backend.to_numpy(net.parameters.flat))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_accumulated_gradients_equal_those_of_a_larger_batch(arrays: "Arrays", name: str, weights: Any) -> None:
    """45 samples in batches of 20: the last group, of 5 samples, is what is left."""
    one, parts = network(), network()
    options: dict[str, Any] = {"epochs": 3, "sample_weight": weights, "progress": False}
    wanted = one.fit(arrays(X), LABELS, batch_size=20, optimizer=OPTIMIZERS[name](), **options)
    found = parts.fit(
        arrays(X), LABELS, batch_size=5, gradient_accumulation_steps=4, optimizer=OPTIMIZERS[name](), **options
    )
    # Adam divides by √v̂, which is as small as the gradient: rounding shows more.
    np.testing.assert_allclose(flat(parts), flat(one), rtol=1e-9 if name == "adam" else 1e-12, atol=1e-13)
    assert found["cost"] == pytest.approx(wanted["cost"], rel=1e-10)


def test_accumulation_does_not_change_gradients(arrays: "Arrays") -> None:
    net = network()
    net.fit(arrays(X), LABELS, epochs=1, batch_size=5, gradient_accumulation_steps=3, progress=False)
    twin = network()
    twin.parameters.assign((net.parameters.W[i], net.parameters.b[i]) for i in range(2))
    for training in (False, True):
        found, wanted = (n.gradients(X[:5], LABELS[:5], training=training)[1] for n in (net, twin))
        assert arrays.numpy(found[0][0]).tobytes() == arrays.numpy(wanted[0][0]).tobytes()


def test_a_schedule_equals_a_loop_that_changes_the_rate(arrays: "Arrays") -> None:
    """By epoch for a function of whole epochs, by step for one of fractions; the optimizer stays as it was."""
    optimizer, net, wanted = nnkit.SGD(0.4), network(), network()
    seen: list[float] = []

    def schedule(epoch: float) -> float:
        seen.append(epoch)
        return 1 / (1 + epoch)

    history = net.fit(arrays(X), LABELS, epochs=2, batch_size=9, shuffle=False, optimizer=optimizer, schedule=schedule)
    by_hand = nnkit.SGD(0.4)
    for step in range(10):
        by_hand.learning_rate = 0.4 / (1 + step / 5)
        at = slice(9 * (step % 5), 9 * (step % 5) + 9)
        wanted.train_step(arrays(X[at]), LABELS[at], by_hand)
    np.testing.assert_allclose(flat(net), flat(wanted), rtol=1e-12, atol=1e-14)
    assert seen == pytest.approx([step / 5 for step in range(10)])
    assert optimizer.learning_rate == 0.4
    assert history["learning_rate"] == pytest.approx([0.4 / 1.8, 0.4 / 2.8])


def test_schedules_do_not_record_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = [], Step.__init__

    def counted(self: Step, *arguments: Any, **options: Any) -> None:
        made.append(self)
        make(self, *arguments, **options)

    monkeypatch.setattr(Step, "__init__", counted)
    network().fit(X, LABELS, epochs=4, batch_size=15, schedule="cosine", progress=False)
    assert len(made) == 1


def test_metrics_are_in_the_history(arrays: "Arrays") -> None:
    def spread(y: np.ndarray, h: np.ndarray) -> float:
        assert isinstance(y, np.ndarray)
        assert y.shape == h.shape == (45, 3)
        return float(h.max() - h.min())

    net = network()
    metrics: list[Any] = ["accuracy", "top_2", "mae", spread]
    history = net.fit(arrays(X), LABELS, epochs=2, metrics=metrics, validation_data=(X, LABELS), progress=False)
    names = ["cost", "accuracy", "top_2", "mae", "spread"]
    assert list(history) == [*names, *(f"validation_{n}" for n in names), "learning_rate", "seconds"]
    measured = net.evaluate(arrays(X), LABELS, metrics=metrics)
    h = arrays.numpy(net.forward(arrays(X)))
    assert measured["mae"] == pytest.approx(np.abs(h - np.eye(3)[LABELS]).mean(), rel=1e-12)
    assert measured["top_2"] == np.mean([label in np.argsort(-row)[:2] for row, label in zip(h, LABELS, strict=True)])
    assert {n: history[f"validation_{n}"][-1] for n in names} == pytest.approx(measured, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": ["top5"]}, ValueError, "unknown metric 'top5'; did you mean 'top_5'"),
        ({"metrics": ["top_4"]}, ValueError, "'top_4' of 3 outputs is always 1"),
        ({"metrics": ["top_0"]}, ValueError, "k is 0"),
        ({"metrics": [5]}, TypeError, "metrics holds 5"),
        ({"schedule": "cosin"}, ValueError, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"schedule": 3}, TypeError, "schedule"),
        ({"gradient_accumulation_steps": 0}, ValueError, "gradient_accumulation_steps is 0"),
        ({"early_stopping": 3}, TypeError, "early_stopping is 3"),
        ({"early_stopping": nnkit.EarlyStopping()}, ValueError, "'validation_cost'; .*; give validation_data"),
        (
            {"schedule": "reduce_on_plateau"},
            ValueError,
            "schedule monitors 'validation_cost'; .*; give val",
        ),
        ({"early_stopping": nnkit.EarlyStopping("r2")}, ValueError, "'r2'; this training has cost, accuracy"),
        ({"progress": "loud"}, ValueError, "progress is 'loud'"),
        ({"resume": True}, ValueError, "resume needs the path"),
        ({"checkpoint": 5}, TypeError, "checkpoint is 5"),
    ],
)
def test_invalid_options_change_nothing(options: Any, error: type[Exception], message: str) -> None:
    net = network()
    before = flat(net)
    with pytest.raises(error, match=message):
        net.fit(X, np.array(["a", "b", "c"])[LABELS], **options)
    assert flat(net).tobytes() == before.tobytes()
    assert net.classes is None
    assert net.epochs_trained == 0


def test_metrics_of_a_regression() -> None:
    net = nnkit.Network([4, 1], cost="quadratic", seed=0)
    history = net.fit(X, X[:, 0], epochs=30, metrics=["r2", "mae"], progress=False)
    assert history["r2"][-1] > 0.99
    assert "accuracy" not in history


def test_the_accuracy_of_a_quadratic_cost() -> None:
    """As Nielsen has it: labels, one-hot targets, and the largest output is the class."""
    net = nnkit.Network([4, 6, 3], cost="quadratic", output_activation="sigmoid", seed=0)
    history = net.fit(X, LABELS, epochs=3, metrics=["accuracy"], validation_data=(X, LABELS), progress=False)
    share = np.mean(np.argmax(np.array(net.forward(X)), axis=1) == LABELS)
    assert history["validation_accuracy"][-1] == share == net.evaluate(X, LABELS, metrics=["accuracy"])["accuracy"]


def test_early_stopping_restores_the_best_parameters(arrays: "Arrays") -> None:
    """A rate that is too high after two epochs makes the validation cost rise."""
    kept: list[np.ndarray] = []
    net = network()
    history = net.fit(
        arrays(X),
        LABELS,
        epochs=30,
        batch_size=9,
        optimizer=nnkit.SGD(0.2),
        schedule=lambda epoch: 1.0 if epoch < 2 else 200.0,
        validation_data=(X, LABELS),
        early_stopping=nnkit.EarlyStopping(patience=3),
        callbacks=[lambda net, history: kept.append(flat(net))],
        progress=False,
    )
    costs = history["validation_cost"]
    best = int(np.argmin(costs))
    assert history.epochs == best + 4 < 30
    assert flat(net).tobytes() == kept[best].tobytes()
    assert flat(net).tobytes() != kept[-1].tobytes()
    assert net.evaluate(X, LABELS)["cost"] == pytest.approx(min(costs), rel=1e-12)


def test_a_callback_that_returns_true_stops() -> None:
    calls = []

    def callback(net: nnkit.Network, history: nnkit.History) -> bool:
        calls.append(history.epochs)
        return history.epochs == 3

    assert network().fit(X, LABELS, epochs=9, callbacks=[callback, lambda *_: 5], progress=False).epochs == 3
    assert calls == [1, 2, 3]


def test_predictions_are_class_names(arrays: "Arrays") -> None:
    names = np.array(["cat", "dog", "owl"])
    net, numbered = network(), network()
    net.fit(arrays(X), names[LABELS], epochs=3, validation_data=(X, names[LABELS]), progress=False)
    numbered.fit(arrays(X), LABELS, epochs=3, progress=False)
    assert flat(net).tobytes() == flat(numbered).tobytes()
    predicted = net.predict(arrays(X))
    assert predicted.tolist() == names[arrays.numpy(numbered.predict(arrays(X)))].tolist()
    assert net.evaluate(X, names[LABELS]) == numbered.evaluate(X, LABELS)
    with pytest.raises(ValueError, match=r"y holds 'cow' at \[0\]; expected 'cat', 'dog', 'owl'"):
        net.evaluate(X[:1], ["cow"])
    single = nnkit.Network([4, 1], seed=0)
    single.fit(X, np.where(LABELS > 0, "yes", "no"), epochs=1, progress=False)
    assert set(single.predict(X).tolist()) <= {"yes", "no"}


def test_classes_of_any_type() -> None:
    for classes in ([10, 20, 30], [1.5, 2.5, 3.5], [True, None, "x"], [(0, 1), (1, 0), (1, 1)]):
        net = network(classes=classes)
        y: Any = [classes[label] for label in LABELS]
        if isinstance(classes[0], tuple):  # rows of pairs are a matrix to NumPy
            y_array = np.empty(len(y), object)
            y_array[:] = y
            y = y_array
        net.fit(X, y, epochs=1, progress=False)
        assert set(net.predict(X).tolist()) <= set(classes)


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (["a", "b"], ValueError, "classes has 2 names; expected 3"),
        (["a", "b", "a"], ValueError, "classes contains duplicates"),
        ("abc", TypeError, "classes is 'abc'; expected a list"),
        (5, TypeError, "classes is 5"),
    ],
)
def test_wrong_classes(classes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        network(classes=classes)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([lambda y, h: 0.0, lambda y, h: 1.0], "two are called '<lambda>'"),
        (["mae", "mae"], "two are called 'mae'"),
        (["top_3"], "'top_3' of 3 outputs is always 1"),
    ],
)
def test_metrics_with_equal_names_are_refused(metrics: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network().fit(X, LABELS, metrics=metrics, progress=False)


@pytest.mark.parametrize("name", ["cost", "accuracy", "seconds", "learning_rate", "validation_f1"])
def test_reserved_names_are_refused(name: str) -> None:
    def metric(y: np.ndarray, h: np.ndarray) -> float:
        return 0.0

    metric.__name__ = name
    with pytest.raises(ValueError, match=f"metrics: the name '{name}' is taken"):
        network().evaluate(X, LABELS, metrics=[metric])


def test_metrics_get_unsmoothed_targets() -> None:
    seen = []
    cost = nnkit.get_cost("softmax_cross_entropy", label_smoothing=0.2)
    net = nnkit.Network([4, 3], cost=cost, seed=0, dtype="float64")

    def look(y: np.ndarray, h: np.ndarray) -> float:
        seen.append(y)
        return 0.0

    net.evaluate(X, LABELS, metrics=[look])
    np.testing.assert_allclose(seen[0], np.eye(3)[LABELS], atol=1e-15)
    options: dict[str, Any] = {"epochs": 1, "class_weight": {0: 9.0}, "progress": False}
    by_label, by_row = (nnkit.Network([4, 3], cost=cost, seed=0, dtype="float64") for _ in range(2))
    by_label.fit(X, LABELS, **options)
    by_row.fit(X, np.eye(3)[LABELS], **options)
    np.testing.assert_allclose(by_label.parameters.flat, by_row.parameters.flat, rtol=1e-13)


def test_a_callback_may_return_numpys_true() -> None:
    calls = []
    callbacks = (
        each for each in [lambda net, history: calls.append(1), lambda net, history: np.bool_(len(calls) == 3)]
    )
    assert network().fit(X, LABELS, epochs=9, callbacks=callbacks, progress=False).epochs == 3
    assert len(calls) == 3
    net = network()
    with pytest.raises(TypeError, match="callbacks contains 5; expected functions"):
        net.fit(X, LABELS, callbacks=[5])  # type: ignore[list-item]
    assert net.epochs_trained == 0


def test_an_optimizer_set_as_attribute_is_used() -> None:
    net = network()
    net.fit(X, LABELS, epochs=1, optimizer=nnkit.SGD(0.5), progress=False)
    before = flat(net)
    net.optimizer = nnkit.SGD(1e-300)
    assert net.fit(X, LABELS, epochs=1, progress=False)["learning_rate"] == [1e-300]
    assert flat(net).tobytes() == before.tobytes()
    net.optimizer = nnkit.Adam()
    assert copy.deepcopy(net).to("standard:array_api_strict").fit(X, LABELS, epochs=1, progress=False).epochs == 1


def test_ctrl_c_in_the_last_callback_is_recorded() -> None:
    def press(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 2:
            signal.raise_signal(signal.SIGINT)

    history = network().fit(X, LABELS, epochs=2, callbacks=[press], progress=False)
    assert history.interrupted
    assert history.epochs == 2


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.1), nnkit.Adam(0.01)])
def test_a_network_can_be_sent_to_another_process(optimizer: Any) -> None:
    layers = [nnkit.Dense(4, 6, "relu", init="he_normal"), nnkit.Dropout(0.3), nnkit.Dense(6, 3)]
    cost = nnkit.get_cost("softmax_cross_entropy", label_smoothing=0.1)
    fitted = nnkit.data.Normalization.fit(X)
    net = nnkit.Network(layers, cost=cost, seed=5, classes=["a", "b", "c"], preprocessing=fitted)
    y = np.array(["a", "b", "c"])[LABELS]
    net.fit(X, y, epochs=2, optimizer=optimizer, progress=False)
    again = pickle.loads(pickle.dumps(net))
    assert repr(again) == repr(net)
    assert again.predict(X).tolist() == net.predict(X).tolist()
    for each in (net, again):
        each.fit(X, y, epochs=2, progress=False)
    assert flat(net).tobytes() == flat(again).tobytes()
    assert again.epochs_trained == 4


@pytest.mark.parametrize("where", ["array", "file"])
def test_a_callback_may_move_the_network_and_back(where: str, tmp_path: Path) -> None:
    """Its arrays are others then, and they are what is trained."""
    rng = np.random.default_rng(0)
    data, labels = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    given: Any = data
    if where == "file":
        np.save(tmp_path / "data.npy", data)
        given = nnkit.data.open_npy(tmp_path / "data.npy")

    def there_and_back(net: nnkit.Network, history: nnkit.History) -> None:
        net.to("standard:array_api_strict").to("numpy")

    found = []
    for callbacks in ([], [there_and_back]):
        net = nnkit.Network([5, 7, 3], seed=0, dtype="float64")
        optimizer = nnkit.SGD(0.5, momentum=0.9)
        net.fit(given, labels, epochs=5, batch_size=8, optimizer=optimizer, callbacks=callbacks, progress=False)
        found.append(np.array(net.parameters.flat).tobytes())
    assert found[0] == found[1]


def test_a_callback_that_moves_the_network_is_an_error() -> None:
    net = nnkit.Network([5, 3], seed=0)
    with pytest.raises(RuntimeError, match="has moved the network to standard:array_api_strict; fit runs on numpy"):
        net.fit(
            np.ones((4, 5)), [0, 1, 2, 0], epochs=2, progress=False,
            callbacks=[lambda n, _: n.to("standard:array_api_strict") and None],
        )  # fmt: skip


def test_a_batch_size_of_a_small_integer_type_does_not_overflow() -> None:
    net, size = nnkit.Network([4, 30, 3], seed=0), np.uint8(200)
    history = net.fit(np.tile(X, (6, 1)), np.tile(LABELS, 6), epochs=1, batch_size=size, progress=False)  # type: ignore[arg-type]
    assert history.epochs == 1


SET: dict[str, Any] = {
    "preprocessing": nnkit.data.Normalization.fit(X),
    "classes": np.array(["a", "b", "c"]),
    "features": list("wxyz"),
}


@pytest.mark.parametrize("name", SET)
@pytest.mark.parametrize(
    ("kind", "data"), [(nnkit.Network, "array"), (nnkit.Network, "stream"), (nnkit.Ensemble, "array")]
)
def test_a_callback_that_sets_what_has_prepared_the_samples_is_refused(kind: Any, data: str, name: str) -> None:
    """Arrays were prepared before the first epoch, and minibatches would be otherwise from then on."""
    made = kind([4, 3], **{"seed": 1} if kind is nnkit.Network else {"seeds": [1, 2]})

    def callback(trained: Any, history: nnkit.History) -> None:
        if history.epochs == 2:
            for net in getattr(trained, "members", [trained]):
                setattr(net, name, SET[name])

    given: Any = (X, LABELS) if data == "array" else (lambda: iter([(X, LABELS)]),)
    with pytest.raises(RuntimeError, match=f"a callback has set {name}; set it before fit") as caught:
        made.fit(*given, epochs=5, callbacks=[callback], progress=False)
    assert vars(caught.value)["history"].epochs == 2
    labels = np.array(["a", "b", "c"])[LABELS] if name == "classes" else LABELS
    made.fit(X, labels, epochs=1, progress=False)  # between two fits it may be set


def test_a_schedule_that_sets_the_rates_of_members_is_refused() -> None:
    made = nnkit.Ensemble([4, 3], seeds=[1, 2])

    def schedule(epoch: float) -> float:
        if epoch > 1:
            made.members[1].set_rate(0, 0.0)
        return 1.0

    with pytest.raises(RuntimeError, match="set_rate: an epoch of fit is running"):
        made.fit(X, LABELS, epochs=3, schedule=schedule, progress=False)
    made.members[1].set_rate(0, 0.0)


@pytest.mark.parametrize("opened", [nnkit.data.open_npy, lambda path: np.load(path, mmap_mode="r")])
@pytest.mark.parametrize("name", ["X", "y", "validation_data[1]"])
def test_a_checkpoint_does_not_replace_the_file_of_the_data(
    tmp_path: Path, opened: Callable[[Path], Any], name: str
) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "rows.npy"
    given: dict[str, Any] = {"X": rng.normal(size=(12, 3)), "y": rng.normal(size=(12, 2)), "sample_weight": np.ones(12)}
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    np.save(path, given.get(name, given["y"]))
    before = path.read_bytes()
    (tmp_path / "link.npy").symlink_to(path)
    net = nnkit.Network([3, 2], cost="quadratic", seed=0)
    for other in (path, tmp_path / "link.npy"):
        used = {"validation_data": (given["X"], opened(path))} if name not in given else {name: opened(path)}
        with pytest.raises(ValueError, match=rf"checkpoint: .*npy is the file of {re.escape(name)}; give another path"):
            net.fit(**given | used, epochs=1, progress=False, checkpoint=other)
    assert path.read_bytes() == before
    callbacks = [nnkit.callbacks.CSVLogger(tmp_path / "run.csv")]
    with pytest.raises(ValueError, match=r"checkpoint: .*csv is the file of callbacks\[0\]; give another path"):
        net.fit(**given, epochs=1, progress=False, checkpoint=tmp_path / "run.csv", callbacks=callbacks)
