"""Weights of samples and classes: against repeated samples and against PyTorch's weighted losses."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(6)
X, LABELS = RNG.normal(size=(24, 4)), RNG.integers(0, 3, 24)
MATRIX = RNG.integers(0, 2, (24, 3)).astype(float)
COSTS = {"softmax_cross_entropy": LABELS, "cross_entropy": MATRIX, "quadratic": RNG.normal(size=(24, 3))}


def network(cost: str, backend: Any = None) -> nnkit.Network:
    return nnkit.Network([4, 5, 3], "tanh", cost, seed=3, dtype="float64", backend=backend)


def after_a_full_step(cost: str, x: Any, y: Any, **options: Any) -> list[np.ndarray]:
    net = network(cost)
    defaults: dict[str, Any] = {"epochs": 1, "batch_size": len(y), "optimizer": nnkit.SGD(0.3), "progress": False}
    history = net.fit(x, y, **defaults | options)
    return [np.array(net.backend.to_numpy(net.parameters.flat)), np.array(history["cost"])]


@pytest.mark.parametrize("cost", COSTS)
def test_an_integer_weight_equals_repetitions(arrays: "Arrays", cost: str) -> None:
    times = RNG.integers(0, 4, 24)
    y = COSTS[cost]
    repeated = after_a_full_step(cost, arrays(np.repeat(X, times, axis=0)), np.repeat(y, times, axis=0))
    weighted = after_a_full_step(cost, arrays(X), y, sample_weight=times)
    for found, wanted in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cost", COSTS)
def test_gradients_and_evaluate_are_weighted(arrays: "Arrays", cost: str) -> None:
    times, y, net = RNG.integers(0, 4, 24), COSTS[cost], network(cost)
    many, most = np.repeat(X, times, axis=0), np.repeat(y, times, axis=0)
    weighted, wanted = net.gradients(arrays(X), y, sample_weight=times), net.gradients(many, most)
    assert float(weighted[0]) == pytest.approx(float(wanted[0]), rel=1e-13)
    for pair, other in zip(weighted[1], wanted[1], strict=True):
        for a, b in zip(pair, other, strict=True):
            np.testing.assert_allclose(arrays.numpy(a), arrays.numpy(b), rtol=1e-11, atol=1e-14)
    assert net.evaluate(X, y, sample_weight=times)["cost"] == pytest.approx(net.evaluate(many, most)["cost"], rel=1e-13)
    first, second = network(cost), network(cost)
    first.train_step(X, y, nnkit.SGD(0.1), sample_weight=times)
    second.train_step(many, most, nnkit.SGD(0.1))
    found, expected = (arrays.numpy(n.parameters.flat) for n in (first, second))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)


def torch_gradient(cost: str, y: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """The cost and the gradient by the last layer's weights, by PyTorch's own weighted losses."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net = network(cost)
    W, b = (torch.tensor(np.array(a), requires_grad=True) for a in (net.parameters.W[1], net.parameters.b[1]))
    h = torch.tanh(torch.tensor(X) @ torch.tensor(np.array(net.parameters.W[0])).T + torch.tensor(net.parameters.b[0]))
    z = h @ W.T + b
    functional = torch.nn.functional
    if cost == "softmax_cross_entropy":
        value = functional.cross_entropy(z, torch.tensor(y), weight=torch.tensor(weight))
    else:
        loss = functional.binary_cross_entropy_with_logits
        value = loss(z, torch.tensor(y), weight=torch.tensor(weight), reduction="sum") / len(y)
    value.backward()
    return value.item(), W.grad.numpy()


@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "cross_entropy"])
def test_class_weights_match_torch(cost: str) -> None:
    y, weight, rate = COSTS[cost], np.array([0.5, 1.0, 3.0]), 0.25
    value, gradient = torch_gradient(cost, y, weight)
    net = network(cost)
    before = np.array(net.parameters.W[1])
    class_weight = {0: 0.5, 2: 3.0}
    history = net.fit(
        X, y, class_weight=class_weight, epochs=1, batch_size=24, optimizer=nnkit.SGD(rate), progress=False
    )
    assert history["cost"] == [pytest.approx(value, rel=1e-12)]
    np.testing.assert_allclose((before - net.parameters.W[1]) / rate, gradient, rtol=1e-10, atol=1e-14)


def test_balanced_classes_have_equal_total_weights() -> None:
    labels = np.array([0] * 12 + [1] * 9 + [2] * 3)
    of_class = {0: 24 / 3 / 12, 1: 24 / 3 / 9, 2: 24 / 3 / 3}  # scikit-learn's n/(k · count)
    balanced = after_a_full_step("softmax_cross_entropy", X, labels, class_weight="balanced")
    by_hand = after_a_full_step(
        "softmax_cross_entropy", X, labels, sample_weight=[of_class[c] for c in labels.tolist()]
    )
    for found, wanted in zip(balanced, by_hand, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


@pytest.mark.parametrize("outputs", [1, 2])
def test_balanced_classes_with_sample_weights(outputs: int) -> None:
    """Weights are numbers of samples: a sample of weight 2 counts twice, one of weight 0 not at all."""
    labels = np.array([0] * 12 + [1] * 12)
    times = np.where(labels == 1, np.arange(24) % 4 // 3, 1 + np.arange(24) % 2)
    net = nnkit.Network([4, outputs], seed=0, dtype="float64")
    repeated = net.evaluate(np.repeat(X, times, axis=0), np.repeat(labels, times), class_weight="balanced")["cost"]
    of_class = 1 / np.bincount(labels, times)
    for scale in (1.0, 0.01, 1e-300, 1e307):
        found = net.evaluate(X, labels, sample_weight=times * scale, class_weight="balanced")["cost"]
        assert found == pytest.approx(repeated, rel=1e-12)
        by_hand = net.evaluate(X, labels, sample_weight=times * of_class[labels])["cost"]
        assert found == pytest.approx(by_hand, rel=1e-12)
    assert found != pytest.approx(net.evaluate(X, labels, class_weight="balanced")["cost"], rel=1e-3)
    only = net.evaluate(X, labels, sample_weight=1 - labels, class_weight="balanced")["cost"]
    assert only == pytest.approx(net.evaluate(X[:12], labels[:12])["cost"], rel=1e-12)
    with pytest.raises(ValueError, match="all weights are 0"):
        net.evaluate(X, labels, sample_weight=np.zeros(24), class_weight="balanced")


def test_balanced_classes_of_shares_have_equal_total_weights() -> None:
    """A target between 0 and 1 counts for both classes, in the totals as in the cost."""
    shares, w = np.r_[RNG.uniform(0.3, 0.49, 20), np.ones(4)], RNG.uniform(0.5, 2, 24)
    net = nnkit.Network([4, 1], seed=0, dtype="float64")
    of_class = 24 / 2 / np.array([((1 - shares) * w).sum(), (shares * w).sum()])
    found = net.evaluate(X, shares[:, None], sample_weight=w, class_weight="balanced")["cost"]
    z = net.logits(X)[:, 0]
    weights = w * ((1 - shares) * of_class[0] + shares * of_class[1])
    expected = (weights * (np.log1p(np.exp(z)) - shares * z)).sum() / weights.sum()
    assert found == pytest.approx(expected, rel=1e-12)


def test_class_weights_by_name_and_for_a_single_output() -> None:
    names = np.array(["cat", "dog", "owl"])
    named = after_a_full_step("softmax_cross_entropy", X, names[LABELS], class_weight={"owl": 5.0})
    numbered = after_a_full_step("softmax_cross_entropy", X, LABELS, class_weight={2: 5.0})
    assert all(a.tobytes() == b.tobytes() for a, b in zip(named, numbered, strict=True))
    nets = [nnkit.Network([4, 1], seed=0, dtype="float64") for _ in range(2)]
    labels = LABELS % 2
    nets[0].fit(X, labels, class_weight={1: 4.0}, epochs=2, progress=False)
    nets[1].fit(X, labels, sample_weight=np.where(labels == 1, 4.0, 1.0), epochs=2, progress=False)
    assert np.array_equal(nets[0].parameters.flat, nets[1].parameters.flat)


@pytest.mark.parametrize("form", [(24,), (24, 1)])
def test_class_weights_of_an_iterable_are_those_of_an_array(form: tuple[int, ...]) -> None:
    """Of a single output: for labels and for a column of targets alike."""
    y = (LABELS % 2).astype(float).reshape(form)
    net = nnkit.Network([4, 1], seed=0, dtype="float64")
    data = [(X[i : i + 8], y[i : i + 8]) for i in range(0, 24, 8)]
    found, wanted = (net.evaluate(*given, class_weight={1: 4.0}) for given in ((iter(data),), (X, y)))
    assert found == pytest.approx(wanted, rel=1e-12)
    assert wanted["cost"] != net.evaluate(X, y)["cost"]


def test_classes_have_weights_in_every_cost() -> None:
    """Labels of three classes: also where the cost knows nothing of classes."""
    for cost in nnkit.cost_names():
        if nnkit.get_cost(cost).domain == "positive":  # one-hot rows hold zeros
            continue
        nets = [nnkit.Network([4, 3], cost=cost, seed=0, dtype="float64") for _ in range(2)]
        options: dict[str, Any] = {"epochs": 2, "optimizer": nnkit.SGD(0.01), "progress": False}
        nets[0].fit(X, LABELS, class_weight={1: 4.0}, **options)
        nets[1].fit(X, LABELS, sample_weight=np.where(LABELS == 1, 4.0, 1.0), **options)
        assert np.array_equal(nets[0].parameters.flat, nets[1].parameters.flat)


@pytest.mark.parametrize(
    ("cost", "options", "error", "message"),
    [
        ("quadratic", {"sample_weight": [1.0]}, ValueError, r"sample_weight has shape \(1,\); expected \(24,\)"),
        ("quadratic", {"sample_weight": [-1.0] * 24}, ValueError, r"sample_weight holds -1.0 at \[0\]"),
        ("quadratic", {"sample_weight": [1.0] * 23 + [np.nan]}, ValueError, r"sample_weight holds nan at \[23\]"),
        ("quadratic", {"sample_weight": [np.inf] + [1.0] * 23}, ValueError, r"sample_weight holds inf at \[0\]"),
        ("quadratic", {"sample_weight": [0.0] * 24}, ValueError, "all weights are 0"),
        (
            "quadratic",
            {"class_weight": {0: 1.0}},
            ValueError,
            "class_weight needs labels of several classes, or",
        ),
        ("softmax_cross_entropy", {"class_weight": {3: 1.0}}, ValueError, r"the class 3; expected some of \[0, 1, 2\]"),
        ("softmax_cross_entropy", {"class_weight": {0: -1.0}}, ValueError, "class_weight of 0 is -1.0"),
        ("softmax_cross_entropy", {"class_weight": {2: np.inf}}, ValueError, "class_weight of 2 is inf"),
        (
            "softmax_cross_entropy",
            {"class_weight": "balance"},
            ValueError,
            "unknown .* 'balance'; .*'balanced'",
        ),
        ("softmax_cross_entropy", {"class_weight": [1, 2, 3]}, TypeError, "expected a dict"),
        ("cross_entropy", {"class_weight": "balanced"}, ValueError, r"needs labels \(n,\)"),
        ("quadratic", {"sample_weight": [1 + 1j] * 24}, TypeError, "sample_weight has dtype complex128; expected real"),
        ("quadratic", {"sample_weight": [10**400] * 24}, TypeError, "sample_weight has dtype object; expected real"),
        ("softmax_cross_entropy", {"class_weight": {0: 10**400}}, ValueError, "class_weight of 0 is 1000"),
        ("softmax_cross_entropy", {"class_weight": {0: 1j}}, ValueError, "class_weight of 0 is 1j"),
    ],
)
def test_invalid_weights_change_nothing(cost: str, options: Any, error: type[Exception], message: str) -> None:
    net = network(cost)
    before = net.parameters.flat.copy()
    with pytest.raises(error, match=message):
        net.fit(X, COSTS[cost], **options, progress=False)
    assert np.array_equal(net.parameters.flat, before)


def test_a_column_of_0_and_1_is_labels() -> None:
    labels = LABELS % 2
    nets = [nnkit.Network([4, 1], seed=0, dtype="float64") for _ in range(2)]
    for net, y in zip(nets, (labels, labels[:, None]), strict=True):
        net.fit(X, y, class_weight={1: 5.0}, epochs=2, progress=False)
    assert np.array_equal(nets[0].parameters.flat, nets[1].parameters.flat)


def test_names_of_classes_with_a_matrix_of_targets() -> None:
    named, numbered = (network("softmax_cross_entropy") for _ in range(2))
    named.classes = np.array(["a", "b", "c"])
    options: dict[str, Any] = {"epochs": 1, "progress": False}
    named.fit(X, np.eye(3)[LABELS], class_weight={"b": 2.0}, **options)
    numbered.fit(X, np.eye(3)[LABELS], class_weight={1: 2.0}, **options)
    assert np.array_equal(named.parameters.flat, numbered.parameters.flat)
    with pytest.raises(ValueError, match="class_weight of 'b' is 'x'"):
        named.fit(X, named.classes[LABELS], **options | {"class_weight": {"b": "x"}})


def test_weights_whose_sum_is_too_large() -> None:
    """Their mean would be infinite, and each weight 0."""
    nets = [network("quadratic") for _ in range(2)]
    for net, weight in zip(nets, (1.5e308 * np.linspace(0.25, 1, 24), np.linspace(0.25, 1, 24)), strict=True):
        net.fit(X, COSTS["quadratic"], sample_weight=weight, epochs=1, progress=False)
    np.testing.assert_allclose(nets[0].parameters.flat, nets[1].parameters.flat, rtol=1e-6)


def test_weights_of_samples_and_outputs_in_one_process() -> None:
    net = network("cross_entropy")
    for _ in range(3):  # few samples: recorded from the second time on
        by_sample = net.evaluate(X, MATRIX, sample_weight=np.ones(24))["cost"]
        by_output = net.evaluate(X, MATRIX, class_weight={0: 1.0})["cost"]
        assert by_sample == pytest.approx(net.evaluate(X, MATRIX)["cost"], rel=1e-14)
        assert by_output == pytest.approx(by_sample, rel=1e-14)


def test_a_single_output_has_the_classes_0_and_1() -> None:
    labels = (LABELS > 0).astype(int)
    with pytest.raises(ValueError, match=r"the class 2; expected some of \[0, 1\]"):
        nnkit.Network([4, 1], cost="cross_entropy").fit(X, labels, class_weight={2: 1.0}, progress=False)
    with pytest.raises(ValueError, match="class_weight needs labels"):
        nnkit.Network([4, 1], cost="quadratic").fit(X, labels, class_weight={1: 2.0}, progress=False)


@pytest.mark.parametrize(("metric", "cost"), [("top_2", "softmax_cross_entropy"), ("mae", "quadratic")])
def test_named_metrics_are_weighted(metric: str, cost: str) -> None:
    times, net, y = np.arange(24) % 4, network(cost), COSTS[cost]
    found = net.evaluate(X, y, metrics=[metric], sample_weight=times)[metric]
    repeated = net.evaluate(np.repeat(X, times, axis=0), np.repeat(y, times, axis=0), metrics=[metric])[metric]
    assert found == pytest.approx(repeated, rel=1e-13)
    assert found != pytest.approx(net.evaluate(X, y, metrics=[metric])[metric], rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["shared", "own"])
def test_metrics_get_the_weights_that_were_given(dtype: str, order: str) -> None:
    """Neither scaled, as in the cost, nor rounded to the network's dtype: a total needs them."""
    y, weights, rate = RNG.normal(size=(24, 1)), 10 * RNG.uniform(size=24), nnkit.SGD(1e-30)

    def total(y: Any, h: Any, sample_weight: Any) -> float:
        return float((sample_weight * y[:, 0]).sum())

    def parts() -> Any:
        return ((X[at : at + 9], y[at : at + 9], weights[at : at + 9]) for at in range(0, 24, 9))

    options: dict[str, Any] = {"metrics": [total], "epochs": 2, "progress": False, "optimizer": rate}
    expected = pytest.approx((weights * y[:, 0]).sum(), rel=1e-13)
    net = nnkit.Network([4, 3, 1], cost="quadratic", seed=0, dtype=dtype)
    whole = net.fit(X, y, sample_weight=weights, validation_data=(X, y, weights), **options)
    assert [whole["total"][1], whole["validation_total"][1]] == [expected] * 2
    assert net.fit(parts, validation_data=parts, **options)["validation_total"][1] == expected
    assert net.evaluate(X, y, sample_weight=weights, metrics=[total])["total"] == expected
    members = nnkit.Ensemble([4, 3, 1], seeds=range(2), cost="quadratic", dtype=dtype, order=order)
    assert members.fit(X, y, sample_weight=weights, **options).members[1]["total"][1] == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_class_probabilities_are_weighted_like_labels(dtype: str) -> None:
    """One-hot rows are labels; a weight is linear between two classes, for one output as for two."""
    weights = {0: 0.5, 1: 7.0, 2: 2.0}
    for y, weight in ((LABELS, weights), (LABELS, "balanced")):
        nets = [nnkit.Network([4, 3], seed=0, dtype=dtype) for _ in range(2)]
        nets[0].fit(X, y, class_weight=weight, epochs=2, progress=False)
        given = {k: 24 / 3 / n for k, n in enumerate(np.bincount(y).tolist())} if weight == "balanced" else weight
        nets[1].fit(X, np.eye(3)[y], class_weight=given, epochs=2, progress=False)
        np.testing.assert_allclose(
            nets[0].parameters.flat, nets[1].parameters.flat, rtol=1e-5 if dtype == "float32" else 1e-13
        )
    share = RNG.uniform(size=24)
    by_hand = (1 - share) * 0.5 + share * 7.0
    one, two = nnkit.Network([4, 1], seed=0, dtype="float64"), nnkit.Network([4, 2], seed=0, dtype="float64")
    for net, rows in ((one, share), (one, share[:, None]), (two, np.stack([1 - share, share], axis=1))):
        found = net.evaluate(X, rows, class_weight={0: 0.5, 1: 7.0})["cost"]
        assert found == pytest.approx(net.evaluate(X, rows, sample_weight=by_hand)["cost"], rel=1e-12)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("with_classes", [False, True])
def test_the_cost_of_a_stream_equals_that_of_an_array(cost: str, with_classes: bool) -> None:
    """Σ w C/Σ w, whatever the mean of the weights, in histories as in evaluate."""
    y, weights = COSTS[cost], RNG.uniform(1, 5, 24)
    options: dict[str, Any] = {"optimizer": nnkit.SGD(1e-300), "epochs": 2, "progress": False}
    if with_classes:
        if cost == "quadratic":
            y = LABELS
        options["class_weight"] = {0: 3.0, 1: 0.5}
    stream = lambda: ((X[i : i + 7], y[i : i + 7], weights[i : i + 7]) for i in range(0, 24, 7))  # noqa: E731
    wanted = network(cost).fit(X, y, sample_weight=weights, validation_data=(X, y, weights), **options)
    found = network(cost).fit(stream, validation_data=stream, **options)
    for name in wanted.keys() - {"seconds"}:
        assert found[name] == pytest.approx(wanted[name], rel=1e-13)
    chosen = {name: options[name] for name in ("class_weight",) if with_classes}
    evaluated = network(cost).evaluate(stream, **chosen)
    assert evaluated["cost"] == pytest.approx(wanted["cost"][0], rel=1e-13)


def test_a_stream_has_sample_weights_in_all_minibatches_or_in_none() -> None:
    """Also beside class weights, which all of them have."""
    for first in (0, 1):
        items = [(X, LABELS, np.ones(24)), (X, LABELS)]
        net = network("softmax_cross_entropy")
        with pytest.raises(ValueError, match="minibatch 1 of X: give all minibatches a sample_weight, or none"):
            net.fit([items[first], items[1 - first]].__iter__(), class_weight={0: 2.0}, progress=False)
        assert net.epochs_trained == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-44, 1e-37, 1e-300, 1e-308, 1e37, 1e39, 1e307])
def test_weights_of_minibatches_that_a_dtype_has_no_room_for(size: float, dtype: str) -> None:
    """They are used as they are: what float32 would round is refused, and what it does not gives the right mean."""
    rng = np.random.default_rng(0)
    X, y, w = rng.normal(size=(200, 3)), rng.integers(0, 3, 200), size * rng.uniform(0.1, 2, 200)
    net = nnkit.Network([3, 5, 3], "tanh", seed=0, dtype=dtype)

    def minibatches() -> Any:
        return ((X[i : i + 50], y[i : i + 50], w[i : i + 50]) for i in range(0, 200, 50))

    if dtype == "float32" or size in (1e-308, 1e307):
        with pytest.raises(
            ValueError, match=f"sample_weight: .*(which {dtype} rounds; scale all weights|all weights are 0)"
        ):
            net.evaluate(minibatches)
    else:
        found, wanted = net.evaluate(minibatches), net.evaluate(X, y, sample_weight=w)
        assert found == pytest.approx(wanted, rel=1e-12)
    assert all(map(math.isfinite, net.evaluate(X, y, sample_weight=w).values()))


@pytest.mark.parametrize("stream", [False, True])
def test_a_fill_value_of_weight_0_has_no_share(stream: bool) -> None:
    """Its cost is infinite in float32, and 0 · ∞ would be NaN."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = X[:, 0] - X[:, 1]
    masked, w = y.copy(), np.ones(60)
    masked[::7], w[::7] = 9.96921e36, 0.0  # netCDF's
    net, other = (nnkit.Network([2, 8, 1], "tanh", "quadratic", seed=0) for _ in range(2))
    for each, targets in ((net, masked), (other, y)):
        given: Any = {"X": X, "y": targets, "sample_weight": w, "batch_size": 20}
        if stream:
            minibatches = [(X[i : i + 20], targets[i : i + 20], w[i : i + 20]) for i in (0, 20, 40)]
            given = {"X": lambda minibatches=minibatches: iter(minibatches)}
        each.fit(**given, epochs=2, optimizer="adam", progress=False)
        each.train_step(X, targets, sample_weight=w)
    np.testing.assert_array_equal(net.parameters.vector, other.parameters.vector)
    found = net.evaluate(X, masked, sample_weight=w, metrics=["mae", "r2"])
    kept = w > 0
    assert found == pytest.approx(net.evaluate(X[kept], y[kept], metrics=["mae", "r2"]), rel=1e-6)
    np.testing.assert_array_equal(net.value_and_gradient(X, masked, sample_weight=w)[1],
                                  net.value_and_gradient(X, y, sample_weight=w)[1])  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_metrics_see_targets_of_weight_0(dtype: str) -> None:
    seen = list[list[float]]()

    def largest_error(y: Any, h: Any) -> float:
        seen.append(y.ravel().tolist())
        return float(np.abs(y - h).max())

    net = nnkit.Network([1, 1], cost="quadratic", dtype=dtype, init="zeros", seed=0)
    x, y, w = np.zeros((3, 1)), np.array([1.0, 2.0, 30.0]), [1, 1, 0]
    assert net.evaluate(x, y, metrics=[largest_error], sample_weight=w)["largest_error"] == 30
    options: Any = {"epochs": 1, "optimizer": nnkit.SGD(1e-30), "metrics": [largest_error], "progress": False}
    history = net.fit(x, y, sample_weight=w, validation_data=(x, y, w), shuffle=False, **options)
    assert history["largest_error"] == history["validation_largest_error"] == [30]
    assert seen == [y.tolist()] * len(seen)
    net, y = nnkit.Network([3, 3], dtype=dtype, init="zeros", seed=0), np.array([0, 1, 2, 1, 1])
    net.parameters.W[0][...] = np.eye(3)
    X, w = 3 * np.eye(3)[[0, 1, 1, 0, 1]], [1, 1, 0, 1, 1]
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    expected = metrics.f1_score(y, net.predict(X), average="macro", sample_weight=w, zero_division=0.0)
    assert net.evaluate(X, y, metrics=["f1"], sample_weight=w)["f1"] == pytest.approx(expected)
