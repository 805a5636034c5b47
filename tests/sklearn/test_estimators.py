"""DenseClassifier and DenseRegressor: scikit-learn's checks, MLP's weights, and what nnkit adds."""

import io
import itertools
import os
import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="needs scikit-learn 1.9 or newer")

from sklearn.base import clone
from sklearn.datasets import load_digits, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.estimator_checks import estimator_checks_generator

import nnkit
from nnkit.backends import get_backend
from nnkit.minimize import Objective
from nnkit.sklearn import DenseClassifier, DenseRegressor
from nnkit.sklearn.solvers import compensated_sum
from tests.support import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, labels = load_digits(return_X_y=True)
X, labels = X[:205] / 16, labels[:205]
XR, TARGETS = make_regression(90, 5, n_targets=3, random_state=0)
TARGETS = TARGETS / 100


CHECKS = [
    pytest.param(*pair, id=f"{type(pair[0]).__name__}-{pair[0].solver}-{pair[1].func.__name__}")
    for estimator in (DenseClassifier(), DenseRegressor(), DenseRegressor(solver="lbfgs"))
    for pair in estimator_checks_generator(estimator)
    if "array_api" not in pair[1].func.__name__
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_array_api_checks_of_scikit_learn() -> None:
    pytest.importorskip("array_api_strict")
    program = """
import unittest, warnings
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import estimator_checks_generator
from nnkit.sklearn import DenseClassifier, DenseRegressor
for estimator in (DenseClassifier(), DenseRegressor()):
    for estimator, check in estimator_checks_generator(estimator):
        if "array_api" in check.func.__name__ and "cupy" not in repr(check) and "cuda" not in repr(check):
            try:
                check(estimator)
                print("passed", repr(check)[:100])
            except unittest.SkipTest:
                pass
"""
    # The variable is read when SciPy is imported. CuPy's check needs a GPU.
    environment = os.environ | {"SCIPY_ARRAY_API": "1", "NNKIT_NATIVE": "0"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("passed") >= 6


# --- like MLPClassifier and MLPRegressor ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0},
        {"nesterovs_momentum": False},
        {"learning_rate": "invscaling"},
        {"learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
        {"activation": "logistic"},
        {"activation": "tanh", "hidden_layer_sizes": (20, 10)},
        {"batch_size": 32, "alpha": 0.1},
        {"early_stopping": True, "validation_fraction": 0.2},
    ],
    ids=str,
)
def test_descent_gives_the_weights_of_mlp(options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"solver": "sgd", "max_iter": 15, "random_state": 3, "shuffle": False}
    given |= {"learning_rate_init": 0.05} | options
    theirs, ours = MLPClassifier(**given).fit(X, labels), DenseClassifier(**given).fit(X, labels)
    for a, b in zip(theirs.coefs_ + theirs.intercepts_, ours.coefs_ + ours.intercepts_, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-12)
    assert (ours.n_iter_, ours.t_, ours.n_layers_, ours.n_outputs_) == (
        theirs.n_iter_, theirs.t_, theirs.n_layers_, theirs.n_outputs_,
    )  # fmt: skip
    assert ours.out_activation_ == theirs.out_activation_
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-10)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-12)
    if "early_stopping" in options:
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_)


@pytest.mark.parametrize("given", [labels == 1, np.array(["even", "odd"])[labels % 2], labels % 3 - 1])
def test_labels_of_any_kind(given: Any) -> None:
    options: dict[str, Any] = {"solver": "sgd", "max_iter": 15, "random_state": 3, "shuffle": False}
    theirs, ours = MLPClassifier(**options).fit(X, given), DenseClassifier(**options).fit(X, given)
    found, expected = ours.predict(X), theirs.predict(X)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)


@pytest.mark.parametrize("targets", [TARGETS[:, 0], TARGETS])
def test_descent_gives_the_weights_of_the_regressor(targets: Any) -> None:
    options: dict[str, Any] = {"solver": "sgd", "max_iter": 15, "random_state": 3, "shuffle": False}
    theirs, ours = MLPRegressor(**options).fit(XR, targets), DenseRegressor(**options).fit(XR, targets)
    for a, b in zip(theirs.coefs_ + theirs.intercepts_, ours.coefs_ + ours.intercepts_, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-10)
    assert ours.predict(XR).shape == theirs.predict(XR).shape


def test_parameters_can_be_set_like_those_of_the_regressor() -> None:
    theirs, ours = (kind(max_iter=1, random_state=0) for kind in (MLPRegressor, DenseRegressor))
    for model in (theirs, ours):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged
            model.fit(XR, TARGETS)
        rng = np.random.default_rng(1)
        model.coefs_ = [rng.normal(size=a.shape) for a in model.coefs_]
        model.intercepts_ = [rng.normal(size=a.shape) for a in model.intercepts_]
    np.testing.assert_allclose(ours.predict(XR), theirs.predict(XR), rtol=1e-12)
    with pytest.raises(ValueError, match=r"coefs_ has the shapes \[.*\]; expected \["):
        ours.coefs_ = [a.T for a in ours.coefs_]
    with pytest.raises(ValueError, match=r"intercepts_\[1\] holds nan at \[0\]"):
        ours.intercepts_ = [ours.intercepts_[0], np.full(TARGETS.shape[1], np.nan)]
    with pytest.raises(TypeError, match="does not support item assignment"):  # the network would not see it
        ours.coefs_[1] = np.zeros_like(ours.coefs_[1])  # type: ignore[index]
    np.testing.assert_allclose(ours.predict(XR), theirs.predict(XR), rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "seed", [3, 4, 315, *(pytest.param(seed, marks=pytest.mark.campaign) for seed in range(5, 105))]
)
def test_descent_with_a_penalty_stops_where_the_regressor_stops(seed: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(15, 60))
    x = rng.normal(size=(n, 3))
    y = x[:, 0] + rng.normal(size=n)
    weight = np.full(n, 2.0) if weighted else None
    options: dict[str, Any] = {
        "hidden_layer_sizes": (4,), "activation": "tanh", "solver": "sgd", "alpha": 10.0 ** rng.integers(-2, 2),
        "batch_size": int(rng.integers(3, n)), "shuffle": False, "random_state": seed, "max_iter": 200, "momentum": 0,
        "learning_rate_init": 0.05, "tol": 1e-3, "n_iter_no_change": 3,
    }  # fmt: skip
    theirs, ours = MLPRegressor(**options), DenseRegressor(**options)
    theirs.fit(x, y, sample_weight=weight)
    ours.fit(x, y, sample_weight=weight)
    assert ours.n_iter_ == theirs.n_iter_ < 200
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    for _ in range(2):
        theirs.partial_fit(x, y, sample_weight=weight)
        ours.partial_fit(x, y, sample_weight=weight)
        np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=1e-9)


@pytest.mark.parametrize("compiled", ["0", "1"])
def test_penalties_of_many_updates_keep_their_digits(compiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of 10⁵ float32 numbers; a plain one would be wrong by 10⁻⁴ of it, more than the default `tol`."""
    monkeypatch.setenv("NNKIT_NATIVE", compiled)
    backend, total, lost = get_backend("numpy"), np.zeros((), np.float32), np.zeros((), np.float32)
    x = np.float32(0.1) * np.ones((), np.float32)
    with backend.recording() as tape:
        backend.elementwise(compensated_sum, (total, lost, x), out=(total, lost))
    tape.replay(100_000)
    assert total == np.float32(100_000 * float(x))
    assert abs(np.cumsum(np.full(100_000, x))[-1] / total - 1) > 1e-4


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_lbfgs_gives_the_weights_of_the_regressor(loss: str) -> None:
    targets = np.abs(TARGETS[:, 0])
    options: dict[str, Any] = {"solver": "lbfgs", "max_iter": 8, "random_state": 3, "loss": loss}
    weight = np.random.default_rng(0).uniform(0.5, 2, len(XR))
    theirs, ours = MLPRegressor(**options), DenseRegressor(**options)
    theirs.fit(XR, targets, sample_weight=weight)
    ours.fit(XR, targets, sample_weight=weight)
    for a, b in zip(theirs.coefs_ + theirs.intercepts_, ours.coefs_ + ours.intercepts_, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-8)


def test_the_loss_of_lbfgs_is_the_mean_over_the_targets() -> None:
    options: dict[str, Any] = {"solver": "lbfgs", "max_iter": 2, "random_state": 0, "alpha": 0.5}
    model = DenseRegressor(**options).fit(XR, TARGETS)
    penalty = 0.5 * 0.5 * sum((W**2).sum() for W in model.coefs_) / len(XR)
    assert model.best_loss_ == model.loss_
    assert model.loss_ == pytest.approx(0.5 * np.mean((TARGETS - model.predict(XR)) ** 2) + penalty)


@pytest.mark.parametrize(
    "options", [{}, {"activation": "gelu"}, {"activation": ["relu", "mish"]}, {"preset": "tabular"}], ids=str
)
def test_fits_with_one_generator_differ_and_those_with_one_number_do_not(options: dict[str, Any]) -> None:
    few: dict[str, Any] = {"hidden_layer_sizes": (4, 4), "max_iter": 1}

    def weights(*states: Any) -> set[bytes]:
        models = (DenseClassifier(**few | options, random_state=state).fit(X, labels) for state in states)
        return {model.coefs_[0].tobytes() for model in models}

    generator = np.random.RandomState(0)
    assert len(weights(None, None, generator, generator, generator)) == 5
    assert weights(0, 0) == weights(np.random.RandomState(0))


def test_the_start_without_hidden_layers_is_that_of_mlp() -> None:
    options: dict[str, Any] = {"hidden_layer_sizes": (), "activation": "logistic", "solver": "sgd", "max_iter": 1}
    options |= {"random_state": 0, "shuffle": False}
    theirs, ours = MLPClassifier(**options).fit(X, labels), DenseClassifier(**options).fit(X, labels)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=0, atol=1e-12)


def test_several_labels_per_sample() -> None:
    samples, truths = make_multilabel_classification(60, random_state=0)
    model = DenseClassifier(solver="lbfgs", max_iter=150, random_state=0).fit(samples, truths)
    assert model.score(samples, truths) > 0.95
    assert model.predict_proba(samples).shape == truths.shape


def test_parameters_and_defaults_are_those_of_mlp() -> None:
    for theirs, ours in ((MLPClassifier(), DenseClassifier()), (MLPRegressor(), DenseRegressor())):
        expected, found = theirs.get_params(), ours.get_params()
        assert {name: found[name] for name in expected} == expected


# --- what nnkit adds --------------------------------------------------------------------------------------------------


def test_a_class_weight_is_a_sample_weight() -> None:
    options: dict[str, Any] = {"solver": "sgd", "max_iter": 10, "random_state": 3, "batch_size": 205}
    weight = np.where(labels == 1, 3.0, 1.0)
    one = DenseClassifier(class_weight={1: 3.0}, **options).fit(X, labels)
    other = DenseClassifier(**options).fit(X, labels, sample_weight=weight)
    np.testing.assert_array_equal(one.coefs_[0], other.coefs_[0])
    assert not np.array_equal(one.coefs_[0], DenseClassifier(**options).fit(X, labels).coefs_[0])
    assert DenseClassifier(class_weight="balanced", **options).fit(X, labels).n_iter_ == 10


def test_balanced_classes_have_equal_totals_of_the_sample_weights() -> None:
    rng = np.random.default_rng(0)
    samples, y = rng.normal(size=(120, 3)), np.array(["a", "b", "c"])[np.arange(120) % 3]
    weight = rng.uniform(0.5, 1.5, 120) * np.select([y == "a", y == "b"], [1.0, 5.0], 0.2)
    options: dict[str, Any] = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 0, "tol": 1e-9, "max_iter": 500}
    ours = DenseClassifier(class_weight="balanced", **options).fit(samples, y, weight)
    theirs = LogisticRegression(class_weight="balanced", C=np.inf, tol=1e-9, max_iter=500).fit(samples, y, weight)
    # In float32, whatever the start: 3.6e-5 is the largest difference of 60 of them.
    np.testing.assert_allclose(ours.predict_proba(samples), theirs.predict_proba(samples), atol=1e-4)
    totals = [ours._weights(samples, y, weight)[y == name].sum() for name in "abc"]
    np.testing.assert_allclose(totals, weight.sum() / 3)
    net = nnkit.Network([3, 3], dtype="float64", seed=0)
    given = nnkit.training.weights.weights_of(
        net, nnkit.data.one_hot(np.arange(120) % 3, 3), True, weight, "balanced", ""
    )
    np.testing.assert_allclose(given[:, 0] * weight.mean(), ours._weights(samples, y, weight))


def test_balanced_classes_without_weight_do_not_count() -> None:
    y, weight = np.array(["a", "b", "c"])[labels % 3], np.where(labels % 3 == 2, 0.0, 1.0 + labels)
    model = DenseClassifier((5,), max_iter=3, class_weight="balanced", random_state=0).fit(X, y, weight)
    found = model._weights(X, y, weight)
    assert not found[y == "c"].any()
    np.testing.assert_allclose([found[y == name].sum() for name in "ab"], weight.sum() / 2)
    truths = np.stack([labels > 4, labels % 2], axis=1).astype(int)
    several = model.fit(X, truths, weight)._weights(X, truths, np.where(truths[:, 0] == 1, 0.0, 1.0))
    assert np.isfinite(several).all()
    assert several[(truths == [0, 0]).all(axis=1)].sum() == pytest.approx(several[(truths == [0, 1]).all(axis=1)].sum())
    with pytest.raises(ValueError, match=r"zero|all weights are 0"):
        model.fit(X, y, np.zeros(len(X)))


def test_sample_weights_are_repetitions() -> None:
    options: dict[str, Any] = {"solver": "lbfgs", "max_iter": 15, "random_state": 3, "alpha": 0.1}
    weight = np.arange(len(XR)) % 3
    one = DenseRegressor(**options).fit(XR, TARGETS, sample_weight=weight)
    other = DenseRegressor(**options).fit(np.repeat(XR, weight, axis=0), np.repeat(TARGETS, weight, axis=0))
    np.testing.assert_allclose(one.predict(XR), other.predict(XR), rtol=1e-6)


def test_layers_have_their_own_activations_and_dropout() -> None:
    model = DenseClassifier((20, 10), ["selu", "gelu"], dropout=0.1, max_iter=2, dtype="float32").fit(X, labels)
    assert [layer.activation for layer in model.network_.dense] == ["selu", "gelu", "softmax"]
    assert [layer.rate for layer in model.network_.layers if isinstance(layer, nnkit.Dropout)] == [0.1, 0.1]
    assert model.predict_proba(X).dtype == np.float32


def test_a_schedule_and_a_validation_curve() -> None:
    part = slice(0, 150)
    model = DenseClassifier(schedule="cosine", max_iter=4, random_state=0)
    model.fit(X[part], labels[part], validation_data=(X[150:], labels[150:]))
    assert len(model.validation_loss_curve_) == len(model.loss_curve_) == 4
    p = model.predict_proba(X[150:])
    expected = -np.log(p[np.arange(len(p)), labels[150:]]).mean()
    np.testing.assert_allclose(model.validation_loss_curve_[-1], expected, rtol=1e-9)


def test_validation_data_decide_early_stopping() -> None:
    model = DenseClassifier(early_stopping=True, max_iter=60, random_state=0, learning_rate_init=0.03)
    model.fit(X, labels, validation_data=(X[:50], labels[:50]))
    assert model.score(X[:50], labels[:50]) == model.best_validation_score_ == max(model.validation_scores_)
    assert model.n_iter_ < 60


KINDS = {"one-hot rows": np.eye(10, dtype=int)[labels], "classes": labels, "two classes": labels % 2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{"loss": "log_loss"}, {"loss": "quadratic"}, {"loss": "huber"}, {"preset": "tabular"}]
)
def test_validation_scores_are_those_of_the_estimator(kind: str, options: dict[str, Any]) -> None:
    """Also where rows with one 1 are several labels, as in scikit-learn, and the cost is one of a regression."""
    y, part = KINDS[kind], slice(0, 120)
    options = options | {"max_iter": 6, "random_state": 0, "learning_rate_init": 0.02}
    scores: list[float] = []

    model = DenseClassifier(**options) if "preset" in options else DenseClassifier(**options, early_stopping=True)
    fit = nnkit.Network.fit

    def watched(net: nnkit.Network, *data: Any, callbacks: Any, **others: Any) -> Any:
        def score(net: nnkit.Network, history: nnkit.History) -> None:
            scores.append(accuracy_score(y[120:], model.predict(X[120:])))

        return fit(net, *data, callbacks=[*callbacks, score], **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnkit.Network, "fit", watched)
        model.fit(X[part], y[part], validation_data=(X[120:], y[120:]))
    assert model.validation_scores_ == pytest.approx(scores, abs=1e-12)
    assert model.best_validation_score_ == max(scores)


def test_probabilities_of_several_sigmoid_outputs_sum_to_1() -> None:
    """As those of scikit-learn's OneVsRestClassifier."""
    model = DenseClassifier(loss="cross_entropy", max_iter=3, random_state=0).fit(X, labels)
    p, h = model.predict_proba(X), model.network_.forward(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(p, h / h.sum(axis=1, keepdims=True), rtol=1e-12)
    assert np.array_equal(model.classes_[p.argmax(axis=1)], model.predict(X))


def test_decisions_for_several_labels_are_above_0() -> None:
    samples, truths = make_multilabel_classification(60, random_state=0)
    for loss in ("quadratic", "hinge"):
        model = DenseClassifier(loss=loss, max_iter=5, random_state=0).fit(samples, truths)
        assert np.array_equal(model.decision_function(samples) > 0, model.predict(samples))


@pytest.mark.parametrize("solver", ["adamw", "rmsprop", "lion"])
def test_every_optimizer_is_a_solver(solver: str) -> None:
    assert DenseClassifier(solver=solver, max_iter=40, learning_rate_init=0.003).fit(X, labels).score(X, labels) > 0.8


def test_other_costs() -> None:
    assert DenseRegressor("huber", max_iter=2).fit(XR, TARGETS).network_.cost.name == "huber"
    smoothed = nnkit.get_cost("softmax_cross_entropy", label_smoothing=0.1)
    assert DenseClassifier(loss=smoothed, learning_rate_init=0.01, max_iter=30).fit(X, labels).score(X, labels) > 0.9


def test_a_backend() -> None:
    pytest.importorskip("array_api_strict")
    options: dict[str, Any] = {"max_iter": 3, "random_state": 0}
    there = DenseClassifier(backend="standard:array_api_strict", **options).fit(X, labels)
    here = DenseClassifier(**options).fit(X, labels)
    assert isinstance(there.predict_proba(X), np.ndarray)
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-10)


# --- state ------------------------------------------------------------------------------------------------------------


def test_a_pickle_continues_like_the_original() -> None:
    model = DenseClassifier(random_state=0, solver="sgd").partial_fit(X, labels, classes=range(10))
    copy = pickle.loads(pickle.dumps(model))
    for one in (model, copy):
        one.partial_fit(X, labels)
    np.testing.assert_array_equal(model.coefs_[0], copy.coefs_[0])
    assert not hasattr(clone(model), "network_")


def test_warm_start_continues() -> None:
    options: dict[str, Any] = {"solver": "sgd", "momentum": 0, "random_state": 0, "shuffle": False}
    model = DenseClassifier(warm_start=True, max_iter=3, **options).fit(X, labels).fit(X, labels)
    whole = DenseClassifier(max_iter=6, **options).fit(X, labels)
    np.testing.assert_allclose(model.coefs_[0], whole.coefs_[0], atol=1e-14)
    assert len(model.loss_curve_) == 6


@pytest.mark.parametrize(
    "change",
    [
        *({"activation": "tanh"}, {"hidden_layer_sizes": (4, 4)}, {"dropout": 0.5}, {"loss": "hinge"}),
        *({"dtype": "float32"}, {"backend": "standard:array_api_strict"}),
    ],
)
def test_parameters_of_another_network_are_refused_where_a_training_continues(change: dict[str, Any]) -> None:
    if "backend" in change:
        pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    model = DenseClassifier((6,), warm_start=True, max_iter=2, random_state=0).fit(X, labels)
    before = [W.copy() for W in model.coefs_]
    model.set_params(**change)
    for train in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=f"^{next(iter(change))} is .* but the training continues Network"):
            train(X, labels)
    assert all(map(np.array_equal, model.coefs_, before))


@pytest.mark.parametrize(("solver", "atol"), [("sgd", 1e-12), ("adam", 1e-4)])
def test_partial_fit_takes_another_alpha_as_mlp_does(solver: str, atol: float) -> None:
    options: dict[str, Any] = {"solver": solver, "learning_rate_init": 0.05, "shuffle": False, "random_state": 0}
    samples = np.random.default_rng(0).normal(size=(205, 8))  # of gradients far above Adam's ε, which is elsewhere
    models = [kind((6,), "tanh", **options) for kind in (DenseClassifier, MLPClassifier)]
    for alpha in (1e-4, 1e-4, 50.0, 50.0, 0.0, 1.0):
        for model in models:
            model.set_params(alpha=alpha).partial_fit(samples, labels, classes=np.arange(10))
        for W, theirs in zip(models[0].coefs_, models[1].coefs_, strict=True):
            np.testing.assert_allclose(W, theirs, atol=atol)


def test_early_stopping_can_be_changed_in_a_warm_start() -> None:
    model = DenseClassifier((6,), warm_start=True, max_iter=2, random_state=0).fit(X, labels)
    model.set_params(early_stopping=True).fit(X, labels)
    assert len(model.validation_scores_) == 2
    model.set_params(early_stopping=False).fit(X, labels)
    assert np.isfinite(model.best_loss_)
    assert len(model.loss_curve_) == 6


@pytest.mark.parametrize("between", [{}, {"early_stopping": False}, {"solver": "lbfgs"}], ids=str)
def test_a_warm_start_keeps_the_parameters_of_the_best_score(between: dict[str, Any]) -> None:
    """Of the network that it continues, which after a training without scores is another one."""
    aside = X[:50], labels[:50]
    options: dict[str, Any] = {"early_stopping": True, "warm_start": True, "random_state": 0, "max_iter": 40}
    model = DenseClassifier((20,), learning_rate_init=0.03, **options).fit(X, labels, validation_data=aside)
    best = max(model.validation_scores_)
    if between:
        model.set_params(**between, max_iter=1, learning_rate_init=10.0).fit(X, labels)
        model.set_params(early_stopping=True, solver="adam")
        assert model.score(*aside) < best
    before = len(model.validation_scores_)
    model.set_params(learning_rate_init=10.0, max_iter=3).fit(X, labels, validation_data=aside)
    scores = model.validation_scores_[before:]
    assert max(scores) < best
    assert model.score(*aside) == model.best_validation_score_ == (max(scores) if between else best)


def test_outputs_that_are_no_probabilities_are_a_decision_function() -> None:
    for y in (labels, labels > 4):
        plain, margins = (DenseClassifier((6,), max_iter=20, loss=loss).fit(X, y) for loss in ("log_loss", "hinge"))
        assert hasattr(plain, "predict_proba")
        assert not hasattr(plain, "decision_function")
        assert not hasattr(margins, "predict_proba")
        assert not hasattr(margins, "predict_log_proba")
        h = margins.decision_function(X)
        chosen = h > 0 if h.ndim == 1 else h.argmax(axis=1)
        assert np.array_equal(margins.classes_[chosen.astype(int)], margins.predict(X))
        margins.set_params(loss="log_loss")  # of the next network
        assert not hasattr(margins, "predict_proba")
        assert np.array_equal(margins.decision_function(X), h)
        plain.set_params(loss="hinge")
        np.testing.assert_allclose(plain.predict_proba(X).sum(axis=1), 1)
        assert not hasattr(clone(plain), "predict_proba")


@pytest.mark.parametrize("preset", [None, "tabular"])
@pytest.mark.parametrize("names", [["c", "a", "b"], [10, 30, 20], [2, 3, 1], [True, False], [0, 1, 2]])
def test_the_network_is_saved_with_the_class_names(names: list[Any], preset: str | None) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    y = np.array(names)[labels % len(names)]
    model = DenseClassifier((6,), max_iter=2, random_state=0, preset=preset).fit(X, y)
    for again in (False, True):
        file = io.BytesIO()
        model.network_.save(file)
        assert np.array_equal(nnkit.load(file.getvalue()).predict(X), model.predict(X))
        if again or preset is not None:
            break
        model.partial_fit(X, y)


@pytest.mark.parametrize("dtype", ["float32", "float64", "Int64", "Float64", "boolean"])
@pytest.mark.parametrize("names", [[1, 2, 3], [-1, 1], [3, 5], [0, 1, 2]], ids=str)
def test_labels_that_are_whole_floats_are_names_of_the_network(names: list[int], dtype: str) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    pandas = pytest.importorskip("pandas")
    names = [0, 1] if dtype == "boolean" else names
    y = pandas.Series(np.array(names)[labels % len(names)]).astype(dtype)
    model = DenseClassifier((6,), max_iter=20, random_state=0).fit(X, y)
    for _ in range(2):
        file = io.BytesIO()
        model.network_.save(file)
        network = nnkit.load(file.getvalue())
        found = network.predict(X)
        assert found.dtype.kind in "ib"
        assert np.array_equal(found, model.predict(X).astype(int))
        if names != [0, 1, 2]:  # else floats are no labels for a network
            assert network.evaluate(X, y)["accuracy"] == pytest.approx(model.score(X, y))
        model.partial_fit(X, y)


class Decay(nnkit.schedules.Schedule):
    uses_epochs = False

    def __init__(self) -> None:
        self.rate = 1.0

    def factor(self, epoch: float, epochs: float, history: Any) -> float:
        self.rate *= 0.9
        return self.rate


def test_a_second_fit_and_a_clone_have_the_schedule_as_it_was_given() -> None:
    model = DenseClassifier((5,), max_iter=3, random_state=0, schedule=Decay()).fit(X, labels)
    first = model.loss_curve_
    assert clone(model).fit(X, labels).loss_curve_ == first
    assert model.fit(X, labels).loss_curve_ == first


def test_an_interrupt_is_raised() -> None:
    def interrupting(epoch: float) -> float:
        if epoch > 1:
            raise KeyboardInterrupt
        return 1.0

    model = DenseClassifier(max_iter=3, schedule=interrupting)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, labels)
    assert model.predict(X).shape == labels.shape


@pytest.mark.parametrize("moment", ["sklearn.dense.train_by_minibatches", "data.encoding.TableEncoding.fit"])
def test_an_interrupt_before_the_first_epoch_of_a_second_fit_undoes_it(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an error does: neither is the network a new one, nor do its outputs have the names of other classes."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"a": X[:, 20], "b": np.array(["p", "q"])[(X[:, 10] > 0.5).astype(int)]})
    model = DenseClassifier((5,), max_iter=3, random_state=0).fit(table, labels)
    before, network = model.predict_proba(table), model.network_

    def interrupt(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"nnkit.{moment}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(table, np.where(X[:, 3] > 0.5, "yes", "no"))
    assert model.network_ is network
    assert model.classes_.tolist() == [*range(10)]
    np.testing.assert_array_equal(model.predict_proba(table), before)


def test_an_interrupted_lbfgs_keeps_the_best_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a second fit, whose labels have other names."""
    model = DenseClassifier((5,), solver="lbfgs", max_iter=500, random_state=0).fit(X[:50], labels[:50])
    call, count = Objective.__call__, itertools.count()

    def interrupt(*given: Any) -> Any:
        if next(count) == 60:
            raise KeyboardInterrupt
        return call(*given)

    monkeypatch.setattr(Objective, "__call__", interrupt)
    names = np.array(list("abcdefghij"))[labels]
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, names)
    assert model.score(X, names) > 0.5
    assert 0 < model.n_iter_ < 60


def test_an_interrupted_preset_has_the_numbers_of_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"hidden_layer_sizes": (5,), "random_state": 0, "preset": "tabular"}
    model = DenseClassifier(**options)
    score = model._score

    def interrupting(*given: Any) -> float:
        if model.n_iter_ == 2:
            raise KeyboardInterrupt
        return score(*given)

    monkeypatch.setattr(model, "_score", interrupting)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, labels)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_scores_) == 2
    assert (model.loss_, model.t_) == (model.loss_curve_[-1], 2 * (len(X) - round(0.2 * len(X))))
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert min(model.loss_curve_) == model.best_loss_


@pytest.mark.parametrize("preset", [None, "tabular"])
def test_the_loss_of_several_targets_is_their_mean(preset: str | None) -> None:
    y = TARGETS[:, :2] / TARGETS[:, :2].std(axis=0)  # the cost of the preset is that of standardized targets
    model = DenseRegressor(hidden_layer_sizes=(5,), max_iter=3, preset=preset, learning_rate_init=1e-9, random_state=0)
    model.fit(XR, y, validation_data=(XR, y))
    expected = ((model.predict(XR) - y) ** 2).mean() / 2
    assert model.loss_ == model.loss_curve_[-1] == pytest.approx(expected, rel=1e-3)
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-5)


def test_divergence_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="DenseRegressor: the parameters are no longer finite"):
        DenseRegressor(solver="sgd", learning_rate_init=1e6, max_iter=50).fit(XR, TARGETS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha"),
        ({"activation": "rellu"}, "unknown activation 'rellu'; did you mean 'relu' or 'elu'?"),
        ({"activation": ["relu"], "hidden_layer_sizes": (3, 4)}, "activation has 1 names; expected one for each of 2"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes must be > 0"),
        ({"solver": "adm"}, "solver"),
        ({"solver": "lbfgs", "dropout": 0.5}, "dropout is 0.5, which solver='lbfgs' cannot use"),
        ({"schedule": "cosine", "learning_rate": "adaptive"}, "schedule is given, and learning_rate is 'adaptive'"),
        ({"loss": "hinje"}, "unknown cost 'hinje'; did you mean 'hinge'?"),
    ],
    ids=str,
)
def test_invalid_parameters(options: dict[str, Any], message: str) -> None:
    model = DenseClassifier(**options)
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        model.fit(X, labels)
    assert not hasattr(model, "network_")


def test_a_training_that_has_not_converged_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        DenseClassifier(max_iter=2).fit(X, labels)
