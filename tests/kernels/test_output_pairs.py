"""Softmax, and every pair of a cost and an output activation: outputs, cost, and its derivative by the logits."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

import nnkit
from nnkit.kernels.cost import output_pair
from nnkit.kernels.costs import cost_names, get_cost
from tests.support.exact import references
from tests.support.pairs import EVERY, PAIRS

if TYPE_CHECKING:
    from tests.conftest import Arrays

OUTPUTS = [*nnkit.activation_names(), "softmax"]


def softmax_rows(z: np.ndarray) -> np.ndarray:
    rows = []
    for row in z:
        terms = [math.exp(v - max(row)) for v in row]
        rows.append([t / math.fsum(terms) for t in terms])
    return np.array(rows)


POSITIVE = ("poisson", "gamma", "tweedie")
LOGARITHMS = (*POSITIVE, "cross_entropy", "softmax_cross_entropy")


def draw(cost: str, output: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose outputs the cost takes (a logarithm wants 0 < h < 1), and targets with exact zeros and ones."""
    rng = np.random.default_rng(3)
    wide = cost not in LOGARITHMS or output in ("sigmoid", "softmax") or (cost in POSITIVE and output == "exponential")
    z = rng.uniform(-2.9, 2.9, (4, 3)) if wide else rng.uniform(0.05, 0.5, (4, 3))
    if output == "exponential" and not wide:
        z = -z
    y = rng.uniform(0.1, 1, (4, 3))
    y /= y.sum(axis=1, keepdims=True)
    y[0] = [0.0, 1.0, 0.0]
    return z, y


def cost_of_outputs(cost: str, h: np.ndarray, y: np.ndarray) -> float:
    """Eq. 3 and 18 as they are printed, and the other costs, with 0 · ln 0 = 0."""

    def xlog(a: float, b: float) -> float:
        return a * math.log(b) if a else 0.0

    pairs = [(float(a), float(b)) for a, b in zip(h.ravel(), y.ravel(), strict=True)]
    terms: dict[str, Callable[[float, float], float]] = {
        "quadratic": lambda a, b: (b - a) ** 2 / 2,
        "mean_absolute": lambda a, b: abs(a - b),
        "huber": lambda a, b: (a - b) ** 2 / 2 if abs(a - b) <= 1 else abs(a - b) - 0.5,
        "log_cosh": lambda a, b: math.log(math.cosh(a - b)),
        "quantile": lambda a, b: abs(a - b) / 2,
        "gamma": lambda a, b: b / a + math.log(a),
        "tweedie": lambda a, b: 2 * math.sqrt(a) + 2 * b / math.sqrt(a),
        "poisson": lambda a, b: a - xlog(b, a),
        "cross_entropy": lambda a, b: -xlog(b, a) - xlog(1 - b, 1 - a),
        "softmax_cross_entropy": lambda a, b: -xlog(b, a),
        "hinge": lambda a, b: max(0.0, 1 - (2 * b - 1) * a),
    }
    return math.fsum(terms[cost](a, b) for a, b in pairs) / len(h)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("cost", cost_names())
def test_every_pair(arrays: "Arrays", cost: str, output: str) -> None:
    pair, backend = output_pair(get_cost(cost), output), arrays.backend
    z, y = draw(cost, output)
    h = softmax_rows(z) if output == "softmax" else references(output, z)[0]
    np.testing.assert_allclose(arrays.numpy(pair.outputs(backend, arrays(z)), "float64"), h, rtol=1e-13)
    scale = arrays(0.25)
    found = backend.sum(pair.terms(backend, arrays(z), arrays(y), scale))
    assert float(found) == pytest.approx(cost_of_outputs(cost, h, y), rel=1e-13)
    wanted, numpy = np.empty_like(z), nnkit.get_backend("numpy")
    for place in np.ndindex(z.shape):
        shifted = z.astype(complex)
        shifted[place] += 1e-30j
        terms = pair.terms(numpy, shifted, y.astype(complex), np.asarray(0.25 + 0j))
        wanted[place] = terms.sum().imag / 1e-30
    delta = arrays.numpy(pair.delta(backend, arrays(z), arrays(y), scale), "float64")
    np.testing.assert_allclose(delta, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("output", ["identity", "tanh", "softmax"])
def test_a_pair_has_the_constants_of_its_cost(arrays: "Arrays", output: str) -> None:
    backend, one = arrays.backend, arrays(1.0)
    z, y = arrays([[-2.0, 0.1, 1.5]]), arrays([[2.0, 0.0, 0.75]])
    for delta in (0.1, 0.5, 2.0):
        pair = output_pair(get_cost("huber", delta=delta), output)
        r = np.abs(arrays.numpy(pair.outputs(backend, z)) - arrays.numpy(y))
        wanted = np.where(r <= delta, r**2 / 2, delta * (r - delta / 2))
        np.testing.assert_allclose(arrays.numpy(pair.terms(backend, z, y, one)), wanted, rtol=1e-14)
        step = [
            output_pair(get_cost("quadratic"), output).outputs(
                nnkit.get_backend("numpy"), arrays.numpy(z) + 1e-30j * unit
            )
            for unit in np.eye(3)
        ]
        slope = np.clip(arrays.numpy(pair.outputs(backend, z)) - arrays.numpy(y), -delta, delta)
        exact = [[float((h.imag / 1e-30 * slope).sum()) for h in step]]
        np.testing.assert_allclose(arrays.numpy(pair.delta(backend, z, y, one)), exact, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("cost", ["cross_entropy", "softmax_cross_entropy"])
def test_correct_outputs_of_exactly_0_and_1_cost_nothing(arrays: "Arrays", cost: str) -> None:
    """0 · ln 0 = 0, and nothing is left to learn."""
    pair, backend = output_pair(get_cost(cost), "hard_sigmoid"), arrays.backend
    z, y, one = arrays([[-5.0, 5.0, -3.0]]), arrays([[0.0, 1.0, 0.0]]), arrays(1.0)
    assert arrays.numpy(pair.outputs(backend, z)).tolist() == [[0.0, 1.0, 0.0]]
    assert arrays.numpy(pair.terms(backend, z, y, one)).tolist() == [[0.0, 0.0, 0.0]]
    assert arrays.numpy(pair.delta(backend, z, y, one)).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("cost", "expected"), [("cross_entropy", [1.0, -1.0]), ("softmax_cross_entropy", [0.0, -1.0])])
def test_the_other_term_has_its_derivative_if_0_ln_0_is_0(arrays: "Arrays", cost: str, expected: list[float]) -> None:
    """Of −ln(1 − h) at h = y = 0, which is 1, and of −ln h at h = y = 1, which is −1."""
    pair, h, one = output_pair(get_cost(cost), "identity"), arrays([[0.0, 1.0]]), arrays(1.0)
    assert arrays.numpy(pair.terms(arrays.backend, h, h, one)).tolist() == [[0.0, 0.0]]
    assert arrays.numpy(pair.delta(arrays.backend, h, h, one)).tolist() == [expected]


def test_the_default_output_is_paired_with_the_cost() -> None:
    own = {"cross_entropy": "sigmoid", "softmax_cross_entropy": "softmax"} | dict.fromkeys(POSITIVE, "exponential")
    for cost in cost_names():
        assert output_pair(get_cost(cost)) is output_pair(get_cost(cost), own.get(cost, "identity"))


@pytest.mark.usefixtures("ufuncs")
@pytest.mark.parametrize("output", EVERY)
@pytest.mark.parametrize("cost", cost_names())
def test_networks_accept_meaningful_pairs(cost: str, output: str) -> None:
    """Its cost is a number for any targets of the cost, and it can predict both classes."""
    if (cost, output) not in PAIRS:
        own = get_cost(cost).output
        with pytest.raises(ValueError, match=f"output_activation is '{output}', but {cost} .*; expected '{own}'$"):
            nnkit.Network([1, 3], cost=cost, output_activation=output, seed=0)
        with pytest.raises(ValueError, match=f"output_activation is '{output}', but {cost} "):
            nnkit.Network([nnkit.Dense(1, 3, output)], cost=cost, seed=0)
        return
    net = nnkit.Network([1, 3], cost=cost, output_activation=output, seed=0, dtype="float64")
    net.parameters.W[0][...] = 1
    x = np.linspace(-4, 4, 9)[:, None]
    for y in np.eye(3) + (0.5 if cost == "gamma" else 0):
        numbers = net.evaluate(x, np.tile(y, (9, 1)))
        assert not np.isnan(numbers["cost"])
        assert cost in ("poisson", "gamma") or numbers["cost"] >= 0
    if net.classifies and output != "softmax":
        single = nnkit.Network([1, 1], cost=cost, output_activation=output, seed=0, dtype="float64")
        single.parameters.flat[...] = 0
        single.parameters.W[0][...] = 1
        assert set(np.ravel(single.predict(x)).tolist()) == {0, 1}


def test_softmax_with_leading_axes_equals_softmax_of_each_row(arrays: "Arrays") -> None:
    z, delta = np.random.default_rng(1).normal(size=(2, 2, 4, 3))
    p = np.stack([softmax_rows(part) for part in z])
    np.testing.assert_allclose(arrays.numpy(nnkit.softmax(arrays(z))), p, rtol=1e-14)
    expected = p * (delta - np.einsum("abk,abk->ab", p, delta)[..., None])  # eq. 8
    np.testing.assert_allclose(arrays.numpy(nnkit.softmax_grad(arrays(p), arrays(delta))), expected, rtol=1e-12)


def test_softmax_rows_are_distributions(arrays: "Arrays") -> None:
    rng = np.random.default_rng(0)
    moderate = rng.normal(0, 5, (50, 7))
    p = arrays.numpy(nnkit.softmax(arrays(moderate)), "float64")
    np.testing.assert_allclose(p, softmax_rows(moderate), rtol=1e-14)
    for z in (moderate, rng.normal(0, 1e4, (50, 7)), np.full((2, 3), 1e300), np.array([[1e30, -1e30], [0.0, -745.0]])):
        p = arrays.numpy(nnkit.softmax(arrays(z)))
        assert (p >= 0).all()
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-15)
        assert (np.argmax(p, axis=1) == np.argmax(z, axis=1)).all()
    assert arrays.numpy(nnkit.softmax(arrays([[[3.0], [4.0]]]))).tolist() == [[[1.0], [1.0]]]
    assert np.isnan(arrays.numpy(nnkit.softmax(arrays([[np.nan, 1.0]])))).all()
    with pytest.raises(ValueError, match=r"z has shape \(\); expected \(..., classes\)"):
        nnkit.softmax(arrays(1.0))
    with pytest.raises(ValueError, match=r"z has shape \(2, 0\)"):
        nnkit.softmax(arrays(np.ones((2, 0))))


def test_softmax_grad_is_the_jacobian_times_delta(arrays: "Arrays") -> None:
    rng = np.random.default_rng(1)
    z, delta = rng.normal(0, 3, (5, 4)), rng.normal(size=(5, 4))
    p = softmax_rows(z)
    jacobians = [np.diag(row) - np.outer(row, row) for row in p]
    wanted = np.stack([jacobian @ row for jacobian, row in zip(jacobians, delta, strict=True)])
    found = arrays.numpy(nnkit.softmax_grad(arrays(p), arrays(delta)), "float64")
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("dtype", "eps"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_softmax_of_many_classes_in_half_precision(dtype: str, eps: float) -> None:
    """The exponentials have a larger sum than float16 has numbers."""
    n, backend = 70_000, nnkit.get_backend("numpy")
    z = backend.asarray(np.zeros((1, n)), dtype)
    p = nnkit.softmax(z)
    assert p.dtype == z.dtype
    np.testing.assert_allclose(p.astype(float), 1 / n, rtol=0.5 * eps, atol=2.0**-25)
    y = z.copy()
    y[0, 0] = 1
    assert float(nnkit.softmax_cross_entropy(z, y)) == pytest.approx(math.log(n), rel=0.5 * eps)
    delta = nnkit.softmax_cross_entropy_delta(z, y).astype(float)
    np.testing.assert_allclose(delta, 1 / n - y.astype(float), rtol=0.5 * eps, atol=2.0**-25)
    rng = np.random.default_rng(0)
    p, weights = (backend.asarray(a, dtype) for a in (rng.uniform(0, 2 / n, (1, n)), rng.normal(1, 1, (1, n))))
    shares, by_output = p.astype(float), weights.astype(float)
    found = nnkit.softmax_grad(p, weights)
    assert found.dtype == p.dtype
    wanted = shares * (by_output - (shares * by_output).sum())
    np.testing.assert_allclose(found.astype(float), wanted, rtol=0.5 * eps + 1e-4, atol=2.0**-25)


def test_softmax_gradient_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(2)
    z, delta = rng.normal(0, 3, (5, 4)), rng.normal(size=(5, 4))
    logits = torch.tensor(z, requires_grad=True)
    p = torch.softmax(logits, dim=1)
    p.backward(torch.tensor(delta))
    np.testing.assert_allclose(nnkit.softmax(z), p.detach().numpy(), rtol=1e-14)
    np.testing.assert_allclose(nnkit.softmax_grad(nnkit.softmax(z), delta), logits.grad.numpy(), rtol=1e-12, atol=1e-15)
