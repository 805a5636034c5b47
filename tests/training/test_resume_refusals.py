"""Only the same training is resumed: of other data, functions and options it is said what differs, before anything."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.training import fingerprints

pytest.importorskip("safetensors", reason="safetensors is not installed")

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(30, 4)), RNG.integers(0, 3, 30)
VALIDATION = (X[:10], LABELS[:10])


def fit(path: Path, epochs: int = 2, **options: Any) -> nnkit.History:
    data: dict[str, Any] = {"X": X, "y": LABELS} | options
    net = nnkit.Network([4, 3], seed=0)
    before = net.parameters.flat.tobytes(), net.optimizer, net.state
    content = path.read_bytes() if path.exists() else b""
    try:
        return net.fit(**data, epochs=epochs, checkpoint=path, resume=True, progress=False)
    except ValueError:
        assert (net.parameters.flat.tobytes(), net.optimizer, net.state) == before
        assert path.read_bytes() == content
        raise


def entropy(y: Any, h: Any) -> float:
    return float(-np.sum(h * np.log(h)))


def same_name(factor: float) -> Callable[[Any, Any], float]:
    def metric(y: Any, h: Any) -> float:
        return factor * float(h.sum())

    return metric


def minibatches() -> Iterator[tuple[Any, Any]]:
    yield X, LABELS


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"metrics": ["top_2"]}, r"its metrics is \[\], but this training's is \['top_2'\]"),
        ({}, {"validation_data": VALIDATION}, "its validation_data is None, but this training's is given"),
        ({}, {"metrics": ["top_2"], "validation_data": VALIDATION}, "its metrics .*; its validation_data is None"),
        ({"metrics": ["top_2"]}, {"metrics": ["top_2", entropy]}, r"its metrics is \['top_2'\], .*'entropy'\]"),
        ({"metrics": ["mae", "top_2"]}, {"metrics": ["top_2", "mae"]}, "its metrics is"),
        ({"metrics": [same_name(1.0)]}, {"metrics": [same_name(2.0)]}, "its metric metric was a different function"),
        (
            {"validation_data": VALIDATION},
            {"validation_data": (X[:10], LABELS[::-1][:10])},
            "its validation y is float",
        ),
        ({"validation_data": VALIDATION}, {"validation_data": (X[:9], LABELS[:9])}, r"its validation X is .*\(10, 4\)"),
        ({"validation_data": VALIDATION}, {"validation_data": minibatches}, "its validation X .* is minibatches"),
        (
            {},
            {"X": X + 1e-7},
            r"its X is float64 \(30, 4\) with digest \w+, but this training's is float64 \(30, 4\) w",
        ),
        ({}, {"X": X[::-1]}, "its X is"),
        ({}, {"X": X[:29], "y": LABELS[:29]}, r"its X .*\(29, 4\) .*; its samples is 30, but this training's is 29"),
        ({}, {"y": (LABELS + 1) % 3}, r"its y is float32 \(30, 3\)"),
        ({}, {"X": minibatches, "y": None}, "its X .* but this training's is minibatches"),
        ({}, {"sample_weight": np.arange(30)}, "its sample_weight is None, but this training's is float32"),
        ({"sample_weight": np.arange(30)}, {"sample_weight": np.arange(30)[::-1]}, "its sample_weight is float32"),
        ({}, {"class_weight": "balanced"}, "its class_weight is None, but this training's is balanced"),
        ({"class_weight": {0: 2}}, {"class_weight": {0: 3}}, "its class_weight is 0: 2.0, but this .* is 0: 3.0"),
        ({"schedule": lambda e: 1.0}, {"schedule": lambda e: 0.5}, "its schedule was a different function"),
        (
            {"schedule": nnkit.schedules.warmup(1, lambda e: 1.0)},
            {"schedule": nnkit.schedules.warmup(1, lambda e: 0.5)},
            "its schedule was a different function",
        ),
        (
            {"optimizer": nnkit.SGD(0.1)},
            {"optimizer": nnkit.SGD(0.2)},
            "its optimizer has learning_rate 0.1, but .* learning_rate 0.2$",
        ),
    ],
)
def test_a_different_training_is_refused_in_both_directions(
    first: Any, second: Any, message: str, tmp_path: Path
) -> None:
    for number, (one, other) in enumerate(((first, second), (second, first))):
        path = tmp_path / f"{number}.safetensors"
        fit(path, **one)
        with pytest.raises(ValueError, match=message if number == 0 else "its "):
            fit(path, epochs=4, **other)
        history = fit(path, epochs=4, **one)  # the file is as good as before
        assert {len(numbers) for numbers in history.values()} == {4}


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", nnkit.schedules.warmup(1, "cosine")])
def test_a_schedule_is_not_stretched_on_resuming(schedule: Any, tmp_path: Path) -> None:
    """Resumed with more epochs, the last factor of a cosine would jump from 0.0095 to 0.05 of the rate."""
    path = tmp_path / "run.safetensors"
    fit(path, epochs=3, schedule=schedule)
    for epochs in (2, 5):
        with pytest.raises(ValueError, match=f"its epochs are 3, but .* are {epochs}, .*; to train for longer, load"):
            fit(path, epochs=epochs, schedule=schedule)
    loaded = nnkit.load(path)  # what the message says
    assert loaded.fit(X, LABELS, epochs=2, schedule=schedule, progress=False).epochs == 2
    assert loaded.epochs_trained == 5


class OwnSchedule(nnkit.schedules.Schedule):
    def factor(self, epoch: float, epochs: float, history: Any) -> float:
        return 1 - epoch / epochs


class FreeSchedule(OwnSchedule):
    uses_epochs = False


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        "constant",
        "halving",
        nnkit.schedules.step(2),
        nnkit.schedules.exponential(0.9),
        lambda epoch: 0.9**epoch,
        nnkit.schedules.reduce_on_plateau("cost", patience=0),
        nnkit.schedules.warmup(2, nnkit.schedules.step(3)),
    ],
)
def test_trainings_without_a_fixed_length_can_be_extended(schedule: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fit(path, epochs=3, schedule=schedule)
    whole, resumed = fit(tmp_path / "whole.safetensors", epochs=6, schedule=schedule), fit(path, 6, schedule=schedule)
    assert {k: v for k, v in whole.items() if k != "seconds"} == {k: v for k, v in resumed.items() if k != "seconds"}


def test_a_custom_schedule_declares_its_dependence_on_epochs(tmp_path: Path) -> None:
    for kind in (OwnSchedule, FreeSchedule):
        fit(tmp_path / kind.__name__, epochs=2, schedule=kind())
    with pytest.raises(ValueError, match="its epochs are 2"):
        fit(tmp_path / "OwnSchedule", epochs=3, schedule=OwnSchedule())
    assert fit(tmp_path / "FreeSchedule", epochs=3, schedule=FreeSchedule()).epochs == 3


def test_the_same_data_in_another_form_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    np.save(tmp_path / "X.npy", X)
    forms = [X, X.tolist(), np.asfortranarray(X), X.astype(">f8"), nnkit.data.open_npy(tmp_path / "X.npy")]
    for epochs, form in enumerate(forms, start=1):
        y = LABELS.tolist() if epochs % 2 else LABELS.astype("i1")
        assert fit(path, epochs, X=form, y=y).epochs == epochs


def test_another_initializer_has_no_effect_and_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    def resumed(init: Any, epochs: int) -> nnkit.History:
        net = nnkit.Network([4, 3], seed=0, init=init)
        return net.fit(X, LABELS, epochs=epochs, checkpoint=path, resume=True, progress=False)

    resumed("he_normal", 1)
    assert [resumed(init, epochs).epochs for epochs, init in ((2, "he_normal"), (3, None), (4, "he_normal"))] == [
        2,
        3,
        4,
    ]
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"its init is he_normal, but this training's is zeros$"):
        resumed("zeros", 5)
    assert path.read_bytes() == content
    worker = pickle.loads(pickle.dumps(nnkit.Network([4, 3], seed=0, init="he_normal")))  # as in another process
    assert worker.fit(X, LABELS, epochs=4, checkpoint=tmp_path / "worker", progress=False).epochs == 4
    net = nnkit.Network([4, 3], seed=0, init="he_normal")
    assert net.fit(X, LABELS, epochs=5, checkpoint=tmp_path / "worker", resume=True, progress=False).epochs == 5
    net = nnkit.load(path)  # which has none
    assert net.fit(X, LABELS, epochs=5, checkpoint=path, resume=True, progress=False).epochs == 5


def test_a_checkpoint_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    import json

    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = tmp_path / "run.safetensors"
    fit(path, optimizer=nnkit.SGD(0.1))
    with safe_open(path, framework="numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about = json.loads(metadata["training"])
    kept = ("samples", "batch_size", "shuffle", "schedule", "early_stopping")
    about = {name: about[name] for name in ("optimizer", "history")} | {"stopped": False}
    about["plan"] = {name: json.loads(metadata["training"])["plan"][name] for name in kept} | {"accumulate": 1}
    save_file(tensors, path, metadata | {"training": json.dumps(about)})
    assert fit(path, 4, optimizer=nnkit.SGD(0.1)).epochs == 4


def test_a_large_array_is_not_read_completely() -> None:
    read = [0]

    class Rows:
        dtype = np.dtype("f8")

        def __init__(self, width: int) -> None:
            self.shape = (10**9, width)

        def __getitem__(self, rows: Any) -> Any:
            read[0] += 1
            start, stop, _ = rows.indices(10**9)
            assert stop - start == 1
            return np.full((1, self.shape[1]), float(start))

    backend = nnkit.get_backend("numpy")
    for width, expected in ((50, 256), (300_000, 6)):  # 16 MiB at most
        read[0] = 0
        text = fingerprints.of_array(backend, Rows(width))
        assert text.startswith(f"float64 (1000000000, {width}) with digest ")
        assert read[0] == expected
    long = np.zeros((3, 5_000_000), np.uint8)
    before = fingerprints.of_array(backend, long)
    long[2, 0] = 1
    assert fingerprints.of_array(backend, long) != before


RATE = 0.5
CALLS = 0


def by_a_global(epoch: float) -> float:
    return RATE * helper(epoch)


def helper(epoch: float) -> float:
    return 1.0


def that_counts(epoch: float) -> float:
    global CALLS
    CALLS += 1
    return 1.0


RATES = (1.0, (0.5, 0.25))


def by_a_table(epoch: float) -> Any:
    return RATES[int(epoch)]


def that_calls_itself(epoch: float) -> float:
    return RATE if epoch < 1 else that_calls_itself(epoch - 1)


def test_digests_of_functions_that_read_tuples_or_call_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = (by_a_table, that_calls_itself)
    before = [fingerprints.of_function(each) for each in functions]
    assert before == [fingerprints.of_function(each) for each in functions]
    monkeypatch.setitem(globals(), "RATES", (1.0, (0.5, 0.125)))
    monkeypatch.setitem(globals(), "RATE", 0.25)
    after = [fingerprints.of_function(each) for each in functions]
    assert all(map(fingerprints.differ, before, after))


def test_digests_of_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = fingerprints.of_function
    before, counting = digest(by_a_global), digest(that_counts)
    that_counts(0.0)
    assert digest(that_counts) == counting  # what it writes itself is not what it is
    monkeypatch.setitem(globals(), "RATE", 0.25)
    other_rate = digest(by_a_global)
    assert fingerprints.differ(before, other_rate)
    monkeypatch.setitem(globals(), "helper", lambda epoch: 2.0)
    assert fingerprints.differ(other_rate, digest(by_a_global))
    assert not fingerprints.differ("version11 1", "version12 2")  # of another Python: not comparable
    every = {digest(each) for each in (np.sin, np.cos, len, "".join, np.mean, OwnSchedule(), same_name(1.0))}
    assert len(every) == 7


def test_logs_do_not_belong_to_a_function() -> None:
    """Other functions may fill them, such as callbacks, before the same training is resumed."""
    log: list[float] = []
    scratch = np.zeros(2)

    def metric(y: Any, h: Any, seen: Any = []) -> float:  # noqa: B006
        seen.append(len(log))
        np.subtract(y[0, :2], h[0, :2], out=scratch)
        return float(scratch.sum())

    before = fingerprints.of_function(metric)
    log.append(metric(np.ones((3, 2)), np.zeros((3, 2))))
    assert fingerprints.of_function(metric) == before


class Best:
    """A metric that remembers its best value."""

    def __init__(self, power: float) -> None:
        self.power, self.best, self.calls = power, np.inf, 0

    def __call__(self, y: Any, h: Any) -> float:
        value = float((abs(y - h) ** self.power).mean())
        self._remember(value)
        return value

    def _remember(self, value: float) -> None:
        self.best = min(self.best, value)
        self.calls += 1


def of_a_tracker(tracker: Best) -> Callable[[Any, Any], float]:
    def metric(y: Any, h: Any) -> float:
        tracker.first = getattr(tracker, "first", True)  # type: ignore[attr-defined]
        return tracker(y, h)

    return metric


@pytest.mark.parametrize("wrap", [lambda best: best, lambda best: best.__call__, of_a_tracker])
def test_what_an_object_remembers_is_not_what_it_is(wrap: Callable[[Best], Any], tmp_path: Path) -> None:
    def interrupt(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 2:
            raise KeyboardInterrupt

    metric = wrap(Best(1.0))
    stopped = fit(tmp_path / "run", 4, metrics=[metric], callbacks=[interrupt])
    assert (stopped.stopped, stopped.epochs) == ("interrupted", 2)
    assert fit(tmp_path / "run", 4, metrics=[metric]).epochs == 4
    with pytest.raises(ValueError, match=r"its metric \w+ was a different function"):
        fit(tmp_path / "run", 4, metrics=[wrap(Best(2.0))])


def test_another_formula_of_a_custom_cost_or_activation_is_refused(tmp_path: Path) -> None:
    def train(power: float, slope: float, epochs: int) -> nnkit.History:
        nnkit.register_cost(
            "mine", lambda xp, h, y, scale: abs(h - y) ** power * scale,
            lambda xp, h, y, scale: power * abs(h - y) ** (power - 1) * xp.sign(h - y) * scale,
        )  # fmt: skip
        nnkit.register_activation("bent", lambda xp, z: slope * z, lambda xp, h, delta: slope * delta)
        try:
            net = nnkit.Network([4, 5, 3], "bent", "mine", seed=0)
            return net.fit(
                X, np.eye(3)[LABELS], epochs=epochs, checkpoint=tmp_path / "net", resume=True, progress=False
            )
        finally:
            nnkit.unregister_cost("mine")
            nnkit.unregister_activation("bent")

    train(2.0, 0.5, 2)
    for power, slope, what in ((3.0, 0.5, "cost mine"), (2.0, 0.25, "activation bent")):
        with pytest.raises(ValueError, match=f"its {what} was a different function"):
            train(power, slope, 3)
    assert train(2.0, 0.5, 3).epochs == 3


def test_another_initializer_of_a_layer_is_refused(tmp_path: Path) -> None:
    def train(*init: Any) -> nnkit.History:
        layers = [nnkit.Dense(4, 5, "relu", init=init[0]), nnkit.Dense(5, 3, init=init[1])]
        net = nnkit.Network(layers, seed=0)
        return net.fit(X, LABELS, epochs=1, checkpoint=tmp_path / "net", resume=True, progress=False)

    train("he_uniform", None)
    with pytest.raises(ValueError, match="its init is he_uniform, default, but this training's is he_uniform, zeros"):
        train("he_uniform", "zeros")
    train("he_uniform", None)


def test_a_resumed_training_learns_the_names_and_shape_of_its_targets(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    Y = pandas.DataFrame(X[:, :2], columns=["u", "v"])

    def trained(targets: Any, epochs: int, **options: Any) -> nnkit.Network:
        net = nnkit.Network([4, targets.shape[1] if targets.ndim > 1 else 1], cost="quadratic", seed=0)
        net.fit(X, targets, epochs=epochs, progress=False, **options)
        return net

    trained(Y.to_numpy(), 1, checkpoint=tmp_path / "a")
    resumed = trained(Y, 2, checkpoint=tmp_path / "a", resume=True)
    assert resumed.target_names == ["u", "v"]
    assert resumed.score(X, Y[["v", "u"]]) == trained(Y, 2).score(X, Y)
    trained(X[:, :1], 1, checkpoint=tmp_path / "b")
    assert trained(X[:, 0], 2, checkpoint=tmp_path / "b", resume=True).predict(X).shape == (30,)
