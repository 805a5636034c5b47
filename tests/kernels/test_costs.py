"""The costs and their derivatives: against 60-digit decimals, the complex step and PyTorch."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.costs import cost_names, get_cost
from tests.support.cost_definitions import draw, sample_cost, sample_terms, torch_cost

if TYPE_CHECKING:
    from tests.conftest import Arrays

COSTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    name: (getattr(nnkit, name), getattr(nnkit, f"{name}_delta")) for name in cost_names()
}


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_is_the_mean_over_the_samples(arrays: "Arrays", name: str) -> None:
    z, y = draw(name)
    each = [sample_cost(name, a, b) for a, b in zip(z, y, strict=True)]
    found = COSTS[name][0](arrays(z), arrays(y))
    assert found.shape == ()
    assert float(arrays.numpy(found, "float64")) == pytest.approx(math.fsum(each) / 4, rel=1e-14)
    singles = [COSTS[name][0](arrays(z[i : i + 1]), arrays(y[i : i + 1])) for i in range(4)]
    assert [float(c) for c in singles] == pytest.approx(each, rel=1e-14)
    if name == "softmax_cross_entropy":  # a vector can only be one sample
        assert float(COSTS[name][0](arrays(z[1]), arrays(y[1]))) == pytest.approx(each[1], rel=1e-14)
    else:  # or as many samples as it has entries
        for function in COSTS[name]:
            with pytest.raises(
                ValueError, match=r"have shape \(3,\); expected \(3, 1\) for samples .*, \(1, 3\) for one"
            ):
                function(arrays(z[1]), arrays(y[1]))
    delta = arrays.numpy(COSTS[name][1](arrays(z), arrays(y)), "float64")
    for i in range(4):
        alone = arrays.numpy(COSTS[name][1](arrays(z[i : i + 1]), arrays(y[i : i + 1])))
        np.testing.assert_allclose(delta[i : i + 1], alone / 4, rtol=1e-14)


@pytest.mark.parametrize("name", COSTS)
def test_delta_is_the_complex_step_of_the_cost(arrays: "Arrays", name: str) -> None:
    z, y = draw(name)
    wanted = nnkit.derivative(lambda z: COSTS[name][0](z, y), z)
    found = arrays.numpy(COSTS[name][1](arrays(z), arrays(y)), "float64")
    np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("name", COSTS)
def test_torch_agrees(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    z, y = draw(name)
    logits, targets = torch.tensor(z, requires_grad=True), torch.tensor(y)
    cost = torch_cost(torch, name, logits, targets) / 4
    cost.backward()
    assert float(COSTS[name][0](z, y)) == pytest.approx(cost.item(), rel=1e-14)
    np.testing.assert_allclose(COSTS[name][1](z, y), logits.grad.numpy(), rtol=1e-13, atol=1e-16)


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
def test_scale_may_be_the_share_of_each_output(arrays: "Arrays", name: str) -> None:
    (z, y), (cost, delta) = draw(name), COSTS[name]
    shares = np.random.default_rng(8).uniform(0, 1, z.shape)
    shares[2, 1] = 0
    terms = np.array([sample_terms(name, a, b) for a, b in zip(z, y, strict=True)])
    found = cost(arrays(z), arrays(y), scale=arrays(shares))
    assert float(found) == pytest.approx(math.fsum((terms * shares).ravel()), rel=1e-14)
    wanted = nnkit.derivative(lambda z: cost(z, y, scale=shares), z)
    found = arrays.numpy(delta(arrays(z), arrays(y), scale=arrays(shares)), "float64")
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("dtype", "eps"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
@pytest.mark.parametrize("name", COSTS)
def test_half_precision_is_rounded_once(name: str, dtype: str, eps: float) -> None:
    """Of many samples, whose terms are below the smallest number or have few digits."""
    backend = nnkit.get_backend("numpy")
    z, y = (np.tile(backend.asarray(a, dtype), (5000, 1)) for a in draw(name))
    rows, targets = (a[:4].astype(float) for a in (z, y))
    wanted = math.fsum(sample_cost(name, a, b) for a, b in zip(rows, targets, strict=True)) / 4
    for scale in (None, 1 / 20_000):
        cost, delta = (function(z, y, scale=scale) for function in COSTS[name])
        assert cost.dtype == delta.dtype == z.dtype
        assert float(cost) == pytest.approx(wanted, rel=0.5 * eps + 1e-4)
        exact = COSTS[name][1](rows, targets) / 5000
        np.testing.assert_allclose(delta[-4:].astype(float), exact, rtol=0.5 * eps + 1e-4, atol=2.0**-25)
    shares = np.full((20_000, 1), 1 / 20_000, np.float32)
    assert COSTS[name][0](z, y, scale=shares).dtype == np.float32


@pytest.mark.parametrize("name", COSTS)
def test_errors_name_what_came(name: str) -> None:
    for function in COSTS[name]:
        with pytest.raises(ValueError, match=rf"{name}: outputs have shape \(2, 3\) and y \(3, 2\)"):
            function(np.ones((2, 3)), np.ones((3, 2)))
        with pytest.raises(ValueError, match=r"outputs have shape \(0, 3\)"):
            function(np.ones((0, 3)), np.ones((0, 3)))
        with pytest.raises(TypeError, match="y has dtype int64"):
            function(np.ones((2, 3)), np.ones((2, 3), np.int64))
        with pytest.raises(
            ValueError, match=rf"{name}: scale has shape \(3,\); expected a number, \(3, 1\) or \(3, 3\)"
        ):
            function(np.ones((3, 3)), np.ones((3, 3)), scale=np.ones(3))
        with pytest.raises(ValueError, match=r"scale has shape \(2, 1\); expected a number, \(4, 1\) or \(4, 3\)"):
            function(np.ones((4, 3)), np.ones((4, 3)), scale=np.ones((2, 1)))
        strict = nnkit.get_backend("standard:array_api_strict")
        with pytest.raises(nnkit.BackendMismatchError, match="y on 'standard:array_api_strict'"):
            function(np.ones((2, 3)), strict.asarray(np.ones((2, 3))))
    with pytest.raises(ValueError, match=f"unknown cost '{name[:-1]}'; did you mean .*'{name}'"):
        get_cost(name[:-1])


def test_the_threshold_is_0_for_margins_and_a_half_for_probabilities() -> None:
    """One output: hinge's classes are the signs of the score, whatever gives it, cross-entropy's the probable one."""
    x = np.array([[-0.3], [0.3], [0.6]])
    for cost, output, wanted in (
        ("hinge", None, [0, 1, 1]), ("hinge", "tanh", [0, 1, 1]), ("cross_entropy", None, [0, 1, 1]),
        ("quadratic", "sigmoid", [0, 1, 1]),
    ):  # fmt: skip
        net = nnkit.Network([1, 1], cost=cost, output_activation=output, seed=0, dtype="float64")
        net.parameters.flat[...] = 0
        net.parameters.W[0][...] = 1
        if net.classifies:
            assert np.ravel(net.predict(x)).tolist() == wanted
            assert net.evaluate(x, wanted)["accuracy"] == 1
    probable = nnkit.get_cost("cross_entropy").threshold, nnkit.get_cost("hinge").threshold
    assert probable == (0.5, 0.0)
