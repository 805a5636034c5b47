"""Estimators that refuse a `fit` are as they were before."""

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="needs scikit-learn 1.9 or newer")

import nnkit
from nnkit.sklearn import DenseClassifier, DenseRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
NAMES = np.array(["cat", "dog"])[(X[:, 0] > 0).astype(int)]
OTHERS = np.where(NAMES == "cat", "no", "yes")
TRUTHS = np.stack([X[:, 0] > 0, X[:, 1] > 0], axis=1).astype(int)
HUGE = np.where(np.arange(240).reshape(60, 4) == 7, 1e300, X)  # finite in float64, not in float32


def _noted(model: Any) -> dict[str, Any]:
    """What an estimator has besides its network, copied, and the network's own numbers and names."""
    network = model.network_
    found = {name: copy.deepcopy(value) for name, value in vars(model).items() if name != "network_"}
    found |= {name: getattr(network, name) for name in ("optimizer", "state", "features", "seed", "epochs_trained")}
    classes = None if network.classes is None else network.classes.tolist()
    return found | {"network": id(network), "vector": network.parameters.vector.copy(), "names": classes}


def _check_unchanged(model: Any, before: dict[str, Any]) -> None:
    after = _noted(model)
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert np.array_equal(after[name], value) if isinstance(value, np.ndarray) else after[name] == value, name


@pytest.mark.parametrize("options", [{}, {"warm_start": True}, {"solver": "lbfgs"}, {"preset": "tabular"}], ids=str)
@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ({"validation_data": (X[:, :3], NAMES)}, "X has 3 features"),
        ({"validation_data": (X, TRUTHS)}, "expected labels"),
        ({"validation_data": (X, NAMES, -np.ones(60))}, "sample_weight holds -1"),
        ({"y": OTHERS, "sample_weight": -np.ones(60)}, "Negative values|same classes"),
        ({"y": OTHERS, "sample_weight": np.ones(59)}, "sample_weight|same classes"),
        ({"X": X[:, :2], "y": OTHERS[:50]}, "inconsistent numbers of samples"),
        ({"X": X[:, :2], "y": np.linspace(0, 1, 60)}, "Unknown label type|is expecting 4 features"),
    ],
)
def test_a_refused_fit_leaves_the_classifier_as_it_was(
    options: dict[str, Any], refused: dict[str, Any], message: str
) -> None:
    if "validation_data" in refused and "solver" in options:
        message = "validation_data is given"
    few: dict[str, Any] = {"max_iter": 3, "hidden_layer_sizes": (5,), "dtype": "float32", "random_state": 0}
    model = DenseClassifier(**few | options).fit(X, NAMES)
    before = _noted(model)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(**{"X": X, "y": NAMES} | refused)
    _check_unchanged(model, before)
    assert set(model.predict(X)) <= {"cat", "dog"}


def test_numbers_that_the_network_refuses_leave_the_classifier_as_it_was() -> None:
    model = DenseClassifier((5,), max_iter=3, dtype="float32", random_state=0).fit(X, NAMES)
    before = _noted(model)
    for samples, aside in ((HUGE, X), (X, HUGE)):
        with pytest.raises(ValueError, match="X holds inf"):
            model.fit(samples, OTHERS, validation_data=(aside, OTHERS))
        _check_unchanged(model, before)


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "cosin"}, {"solver": "lbfgs", "dropout": 0.5}, {"activation": "rellu"}, {"alpha": -1},
        {"hidden_layer_sizes": (3, 0)}, {"loss": "hinje"}, {"early_stopping": True, "validation_fraction": 0.99},
        {"schedule": lambda epoch: 1 / 0},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_refused_parameters_leave_the_regressor_as_it_was(change: dict[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=list("abcd"))
    model = DenseRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0).fit(table, X[:, 0])
    model.set_params(**change)
    before = _noted(model)
    with pytest.raises((ValueError, ZeroDivisionError)):
        model.fit(X[:, :2], X[:, 1:3])
    _check_unchanged(model, before)
    assert model.feature_names_in_.tolist() == list("abcd")


def test_a_refused_partial_fit_leaves_the_classifier_as_it_was() -> None:
    model = DenseClassifier((5,), dtype="float32", random_state=0)
    with pytest.raises(ValueError, match="Negative values"):
        model.partial_fit(X, NAMES, -np.ones(60), classes=["cat", "cow", "dog"])
    assert vars(model).keys() == model.get_params().keys()  # another call gives the classes
    model.partial_fit(X, NAMES, classes=["cat", "dog"]).partial_fit(X, NAMES)
    model.set_params(alpha=3.0)  # another penalty has another optimizer
    before = _noted(model)
    for samples, labels, weight in (
        (HUGE, NAMES, None), (X[:, :3], NAMES, None), (X, OTHERS, None), (X, NAMES, -np.ones(60)),
        (X, NAMES, np.zeros(60)), (X, TRUTHS, None), (X, NAMES[:50], None),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            model.partial_fit(samples, labels, weight)
        _check_unchanged(model, before)
    model.partial_fit(X, NAMES)
    assert model.t_ == 180


def test_targets_that_the_cost_refuses_leave_the_regressor_as_it_was() -> None:
    model = DenseRegressor("poisson", (5,), max_iter=3, random_state=0).fit(X, np.abs(X[:, 0]))
    before = _noted(model)
    for solver in ("adam", "lbfgs"):
        with pytest.raises(ValueError, match="y holds -"):
            model.set_params(solver=solver).fit(X, X[:, 0])
        model.set_params(solver="adam")
        _check_unchanged(model, before)


def test_validation_data_of_another_kind_of_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"y has shape \(60,\); expected several labels \(n, k\)"):
        DenseClassifier((5,), max_iter=2).fit(X, TRUTHS, validation_data=(X, TRUTHS[:, 0]))


@pytest.mark.parametrize("preset", [None, "tabular"])
def test_an_error_after_an_epoch_keeps_the_network_in_training(preset: str | None) -> None:
    class Failing:
        def setup(self, estimator: Any, context: Any) -> None: ...

        def on_fit_task_begin(self, estimator: Any, context: Any, **data: Any) -> None: ...

        def on_fit_task_end(self, estimator: Any, context: Any, **fitted: Any) -> bool:
            raise RuntimeError("stop")

        def teardown(self, estimator: Any, context: Any) -> None:
            torn_down.append(estimator)

    torn_down: list[Any] = []
    model = DenseClassifier((5,), max_iter=3, preset=preset).fit(X, NAMES)
    model.set_callbacks(Failing())
    with pytest.raises(ValueError, match="Negative values"):  # before the callbacks begin
        model.fit(X, OTHERS, -np.ones(60))
    assert torn_down == []
    with pytest.raises(ValueError, match="validation sample_weight holds -1"):  # by the network, after they have begun
        model.fit(X, OTHERS, validation_data=(X, OTHERS, -np.ones(60)))
    assert torn_down.pop() is model
    assert model.predict(X[:1]) in NAMES
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(X, OTHERS)
    assert torn_down == [model]
    assert model.n_iter_ == 1
    assert model.predict(X[:1]) in OTHERS


def test_a_divergence_in_the_first_epoch_keeps_the_network_in_training() -> None:
    model = DenseRegressor(hidden_layer_sizes=(5,), solver="sgd", batch_size=5, max_iter=2).fit(X, X[:, 0])
    model.set_params(learning_rate_init=1e200)
    with pytest.raises(ValueError, match="no longer finite") as caught:
        model.fit(X[:, :3], X[:, 0])
    assert isinstance(caught.value.__cause__, nnkit.DivergenceError)
    assert model.network_.width == model.n_features_in_ == 3
