"""The activations: values and gradients against definitions in 450 decimal digits."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.activations import Activation, get_activation
from tests.support import torch_twin
from tests.support.exact import DEFINITIONS, SELU_ALPHA, SELU_LAMBDA, distances, exact, references

if TYPE_CHECKING:
    from tests.conftest import Arrays

NAMES = nnkit.activation_names()
POSITIVE = [1e-8, 1e-3, 0.3, 1.0, 2.5, 2.999, 3.001, 5.0, 8.0, 12.0, 30.0, 40.0, 700.0, 1e4]
GRID = np.array([-z for z in reversed(POSITIVE)] + POSITIVE)  # the kinks 0 and ±3 have a test of their own


def saved(f: Activation, z: Any) -> Any:
    return z if f.gradient_from == "preactivation" else f.forward(z)


def assert_near(found: Any, wanted: np.ndarray, rtol: float, atol: Any, z: np.ndarray) -> None:
    wanted_size = np.where(np.isfinite(wanted), np.abs(wanted), 0.0)
    error, allowed = distances(np.asarray(found), wanted), rtol * wanted_size + atol
    worst = int(np.argmax(error / (allowed + 1e-320)))
    assert (error <= allowed).all(), f"at {z.ravel()[worst]}: {error.ravel()[worst]:.2g} of {wanted.ravel()[worst]:.4g}"


def test_every_activation_has_a_definition_here() -> None:
    assert sorted(DEFINITIONS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_in_float64(name: str) -> None:
    f = get_activation(name)
    value, slope = references(name, GRID)
    # By 1 + tanh and by z/6 + ½ what is small comes from numbers near 1; gelu's own bound is that of normal_cdf.
    cancelling = {"gelu_tanh": 4e-16 * np.abs(GRID), "hard_sigmoid": 2e-16}
    relative = 1e-14 if name == "gelu" else 1e-15
    assert_near(f.forward(GRID), value, relative, cancelling.get(name, 0.0), GRID)
    # f′ from an output h near an asymptote inherits h's rounding: an absolute error.
    delta = np.linspace(-2, 3, GRID.size)
    found = f.gradient(saved(f, GRID), delta)
    assert_near(found, slope * delta, 4e-15, 1e-15 * (1 + np.abs(GRID) * (name == "gelu_tanh")), GRID)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_complex_step(name: str) -> None:
    f, h = get_activation(name), 1e-30
    with np.errstate(all="ignore"):
        step = f.forward(GRID + h * 1j).imag / h
    keep = np.isfinite(step)  # e^700 squared overflows in complex division
    assert keep[np.abs(GRID) <= 40].all()
    found = f.gradient(saved(f, GRID), np.ones_like(GRID))
    assert_near(found[keep], step[keep], 1e-14, 2e-15 * np.maximum(1, np.abs(GRID[keep])), GRID[keep])


@pytest.mark.parametrize("name", NAMES)
def test_torch_agrees(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    f = get_activation(name)
    grid = np.concatenate([GRID, [0.0] if name != "selu" else []])  # at 0, PyTorch's selu has the right derivative
    z = torch.tensor(grid, requires_grad=True)
    value = torch_twin.activation(torch, name, z)
    value.sum().backward()
    assert_near(f.forward(grid), value.detach().numpy(), 1e-14, 4e-16 * np.abs(grid), grid)
    slopes = f.gradient(saved(f, grid), np.ones_like(grid))
    assert_near(slopes, z.grad.numpy(), 1e-14, 2e-15 * np.maximum(1, np.abs(grid)), grid)


@pytest.mark.parametrize(
    ("name", "z"), [("sigmoid", -30.0), ("sigmoid", -700.0), ("softplus", -30.0), ("silu", -30.0), ("gelu", -8.0)]
)
def test_tails_keep_their_relative_accuracy(name: str, z: float) -> None:
    f, at = get_activation(name), np.array([z])
    value, slope = exact(name, z)
    assert f.forward(at)[0] == pytest.approx(value, rel=1e-14, abs=0)
    assert f.gradient(saved(f, at), np.ones(1))[0] == pytest.approx(slope, rel=2e-14, abs=0)
    assert 0 < abs(value) < 1e-11


@pytest.mark.parametrize(
    ("name", "z", "slope"),
    [
        ("relu", 0.0, 0.0),
        ("relu", -0.0, 0.0),
        ("leaky_relu", 0.0, 0.01),
        ("elu", 0.0, 1.0),
        ("selu", 0.0, float(SELU_LAMBDA * SELU_ALPHA)),
        ("softsign", 0.0, 1.0),
        ("hard_sigmoid", -3.0, 0.0),
        ("hard_sigmoid", 3.0, 0.0),
    ],
)
def test_kinks_have_the_documented_slope(arrays: "Arrays", name: str, z: float, slope: float) -> None:
    f = get_activation(name)
    found = f.gradient(saved(f, arrays([z])), arrays([-4.0]))
    assert arrays.numpy(found)[0] == pytest.approx(-4 * slope, rel=1e-15, abs=0)


def test_constants_may_be_given() -> None:
    z, delta = np.array([-2.0, 3.0]), np.array([5.0, 7.0])
    leaky, elu = nnkit.leaky_relu(z, negative_slope=0.2), nnkit.elu(z, alpha=0.5)
    assert leaky == pytest.approx([-0.4, 3.0])
    assert nnkit.leaky_relu_grad(leaky, delta, negative_slope=0.2) == pytest.approx([1.0, 7.0])
    assert elu == pytest.approx([0.5 * (math.exp(-2) - 1), 3.0])
    assert nnkit.elu_grad(elu, delta, alpha=0.5) == pytest.approx([5 * 0.5 * math.exp(-2), 7.0])
