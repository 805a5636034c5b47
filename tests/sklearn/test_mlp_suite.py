"""scikit-learn's own tests of MLPClassifier and MLPRegressor, from the installed package, on nnkit's estimators."""

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="needs scikit-learn 1.9 or newer")

import sklearn.neural_network as theirs

from nnkit.sklearn import DenseClassifier, DenseRegressor

INTERNAL = "reads or sets private attributes of MLPClassifier"
SKIPPED = {
    "test_fit": INTERNAL,
    "test_gradient": INTERNAL,
    "test_sparse_matrices": "nnkit's networks take dense samples",
    "test_early_stopping_stratified": "the message names the user's label, 1, where scikit-learn has 'True'",
    "test_mlp_regressor_dtypes_casting": "one prediction is 0.0015, whose float32 digits depend on the batch order",
    "test_mlp_diverging_loss": "a training that diverges raises ValueError (test_estimators.py)",
}


def _module() -> ModuleType:
    """scikit-learn's test module, in which the names of its estimators are nnkit's."""
    spec = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
    if spec is None or spec.loader is None:
        pytest.skip("this scikit-learn is installed without its tests", allow_module_level=True)
    module = importlib.util.module_from_spec(spec)
    before = theirs.MLPClassifier, theirs.MLPRegressor
    theirs.MLPClassifier, theirs.MLPRegressor = DenseClassifier, DenseRegressor
    try:
        spec.loader.exec_module(module)
    finally:
        theirs.MLPClassifier, theirs.MLPRegressor = before
    return module


def _tests() -> dict[str, Callable[..., Any]]:
    found = {name: test for name, test in vars(_module()).items() if name.startswith("test_")}
    assert {*SKIPPED} <= {*found}
    return {name: pytest.mark.skip(SKIPPED[name])(test) if name in SKIPPED else test for name, test in found.items()}


globals().update(_tests())


@pytest.fixture(params=[0, 42])
def global_random_seed(request: pytest.FixtureRequest) -> Any:
    """Their fixture of the same name."""
    return request.param
