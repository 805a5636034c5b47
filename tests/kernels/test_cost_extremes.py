"""The costs where they might fail: huge and tiny arguments, kinks, NaN."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.costs import cost_names
from tests.support.cost_definitions import sample_cost

if TYPE_CHECKING:
    from tests.conftest import Arrays


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_costs_of_outputs_of_1e30(arrays: "Arrays", dtype: str) -> None:
    h, y = arrays([[1e30, -1e30]], dtype), arrays([[0.0, 1.0]], dtype)
    for name, delta in (("mean_absolute", [[1.0, -1.0]]), ("huber", [[1.0, -1.0]]), ("log_cosh", [[1.0, -1.0]])):
        assert float(getattr(nnkit, name)(h, y)) == pytest.approx(2e30, rel=1e-6)
        assert arrays.numpy(getattr(nnkit, f"{name}_delta")(h, y), dtype).tolist() == delta
    assert float(nnkit.hinge(h, y)) == pytest.approx(2e30, rel=1e-6)
    assert arrays.numpy(nnkit.hinge_delta(h, y), dtype).tolist() == [[1.0, -1.0]]
    assert float(nnkit.hinge(h, 1 - y)) == 0.0
    assert arrays.numpy(nnkit.hinge_delta(h, 1 - y)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_poisson_of_large_logits(arrays: "Arrays", dtype: str) -> None:
    y = arrays([[3.0, 0.0]], dtype)
    assert float(nnkit.poisson(arrays([[-1e30, -1e30]], dtype), y)) == pytest.approx(3e30, rel=1e-6)
    assert arrays.numpy(nnkit.poisson_delta(arrays([[-1e30, -1e30]], dtype), y), dtype).tolist() == [[-3.0, 0.0]]
    # e^1000 is no number of these types: the cost is truly infinite, not NaN.
    assert float(nnkit.poisson(arrays([[1e3, 0.0]], dtype), y)) == math.inf
    assert arrays.numpy(nnkit.poisson_delta(arrays([[1e3, 0.0]], dtype), y)).tolist() == [[math.inf, 1.0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("r", [1e-12, 1e-6, 1e-3, 0.1, 0.999, 1.001, 5.0, 30.0, 1e3])
def test_log_cosh_is_correct_to_rounding(arrays: "Arrays", r: float, dtype: str) -> None:
    """Also for small errors, whose cost ½ r² is far below the rounding of ln 2."""
    for h in (r, -r):
        given = np.array([[h]], dtype)
        wanted = sample_cost("log_cosh", given[0], np.zeros(1))
        found = float(nnkit.log_cosh(arrays(given, dtype), arrays([[0.0]], dtype)))
        assert found == pytest.approx(wanted, rel=6 * float(np.finfo(dtype).eps), abs=0)


def test_kinks(arrays: "Arrays") -> None:
    """The derivative from the left, like that of the activations; PyTorch's 0 for the absolute error."""
    h, y = arrays([[1.0, -1.0, 1.0, -1.0]]), arrays([[0.0, 0.0, 1.0, 1.0]])
    from_left = np.array([1.0, 0.0, -1.0, -1.0])
    assert arrays.numpy(nnkit.hinge_delta(h, y)).tolist() == [from_left.tolist()]
    for at, target, slope in zip([1, -1, 1, -1], [0, 0, 1, 1], from_left, strict=True):
        assert -nnkit.hinge(np.array([[at - 1e-30j]]), np.array([[target + 0j]])).imag / 1e-30 == pytest.approx(slope)
    assert arrays.numpy(nnkit.mean_absolute_delta(y, y)).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert arrays.numpy(nnkit.huber_delta(h, arrays([[0.0] * 4]))).tolist() == [[1.0, -1.0, 1.0, -1.0]]


@pytest.mark.parametrize("which", ["outputs", "targets"])
@pytest.mark.parametrize("name", [n for n in cost_names() if n != "softmax_cross_entropy"])
def test_nan_stays_where_it_is(arrays: "Arrays", name: str, which: str) -> None:
    z, y = np.array([[0.5, 0.25, 3.0]]), np.array([[0.0, 1.0, 0.0]])
    (z if which == "outputs" else y)[0, 1] = np.nan
    assert np.isnan(float(getattr(nnkit, name)(arrays(z), arrays(y))))
    delta = arrays.numpy(getattr(nnkit, f"{name}_delta")(arrays(z), arrays(y)))
    assert np.isnan(delta).tolist() == [[False, True, False]]


def test_nan_spreads_over_a_softmax(arrays: "Arrays") -> None:
    z, y = arrays([[0.5, np.nan, 3.0], [0.0, 0.0, 0.0]]), arrays([[0.0, 1.0, 0.0]] * 2)
    assert np.isnan(float(nnkit.softmax_cross_entropy(z, y)))
    assert np.isnan(arrays.numpy(nnkit.softmax_cross_entropy_delta(z, y))).tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize("name", cost_names())
def test_memory_order_does_not_matter(arrays: "Arrays", name: str) -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), 4)
    for function in (getattr(nnkit, name), getattr(nnkit, f"{name}_delta")):
        wanted = arrays.numpy(function(arrays(z), arrays(y)))
        wide: Any = arrays(np.repeat(y, 2, axis=1))
        found = arrays.numpy(function(arrays(np.asfortranarray(z)), wide[:, ::2]))
        np.testing.assert_allclose(found, wanted, rtol=1e-15)
