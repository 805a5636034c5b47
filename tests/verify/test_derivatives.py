"""nnkit.derivative: derivatives of any function, by the complex step and by central differences."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnkit

RNG = np.random.default_rng(0)
X, Y, W, B = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 3)), RNG.normal(size=(3, 4)), RNG.normal(size=3)


def cost(W: Any, b: Any) -> Any:
    """A student's loop: the mean of ½ Σ (y − tanh(Wx + b))², sample by sample."""
    total = 0.0
    for x, y in zip(X, Y, strict=True):
        h = np.tanh(W @ x + b)
        total = total + np.sum((y - h) ** 2) / 2
    return total / len(X)


def gradients() -> tuple[np.ndarray, np.ndarray]:
    """Its backpropagation, by hand (eq. 4, 8, 10, 12)."""
    dW, db = np.zeros_like(W), np.zeros_like(B)
    for x, y in zip(X, Y, strict=True):
        h = np.tanh(W @ x + B)
        delta = (h - y) * (1 - h**2) / len(X)
        dW += np.outer(delta, x)
        db += delta
    return dW, db


@pytest.mark.parametrize(("method", "rtol"), [("complex", 1e-14), ("central", 1e-8)])
def test_a_custom_loop(method: Any, rtol: float) -> None:
    dW, db = gradients()
    for function, at, wanted in ((lambda W: cost(W, B), W, dW), (lambda b: cost(W, b), B, db)):
        before = at.copy()
        found = nnkit.derivative(function, at, method=method)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=rtol * np.abs(wanted).max())
        assert (found.dtype.name, found.shape) == ("float64", at.shape)
        assert np.array_equal(at, before)
    wrong = dW * (1 + 1e-6)
    assert np.abs(nnkit.derivative(lambda W: cost(W, B), W) - wrong).max() > 1e-8  # a mistake is seen


@pytest.mark.parametrize(
    ("function", "slope", "at"),
    [
        (np.sin, np.cos, [0.0, 1.0, -2.5]),
        (np.exp, np.exp, [0.0, -700.0, 5.0]),
        (lambda x: x**3, lambda x: 3 * x**2, [0.0, 1e-8, 2.0, -1e4]),
        (lambda x: np.maximum(x, 0), lambda x: x > 0, [3.0, -2.0, 1e-3]),
        (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2, [0.5, -3.0]),
    ],
)
def test_functions_with_a_known_derivative(function: Any, slope: Any, at: list[float]) -> None:
    point = np.array(at)
    for method, rtol in (("complex", 1e-14), ("central", 1e-7)):
        found = nnkit.derivative(lambda x: np.sum(function(x)), point, method=method)  # type: ignore[arg-type]
        assert found == pytest.approx(slope(point).astype(float), rel=rtol, abs=rtol * np.abs(slope(point)).max())


def test_points_of_any_shape_and_kind() -> None:
    for at in (
        2,
        2.0,
        np.float32(2),
        np.array(2),
        [2],
        np.full((1, 2, 1), 2, np.int8),
        np.asfortranarray(np.eye(3) + 1),
    ):
        shape = np.shape(at)
        found = nnkit.derivative(lambda x, shape=shape: np.sum(x**2) if x.shape == shape else None, at)  # type: ignore[misc]
        np.testing.assert_array_equal(found, 2 * np.asarray(at, float))
        assert found.shape == shape
    order = np.asfortranarray(W)
    np.testing.assert_allclose(nnkit.derivative(lambda W: np.sum(W * X[:3]), order), X[:3], rtol=1e-15)
    assert nnkit.derivative(lambda x: 1.0 + 0 * np.sum(x), np.zeros((0, 3))).shape == (0, 3)


def test_kernels_and_functions_that_write_to_their_argument() -> None:
    def doubled(x: Any) -> Any:
        x *= 2
        return np.sum(x**2)

    assert nnkit.derivative(doubled, [1.0, 2.0]).tolist() == [8.0, 16.0]
    assert nnkit.derivative(doubled, [1.0, 2.0], method="central") == pytest.approx([8.0, 16.0], rel=1e-8)
    found = nnkit.derivative(lambda W: nnkit.quadratic(nnkit.dense_forward(X, W, B, "tanh"), Y), W)
    np.testing.assert_allclose(found, gradients()[0], rtol=1e-13)


def test_arrays_of_other_backends() -> None:
    strict = nnkit.get_backend("standard:array_api_strict")
    found = nnkit.derivative(lambda x: np.sum(x**2), strict.asarray([1.0, 2.0], "float64"))
    assert found.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.sum(np.abs(x)),
        lambda x: np.sum(np.abs(x)) + np.sum(x**2),
        lambda x: np.linalg.norm(x) * np.sum(x),
        lambda x: np.sum(x.real**2) + np.sum(x),
        lambda x: np.sum(np.conj(x) * x),
        lambda x: np.sum(np.maximum(x - x[0].real, 0)) + np.sum(x),  # at its kink
    ],
)
def test_functions_that_are_not_analytic_are_refused(function: Callable[[Any], Any]) -> None:
    point = np.array([0.5, -1.0, 2.0])
    with pytest.raises(ValueError, match=r"^function.* use method='central'$"):
        nnkit.derivative(function, point)
    assert np.isfinite(nnkit.derivative(function, point, method="central")).all()


@pytest.mark.parametrize("part", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("seed", range(5))
def test_a_small_part_that_is_not_analytic_is_seen(part: float, seed: int) -> None:
    """Such as an L1 penalty beside a cost; the same part of another function, and the cost alone, are not refused."""
    at = np.random.default_rng(seed).normal(size=(3, 4))
    for extra in (np.abs, np.conj, np.real):
        with pytest.raises(ValueError, match="part of it is not analytic"):
            nnkit.derivative(lambda W, extra=extra: cost(W, B) + part * np.sum(extra(W) * np.arange(1, 5)), at)  # type: ignore[misc]
    found = nnkit.derivative(lambda W: cost(W, B) + part * np.sum(np.maximum(W, 0)), at)
    slope = nnkit.derivative(lambda W: cost(W, B), at)
    np.testing.assert_allclose(found, slope + part * (at > 0), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", ["relu", "tanh", "selu", "gelu", "softplus"])
def test_costs_of_networks_of_any_scale_are_not_refused(activation: str, seed: int) -> None:
    """The gradient is backpropagation's; entries of W from 10⁻³ to 10³, and hundreds of kinks."""
    rng = np.random.default_rng(seed)
    for scale in (1e-3, 1.0, 1e3):
        x, y = rng.normal(size=(20, 30)), rng.normal(size=(20, 9))
        W, b = rng.normal(size=(9, 30)) * scale, rng.normal(size=9)

        def of_network(W: Any, x: Any = x, y: Any = y, b: Any = b) -> Any:
            return nnkit.quadratic(nnkit.dense_forward(x, W, b, activation), y)

        found = nnkit.derivative(of_network, W)
        net = nnkit.Network([nnkit.Dense(30, 9, activation)], cost="quadratic", dtype="float64", seed=0)
        net.parameters.W[0][...], net.parameters.b[0][...] = W, b
        np.testing.assert_allclose(found, net.gradients(x, y)[1][0][0], atol=1e-11 * np.abs(found).max() + 1e-20)


def test_errors_for_real_functions_have_a_hint() -> None:
    with pytest.raises(TypeError) as caught:
        nnkit.derivative(lambda x: math.sin(x), 1.0)
    assert caught.value.__notes__ == [
        "the complex step calls the function with complex numbers; method='central' does not"
    ]
    assert nnkit.derivative(lambda x: math.sin(x), 1.0, method="central") == pytest.approx(math.cos(1), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, 1.0), {}, TypeError, "function is 3; expected a function of an array"),
        ((np.sum, "x"), {}, TypeError, "at has dtype <U1; expected real numbers"),
        ((np.sum, [1j]), {}, TypeError, "at has dtype complex128; expected real numbers"),
        ((np.sum, [[0.0, np.nan]]), {}, ValueError, r"at holds nan at \[0, 1\]; expected finite numbers"),
        ((np.sum, 1.0), {"method": "Central"}, ValueError, "unknown method 'Central'; did you mean 'central'"),
        ((np.sin, [1.0, 2.0]), {}, ValueError, r"function returns array\(\[.*\]\); expected one number"),
        ((lambda x: None, 1.0), {}, ValueError, "function returns None; expected one number"),
        ((lambda x: np.inf * x, 1.0), {}, ValueError, "function returns inf; expected a finite number"),
        ((lambda x: x + 1j, 1.0), {"method": "central"}, ValueError, "for a real array; expected a real number"),
    ],
)
def test_invalid_functions_and_points(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    for method in [options] if options else [{}, {"method": "central"}]:
        with pytest.raises(error, match=message):
            nnkit.derivative(*arguments, **method)


@pytest.mark.parametrize("name", ["entries", "seed"])
def test_numbers_of_check_gradients(name: str) -> None:
    net = nnkit.Network([2, 2], seed=0)
    with pytest.raises(ValueError, match=rf"check_gradients: {name} is -1; expected a whole number of at least"):
        nnkit.check_gradients(net, [[1.0, 2.0]], [0], **{name: -1})


@pytest.mark.parametrize(
    ("function", "at"),
    [
        (np.log, [1e-5, 1.0]),  # 1.16e5 with h, which is 0.6 a; 1e5 is right
        (np.reciprocal, [1.0, 1e-4]),
        (np.sin, [1e8]),
        (lambda a: np.tanh(a.astype(np.float32)), [0.5, 1.0]),
    ],
)
def test_central_differences_refuse_what_they_cannot_resolve(function: Any, at: list[float]) -> None:
    with pytest.raises(ValueError, match=r"central differences with h and h/2 disagree at \[\d\]"):
        nnkit.derivative(lambda a: float(np.sum(function(a))), at, method="central")


@pytest.mark.parametrize(
    ("function", "at", "exact"),
    [
        (lambda a: a**3, 0.0, 0.0),
        (lambda a: np.sum(np.abs(a)), [0.0, -2.0], [0.0, -1.0]),
        (lambda a: np.sum(np.maximum(a, 0)), [0.0, 1.0], [0.5, 1.0]),
        (lambda a: 1e6 + np.sum(np.cos(a)), [0.5, 1.0], -np.sin([0.5, 1.0])),  # rounding of 10⁶ · ε/h
        (lambda a: np.sum(np.round(a)), [0.2, 3.4], [0.0, 0.0]),
    ],
)
def test_central_differences_of_kinks_steps_and_large_values(function: Any, at: Any, exact: Any) -> None:
    np.testing.assert_allclose(nnkit.derivative(function, at, method="central"), exact, atol=1e-4)
