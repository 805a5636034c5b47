"""`Network.minimize`, compared with scikit-learn and closed forms, and `value_and_gradient`."""

from typing import Any

import numpy as np
import pytest

import nnkit
from tests.conftest import working_backend

optimize = pytest.importorskip("scipy.optimize")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
TARGETS = X @ [[1.0, 0.5], [-2.0, 0.0], [0.25, 3.0]] + [0.5, -1.0] + 0.1 * RNG.normal(size=(40, 2))
LABELS = (X[:, 0] + 0.3 * RNG.normal(size=40) > 0).astype(int) + (X[:, 1] > 1)


def _linear(**options: Any) -> nnkit.Network:
    return nnkit.Network([3, 2], cost="quadratic", seed=0, dtype="float64", **options)


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "CG", "Powell"])
def test_a_linear_network_becomes_the_least_squares_fit(method: str) -> None:
    network = _linear()
    result = network.minimize(X, TARGETS, method, tol=1e-12)
    ones = np.column_stack([X, np.ones(40)])
    exact = np.linalg.lstsq(ones, TARGETS, rcond=None)[0]
    np.testing.assert_allclose(network.parameters.W[0], exact[:3].T, atol=1e-5)
    np.testing.assert_allclose(network.parameters.b[0], exact[3], atol=1e-5)
    np.testing.assert_allclose(network.evaluate(X, TARGETS)["cost"], result.fun, rtol=1e-9)


def test_penalty_and_weights_are_those_of_ridge_regression() -> None:
    weight, penalty, network = RNG.uniform(0.5, 2, 40), 0.3, _linear()
    network.minimize(X, TARGETS, sample_weight=weight, l2=penalty, tol=1e-12)
    w = (weight / weight.sum())[:, None]
    mean_x, mean_y = (w * X).sum(0), (w * TARGETS).sum(0)
    a, b = X - mean_x, TARGETS - mean_y
    exact = np.linalg.solve(a.T @ (w * a) + penalty * np.eye(3), a.T @ (w * b))
    np.testing.assert_allclose(network.parameters.W[0], exact.T, atol=1e-6)


def test_classes_are_those_of_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    network = nnkit.Network([3, 3], seed=0, dtype="float64")
    network.minimize(X, LABELS, l2=1 / 40, tol=1e-12)
    exact = linear.LogisticRegression(C=1.0, tol=1e-10).fit(X, LABELS).predict_proba(X)
    np.testing.assert_allclose(network.predict_proba(X), exact, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_and_gradient_is_that_of_gradients(dtype: str) -> None:
    network = nnkit.Network([3, 4, 2], cost="quadratic", seed=0, dtype=dtype)
    weight = RNG.uniform(size=40)
    cost, vector = network.value_and_gradient(X, TARGETS, sample_weight=weight)
    exact, layers = network.gradients(X, TARGETS, sample_weight=weight)
    assert isinstance(cost, float)
    assert vector.dtype == np.float64
    np.testing.assert_array_equal(vector, np.concatenate([np.ravel(a) for layer in layers for a in layer]))
    assert cost == float(exact)


def test_value_and_gradient_passes_scipys_check() -> None:
    network = nnkit.Network([3, 4, 2], "tanh", "quadratic", seed=0, dtype="float64")

    def cost(vector: Any) -> float:
        network.parameters.vector = vector
        return float(network.value_and_gradient(X, TARGETS)[0])

    def gradient(vector: Any) -> Any:
        network.parameters.vector = vector
        return network.value_and_gradient(X, TARGETS)[1]

    assert optimize.check_grad(cost, gradient, network.parameters.vector) < 1e-6


def test_the_vector_of_parameters() -> None:
    network = nnkit.Network([3, 4, 2], seed=0)
    W, b = network.parameters.W, network.parameters.b
    vector = network.parameters.vector
    np.testing.assert_array_equal(vector, np.concatenate([np.ravel(a) for a in (W[0], b[0], W[1], b[1])]))
    network.parameters.vector = vector[::-1]
    np.testing.assert_array_equal(network.parameters.vector, vector[::-1])
    with pytest.raises(ValueError, match=r"vector has shape \(2,\); expected \(26,\)"):
        network.parameters.vector = [1.0, 2.0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_keeps_the_best_parameters(error: type[BaseException]) -> None:
    network, seen = _linear(), []
    start = network.evaluate(X, TARGETS)["cost"]

    def callback(intermediate_result: Any) -> None:
        seen.append(intermediate_result.fun)
        if len(seen) == 2:
            raise error

    with pytest.raises(error):
        network.minimize(X, TARGETS, callback=callback)
    assert network.evaluate(X, TARGETS)["cost"] == pytest.approx(min(seen))
    assert min(seen) < start


def test_an_interrupt_keeps_what_was_learned_of_the_data() -> None:
    """As `fit` does: the names of columns, and the shape of the targets."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    network = nnkit.Network([3, 1], cost="quadratic", seed=0)
    table = pandas.DataFrame(X, columns=list("abc"))

    def callback(intermediate_result: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.minimize(table, TARGETS[:, 0], callback=callback)
    assert network.features == list("abc")
    assert network.predict(table).shape == (40,)
    np.testing.assert_array_equal(network.predict(table[list("cab")]), network.predict(table))


@pytest.mark.parametrize("backend", ["numpy", "standard:array_api_strict"])
def test_targets_that_the_cost_is_not_defined_for_are_refused(backend: str) -> None:
    network = nnkit.Network([3, 1], cost="cross_entropy", seed=0, backend=working_backend(backend))
    for name in ("minimize", "value_and_gradient", "gradients", "train_step"):
        with pytest.raises(ValueError, match=r"y holds 7.0 at \[0, 0\]; expected targets in \[0, 1\]"):
            getattr(network, name)(X, np.full((40, 1), 7.0))


@pytest.mark.parametrize("method", ["L-BFGS-B", "trust-constr", "Nelder-Mead", "SLSQP"])
def test_in_a_callback_the_network_has_its_parameters(method: str) -> None:
    """Not those of a point that was tried since, and rejected."""
    network = nnkit.Network([3, 6, 1], "tanh", "quadratic", seed=0, dtype="float64")
    network.parameters.vector *= 3
    y, seen = np.sin(4 * X[:, :1]) + X[:, 1:2], list[bool]()

    class Callback:
        def __call__(self, x: Any, *_: Any) -> None:
            seen.append(np.array_equal(network.parameters.vector, x))

    network.minimize(X, y, method=method, callback=Callback(), options={"maxiter": 30})
    assert seen.count(True) == len(seen) > 5


@pytest.mark.parametrize("method", ["SLSQP", "COBYLA", "trust-constr"])
@pytest.mark.filterwarnings("ignore:delta_grad == 0.0")
def test_parameters_satisfy_the_constraints(method: str) -> None:
    network = nnkit.Network([3, 4, 1], "tanh", "quadratic", seed=0, dtype="float64")
    network.parameters.vector *= 0.2
    within = optimize.NonlinearConstraint(lambda v: v @ v, 0, 1)
    y = np.sin(X[:, :1] * 2) + X[:, 1:2]
    result = network.minimize(X, y, method=method, constraints=[within], options={"maxiter": 2000})
    np.testing.assert_array_equal(network.parameters.vector, result.x)
    assert 0.9 < result.x @ result.x < 1 + 1e-4
    assert network.evaluate(X, y)["cost"] == pytest.approx(result.fun)


def test_an_interrupt_with_bounds_keeps_what_the_callback_has_seen() -> None:
    network, seen = nnkit.Network([3, 1], cost="quadratic", seed=0, dtype="float64"), list[np.ndarray]()

    def callback(x: np.ndarray) -> None:
        seen.append(x.copy())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.minimize(X, TARGETS[:, :1], bounds=[(-0.9, 0.9)] * 4, callback=callback)
    np.testing.assert_array_equal(network.parameters.vector, seen[-1])


def test_a_refused_step_learns_nothing() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    network = nnkit.Network([3, 1], cost="quadratic", seed=0)
    table = pandas.DataFrame(X, columns=list("abc"))
    with pytest.raises(ValueError, match="unknown optimizer"):
        network.train_step(table, TARGETS[:, 0], "adamm")
    assert (network.features, network.vector_targets) == (None, False)
    network.train_step(table, TARGETS[:, 0], "adam")
    assert (network.features, network.vector_targets) == (list("abc"), True)


def test_invalid_arguments_change_nothing() -> None:
    network = _linear()
    before = network.parameters.vector
    for message, options in (("l2 is -1", {"l2": -1}), ("Unknown solver", {"method": "LBFGS"})):
        with pytest.raises(ValueError, match=message):
            network.minimize(X, TARGETS, **options)
    with pytest.raises(ValueError, match=r"X holds nan at \[1, 2\]"):
        network.minimize(np.where(np.arange(120).reshape(40, 3) == 5, np.nan, X), TARGETS)
    with pytest.raises(ValueError, match="y has"):
        network.minimize(X, TARGETS[:3])
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    with pytest.raises(ValueError, match="two columns are called 'a'"):
        network.minimize(pandas.DataFrame(X, columns=["a", "a", "b"]), TARGETS)
    np.testing.assert_array_equal(network.parameters.vector, before)
    assert network.features is None


def test_targets_of_one_axis_give_predictions_of_one_axis() -> None:
    network = nnkit.Network([3, 1], cost="quadratic", seed=0)
    network.minimize(X, TARGETS[:, 0])
    assert network.predict(X).shape == (40,)
