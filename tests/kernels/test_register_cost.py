"""Costs of one's own: only a pair whose derivative and scale are right is taken, and it trains."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.cost import output_pair
from nnkit.kernels.costs import cost_names, get_cost, register_cost, unregister_cost

if TYPE_CHECKING:
    from tests.conftest import Arrays

Function = Callable[..., Any]


@pytest.fixture
def register() -> Iterator[Function]:
    """register_cost whose names are forgotten after the test."""
    before = set(cost_names())
    yield register_cost
    for name in set(cost_names()) - before:
        unregister_cost(name)


def quartic(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    return (h - y) ** 4 / 4 * scale


def quartic_delta(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    return (h - y) ** 3 * scale


def pinball(xp: Any, h: Any, y: Any, scale: Any, quantile: float = 0.5) -> Any:
    return xp.maximum(quantile * (y - h), (quantile - 1) * (y - h)) * scale


def pinball_delta(xp: Any, h: Any, y: Any, scale: Any, quantile: float = 0.5) -> Any:
    return xp.where(h <= y, -quantile * scale, (1 - quantile) * scale)


def test_a_correct_pair_trains(arrays: "Arrays", register: Function) -> None:
    made = register("quartic", quartic, quartic_delta)
    assert cost_names()[-1] == "quartic"
    assert get_cost("quartic") is not None
    assert (made.output, made.classifies, made.domain, made.label_smoothing) == ("identity", False, "any", 0.0)
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (64, 2))
    net = nnkit.Network([2, 8, 1], "tanh", "quartic", seed=0, dtype="float64")
    assert nnkit.check_gradients(net, X, X[:, 0] - X[:, 1]).max_error < 1e-13
    history = net.fit(X, X[:, 0] - X[:, 1], epochs=20, optimizer=nnkit.Adam(0.02), progress=False)
    assert history["cost"][-1] < 0.05 * history["cost"][0]


def test_its_constants_can_be_given(arrays: "Arrays", register: Function) -> None:
    """The pinball cost is least at the quantile that is its constant."""
    register("pinball", pinball, pinball_delta)
    cost = get_cost("pinball", quantile=0.9)
    assert cost.describe() == {"name": "pinball", "quantile": 0.9}
    assert get_cost(**cost.describe()) == cost
    pair, backend = output_pair(get_cost(cost)), arrays.backend
    h, y, one = arrays([[1.0, 3.0]]), arrays([[2.0, 2.0]]), arrays(1.0)
    np.testing.assert_allclose(arrays.numpy(pair.terms(backend, h, y, one)), [[0.9, 0.1]], rtol=1e-15)
    np.testing.assert_allclose(arrays.numpy(pair.delta(backend, h, y, one)), [[-0.9, 0.1]], rtol=1e-15)


def test_a_cost_of_classes_with_softmax(register: Function) -> None:
    """The Brier score, which couples no outputs but is differentiated through softmax."""
    register(
        "brier",
        lambda xp, h, y, scale: (h - y) ** 2 * scale,
        lambda xp, h, y, scale: 2 * (h - y) * scale,
        output="softmax",
        classifies=True,
    )
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    net = nnkit.Network([4, 5, 3], cost="brier", seed=0, dtype="float64")
    assert net.dense[-1].activation == "softmax"
    assert nnkit.check_gradients(net, X, y).max_error < 1e-13
    p = np.asarray(net.forward(X))
    assert net.evaluate(X, y)["cost"] == pytest.approx(((p - np.eye(3)[y]) ** 2).sum() / 9, rel=1e-13)
    assert "accuracy" in net.evaluate(X, y)


def squared(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    return (h - y) ** 2 * scale


def squared_delta(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    return 2 * (h - y) * scale


def logistic(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """ln(1 + exp(−th)) with t = 2y − 1: of margins."""
    return xp.log1p(xp.exp((1 - 2 * y) * h)) * scale


def logistic_delta(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    return (1 - 2 * y) / (1 + xp.exp((2 * y - 1) * h)) * scale


def skewed(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    return (1 + y) * (h - y) ** 2 * scale


def skewed_delta(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    return 2 * (1 + y) * (h - y) * scale


@pytest.mark.parametrize(
    ("functions", "output", "given", "threshold"),
    [
        ((squared, squared_delta), "identity", None, 0.5),
        ((squared, squared_delta), "sigmoid", None, 0.5),
        ((squared, squared_delta), "sigmoid", 0.3, 0.3),
        ((squared, squared_delta), "tanh", None, 0.5),
        ((squared, squared_delta), "softplus", None, 0.5),
        ((squared, squared_delta), "exponential", None, 0.5),
        ((logistic, logistic_delta), "identity", None, 0.0),
        ((logistic, logistic_delta), "tanh", None, 0.0),
        ((logistic, logistic_delta), "identity", -0.25, -0.25),
        ((skewed, skewed_delta), "identity", 0.5, 0.5),
        ((skewed, skewed_delta), "sigmoid", None, 0.5),
    ],
)
def test_the_threshold_is_that_of_the_cost(
    arrays: "Arrays",
    register: Function,
    functions: tuple[Function, Function],
    output: str,
    given: float,
    threshold: float,
) -> None:
    """Outputs above the threshold are class 1, also those of another output activation, and in the accuracy."""
    assert register("mine", *functions, output, classifies=True, threshold=given).threshold == threshold
    for activation in {output, "identity", "sigmoid", "tanh"} if threshold > 0 else {output, "identity", "tanh"}:
        for outputs in (1, 2):
            net = nnkit.Network([1, outputs], cost="mine", output_activation=activation, seed=0, dtype="float64")
            net.parameters.flat[...] = 0
            net.parameters.W[0][...] = 1
            x = np.linspace(-2, 2, 80)[:, None]
            expected = np.asarray(net.backend.to_numpy(net.forward(arrays(x)))) > threshold
            assert 0 < expected.mean() < 1
            if outputs == 1:
                assert arrays.numpy(net.predict(arrays(x)), "int64").tolist() == expected[:, 0].tolist()
            assert net.evaluate(arrays(x), arrays(expected * 1.0))["accuracy"] == 1


def test_an_unknown_threshold_must_be_given(register: Function) -> None:
    with pytest.raises(ValueError, match=r"cost 'mine': threshold is missing.*such as threshold=0\.5"):
        register("mine", skewed, skewed_delta, classifies=True)
    for wrong in ("0.5", True, np.inf, None):
        with pytest.raises((TypeError, ValueError), match="threshold is "):
            register("mine", skewed, skewed_delta, classifies=True, threshold=wrong)
    with pytest.raises(TypeError, match="threshold is 0, which has no effect unless classifies is True"):
        register("mine", skewed, skewed_delta, threshold=0)
    assert "mine" not in cost_names()


def test_meaningless_outputs_of_a_cost_are_refused(register: Function) -> None:
    """Logarithms of negative numbers, and outputs that are all of one class."""
    focal = lambda xp, h, y, scale: -y * (1 - h) ** 2 * xp.log(h) * scale  # noqa: E731
    focal_delta = lambda xp, h, y, scale: (2 * y * (1 - h) * xp.log(h) - y * (1 - h) ** 2 / h) * scale  # noqa: E731
    register("focal", focal, focal_delta, "sigmoid", classifies=True)
    with pytest.raises(
        ValueError, match=r"'tanh', but focal is not defined for its output -0\.9993; expected 'sigmoid'"
    ):
        nnkit.Network([2, 1], cost="focal", output_activation="tanh", seed=0)
    register("margin", logistic, logistic_delta, classifies=True)
    with pytest.raises(ValueError, match="'softplus', but margin predicts class 1 above 0, as all its outputs are"):
        nnkit.Network([2, 1], cost="margin", output_activation="softplus", seed=0)


def test_the_check_avoids_kinks_at_equal_outputs_and_targets(register: Function) -> None:
    """Whichever derivative a user has there."""
    for output in (*nnkit.activation_names(), "softmax"):
        register(
            f"absolute_{output}",
            lambda xp, h, y, scale: xp.abs(h - y) * scale,
            lambda xp, h, y, scale: xp.where(h < y, -1.0, xp.where(h > y, 1.0, 7.0)) * scale,
            output=output,
        )


@pytest.mark.parametrize(
    ("terms", "delta", "message"),
    [
        (quartic, lambda xp, h, y, scale: 3 * (h - y) ** 3 * scale, "delta differs from scale · ∂f/∂h"),
        (quartic, lambda xp, h, y, scale: (h - y) ** 3 * (1 + 1e-8) * scale, "delta differs from scale · ∂f/∂h"),
        (quartic, lambda xp, h, y, scale: (h - y) ** 3, "delta differs from scale · ∂f/∂h"),  # right for scale 1
        (lambda xp, h, y, scale: (h - y) ** 4 / 4, quartic_delta, "the terms are not multiplied by scale"),
        (
            lambda xp, h, y, scale: (h - y) ** 4 / 4 * scale**2,  # the derivative of these terms, but not of a mean
            lambda xp, h, y, scale: (h - y) ** 3 * scale**2,
            "delta differs from scale · ∂f/∂h",
        ),
        (quartic, lambda xp, h, y, scale: (y - h) ** 3 * scale, "delta differs from scale · ∂f/∂h"),
        (
            lambda xp, h, y, scale: y * xp.log(h) * scale,  # NaN: outputs may be negative
            lambda xp, h, y, scale: y / h * scale,
            "differs? from",
        ),
    ],
)
def test_a_wrong_pair_is_refused(register: Function, terms: Function, delta: Function, message: str) -> None:
    with pytest.raises(ValueError, match=f"cost 'mine': at h = .*, y = .*, scale = .* {message}"):
        register("mine", terms, delta)
    assert "mine" not in cost_names()


def test_the_check_includes_0_ln_0_for_classes(register: Function) -> None:
    def delta(xp: Any, h: Any, y: Any, scale: Any) -> Any:
        return -y / h * scale

    with pytest.raises(ValueError, match=r"cost 'divergence': at h = .*, y = 0, "):
        register("divergence", lambda xp, h, y, scale: y * xp.log(y / h) * scale, delta, "sigmoid", True)
    whole = register(
        "divergence",
        lambda xp, h, y, scale: xp.where(y == 0, 0.0, y * xp.log(y / h)) * scale,
        delta,
        output="sigmoid",
        classifies=True,
    )
    assert whole.classifies


def test_other_refusals(register: Function) -> None:
    with pytest.raises(ValueError, match="cost name 'hinge' is taken"):
        register("hinge", quartic, quartic_delta)
    with pytest.raises(TypeError, match="mine is a str; expected a function or a formula"):
        register("mine", "quartic", quartic_delta)
    with pytest.raises(TypeError, match="mine_delta is a int; expected a function or a formula"):
        register("mine", quartic, 1)
    with pytest.raises(ValueError, match=r"unknown activation 'sigmoyd'; did you mean .*'sigmoid'"):
        register("mine", quartic, quartic_delta, output="sigmoyd")
    with pytest.raises(ValueError, match=r"cost 'mine': the formulas have the constants \{'quantile': 0.5\} and \{\}"):
        register("mine", pinball, quartic_delta)
    with pytest.raises(nnkit.FormulaError, match="branches on a value"):
        register("mine", lambda xp, h, y, scale: scale if h > y else -scale, quartic_delta)
    with pytest.raises(TypeError, match="mine"):
        register("mine", lambda xp, h, y: h - y, quartic_delta)
    with pytest.raises(KeyError):
        unregister_cost("mine")
    assert "mine" not in cost_names()


def test_a_name_can_be_reused(register: Function) -> None:
    """Nothing of the first cost may be left in a cache."""
    for factor in (1.0, 2.0):
        register(
            "scaled",
            lambda xp, h, y, scale, factor=factor: factor * (h - y) ** 2 * scale,
            lambda xp, h, y, scale, factor=factor: 2 * factor * (h - y) * scale,
        )
        net = nnkit.Network([1, 1], cost="scaled", seed=0, dtype="float64")
        residual = float(np.asarray(net.forward([[3.0]]))[0, 0]) - 1.0
        assert float(net.gradients([[3.0]], [[1.0]])[0]) == pytest.approx(factor * residual**2, rel=1e-14)
        unregister_cost("scaled")


def test_an_absolute_value_is_differentiated() -> None:
    """Also Python's abs, which of a complex number is the modulus."""

    def terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
        return ((h - y) ** 2 / 2 + abs(h) / 1000) * scale

    with pytest.raises(ValueError, match=r"cost 'lasso': at h = .* delta differs"):
        nnkit.register_cost("lasso", terms, lambda xp, h, y, scale: (h - y) * scale)
    nnkit.register_cost("lasso", terms, lambda xp, h, y, scale: (h - y + xp.sign(h) / 1000) * scale)
    nnkit.unregister_cost("lasso")
