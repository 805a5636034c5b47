"""Ensembles against the networks of their seeds trained alone, PyTorch's vmap and NumPy's means; failures; files."""

import itertools
import json
import pickle
import pydoc
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import SGD, Adam, Dense, Dropout, Ensemble, Network
from nnkit.optimizers import AdamW, Lion, RMSprop

SEEDS = [3, 1, 4]
RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(58, 5)), RNG.integers(3, size=58)
DROPS = [Dropout(0.1), Dense(5, 7, "relu"), Dropout(0.3), Dense(7, 3)]
VALIDATED: dict[str, Any] = {
    "validation_data": (X[::3] + 0.5, LABELS[::3]),
    "early_stopping": nnkit.EarlyStopping(patience=1),
    "epochs": 6,
}

# The layers and options of the networks, the optimizer of each, and the options of fit.
CASES: dict[str, tuple[dict[str, Any], Callable[[], Any], dict[str, Any]]] = {
    "descent": ({}, lambda: SGD(0.5), {}),
    "no hidden layer": ({"layers": [5, 3]}, lambda: SGD(0.5, momentum=0.5), {"batch_size": 58}),
    "bits": ({}, lambda: Adam(0.01), {"bytes": True}),
    "deep": ({"layers": [5, 7, 4, 3], "activation": "gelu"}, lambda: AdamW(0.01, clip_norm=0.5), {"metrics": ["mae"]}),
    "rates": (
        {},
        lambda: [Adam(0.01, l2=1e-3), Adam(0.02), Adam(0.03, weight_decay=0.1)],
        {"schedule": "cosine", "sample_weight": RNG.random(58), "metrics": ["top_2"]},
    ),
    "norms": (
        {"layers": [5, 7, 4, 3]},
        lambda: [SGD(0.5, clip_norm=0.1), SGD(0.2, momentum=0.5, clip_norm=0.2), SGD(0.3, clip_norm=9, l1=0.01)],
        {"class_weight": "balanced"},
    ),
    "dropout": ({"layers": DROPS}, lambda: RMSprop(0.01), {}),
    "regression": ({"layers": [5, 9, 2], "activation": "mish", "cost": "huber"}, lambda: Lion(0.01), {"targets": True}),
    "pullback": ({"cost": "quadratic", "output_activation": "softmax"}, lambda: SGD(0.9), {"shuffle": False}),
    "smoothed": ({"cost": nnkit.get_cost("softmax_cross_entropy", label_smoothing=0.1)}, lambda: SGD(0.5), {}),
    "multilabel": ({"cost": "cross_entropy"}, lambda: SGD(0.5), {"multilabel": True, "class_weight": {0: 2.0}}),
    "averages": (
        {"layers": [Dense(5, 7, "tanh", rate=0.5), Dense(7, 3, bias_rate=0)]},
        lambda: SGD(0.5, ema=0.9),
        VALIDATED | {"early_stopping": None},
    ),
    "factors": ({"layers": [Dense(5, 7, "tanh", rate=0), Dense(7, 3)]}, lambda: [Adam(0.1), Adam(0.2), Adam(0.3)], {}),
    "early stopping": ({}, lambda: Adam(0.3), VALIDATED),
    "plateau": ({}, lambda: SGD(2.0), VALIDATED | {"schedule": nnkit.schedules.reduce_on_plateau(patience=0)}),
}


def data(options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """X, y and the options of fit."""
    x, y, own = X, LABELS, {"epochs": 3, "batch_size": 10, "progress": False} | options
    if own.pop("bytes", False):
        x = (np.abs(X) * 50).astype(np.uint8)
    if own.pop("targets", False):
        y = np.stack([np.sin(X[:, 0]), X[:, 1] ** 2], axis=1)
    if own.pop("multilabel", False):
        y = (X[:, :3] > 0).astype(np.float64)
    return x, y, own


def alone(order: str, network: dict[str, Any], optimizer: Any, options: dict[str, Any], fits: int = 1) -> list[Network]:
    """The networks trained one after the other, and their histories as an attribute."""
    x, y, options = data(options)
    each, nets = optimizer if isinstance(optimizer, list) else [optimizer] * len(SEEDS), []
    for seed, own in zip(SEEDS, each, strict=True):
        net = Network(**{"layers": [5, 7, 3], "dtype": "float64"} | network, seed=seed)
        if order == "shared":
            net.seed = SEEDS[0]  # of the order; the start is made
            if net.dropout is not None:
                net.dropout.take_seed(seed)
        for _ in range(fits):
            vars(net)["history"] = net.fit(x, y, optimizer=own, **options)
        nets.append(net)
    return nets


def together(order: str, network: dict[str, Any], optimizer: Any, options: dict[str, Any]) -> tuple[Ensemble, Any]:
    x, y, options = data(options)
    made = Ensemble(**{"layers": [5, 7, 3], "dtype": "float64"} | network, seeds=SEEDS, order=order)
    return made, made.fit(x, y, optimizer=optimizer, **options)


def distance(nets: list[Network], others: list[Network]) -> float:
    pairs = zip(nets, others, strict=True)
    return max(float(np.abs(a.parameters.flat - b.parameters.flat).max()) for a, b in pairs)


@pytest.mark.parametrize("order", ["shared", "own"])
@pytest.mark.parametrize("name", CASES)
def test_members_equal_the_networks_of_their_seeds_alone(name: str, order: str) -> None:
    network, optimizer, options = CASES[name]
    nets, (ensemble, history) = (
        alone(order, network, optimizer(), options),
        together(order, network, optimizer(), options),
    )
    assert distance(nets, ensemble.members) < 1e-12
    assert distance(nets[:1], nets[1:2]) > 1e-3  # they differ from each other
    for net, own in zip(nets, history.members, strict=True):
        expected = vars(net)["history"]
        assert own.stopped == expected.stopped
        assert {*own} == {*expected}
        for key in own.keys() - {"seconds"}:
            np.testing.assert_allclose(own[key], expected[key], rtol=1e-9, atol=1e-12)
    costs = [own["cost"][0] for own in history.members]
    assert history["cost"][0] == pytest.approx(np.mean(costs), rel=1e-12)


@pytest.mark.parametrize("room", [1, 5 * 7 * 8 * 2])
def test_members_in_several_stacks_are_the_same(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BYTES", "ALONE"):
        monkeypatch.setattr(f"nnkit.ensembles.stack.{name}", room)
    for case in ("deep", "rates", "plateau"):
        network, optimizer, options = CASES[case]
        nets, (ensemble, _) = (
            alone("own", network, optimizer(), options),
            together("own", network, optimizer(), options),
        )
        assert distance(nets, ensemble.members) < 1e-12


def test_a_second_fit_continues_members_that_stopped_at_different_epochs() -> None:
    options = VALIDATED | {"early_stopping": nnkit.EarlyStopping(patience=1, restore_best=False)}
    nets = alone("own", {}, rule := Adam(0.3), options, fits=2)
    ensemble, first = together("own", {}, rule, options)
    assert len({own.epochs for own in first.members}) > 1
    x, y, options = data(options)
    ensemble.fit(x, y, **options)
    assert distance(nets, ensemble.members) < 1e-12
    assert [net.epochs_trained for net in nets] == [member.epochs_trained for member in ensemble.members]
    assert [float(m.optimizer_state().numbers["t"]) for m in ensemble.members] == [
        float(net.optimizer_state().numbers["t"]) for net in nets
    ]


@pytest.mark.parametrize("order", ["own", "shared"])
def test_a_name_continues_the_optimizer_of_each_member(order: Any) -> None:
    """As with a network alone, whose moments an equal optimizer of the same name goes on with."""
    ensemble = Ensemble([5, 7, 3], seeds=SEEDS, order=order, dtype="float64")
    alone = [Network([5, 7, 3], seed=seed, dtype="float64") for seed in SEEDS]
    for member in (*ensemble.members, *alone):
        member.fit(X, LABELS, epochs=2, optimizer="adam", progress=False)
    ensemble.fit(X, LABELS, epochs=1, optimizer="adam", batch_size=58, progress=False)
    for member, network in zip(ensemble.members, alone, strict=True):
        network.fit(X, LABELS, epochs=1, optimizer="adam", batch_size=58, progress=False)
        np.testing.assert_allclose(member.parameters.vector, network.parameters.vector, rtol=1e-12, atol=1e-12)


class FollowsCost(nnkit.schedules.Schedule):
    """It reads the history, and remembers its factor."""

    uses_epochs, now = False, 1.0

    def factor(self, epoch: float, epochs: float, history: Any) -> float:
        if epoch == len(history.get("cost", [])):
            self.now *= min(1.0, history["cost"][-1]) if history.get("cost") else 1.0
        return float(self.now)


@pytest.mark.parametrize("order", ["own", "shared"])
def test_a_custom_schedule_follows_each_member(order: Any) -> None:
    options: dict[str, Any] = {"epochs": 4, "optimizer": SGD(0.3), "shuffle": False, "progress": False}
    ensemble = Ensemble([5, 7, 3], seeds=SEEDS, order=order, dtype="float64")
    history = ensemble.fit(X, LABELS, schedule=FollowsCost(), **options)
    for k, seed in enumerate(SEEDS):
        alone = Network([5, 7, 3], seed=seed, dtype="float64")
        wanted = alone.fit(X, LABELS, schedule=FollowsCost(), **options)["learning_rate"]
        np.testing.assert_allclose(history.members[k]["learning_rate"], wanted, rtol=1e-12)
        np.testing.assert_allclose(
            ensemble.members[k].parameters.vector, alone.parameters.vector, rtol=1e-12, atol=1e-12
        )


def test_the_sum_of_validation_costs_may_overflow() -> None:
    y = RNG.normal(size=2000) * 1e18
    x, rule = RNG.normal(size=(2000, 2)), nnkit.EarlyStopping(patience=1)
    options: dict[str, Any] = {"epochs": 3, "optimizer": SGD(0.01), "validation_data": (x, y), "progress": False}
    ensemble, alone = Ensemble([2, 1], cost="quadratic", seeds=[0]), Network([2, 1], cost="quadratic", seed=0)
    found = ensemble.fit(x, y, early_stopping=rule, **options)
    wanted = alone.fit(x, y, early_stopping=rule, **options)
    assert found["validation_cost"] == pytest.approx(wanted["validation_cost"], rel=1e-5)


def test_a_step_is_that_of_pytorchs_vmap() -> None:
    torch = pytest.importorskip("torch")
    ensemble = Ensemble([5, 7, 3], "tanh", seeds=SEEDS, dtype="float64")
    starts = [[torch.tensor(a.copy()) for pair in zip(m.parameters.W, m.parameters.b, strict=True) for a in pair]
              for m in ensemble.members]  # fmt: skip
    stacked = [torch.stack(arrays) for arrays in zip(*starts, strict=True)]
    x, y = torch.tensor(X), torch.tensor(LABELS)

    def cost(p: Any, x: Any, y: Any) -> Any:
        h = torch.nn.functional.linear(torch.tanh(torch.nn.functional.linear(x, p[0], p[1])), p[2], p[3])
        return torch.nn.functional.cross_entropy(h, y)

    for start in range(0, 58, 20):
        part = slice(start, start + 20)
        gradients = torch.func.vmap(torch.func.grad(cost), (0, None, None))(stacked, x[part], y[part])
        stacked = [p - 0.5 * g for p, g in zip(stacked, gradients, strict=True)]
    ensemble.fit(X, LABELS, epochs=1, batch_size=20, optimizer=SGD(0.5), shuffle=False, progress=False)
    for k, member in enumerate(ensemble.members):
        for i in (0, 1):
            np.testing.assert_allclose(member.parameters.W[i], stacked[2 * i][k], rtol=0, atol=1e-13)
            np.testing.assert_allclose(member.parameters.b[i], stacked[2 * i + 1][k], rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", ["shared", "own"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_member_that_diverges_leaves_the_bits_of_the_others(order: str, dtype: str) -> None:
    X_ = X * 1e3
    network: dict[str, Any] = {"dtype": dtype, "activation": "relu"}
    options: dict[str, Any] = {"epochs": 3, "batch_size": 10, "progress": False}
    found = []
    for rate in (1e-4, 1e300 if dtype == "float64" else 1e38):
        ensemble = Ensemble([5, 7, 3], seeds=SEEDS, order=order, **network)
        optimizers = [SGD(1e-4), SGD(rate), SGD(2e-4)]
        if rate < 1:
            history = ensemble.fit(X_, LABELS, optimizer=optimizers, **options)
        else:
            with pytest.warns(RuntimeWarning, match="member 1, seed 1, has diverged: .* in epoch 1, step"):
                history = ensemble.fit(X_, LABELS, optimizer=optimizers, **options)
        found.append((ensemble, history))
    (right, _), (ensemble, history) = found
    for k in (0, 2):
        assert ensemble.members[k].parameters.flat.tobytes() == right.members[k].parameters.flat.tobytes()
    assert [own.stopped for own in history.members] == ["epochs", "diverged", "epochs"]
    assert history.stopped == "epochs"
    net = Network([5, 7, 3], seed=1, **network)
    net.seed = SEEDS[0] if order == "shared" else 1
    with pytest.raises(nnkit.DivergenceError):
        net.fit(X_, LABELS, optimizer=SGD(rate), **options)
    assert net.parameters.flat.tobytes() == ensemble.members[1].parameters.flat.tobytes()
    del ensemble.members[1]
    assert np.isfinite(ensemble.predict_proba(X)).all()


@pytest.mark.parametrize("place", ["nnkit.ensembles.stack.Stack.write", "nnkit.training.best.Best.note"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_exception_of_a_signal_leaves_all_members_in_one_epoch(
    place: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handler can raise at any place, as that of an alarm does."""

    def fit(ensemble: Ensemble, epochs: int) -> Any:
        rule = nnkit.EarlyStopping("cost", patience=9, restore_best=False)
        return ensemble.fit(X, LABELS, optimizer="adam", epochs=epochs, early_stopping=rule, progress=False)

    stopped, whole = (Ensemble([5, 7, 3], "relu", seeds=SEEDS, dtype="float64") for _ in range(2))
    owner, name = place.rsplit(".", 1)
    function, calls = getattr(pydoc.locate(owner), name), itertools.count()

    def once(*arguments: Any) -> None:
        if next(calls) == 2 * len(SEEDS) + at:  # in the third epoch
            raise TimeoutError
        function(*arguments)

    monkeypatch.setattr(place, once)
    with pytest.raises(TimeoutError) as caught:
        fit(stopped, 5)
    history = vars(caught.value)["history"]
    assert history.epochs == 3
    assert {len(numbers) for own in [history, *history.members] for numbers in own.values()} == {3}
    fit(whole, 3)
    for one, other in zip(stopped.members, whole.members, strict=True):
        assert one.epochs_trained == 3
        assert np.array_equal(one.parameters.vector, other.parameters.vector)
    for each in (stopped, whole):
        fit(each, 2)
    found, right = ([member.parameters.vector for member in each.members] for each in (stopped, whole))
    assert np.array_equal(found, right)


def test_if_all_members_diverge_it_is_an_error_with_the_history() -> None:
    ensemble = Ensemble([5, 7, 3], "relu", seeds=SEEDS)
    with pytest.warns(RuntimeWarning, match="has diverged"), pytest.raises(nnkit.DivergenceError) as caught:
        ensemble.fit(X * 1e3, LABELS, optimizer=SGD(1e38), progress=False)
    assert caught.value.history is not None
    assert caught.value.history.stopped == "diverged"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("cost", ["poisson", "gamma", "tweedie"])
def test_the_cost_of_mean_outputs_that_overflow_is_that_of_their_logarithms(cost: str, count: int, dtype: str) -> None:
    """exp(-120) is 0 in float32 and exp(120) infinite, exp(-800) also in float64: their logarithms are not."""
    ensemble = Ensemble([1, 1], cost=cost, seeds=range(count), dtype=dtype)
    slopes = [1.0, 1.25, 0.75][:count]
    for member, slope in zip(ensemble.members, slopes, strict=True):
        member.parameters.vector = np.array([slope, 0.0], dtype)
    far = 120.0 if dtype == "float32" else 800.0
    for x in (-far, -1.0, 0.5, far) if cost == "gamma" else (-far, -1.0, 0.5):
        logs, y, p = np.longdouble(x) * np.array(slopes, np.longdouble), np.longdouble(1), np.longdouble(1.5)
        log_mean = np.logaddexp.reduce(logs) - np.log(np.longdouble(count))
        right = {
            "poisson": np.exp(log_mean) - y * log_mean,
            "gamma": y * np.exp(-log_mean) + log_mean,
            "tweedie": np.exp((2 - p) * log_mean) / (2 - p) - y * np.exp((1 - p) * log_mean) / (1 - p),
        }[cost]
        found = ensemble.evaluate(np.array([[x]]), np.array([[1.0]]))["cost"]
        if abs(right) < np.finfo(dtype).max:
            assert found == pytest.approx(float(right), rel=1e-5 if dtype == "float32" else 1e-12)


def test_predictions_are_means_over_the_members() -> None:
    ensemble, _ = together("shared", {}, SGD(0.5), {})
    each = np.stack([member.predict_proba(X) for member in ensemble.members])
    mean = each.mean(axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(X), mean, rtol=1e-14)
    np.testing.assert_allclose(ensemble.spread(X), each.std(axis=0), rtol=1e-10)
    assert ensemble.predict(X).tolist() == mean.argmax(axis=1).tolist()
    others = each.argmax(axis=2) != mean.argmax(axis=1)
    np.testing.assert_allclose(ensemble.disagreement(X), others.mean(axis=0))
    for _ in range(2):
        ensemble.members[0].evaluate(X, LABELS)  # which is recorded, with another cost
        found = ensemble.evaluate(X, LABELS, metrics=["mae"])
    assert found["accuracy"] == np.mean(mean.argmax(axis=1) == LABELS)
    assert found["cost"] == pytest.approx(-np.log(mean[np.arange(58), LABELS]).mean(), rel=1e-12)
    assert found["mae"] == pytest.approx(np.abs(mean - np.eye(3)[LABELS]).mean(), rel=1e-12)


def test_predictions_of_a_regression_and_of_margins() -> None:
    line = Ensemble([5, 4, 1], seeds=SEEDS, cost="quadratic", dtype="float64")
    line.fit(X, X[:, 0], epochs=2, progress=False)
    assert line.predict(X).shape == (58,)
    assert line.evaluate(X, X[:, 0])["cost"] == pytest.approx(((line.predict(X) - X[:, 0]) ** 2).mean() / 2, rel=1e-12)
    with pytest.raises(TypeError, match="quadratic does not classify; use spread"):
        line.disagreement(X)
    margins = Ensemble([5, 4, 1], seeds=SEEDS, cost="hinge", classes=[-1, 1])
    assert set(margins.predict(X)) <= {-1, 1}
    assert ((margins.predict_proba(X)[:, 0] > 0) == (margins.predict(X) == 1)).all()


def test_files_and_pickles_keep_all_members(tmp_path: Path) -> None:
    normalized = nnkit.data.Normalization.fit(X)
    ensemble = Ensemble(DROPS, seeds=SEEDS, order="own", preprocessing=normalized)
    ensemble.fit(X, np.array(["a", "b", "c"])[LABELS], epochs=2, progress=False)
    assert {*ensemble.predict(X)} <= {"a", "b", "c"}
    path = tmp_path / "ensemble.safetensors"
    ensemble.save(path)
    for other in (Ensemble.load(path), pickle.loads(pickle.dumps(ensemble))):
        assert repr(other) == repr(ensemble)
        assert [member.seed for member in other.members] == SEEDS
        assert [member.epochs_trained for member in other.members] == [2, 2, 2]
        assert other.predict_proba(X).tobytes() == ensemble.predict_proba(X).tobytes()
    with pytest.raises(
        ValueError, match=r"contains an ensemble; load it with nnkit.Ensemble.load, or nnkit predict --ensemble$"
    ):
        nnkit.load(path)
    single = tmp_path / "net.safetensors"
    ensemble.members[0].save(single)
    with pytest.raises(ValueError, match=r"load a network with nnkit.load$"):
        Ensemble.load(single)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="classes holds"):
        Ensemble([5, 3], seeds=[0], classes=[(1,), (2,), (3,)]).save(path)
    assert path.read_bytes() == before
    from safetensors.numpy import load, save

    damaged = save(load(before), {"format": "nnkit-ensemble-1", "network": "{}", "members": json.dumps({})})
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged"):
        Ensemble.load(path)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"checkpoint": "file"}, TypeError, "checkpoint is not possible for an ensemble"),
        (
            {"validation_split": 0.2},
            TypeError,
            "validation_split is not possible for an ensemble; give validation_data",
        ),
        ({"optimizer": [SGD()]}, ValueError, "optimizer is a list of 1; expected one for each of 3 members"),
        ({"optimizer": [SGD(), Adam(), SGD()]}, TypeError, "optimizer: Adam and SGD cannot be mixed"),
        ({"optimizer": [Adam(), Adam(beta1=0.5), Adam()]}, TypeError, r"optimizer: beta1 is \[0.9, 0.5, 0.9\]"),
        ({"optimizer": [SGD(), SGD(clip_norm=1.0), SGD()]}, TypeError, "optimizer: clip_norm is"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"callbacks": [3]}, TypeError, "callbacks"),
    ],
)
def test_invalid_options_change_nothing(options: dict[str, Any], error: type[Exception], text: str) -> None:
    ensemble = Ensemble([5, 7, 3], seeds=SEEDS)
    before = [(m.parameters.flat.tobytes(), m.optimizer, m.state) for m in ensemble.members]
    with pytest.raises(error, match=text):
        ensemble.fit(X, LABELS, progress=False, **options)
    assert [(m.parameters.flat.tobytes(), m.optimizer, m.state) for m in ensemble.members] == before


def test_files_keep_the_rates_of_each_member(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    ensemble = Ensemble([5, 4, 3], seeds=[0, 1])
    ensemble.members[0].set_rate(0, 0.0, bias_rate=0.5)
    ensemble.save(tmp_path / "ensemble.safetensors")
    loaded = Ensemble.load(tmp_path / "ensemble.safetensors")
    assert [[layer.rates for layer in member.dense] for member in loaded.members] == [
        [{"W": 0.0, "b": 0.5}, {"W": 1.0, "b": 1.0}],
        [{"W": 1.0, "b": 1.0}, {"W": 1.0, "b": 1.0}],
    ]


@pytest.mark.parametrize(
    ("name", "change", "refusing"),
    [
        ("layers", lambda net: net.set_rate(0, 0.0), {"fit"}),
        (
            "preprocessing",
            lambda net: setattr(net, "preprocessing", nnkit.data.Normalization.fit(X)),
            {"fit", "evaluate", "save"},
        ),
        ("classes", lambda net: setattr(net, "classes", ["c", "b", "a"]), {"fit", "evaluate", "predict"}),
        ("features", lambda net: setattr(net, "features", list("edcba")), {"fit", "evaluate"}),
    ],
)  # fmt: skip
def test_members_that_differ_keep_what_they_are_or_are_refused(
    name: str, change: Callable[[Network], None], refusing: set[str], tmp_path: Path
) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    ensemble = Ensemble([5, 4, 3], seeds=[0, 1], classes=["a", "b", "c"], features=list("abcde"))
    change(ensemble.members[1])
    alone, path = ensemble.members[1].predict(X), tmp_path / "ensemble.safetensors"
    y = np.array(["a", "b", "c"])[LABELS]
    calls: dict[str, Callable[[], object]] = {
        "fit": lambda: ensemble.fit(X, y, epochs=1, progress=False),
        "evaluate": lambda: ensemble.evaluate(X, y),
        "predict": lambda: ensemble.predict(X),
        "save": lambda: ensemble.save(path),
    }
    for called, call in calls.items():
        if called in refusing:
            with pytest.raises(ValueError, match=rf"members\[1\]\.{name} is .* that of members\[0\]"):
                call()
    if "save" not in refusing:
        ensemble.save(path)
        assert np.array_equal(Ensemble.load(path).members[1].predict(X), alone)
    assert np.array_equal(ensemble.members[1].predict(X), alone)


def test_outputs_of_members_with_other_costs_have_no_mean() -> None:
    ensemble = Ensemble([5, 4, 3], seeds=[0, 1])
    ensemble.members[1] = Network([5, 4, 3], cost="cross_entropy", seed=1)
    calls: list[Callable[[], object]] = [
        lambda: ensemble.predict(X),
        lambda: ensemble.predict_proba(X),
        lambda: ensemble.disagreement(X),
        lambda: ensemble.evaluate(X, LABELS),
        lambda: ensemble.fit(X, LABELS, progress=False),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"members\[1\].(cost|layers) is .*; expected the same for all"):
            call()


def test_a_callback_may_leave_members_out() -> None:
    ensemble = Ensemble([5, 4, 3], seeds=SEEDS)
    history = ensemble.fit(X, LABELS, epochs=2, progress=False, callbacks=[lambda own, _: own.members.pop()])
    assert (history.epochs, len(history.members), len(ensemble)) == (2, 3, 1)
    assert ensemble.members[0].epochs_trained == 2


def test_invalid_ensembles_and_samples() -> None:
    with pytest.raises(ValueError, match=r"seeds is \[\]; expected at least one integer"):
        Ensemble([2, 2], seeds=[])
    with pytest.raises(ValueError, match="seeds is 3"):
        Ensemble([2, 2], seeds=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order is 'other'"):
        Ensemble([2, 2], seeds=[0], order="other")
    with pytest.raises(TypeError, match="expected seeds, one for each member"):
        Ensemble([2, 2], seeds=[0], seed=3)
    ensemble = Ensemble([5, 3], seeds=SEEDS)
    with pytest.raises(TypeError, match="X has minibatches; an ensemble needs all samples in memory"):
        ensemble.fit(lambda: iter([(X, LABELS)]))
    with pytest.raises(ValueError, match="nan"):
        ensemble.fit(np.full((4, 5), np.nan), [0, 1, 2, 0])


def test_a_callback_sees_the_members_and_may_change_them_and_stop() -> None:
    seen: list[float] = []

    def callback(ensemble: Ensemble, history: nnkit.History) -> bool:
        seen.append(float(ensemble.members[1].parameters.flat[0]))
        ensemble.members[1].parameters.flat[:] = 0
        return history.epochs == 2

    ensemble = Ensemble([5, 7, 3], seeds=SEEDS)
    history = ensemble.fit(X, LABELS, epochs=5, progress=False, callbacks=[callback])
    assert history.stopped == "callback"
    assert history.epochs == 2
    assert seen[1] != seen[0]
    assert not ensemble.members[1].parameters.flat.any()
    assert ensemble.members[0].parameters.flat.any()


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
def test_ctrl_c_ends_after_a_step_and_keeps_all_members() -> None:
    ensemble = Ensemble([5, 7, 3], seeds=SEEDS)

    def press(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    history = ensemble.fit(X, LABELS, epochs=5, progress=False, callbacks=[press])
    assert history.interrupted
    assert [own.stopped for own in history.members] == ["interrupted"] * 3
    assert [member.epochs_trained for member in ensemble.members] == [1, 1, 1]
    nets = [Network([5, 7, 3], seed=seed) for seed in SEEDS]
    for net in nets:
        net.seed = SEEDS[0]
        net.fit(X, LABELS, epochs=1, progress=False)
    assert distance(nets, ensemble.members) < 1e-6


@pytest.mark.parametrize(
    ("layers", "W", "sample", "cost"),
    [
        ([1, 1], [[1.0]], 20.0, np.log1p(np.exp(20.0))), ([1, 1], [[1.0]], 700.0, 700.0),
        ([1, 2], [[0.0], [1.0]], 110.0, 110.0), ([1, 3], [[0.0], [1.0], [0.5]], 800.0, 800.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_cost_of_mean_outputs_that_round_to_0_is_finite(
    layers: list[int], W: list[list[float]], sample: float, cost: float, dtype: str
) -> None:
    ensemble = nnkit.Ensemble(layers, seeds=[0, 1, 2], dtype=dtype)
    for member in ensemble.members:
        member.parameters.W[0][...], member.parameters.b[0][...] = W, 0
    with np.errstate(all="raise"):
        assert ensemble.evaluate([[sample]], [0])["cost"] == pytest.approx(cost, rel=1e-6)


@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "cross_entropy"])
def test_the_class_of_mean_outputs_is_that_of_their_exact_values(cost: str) -> None:
    """Of members in float64 whose outputs neither round to 1 nor tie: as the mean of their probabilities says."""
    ensemble = nnkit.Ensemble([3, 4], cost=cost, seeds=range(5), dtype="float64")
    for k, member in enumerate(ensemble.members):
        member.parameters.W[0][...] = np.random.default_rng(k).normal(size=(4, 3)) * 3
    samples = np.random.default_rng(9).normal(size=(200, 3))
    outputs = np.stack([member.predict_proba(samples) for member in ensemble.members])
    chosen = outputs.mean(axis=0).argmax(axis=1)
    assert (ensemble.predict(samples) == chosen).all()
    disagreeing = (outputs.argmax(axis=2) != chosen).mean(axis=0)
    np.testing.assert_allclose(ensemble.disagreement(samples), disagreeing)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("layers", "W"), [([1, 1], [[1.0]]), ([1, 2], [[1.0], [2.0]])])
def test_equal_members_predict_what_each_does(layers: list[int], W: list[list[float]], count: int) -> None:
    ensemble = nnkit.Ensemble(layers, seeds=range(count))
    for member in ensemble.members:
        member.parameters.W[0][...], member.parameters.b[0][...] = W, 0
    samples = np.array([[1e-9], [-1e-9]])
    assert (ensemble.predict(samples) == ensemble.members[0].predict(samples)).all()
    assert (ensemble.disagreement(samples) == 0).all()


@pytest.mark.parametrize("unit", [1e-27, 1e-20, 1e22])
def test_the_spread_does_not_depend_on_units(unit: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y = unit * (3 + x[:, :1])
    scaling = nnkit.data.Normalization.fit(y)
    ensemble = nnkit.Ensemble([2, 8, 1], "tanh", "quadratic", seeds=range(4), target_scaling=scaling)
    each = np.array([member.predict_proba(x) for member in ensemble.members]).astype("float64")
    np.testing.assert_allclose(ensemble.spread(x), each.std(axis=0), rtol=1e-5)
