"""Activation names, and activations of one's own: only a pair whose gradient is right is taken, and it trains."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.activations import get_activation

if TYPE_CHECKING:
    from tests.conftest import Arrays

Function = Callable[..., Any]


@pytest.fixture
def register() -> Iterator[Function]:
    """register_activation whose names are forgotten after the test."""
    before = set(nnkit.activation_names())
    yield nnkit.register_activation
    for name in set(nnkit.activation_names()) - before:
        nnkit.unregister_activation(name)


def cube(xp: Any, z: Any) -> Any:
    return z**3


def cube_grad(xp: Any, z: Any, delta: Any) -> Any:
    return 3 * z**2 * delta


@pytest.mark.parametrize("name", nnkit.activation_names())
def test_a_misspelt_name_suggests_similar_names(name: str) -> None:
    for wrong in (name[:-1], name.upper() if len(name) < 3 else name[0] + name[2:]):
        with pytest.raises(ValueError, match=rf"unknown activation '{wrong}'; did you mean .*'{name}'"):
            get_activation(wrong)


def test_an_unknown_name_lists_all_names() -> None:
    with pytest.raises(ValueError, match=r"unknown activation 'q'; known: identity, sigmoid, .*hard_sigmoid"):
        get_activation("q")


def test_a_correct_pair_trains(arrays: "Arrays", register: Function) -> None:
    register("cube", cube, cube_grad, gradient_from="preactivation")
    assert nnkit.activation_names()[-1] == "cube"
    z = arrays([[-2.0, 0.5]])
    assert arrays.numpy(get_activation("cube").forward(z)).tolist() == [[-8.0, 0.125]]
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (64, 2))
    net = nnkit.Network([2, 8, 1], activation="cube", cost="quadratic", seed=0, dtype="float64")
    assert nnkit.check_gradients(net, X, X[:, 0] ** 3).max_error < 1e-13
    history = net.fit(X, X[:, 0] ** 3, epochs=30, optimizer=nnkit.Adam(0.02), progress=False)
    assert history["cost"][-1] < 0.05 * history["cost"][0]


def test_a_gradient_from_the_output_is_accepted(register: Function) -> None:
    made = register("my_exponential", lambda xp, z: xp.exp(z), lambda xp, h, delta: h * delta)
    assert made.gradient_from == "output"
    assert get_activation("my_exponential") is made
    assert made.gradient(np.array([3.0]), np.array([2.0])) == [6.0]


@pytest.mark.parametrize(
    ("forward", "gradient", "gradient_from"),
    [
        (cube, lambda xp, z, delta: 3 * z * delta, "preactivation"),
        (cube, cube_grad, "output"),  # right from h̄, wrong from h
        (cube, lambda xp, z, delta: 3 * z**2, "preactivation"),  # right for Δ = 1
        (lambda xp, z: xp.where(z > 3.5, z**3, z), lambda xp, z, delta: delta, "preactivation"),
        (lambda xp, z: xp.sqrt(z), lambda xp, h, delta: delta / (2 * h), "output"),  # NaN left of 0
    ],
)
def test_a_wrong_pair_is_refused(register: Function, forward: Function, gradient: Function, gradient_from: str) -> None:
    with pytest.raises(ValueError, match=r"activation 'mine': at z = .* the gradient differs from f′"):
        register("mine", forward, gradient, gradient_from)
    assert "mine" not in nnkit.activation_names()


def test_other_refusals(register: Function) -> None:
    with pytest.raises(ValueError, match="gradient_from is 'input'; expected 'output' or 'preactivation'"):
        register("mine", cube, cube_grad, gradient_from="input")
    with pytest.raises(TypeError, match="mine is a str; expected a function or a formula"):
        register("mine", "cube", cube_grad)
    for taken in ("sigmoid", "softmax"):
        with pytest.raises(ValueError, match=f"activation name '{taken}' is taken"):
            register(taken, cube, cube_grad, gradient_from="preactivation")
    with pytest.raises(KeyError):
        nnkit.unregister_activation("mine")
    assert "mine" not in nnkit.activation_names()


def test_a_name_can_be_reused(register: Function) -> None:
    """Nothing of the first activation may be left in a cache."""
    for factor in (1.0, 2.0):
        register(
            "line",
            lambda xp, z, factor=factor: factor * z,
            lambda xp, z, delta, factor=factor: factor * delta,
            gradient_from="preactivation",
        )
        net = nnkit.Network([1, 1, 1], "line", "quadratic", output_activation="line", seed=0, dtype="float64")
        z = net.parameters.W[0] * 3.0 * factor
        expected = factor * (net.parameters.W[1] * z)
        assert net.forward([[3.0]]) == pytest.approx(np.asarray(expected), rel=1e-14)
        nnkit.unregister_activation("line")


def test_a_reused_name_is_the_new_function_in_recordings(register: Function) -> None:
    register("mine", cube, cube_grad, gradient_from="preactivation")
    net = nnkit.Network([3, 5, 2], activation="mine", seed=0, dtype="float64")
    X, y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2
    for _ in range(3):
        net.forward(X[:4]), net.gradients(X[:4], y[:4])  # recorded, and replayed
    nnkit.unregister_activation("mine")
    register("mine", lambda xp, z: xp.tanh(z), lambda xp, h, delta: (1 - h * h) * delta)
    twin = nnkit.Network([3, 5, 2], activation="tanh", seed=0, dtype="float64")
    for part in (X[:4], X):
        np.testing.assert_array_equal(net.forward(part), twin.forward(part))
    for found, wanted in zip(net.gradients(X[:4], y[:4])[1], twin.gradients(X[:4], y[:4])[1], strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-16)


def test_built_in_activations_stay() -> None:
    with pytest.raises(ValueError, match=r"^activation 'relu' is built in and cannot be removed$"):
        nnkit.unregister_activation("relu")
    assert "relu" in nnkit.activation_names()


@pytest.mark.parametrize("absolute", [lambda xp, z: abs(z), lambda xp, z: xp.abs(z)], ids=["python", "namespace"])
@pytest.mark.parametrize("share", [1.0, 1e-6])
def test_an_absolute_value_is_differentiated(absolute: Any, share: float) -> None:
    """Python's abs of a complex number is the modulus, which would leave the derivative of the term out."""

    def forward(xp: Any, z: Any) -> Any:
        return xp.tanh(z) + share * absolute(xp, z)

    with pytest.raises(ValueError, match=r"activation 'bent': at z = .* the gradient differs"):
        nnkit.register_activation("bent", forward, lambda xp, z, d: d * (1 - xp.tanh(z) ** 2), "preactivation")
    nnkit.register_activation(
        "bent", forward, lambda xp, z, d: d * (1 - xp.tanh(z) ** 2 + share * xp.sign(z)), "preactivation"
    )
    try:
        network = nnkit.Network([3, 4, 2], "bent", "quadratic", seed=0, dtype="float64")
        x, y = np.random.default_rng(0).normal(size=(1, 5, 3)), np.ones((5, 2))
        assert nnkit.check_gradients(network, x[0], y).max_error < 1e-13
        _, gradients = network.gradients(x[0], y)
        W = network.parameters.W[0]
        before, step = W[1, 2], 1e-6
        costs = []
        for sign in (1, -1):
            W[1, 2] = before + sign * step
            costs.append(network.evaluate(x[0], y)["cost"])
        assert gradients[0][0][1, 2] == pytest.approx((costs[0] - costs[1]) / (2 * step), rel=1e-6)
    finally:
        nnkit.unregister_activation("bent")
