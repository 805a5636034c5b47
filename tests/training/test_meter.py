"""The meter: costs and accuracies of many samples are measured in pieces, and add up to those of all."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.training import meter
from nnkit.training.sources import Known

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
def test_measuring_in_pieces_gives_the_same_result(
    arrays: "Arrays", kept: int, evaluation_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "_KEPT", kept)
    monkeypatch.setattr(meter, "ROWS", evaluation_batch)
    net = network()
    measured = net.evaluate(arrays(X), LABELS)
    assert measured["cost"] == pytest.approx(by_hand(net)["cost"], rel=1e-13)
    assert measured["accuracy"] == by_hand(net)["accuracy"]


@pytest.mark.parametrize("kept", [1 << 20, 60, 1])
def test_training_metrics_match_evaluate(arrays: "Arrays", kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a learning rate that moves nothing, an epoch's numbers are those of the network."""
    monkeypatch.setattr(meter, "_KEPT", kept)
    net = network()
    wanted = by_hand(net)
    history = net.fit(arrays(X), LABELS, epochs=2, batch_size=7, optimizer=nnkit.SGD(1e-300), progress=False)
    assert history["cost"] == pytest.approx([wanted["cost"]] * 2, rel=1e-13)
    assert history["accuracy"] == [wanted["accuracy"]] * 2


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        ([(53, 8)], [(0, 16)]),  # whole minibatches, as many as there is room for
        ([(16, 8), (16, 8), (5, 5)], [(0, 16), (0, 16), (0, 5)]),
        ([(8, 8), (8, 8), (4, 4), (4, 4)], [(0, 8), (8, 16), (16, 20), (0, 4)]),
        ([(19, 8), (1, 1)], [(0, 19), (19, 20)]),  # of which the last minibatch is smaller
        ([(7, None), (7, None), (7, None)], [(0, 7), (7, 14), (0, 7)]),
        ([(30, None), (5, None)], [(0, 30), (0, 5)]),  # an iterable's minibatch, larger than all before
    ],
)
def test_where_logits_go(asked: Any, places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that follow each other, and from the first on where there is no room; nothing is measured twice."""
    monkeypatch.setattr(meter, "_KEPT", 80)  # numbers: 20 samples
    net, y = network(), np.eye(4)[LABELS]
    measuring = meter.Meter(net, 53, 8)
    measuring.start(Known(y, one_class=True))
    done = 0
    for (n, size), place in zip(asked, places, strict=True):
        found = measuring.next(n, size)
        assert (found.start, found.stop) == place
        rows = slice(done, done + found.stop - found.start)
        measuring.logits[found] = net.logits(X[rows])
        done = rows.stop
    wanted = net.evaluate(X[:done], LABELS[:done])
    assert measuring.read() == pytest.approx(wanted, rel=1e-13)


# --- several classes in a sample, and weights -------------------------------------------------------------------

BITS = RNG.integers(0, 2, (53, 4)).astype(float)
WEIGHTS = RNG.integers(0, 3, 53).astype(float)


def bits_network(cost: str = "cross_entropy") -> nnkit.Network:
    return nnkit.Network([3, 8, 4], "tanh", cost, seed=1, dtype="float64")


def rows_right(net: nnkit.Network, threshold: float = 0.5) -> np.ndarray:
    """Whether all outputs of a sample are on the side of their targets: what scikit-learn's accuracy_score counts."""
    right: np.ndarray = ((np.array(net.backend.to_numpy(net.forward(X))) > threshold) == (BITS > 0.5)).all(axis=1)
    return right


def stream(y: np.ndarray, *weights: np.ndarray) -> Any:
    return lambda: (tuple(a[i : i + 10] for a in (X, y, *weights)) for i in range(0, 53, 10))


@pytest.mark.parametrize("cost", ["cross_entropy", "hinge"])
@pytest.mark.parametrize("kept", [1 << 20, 60, 1])
def test_a_multilabel_sample_needs_all_outputs_right(
    arrays: "Arrays", kept: int, cost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "_KEPT", kept)
    net = bits_network(cost)
    net.fit(arrays(X), BITS, epochs=60, optimizer=nnkit.Adam(0.05), progress=False)
    right = rows_right(net, net.cost.threshold)
    assert 0.1 < right.mean() < 1
    still: dict[str, Any] = {"optimizer": nnkit.SGD(1e-300), "epochs": 1, "progress": False}
    for data in ((arrays(X), BITS), (stream(BITS),)):
        assert net.evaluate(*data)["accuracy"] == pytest.approx(right.mean(), rel=1e-15)
        history = net.fit(*data, validation_data=(X, BITS), **still)
        assert history["accuracy"] == history["validation_accuracy"] == pytest.approx([right.mean()], rel=1e-15)
    wanted = float(WEIGHTS @ right) / WEIGHTS.sum()
    for evaluated in (net.evaluate(X, BITS, sample_weight=WEIGHTS), net.evaluate(stream(BITS, WEIGHTS))):
        assert evaluated["accuracy"] == pytest.approx(wanted, rel=1e-15)


def test_all_labels_right_is_accuracy_1() -> None:
    X, Y = np.eye(4), np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1.0]])
    net = nnkit.Network([4, 16, 3], cost="cross_entropy", seed=0)
    net.fit(X, Y, epochs=2000, optimizer=nnkit.Adam(0.01), progress=False)
    assert ((net.forward(X) > 0.5) == Y).all()
    assert net.evaluate(X, Y, metrics=["top_1"]) | {"cost": 0} == {"cost": 0, "accuracy": 1, "top_1": 1}


@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_with_one_class_per_sample_the_largest_output_counts(arrays: "Arrays", smoothing: float) -> None:
    """As labels, as rows with a single 1, as shares; also where another output is above one half."""
    cost = nnkit.get_cost("cross_entropy", label_smoothing=smoothing)
    net = nnkit.Network([3, 4], cost=cost, seed=1, dtype="float64")
    net.parameters.b[0][...] = 1.0
    wanted = np.mean(np.argmax(np.array(net.backend.to_numpy(net.forward(X))), axis=1) == LABELS)
    one_hot = np.eye(4)[LABELS]
    for y in (LABELS, one_hot, 0.7 * one_hot + 0.3 / 4, one_hot.astype(np.float32)):
        assert net.evaluate(arrays(X), y)["accuracy"] == wanted
        assert net.evaluate(stream(y))["accuracy"] == wanted
        assert net.fit(stream(y), epochs=1, optimizer=nnkit.SGD(1e-300), progress=False)["accuracy"] == [wanted]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smoothing", [0.1, 0.3, 0.4, 0.9])
def test_metrics_get_labels_without_smoothing(dtype: str, smoothing: float) -> None:
    def sensitivity(y: Any, h: Any) -> float:
        return float(((y == 1) & (h > 0.5)).mean())

    y, cost = LABELS % 2, nnkit.get_cost("cross_entropy", label_smoothing=smoothing)
    net = nnkit.Network([3, 1], cost=cost, seed=0, dtype=dtype)
    net.parameters.b[0][...] = 9.0
    wanted = np.mean(y == 1)
    assert net.evaluate(X, y, metrics=[sensitivity])["sensitivity"] == pytest.approx(wanted)


def test_a_stream_is_of_one_kind() -> None:
    """A minibatch in which each sample has one class by chance is counted as the others are."""
    one_each = np.where(np.arange(53)[:, None] < 20, np.eye(4)[LABELS], BITS)
    assert (one_each[:20].sum(axis=1) == 1).all()
    net = bits_network()
    for y in (one_each, one_each[::-1]):
        assert net.evaluate(stream(y))["accuracy"] == net.evaluate(X, y)["accuracy"]


@pytest.mark.parametrize("outputs", [1, 4])
def test_accuracy_and_metrics_are_weighted(arrays: "Arrays", outputs: int) -> None:
    """A whole weight is a repeated sample; the weights of classes count in the cost alone."""
    y = LABELS if outputs == 4 else LABELS % 2
    net = nnkit.Network([3, outputs], seed=1, dtype="float64")
    times = WEIGHTS.astype(int)
    names = ["r2", "mae", *(["top_2"] if outputs == 4 else [])]
    wanted = net.evaluate(np.repeat(X, times, axis=0), np.repeat(y, times), metrics=names)
    for data in ((arrays(X), y), (stream(y, WEIGHTS / WEIGHTS.mean()),)):
        weights: dict[str, Any] = {"sample_weight": WEIGHTS} if len(data) == 2 else {}
        assert net.evaluate(*data, metrics=names, **weights) == pytest.approx(wanted, rel=1e-12)
        found = net.evaluate(*data, metrics=names, class_weight={1: 5.0}, **weights)
        assert found["cost"] != pytest.approx(wanted["cost"], rel=1e-3)
        assert {**found, "cost": wanted["cost"]} == pytest.approx(wanted, rel=1e-12)
    still: dict[str, Any] = {"optimizer": nnkit.SGD(1e-300), "epochs": 2, "progress": False, "batch_size": 8}
    history = net.fit(
        arrays(X), y, sample_weight=WEIGHTS, class_weight={1: 5.0}, metrics=names,
        validation_data=(X, y, WEIGHTS), **still,
    )  # fmt: skip
    for name in ("accuracy", *names):
        for measured in (history[name], history[f"validation_{name}"]):
            assert measured == pytest.approx([wanted[name]] * 2, rel=1e-12)
    unweighted = net.evaluate(X, y)
    assert net.evaluate(X, y, class_weight={1: 5.0})["accuracy"] == unweighted["accuracy"]


def test_accuracy_uses_the_weights_of_correct_samples() -> None:
    net = network()
    predicted = np.asarray(net.predict(X[:4]))
    y = np.where([1, 1, 0, 0], predicted, (predicted + 1) % 4)
    assert net.evaluate(X[:4], y, sample_weight=[1, 1, 0, 0])["accuracy"] == 1
    assert net.evaluate(X[:4], y, sample_weight=[1, 0, 1, 2])["accuracy"] == 0.25
    with pytest.raises(ValueError, match="sample_weight: all weights are 0"):
        net.evaluate(iter([(X[:4], y, np.zeros(4))]))


def test_functions_get_weights_if_they_take_them() -> None:
    seen: list[Any] = []

    def with_weights(y: Any, h: Any, sample_weight: Any = None) -> float:
        seen.append(sample_weight)
        return 0.0

    def without(y: Any, h: Any, **options: Any) -> float:
        assert not options
        return 0.0

    net = network()
    net.evaluate(X, LABELS, metrics=[with_weights, without], sample_weight=WEIGHTS)
    net.evaluate(X, LABELS, metrics=[with_weights, without])
    np.testing.assert_array_equal(seen[0], WEIGHTS)
    assert seen[1] is None


@pytest.mark.parametrize("form", ["array", "stream"])
def test_samples_of_weight_0_do_not_make_targets_multilabel(arrays: "Arrays", form: str) -> None:
    """Neither those of an array nor those of a minibatch, nor in the metrics."""
    net = bits_network()
    y, weights = np.eye(4)[LABELS], np.where(np.arange(53) % 5 == 3, 0.0, 1.0 + np.arange(53) % 3)
    y[weights == 0] = [1.0, 1.0, 0.0, 1.0]
    kept = weights > 0
    data: Any = (arrays(X), y) if form == "array" else (stream(y, weights),)
    weighted: dict[str, Any] = {"sample_weight": weights} if form == "array" else {}
    wanted = net.evaluate(X[kept], y[kept], sample_weight=weights[kept], metrics=["top_1", "top_2"])
    assert wanted["accuracy"] != net.evaluate(X, y)["accuracy"]
    assert net.evaluate(*data, **weighted, metrics=["top_1", "top_2"]) == pytest.approx(wanted, rel=1e-13)
    history = net.fit(*data, **weighted, epochs=1, optimizer=nnkit.SGD(1e-300), progress=False)
    assert history["accuracy"] == pytest.approx([wanted["accuracy"]], rel=1e-13)


# --- targets that float32 rounds --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["array", "column", "integers", "table", "stream"])
def test_metrics_use_targets_as_given(arrays: "Arrays", form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds since 1970 in float32 are multiples of 128."""
    monkeypatch.setattr(meter, "_KEPT", 20)
    pandas = pytest.importorskip("pandas")
    seconds = 1.7e9 + RNG.integers(0, 100, 53)
    net = nnkit.Network([3, 1], cost="quadratic", init="zeros", seed=0)
    net.parameters.b[0][...] = 1.7e9
    h = np.float64(np.asarray(net.backend.to_numpy(net.forward(X)))[:, 0])
    wanted = [np.abs(seconds - h).mean(), 1 - ((seconds - h) ** 2).sum() / ((seconds - seconds.mean()) ** 2).sum()]
    y: Any = {
        "column": seconds[:, None], "integers": seconds.astype(np.int64), "table": pandas.DataFrame({"t": seconds}),
    }.get(form, seconds)  # fmt: skip
    data: Any = (stream(seconds),) if form == "stream" else (arrays(X), y)
    names = ["mae", "r2"]
    measured = net.evaluate(*data, metrics=names)
    assert [measured[name] for name in names] == pytest.approx(wanted, rel=1e-12)
    history = net.fit(
        *data, epochs=2, metrics=names, validation_data=data if form != "stream" else data[0],
        optimizer=nnkit.SGD(1e-300), progress=False,
    )  # fmt: skip
    for name, number in zip(names, wanted, strict=True):
        assert history[name] + history[f"validation_{name}"] == pytest.approx([number] * 4, rel=1e-12)
    seen = []

    def own(targets: np.ndarray, outputs: np.ndarray) -> float:
        seen.append((str(targets.dtype), sorted(targets[:, 0].tolist())))
        return 0.0

    net.evaluate(*data, metrics=[own])
    assert seen == [("float64", sorted(seconds.tolist()))]


def test_a_constant_rounded_by_float32_counts_as_predicted(arrays: "Arrays") -> None:
    """0.1 in float64 is not 0.1 in float32, the nearest that such a network can say."""
    net = nnkit.Network([3, 1], cost="quadratic", init="zeros", seed=0)
    net.parameters.b[0][...] = 0.1
    assert net.evaluate(arrays(X), np.full(53, 0.1), metrics=["r2"])["r2"] == 1
    net.parameters.b[0][...] = 0.1001
    assert net.evaluate(arrays(X), np.full(53, 0.1), metrics=["r2"])["r2"] == 0
