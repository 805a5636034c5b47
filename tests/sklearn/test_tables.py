"""Estimators on tables of mixed columns, and their preset, beside scikit-learn's pipelines."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="needs scikit-learn 1.9 or newer")
pytest.importorskip("pandas")

import pandas
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import nnkit
from nnkit.cli import main
from nnkit.sklearn import DenseClassifier, DenseRegressor

FEW_EPOCHS = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(0)
N = 120
SIZE, KIND = RNG.normal(size=N), RNG.choice(["x", "y", "z"], N)
TABLE = pandas.DataFrame({"size": np.where(np.arange(N) % 9 == 0, np.nan, 100 + 20 * SIZE), "kind": KIND})
Y = SIZE * (KIND == "x") + 2 * (KIND == "y")
LABELS = np.where(Y > 0.5, "high", "low")
NUMBERS: Any = pandas.DataFrame({"age": 40 + SIZE, "dose": RNG.normal(size=N), "size": SIZE * RNG.normal(size=N)})


def test_a_mixed_table_is_encoded_as_by_scikit_learns_pipeline() -> None:
    """The same weights as MLPRegressor with SGD, whose first layer has its inputs in the same order."""
    encoder = make_column_transformer(
        (make_pipeline(StandardScaler(), SimpleImputer(add_indicator=True)), ["size"]),
        (OneHotEncoder(sparse_output=False), ["kind"]),
    )
    options: dict[str, Any] = {
        "hidden_layer_sizes": (8,), "solver": "sgd", "max_iter": 20, "shuffle": False, "random_state": 0, "tol": 0.0,
    }  # fmt: skip
    ours = DenseRegressor(**options)
    theirs = make_pipeline(encoder, MLPRegressor(**options))
    for model in (ours, theirs):
        with pytest.warns(Warning, match="converged"):
            model.fit(TABLE, Y)
    np.testing.assert_allclose(ours.predict(TABLE), theirs.predict(TABLE), atol=1e-12)
    assert ours.n_features_in_ == 2
    assert ours.feature_names_in_.tolist() == ["size", "kind"]
    with pytest.raises(ValueError, match="feature names should match"):
        ours.predict(TABLE.rename(columns={"kind": "sort"}))


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_of_each_library_with_early_stopping(library: str) -> None:
    module = pytest.importorskip(library)
    made = {"polars": lambda: module.from_pandas(TABLE), "pyarrow": lambda: module.Table.from_pandas(TABLE)}
    table = TABLE if library == "pandas" else made[library]()
    model = DenseClassifier((16,), early_stopping=True, learning_rate_init=0.02, max_iter=200, random_state=0)
    model.fit(table, LABELS, np.ones(N))
    assert model.score(table, LABELS) > 0.8
    assert model.predict(table).tolist() == model.predict(TABLE).tolist()


def test_arrays_with_missing_values_are_refused() -> None:
    with pytest.raises(ValueError, match="contains NaN"):
        DenseRegressor(preset="tabular").fit(TABLE[["size"]].to_numpy(), Y)


def test_the_preset_in_scikit_learns_tools() -> None:
    model = DenseClassifier(preset="tabular", hidden_layer_sizes=(32, 32), max_iter=60, random_state=0)
    assert cross_val_score(model, TABLE, LABELS, cv=2).mean() > 0.75
    model.fit(TABLE, LABELS)
    same = clone(model).fit(TABLE, LABELS)
    assert np.array_equal(model.predict_proba(TABLE), same.predict_proba(TABLE))
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_scores_) == 60
    assert str(model.network_.dense[0].activation) == "selu"
    assert not hasattr(model, "partial_fit")
    grid = {"max_iter": [2, 30]}
    found = GridSearchCV(DenseRegressor(preset="tabular", hidden_layer_sizes=32, random_state=0), grid, cv=2)
    assert found.fit(TABLE, 1e5 + 1e4 * Y).best_params_ == {"max_iter": 30}
    assert found.best_score_ > 0.5


def test_the_preset_keeps_what_is_given_and_refuses_what_has_no_effect() -> None:
    model = DenseRegressor(preset="tabular", activation="tanh", dropout=0.1, max_iter=3, random_state=0)
    model.fit(TABLE, Y, sample_weight=np.ones(N), validation_data=(TABLE[:20], Y[:20]))
    assert repr(model.network_).count("tanh \N{RIGHTWARDS ARROW} dropout 0.1") == 3
    assert len(model.validation_loss_curve_) == 3
    named = DenseRegressor(preset="tabular", activation="logistic", max_iter=1, validation_fraction=0, random_state=0)
    network = named.fit(TABLE, Y).network_
    assert [layer.activation for layer in network.dense] == [*["sigmoid"] * 3, "identity"]
    assert not named.validation_loss_curve_  # no samples were set aside
    few = DenseRegressor(preset="tabular", max_iter=3, random_state=0).fit(TABLE[:20], Y[:20])
    assert few.validation_loss_curve_ == []
    for options in ({"solver": "sgd"}, {"alpha": 0.1}, {"early_stopping": True}):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name} is .*, which has no effect with preset='tabular'; leave it out"):
            DenseRegressor(preset="tabular", **options).fit(TABLE, Y)
    with pytest.raises(ValueError, match="The 'preset' parameter"):
        DenseRegressor(preset="images").fit(TABLE, Y)


def test_a_preset_that_diverges_is_an_error() -> None:
    model = DenseRegressor(preset="tabular", learning_rate_init=1e30, max_iter=3, random_state=0)
    with pytest.raises(
        ValueError, match=r"DenseRegressor: the cost is inf in epoch .*; the network has the parameters"
    ):
        model.fit(TABLE, Y)


@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_do_not_weigh_the_validation_part_of_the_preset(weighted: bool) -> None:
    weight = np.random.default_rng(1).uniform(0.5, 2.0, N)
    options: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 0}
    model = DenseClassifier(preset="tabular", class_weight={"low": 1.0, "high": 50.0}, **options)
    model.fit(TABLE, LABELS, weight if weighted else None)
    *_, aside, labels = nnkit.data.split(TABLE, LABELS, 0.2, model.network_.seed)
    kept = int(np.argmin(model.validation_loss_curve_))
    weight = weight[aside.index] if weighted else np.ones(len(aside))
    found = accuracy_score(labels, model.predict(aside), sample_weight=weight)
    assert model.validation_scores_[kept] == pytest.approx(found)
    p = model.predict_proba(aside)[:, 0]  # of "high"; targets are smoothed by 0.1
    t = np.where(labels == "high", 0.95, 0.05)
    costs = -t * np.log(p) - (1 - t) * np.log(1 - p)
    assert model.validation_loss_curve_[kept] == pytest.approx(np.average(costs, weights=weight), rel=1e-4)
    assert model.t_ == 4 * (N - len(aside))


# --- the network of an estimator ------------------------------------------------------------------------------------


@FEW_EPOCHS
@pytest.mark.parametrize("preset", [None, "tabular"])
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_the_network_of_a_table_of_numbers_matches_columns_by_name(library: str, preset: str | None) -> None:
    module = pytest.importorskip(library)
    own: dict[str, Any] = {"polars": lambda: module.from_pandas, "pyarrow": lambda: module.Table.from_pandas}
    made = pandas.DataFrame if library == "pandas" else own[library]()
    table, other = (NUMBERS[names] for names in (["age", "dose", "size"], ["size", "age", "dose"]))
    model = DenseClassifier((5,), max_iter=3, random_state=0, preset=preset).fit(made(table), LABELS)
    for again in (False, True):
        assert model.network_.features == ["age", "dose", "size"] == model.feature_names_in_.tolist()
        file = io.BytesIO()
        model.network_.save(file)
        for network in (model.network_, nnkit.load(file.getvalue()), pickle.loads(pickle.dumps(model)).network_):
            assert network.predict(made(other)).tolist() == model.predict(made(table)).tolist()
            p = network.predict_proba(made(other))[:, 0]
            np.testing.assert_array_equal(p, model.predict_proba(made(table))[:, 1])
        with pytest.raises(ValueError, match="feature names should match"):  # scikit-learn's rule
            model.predict(made(other))
        if again or preset is not None:
            break
        with pytest.raises(ValueError, match="feature names should match"):
            model.partial_fit(made(other), LABELS)
        model.partial_fit(made(table), LABELS).set_params(warm_start=True).fit(made(table), LABELS)


@FEW_EPOCHS
def test_names_of_columns_that_a_network_cannot_match_go_by_position() -> None:
    table = NUMBERS[["age", "dose"]]
    options: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}
    numbered, partly = table.set_axis([0, 1], axis=1), table.set_axis(["age", 1], axis=1)
    model = DenseRegressor(**options).fit(numbered, partly)
    assert model.network_.features is None
    assert model.network_.target_names is None
    np.testing.assert_array_equal(model.predict(numbered), model.network_.predict(numbered))
    model = DenseRegressor(**options).fit(table, Y).fit(table.to_numpy(), Y)
    assert model.network_.features is None


@FEW_EPOCHS
def test_the_network_knows_the_names_of_targets() -> None:
    targets = NUMBERS[["dose", "size"]]
    model = DenseRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0).fit(NUMBERS, targets)
    assert model.network_.target_names == ["dose", "size"]
    costs = [model.network_.evaluate(NUMBERS, y)["cost"] for y in (targets, targets[["size", "dose"]])]
    assert costs[0] == costs[1]
    truths = (targets > 0).astype(int)
    labelled = DenseClassifier((5,), max_iter=3, random_state=0).fit(NUMBERS, truths)
    assert labelled.network_.target_names == ["dose", "size"]
    with pytest.warns(Warning, match="column-vector"):
        assert DenseRegressor(max_iter=1).fit(NUMBERS, targets[["size"]]).network_.target_names is None


def test_the_command_line_matches_columns_of_a_preset_fitted_on_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    y = np.where(NUMBERS["age"] > 40, "high", "low")
    model = DenseClassifier((5,), preset="tabular", max_iter=40, random_state=0).fit(NUMBERS, y)
    assert model.score(NUMBERS, y) > 0.9
    model.network_.save(tmp_path / "net.safetensors")
    NUMBERS[["size", "age", "dose"]].to_csv(tmp_path / "other.csv", index=False)
    assert main(["predict", str(tmp_path / "net.safetensors"), str(tmp_path / "other.csv")]) == 0
    assert capsys.readouterr().out.split()[1:] == model.predict(NUMBERS).tolist()
