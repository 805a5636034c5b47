"""Metrics of scikit-learn, by name and as they are, compared with calls of scikit-learn."""

import datetime
import functools
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.metrics import get_metrics

metrics = pytest.importorskip("sklearn.metrics")

X, LABELS = nnkit.data.digits()
X, LABELS = X[:400], LABELS[:400]


def _trained(y: Any, outputs: int, cost: str | None = None) -> nnkit.Network:
    network = nnkit.Network([64, 20, outputs], "relu", cost, seed=0)
    network.fit(X, y, epochs=3, progress=False)
    return network


def test_names_for_several_classes() -> None:
    network = _trained(LABELS, 10)
    names = ["f1", "precision", "recall", "roc_auc", "balanced_accuracy"]
    found = network.evaluate(X, LABELS, metrics=names)
    p, labels = network.predict_proba(X).astype(float), network.predict(X)
    macro: dict[str, Any] = {"average": "macro", "zero_division": 0.0}
    expected = {
        "f1": metrics.f1_score(LABELS, labels, **macro),
        "precision": metrics.precision_score(LABELS, labels, **macro),
        "recall": metrics.recall_score(LABELS, labels, **macro),
        "roc_auc": metrics.roc_auc_score(LABELS, p / p.sum(axis=1, keepdims=True), multi_class="ovr"),
        "balanced_accuracy": metrics.balanced_accuracy_score(LABELS, labels),
    }
    assert {name: found[name] for name in names} == pytest.approx(expected)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("cost", [None, "hinge", "cross_entropy"])
def test_names_for_two_classes_with_weights(cost: str | None, outputs: int) -> None:
    y, weight = LABELS % 2, np.random.default_rng(0).uniform(size=400)
    network = _trained(y, outputs, cost)
    names = {"f1": metrics.f1_score, "precision": metrics.precision_score, "recall": metrics.recall_score}
    found = network.evaluate(X, y, metrics=[*names, "roc_auc"], sample_weight=weight)
    for name, function in names.items():
        assert found[name] == pytest.approx(function(y, network.predict(X), sample_weight=weight))
    h = network.forward(X).astype(float)
    scores = h[:, 0] if outputs == 1 else h[:, 1] - h[:, 0] if cost == "hinge" else h[:, 1]
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(y, scores, sample_weight=weight))


@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "hinge"])
def test_two_classes_with_an_output_each(cost: str) -> None:
    y, weight = LABELS % 2, np.random.default_rng(0).uniform(size=400)
    network = _trained(y, 2, cost)
    given = ["roc_auc", "f1", metrics.average_precision_score, metrics.top_k_accuracy_score, metrics.roc_auc_score]
    given[3] = functools.partial(metrics.top_k_accuracy_score, k=1)
    found = network.evaluate(X, y, metrics=given, sample_weight=weight)
    h = network.forward(X).astype(float)
    scores = h[:, 1] if cost != "hinge" else h[:, 1] - h[:, 0]
    for name, function in (
        ("roc_auc", metrics.roc_auc_score),
        ("average_precision_score",) * 2,
        ("roc_auc_score",) * 2,
    ):
        function = getattr(metrics, function) if isinstance(function, str) else function
        assert found[name] == pytest.approx(function(y, scores, sample_weight=weight))
    expected = metrics.accuracy_score(y, network.predict(X), sample_weight=weight)
    assert found["top_k_accuracy_score"] == pytest.approx(expected)


def test_several_labels_per_sample() -> None:
    y = np.stack([LABELS % 2, LABELS > 4, LABELS == 3], axis=1).astype(int)
    network = _trained(y, 3, "cross_entropy")
    found = network.evaluate(X, y, metrics=["f1", metrics.hamming_loss])
    predicted = (network.forward(X) > 0.5).astype(int)
    assert found["f1"] == pytest.approx(metrics.f1_score(y, predicted, average="macro", zero_division=0.0))
    assert found["hamming_loss"] == pytest.approx(metrics.hamming_loss(y, predicted))


def test_functions_as_they_are() -> None:
    network = _trained(LABELS, 10)
    micro = functools.partial(metrics.fbeta_score, beta=2, average="micro")
    found = network.evaluate(X, LABELS, metrics=[metrics.cohen_kappa_score, metrics.log_loss, micro])
    labels = network.predict(X)
    assert found["cohen_kappa_score"] == pytest.approx(metrics.cohen_kappa_score(LABELS, labels))
    assert found["log_loss"] == pytest.approx(network.evaluate(X, LABELS)["cost"], rel=1e-5)
    assert found["fbeta_score"] == pytest.approx(metrics.fbeta_score(LABELS, labels, beta=2, average="micro"))


@pytest.mark.parametrize("outputs", [1, 2])
def test_functions_get_the_names_of_classes(outputs: int) -> None:
    """The positive class of scikit-learn is that called 1, also where it is not the second; of text, the second."""
    for names, positive in (([1, 2], 1), ([-1, 1], 1), (["no", "yes"], "yes")):
        y = np.array(names)[LABELS % 2]
        network = _trained(y, outputs, None)
        labels = network.predict(X)
        found = network.evaluate(X, y, metrics=[metrics.recall_score, metrics.cohen_kappa_score])
        assert found["recall_score"] == pytest.approx(metrics.recall_score(y, labels, pos_label=positive))
        assert found["cohen_kappa_score"] == pytest.approx(metrics.cohen_kappa_score(y, labels))
        of_first = functools.partial(metrics.recall_score, pos_label=names[0])
        found = network.evaluate(X, y, metrics=[of_first])
        assert found["recall_score"] == pytest.approx(metrics.recall_score(y, labels, pos_label=names[0]))


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("names", [["no", "yes"], [10, 20]])
def test_fixed_options_with_the_names_of_two_classes(outputs: int, names: list[Any]) -> None:
    y = np.array(names)[LABELS % 2]
    network = _trained(y, outputs, None)
    labels, p = network.predict(X), network.predict_proba(X).astype(float)
    for options in ({"labels": [names[0]], "average": "macro"}, {"labels": names[::-1], "average": "macro"}):
        function = functools.partial(metrics.f1_score, **options)
        assert network.evaluate(X, y, metrics=[function])["f1_score"] == pytest.approx(function(y, labels))
    for k, name in enumerate(names):
        for function in (metrics.brier_score_loss, metrics.average_precision_score):
            found = network.evaluate(X, y, metrics=[functools.partial(function, pos_label=name)])[function.__name__]
            column = p[:, k] if p.ndim == 2 and p.shape[1] == 2 else (p.reshape(-1) if k else 1 - p.reshape(-1))
            assert found == pytest.approx(function(y, column, pos_label=name), rel=1e-6)


@pytest.mark.parametrize("names", [[1.5, 2.5], [0, "zero"], [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)]])
def test_names_that_scikit_learn_refuses_are_numbers(names: list[Any]) -> None:
    network = nnkit.Network([64, 2], seed=0, classes=names)
    y = np.array([names[k] for k in LABELS % 2], object)
    expected = metrics.balanced_accuracy_score(LABELS % 2, network.logits(X).argmax(axis=1))
    found = network.evaluate(X, y, metrics=[metrics.balanced_accuracy_score])
    assert found["balanced_accuracy_score"] == pytest.approx(expected)


def test_functions_compare_numbers_that_are_names() -> None:
    doses = np.array([10, 20, 40])[LABELS % 3]
    network = nnkit.Ensemble([64, 3], seeds=range(2))
    history = network.fit(X, doses, metrics=[metrics.max_error], epochs=2, progress=False)
    assert {own["max_error"][1] for own in history.members} <= {10, 20, 30}
    member = network.members[0]
    found = member.evaluate(X, doses, metrics=[metrics.mean_absolute_error])["mean_absolute_error"]
    assert found == pytest.approx(metrics.mean_absolute_error(doses, member.predict(X)))


@pytest.mark.parametrize("outputs", [1, 2])
def test_functions_of_numbers(outputs: int) -> None:
    y = np.stack([LABELS, LABELS**2], axis=1)[:, :outputs].astype(float)
    network = nnkit.Network([64, outputs], cost="quadratic", seed=0)
    found = network.evaluate(X, y, metrics=[metrics.max_error if outputs == 1 else metrics.mean_squared_error, "r2"])
    h = network.forward(X)
    assert found["r2"] == pytest.approx(metrics.r2_score(y, h))
    assert found.get("max_error", 0) == pytest.approx(metrics.max_error(y, h) if outputs == 1 else 0)
    assert found.get("mean_squared_error", 0) == pytest.approx(metrics.mean_squared_error(y, h) if outputs == 2 else 0)


def test_early_stopping_knows_that_the_highest_is_best() -> None:
    network = nnkit.Network([64, 10], seed=0)
    rule = nnkit.EarlyStopping("validation_f1", patience=1)
    history = network.fit(
        X, LABELS, epochs=3, metrics=["f1"], validation_data=(X, LABELS), early_stopping=rule, progress=False
    )
    assert len(history["validation_f1"]) == history.epochs
    assert network.evaluate(X, LABELS, metrics=["f1"])["f1"] == pytest.approx(max(history["validation_f1"]))


def test_scorers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"metrics holds make_scorer\(.*expected a function of \(y, h\)"):
        nnkit.Network([64, 10], seed=0).evaluate(X, LABELS, metrics=[metrics.make_scorer(metrics.f1_score)])


def test_metrics_of_classes_need_classes() -> None:
    with pytest.raises(ValueError, match="metrics: 'f1' is for classes, and the network's cost is for numbers"):
        nnkit.Network([64, 1], cost="quadratic", seed=0).evaluate(X, LABELS, metrics=["f1"])
    with pytest.raises(ValueError, match="unknown metric 'F1-score'"):
        nnkit.Network([64, 10], seed=0).evaluate(X, LABELS, metrics=["F1-score"])


def test_rows_of_weight_0_do_not_make_several_labels_per_sample() -> None:
    y = np.eye(10)[LABELS]
    y[:2] = 1.0
    network = _trained(LABELS, 10)
    weight = np.where(np.arange(400) < 2, 0.0, 1.0)
    found = network.evaluate(X, LABELS, metrics=["balanced_accuracy"], sample_weight=weight)["balanced_accuracy"]
    measured = get_metrics(["balanced_accuracy"], 10, True)[0].measure(y, network.forward(X), weight[:, None])
    assert measured == pytest.approx(found)


@pytest.mark.parametrize("order", ["shared", "own"])
def test_labels_are_those_of_predict_where_outputs_round_to_1(order: str) -> None:
    samples, labels = np.zeros((4, 1)), np.array([0, 1, 2, 2])
    ensemble = nnkit.Ensemble([1, 3], cost="cross_entropy", seeds=[0, 1], order=order)
    for member in ensemble.members:
        member.parameters.W[0][...], member.parameters.b[0][...] = 0, [18, 20, 22]
    member = ensemble.members[0]
    predicted, wanted = member.predict(samples), [metrics.accuracy_score, "f1", "top_1"]
    assert (predicted == 2).all()
    assert (member.predict_proba(samples)[:, 1:] == 1).all()
    for found in (member.evaluate(samples, labels, metrics=wanted), ensemble.evaluate(samples, labels, metrics=wanted)):
        assert found["accuracy"] == found["accuracy_score"] == found["top_1"] == 0.5
        assert found["f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    history = ensemble.fit(
        samples, labels, epochs=1, optimizer=nnkit.SGD(1e-9), metrics=wanted, batch_size=4, progress=False
    )
    assert history["accuracy_score"] == history["top_1"] == history["accuracy"] == [0.5]
