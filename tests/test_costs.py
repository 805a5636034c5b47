"""The costs and their derivatives: against 60-digit decimals, the complex step and PyTorch."""

import decimal
import math
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.costs import get_cost

if TYPE_CHECKING:
    from tests.conftest import Arrays

COSTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "quadratic": (nnkit.quadratic, nnkit.quadratic_delta),
    "cross_entropy": (nnkit.cross_entropy, nnkit.cross_entropy_delta),
    "softmax_cross_entropy": (nnkit.softmax_cross_entropy, nnkit.softmax_cross_entropy_delta),
}
CONTEXT = decimal.Context(prec=60, Emax=10**12, Emin=-(10**12))


def draw(name: str, n: int = 4, classes: int = 3, spread: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (or outputs) and targets: soft ones, and a row of exact zeros and ones."""
    rng = np.random.default_rng(7)
    z, y = rng.normal(0, spread, (n, classes)), rng.uniform(0, 1, (n, classes))
    y[0] = np.eye(classes)[1]
    return z, y / y.sum(axis=1, keepdims=True) if name == "softmax_cross_entropy" else y


def sample_cost(name: str, logits: np.ndarray, y: np.ndarray) -> float:
    """One sample's cost by its definition; by its limit for sigmoids that differ from 0 and 1 by less than 10⁻³⁴⁷."""
    if name == "cross_entropy" and (np.abs(logits) > 800).all():
        return math.fsum(float(b * max(-a, 0) + (1 - b) * max(a, 0)) for a, b in zip(logits, y, strict=True))
    with decimal.localcontext(CONTEXT):
        z, t = [Decimal(float(v)) for v in logits], [Decimal(float(v)) for v in y]
        if name == "quadratic":
            return float(sum((a - b) ** 2 for a, b in zip(z, t, strict=True)) / 2)
        if name == "cross_entropy":
            o = [1 / (1 + (-v).exp()) for v in z]
            return float(-sum(b * a.ln() + (1 - b) * (1 - a).ln() for a, b in zip(o, t, strict=True)))
        total = sum(v.exp() for v in z)
        return float(-sum(b * (v.exp() / total).ln() for v, b in zip(z, t, strict=True)))


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_is_the_mean_over_the_samples(arrays: "Arrays", name: str) -> None:
    z, y = draw(name)
    each = [sample_cost(name, a, b) for a, b in zip(z, y, strict=True)]
    found = COSTS[name][0](arrays(z), arrays(y))
    assert found.shape == ()
    assert float(arrays.numpy(found, "float64")) == pytest.approx(math.fsum(each) / 4, rel=1e-14)
    singles = [COSTS[name][0](arrays(z[i : i + 1]), arrays(y[i : i + 1])) for i in range(4)]
    assert [float(c) for c in singles] == pytest.approx(each, rel=1e-14)
    # A single sample may come as a vector.
    assert float(COSTS[name][0](arrays(z[1]), arrays(y[1]))) == pytest.approx(each[1], rel=1e-14)
    delta = arrays.numpy(COSTS[name][1](arrays(z), arrays(y)), "float64")
    for i in range(4):
        alone = arrays.numpy(COSTS[name][1](arrays(z[i : i + 1]), arrays(y[i : i + 1])))
        np.testing.assert_allclose(delta[i : i + 1], alone / 4, rtol=1e-14)


@pytest.mark.parametrize("name", COSTS)
def test_delta_is_the_complex_step_of_the_cost(arrays: "Arrays", name: str) -> None:
    z, y = draw(name)
    wanted = np.empty_like(z)
    for place in np.ndindex(z.shape):
        shifted = z.astype(complex)
        shifted[place] += 1e-30j
        wanted[place] = COSTS[name][0](shifted, y).imag / 1e-30
    found = arrays.numpy(COSTS[name][1](arrays(z), arrays(y)), "float64")
    np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("name", COSTS)
def test_torch_agrees(name: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    z, y = draw(name)
    logits, targets = torch.tensor(z, requires_grad=True), torch.tensor(y)
    F = torch.nn.functional
    if name == "quadratic":
        cost = F.mse_loss(logits, targets, reduction="sum") / 2 / 4
    elif name == "cross_entropy":
        cost = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / 4
    else:
        cost = F.cross_entropy(logits, targets)
    cost.backward()
    assert float(COSTS[name][0](z, y)) == pytest.approx(cost.item(), rel=1e-14)
    np.testing.assert_allclose(COSTS[name][1](z, y), logits.grad.numpy(), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("y", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("z", [-1e4, -30.0, 30.0, 1e4])
def test_cross_entropy_of_large_logits(arrays: "Arrays", z: float, y: float, dtype: str) -> None:
    logits, targets = arrays([[z]], dtype), arrays([[y]], dtype)
    wanted, eps = sample_cost("cross_entropy", np.array([z]), np.array([y])), float(np.finfo(dtype).eps)
    found = float(arrays.numpy(nnkit.cross_entropy(logits, targets), dtype))
    assert found == pytest.approx(wanted, rel=4 * eps, abs=1e-300)  # also the 10⁻¹³ of a confident right answer
    delta = float(arrays.numpy(nnkit.cross_entropy_delta(logits, targets), dtype)[0, 0])
    assert delta == pytest.approx(1 / (1 + math.exp(-max(z, -700))) - y, abs=eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_1e30(arrays: "Arrays", dtype: str) -> None:
    big = 1e30
    logits, y = arrays([[big, -big, big, -big]], dtype), arrays([[1.0, 0.0, 0.25, 1.0]], dtype)
    found = arrays.numpy(nnkit.cross_entropy(logits, y), dtype)
    assert float(found) == pytest.approx(1.75 * big, rel=1e-6)
    assert arrays.numpy(nnkit.cross_entropy_delta(logits, y)).tolist() == [[0.0, 0.0, 0.75, -1.0]]
    logits = arrays([[big, -big, 0.0], [big, -big, 0.0], [-big, -big, -big]], dtype)
    y = arrays([[1.0, 0.0, 0.0], [0.0, 0.25, 0.75], [1.0, 0.0, 0.0]], dtype)
    found = arrays.numpy(nnkit.softmax_cross_entropy(logits, y), dtype)
    assert float(found) == pytest.approx((0.25 * 2 * big + 0.75 * big) / 3, rel=1e-6)
    delta = 3 * arrays.numpy(nnkit.softmax_cross_entropy_delta(logits, y))
    np.testing.assert_allclose(delta, [[0.0, 0.0, 0.0], [1.0, -0.25, -0.75], [-2 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


def test_softmax_cross_entropy_of_large_logits(arrays: "Arrays") -> None:
    z = np.array([[1e4, -1e4, 0.0], [-1e4, 20.0, 21.0], [1e4, 1e4, 1e4]])
    y = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    wanted = math.fsum(sample_cost("softmax_cross_entropy", a, b) for a, b in zip(z, y, strict=True)) / 3
    assert float(nnkit.softmax_cross_entropy(arrays(z), arrays(y))) == pytest.approx(wanted, rel=1e-15)
    p = np.array([[1, 0, 0], [0, 1 / (1 + math.e), math.e / (1 + math.e)], [1 / 3, 1 / 3, 1 / 3]])
    delta = arrays.numpy(nnkit.softmax_cross_entropy_delta(arrays(z), arrays(y)))
    np.testing.assert_allclose(delta, (p - y) / 3, atol=1e-16)


@pytest.mark.parametrize("name", COSTS)
def test_scale_is_the_share_of_each_sample(arrays: "Arrays", name: str) -> None:
    z, y = draw(name)
    each = [sample_cost(name, a, b) for a, b in zip(z, y, strict=True)]
    shares = np.array([[0.5], [0.25], [0.125], [0.0]])
    cost, delta = COSTS[name]
    by_mean = 4 * arrays.numpy(delta(arrays(z), arrays(y)))
    for scale, share in ((0.1, np.full((4, 1), 0.1)), (arrays(0.1), np.full((4, 1), 0.1)), (arrays(shares), shares)):
        wanted = math.fsum(a * float(b) for a, b in zip(each, share[:, 0], strict=True))
        assert float(cost(arrays(z), arrays(y), scale=scale)) == pytest.approx(wanted, rel=1e-14)
        found = arrays.numpy(delta(arrays(z), arrays(y), scale=scale))
        np.testing.assert_allclose(found, by_mean * share, rtol=1e-14)


@pytest.mark.parametrize("name", COSTS)
def test_errors_name_what_came(name: str) -> None:
    for function in COSTS[name]:
        with pytest.raises(ValueError, match=rf"{name}: outputs have shape \(2, 3\) and y \(3, 2\)"):
            function(np.ones((2, 3)), np.ones((3, 2)))
        with pytest.raises(ValueError, match=r"outputs have shape \(0, 3\)"):
            function(np.ones((0, 3)), np.ones((0, 3)))
        with pytest.raises(TypeError, match="y has dtype int64"):
            function(np.ones((2, 3)), np.ones((2, 3), np.int64))
        strict = nnkit.get_backend("standard:array_api_strict")
        with pytest.raises(nnkit.BackendMismatchError, match="y on 'standard:array_api_strict'"):
            function(np.ones((2, 3)), strict.asarray(np.ones((2, 3))))
    with pytest.raises(ValueError, match=f"unknown cost '{name[:-1]}'; did you mean '{name}'"):
        get_cost(name[:-1])
