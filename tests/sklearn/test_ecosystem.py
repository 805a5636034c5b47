"""The estimators inside scikit-learn's tools, and in pandas and joblib."""

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="needs scikit-learn 1.9 or newer")

import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_iris, make_regression
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import nnkit
from nnkit.sklearn import DenseClassifier, DenseRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
FAST: dict[str, Any] = {"solver": "lbfgs", "hidden_layer_sizes": (8,), "max_iter": 60, "random_state": 0}


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_grid_search_in_parallel_finds_what_a_loop_finds(backend: str) -> None:
    model = make_pipeline(StandardScaler(), DenseClassifier((5,), max_iter=5, random_state=0))
    grid = {"denseclassifier__learning_rate_init": [0.001, 0.1]}
    alone = GridSearchCV(model, grid, cv=2).fit(X, y)
    with joblib.parallel_backend(backend):
        together = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(alone.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"])
    assert alone.best_params_ == {"denseclassifier__learning_rate_init": 0.1}


@pytest.mark.parametrize(
    "made",
    [
        lambda model: CalibratedClassifierCV(model, cv=2),
        lambda model: VotingClassifier([("net", model), ("linear", LogisticRegression())], voting="soft"),
        lambda model: AdaBoostClassifier(model, n_estimators=3),
        OneVsRestClassifier,
    ],
    ids=["calibration", "voting", "AdaBoost", "one versus rest"],
)
def test_classifiers_of_classifiers(made: Any) -> None:
    model = made(DenseClassifier(**FAST)).fit(StandardScaler().fit_transform(X), y)
    assert model.score(StandardScaler().fit_transform(X), y) > 0.9


def test_a_chain_of_classifiers() -> None:
    truths = np.stack([y == 1, y == 2], axis=1).astype(int)
    chain = ClassifierChain(DenseClassifier(**FAST)).fit(StandardScaler().fit_transform(X), truths)
    assert chain.score(StandardScaler().fit_transform(X), truths) > 0.9


@pytest.mark.parametrize(
    "made",
    [
        lambda model: BaggingRegressor(model, n_estimators=3, random_state=0),
        lambda model: StackingRegressor([("net", model), ("linear", LinearRegression())], cv=2),
        lambda model: TransformedTargetRegressor(model, transformer=StandardScaler()),
    ],
    ids=["bagging", "stacking", "transformed targets"],
)
def test_regressors_of_regressors(made: Any) -> None:
    samples, targets = make_regression(120, 4, random_state=0)
    assert made(DenseRegressor(**FAST)).fit(samples, targets).score(samples, targets) > 0.9


def test_permutation_importance() -> None:
    samples = StandardScaler().fit_transform(X)
    samples[:, 0] = 0.0
    found = permutation_importance(DenseClassifier(**FAST).fit(samples, y), samples, y, random_state=0)
    assert found.importances_mean[0] == 0
    assert found.importances_mean[2:].sum() > 0.2


def test_a_table_of_mixed_columns() -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(X, columns=["a", "b", "c", "d"]).assign(kind=np.array(["x", "y", "z"])[y])
    columns = ColumnTransformer([("numbers", StandardScaler(), ["a", "b"]), ("kind", OneHotEncoder(), ["kind"])])
    model = make_pipeline(columns, DenseClassifier(**FAST)).fit(table, y)
    assert model.score(table, y) == 1.0
    plain = DenseClassifier(**FAST).fit(table[["a", "b", "c", "d"]], y)
    assert plain.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="feature names"):
        plain.predict(table[["b", "a", "c", "d"]])


def test_sample_weights_are_routed() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        model = DenseClassifier(**FAST).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scores = cross_val_score(model, X, y, cv=2, params={"sample_weight": np.ones(len(X))})
    np.testing.assert_array_equal(scores, cross_val_score(DenseClassifier(**FAST), X, y, cv=2))


def test_callbacks_of_scikit_learn() -> None:
    seen: list[str] = []
    scores: list[float] = []
    copies: list[nnkit.Network] = []

    class Counting:
        def setup(self, estimator: Any, context: Any) -> None:
            seen.append("setup")

        def on_fit_task_begin(self, estimator: Any, context: Any) -> None: ...

        def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> bool:
            seen.append(context.task_name)
            scores.append(fitted_estimator.score(X, y + 1))
            copies.append(pickle.loads(pickle.dumps(fitted_estimator.network_)))
            return seen.count("epoch") == 2

        def teardown(self, estimator: Any, context: Any) -> None:
            seen.append("teardown")

    model = DenseClassifier(max_iter=5, random_state=0).set_callbacks(Counting())
    assert model.fit(X, y + 1).n_iter_ == 2
    assert seen == ["setup", "epoch", "epoch", "fit", "teardown"]
    assert scores[-1] == scores[-2] == model.score(X, y + 1)
    for copied in copies:
        assert np.mean(copied.predict(X) == y + 1) == pytest.approx(scores[copies.index(copied)])


def test_joblib_writes_and_reads(tmp_path: Path) -> None:
    model = DenseClassifier(**FAST).fit(X, y)
    joblib.dump(model, tmp_path / "model")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model").predict_proba(X), model.predict_proba(X))


def test_skops_writes_and_reads() -> None:
    io = pytest.importorskip("skops.io")
    model = DenseClassifier(**FAST).fit(X, y)
    written = io.dumps(model)
    again = io.loads(written, trusted=io.get_untrusted_types(data=written))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
