"""Initializers: the spread that each paper asks for, biases, and names."""

import math
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.initializers import get_initializer, initializer_names, orthogonal

D_OUT, D_IN = 300, 500
# name: (variance of the weights, uniform or normal, variance of the biases)
SPREADS = {
    "glorot_uniform": (2 / (D_IN + D_OUT), "uniform", 0.0),
    "glorot_normal": (2 / (D_IN + D_OUT), "normal", 0.0),
    "he_uniform": (2 / D_IN, "uniform", 0.0),
    "he_normal": (2 / D_IN, "normal", 0.0),
    "lecun_uniform": (1 / D_IN, "uniform", 0.0),
    "lecun_normal": (1 / D_IN, "normal", 0.0),
    "nielsen_large": (1.0, "normal", 1.0),
    "nielsen_new": (1 / D_IN, "normal", 1.0),
    "zeros": (0.0, "", 0.0),
}


def check(values: np.ndarray, variance: float, shape: str) -> None:
    """Mean, variance and range, each within five standard errors of this many draws."""
    if variance == 0:
        assert (values == 0).all()
        return
    n, deviation = values.size, math.sqrt(variance)
    assert abs(values.mean()) < 5 * deviation / math.sqrt(n)
    # The fourth moment is 9/5 σ⁴ for uniform numbers and 3σ⁴ for normal ones.
    kurtosis = 1.8 if shape == "uniform" else 3.0
    assert abs(values.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / n)
    assert abs((values**4).mean() / variance**2 / kurtosis - 1) < 25 / math.sqrt(n)
    if shape == "uniform":
        assert 0.97 < np.abs(values).max() / (math.sqrt(3) * deviation) <= 1


@pytest.mark.parametrize("name", SPREADS)
def test_spread(name: str) -> None:
    variance, shape, of_biases = SPREADS[name]
    W, b = get_initializer(name)(np.random.default_rng(0), D_OUT, D_IN)
    assert W.shape == (D_OUT, D_IN)
    assert b.shape == (D_OUT,)
    assert W.dtype == b.dtype == np.float64
    check(W, variance, shape)
    check(b, of_biases, "normal")


def test_uniform_and_normal() -> None:
    rng = np.random.default_rng(0)
    for values in nnkit.initializers.uniform(0.1)(rng, D_OUT, D_IN):
        check(values, 0.1**2 / 3, "uniform")
        assert np.abs(values).max() <= 0.1
    for values in nnkit.initializers.normal(0.3)(rng, D_OUT, D_IN):
        check(values, 0.3**2, "normal")
    for bad in (0.0, -1.0, math.inf, math.nan):
        for make in (nnkit.initializers.uniform, nnkit.initializers.normal, orthogonal):
            with pytest.raises(ValueError, match=rf"{make.__name__}: \w+ is {bad}; expected a finite number above 0"):
                make(bad)


def test_names() -> None:
    assert initializer_names() == [*SPREADS, "orthogonal"]
    with pytest.raises(ValueError, match="unknown initializer 'ortogonal'; did you mean 'orthogonal'"):
        get_initializer("ortogonal")
    net = nnkit.Network([3, 5, 2], init="orthogonal", seed=0, dtype="float64")
    W = np.array(net.parameters.W[0])
    np.testing.assert_allclose(W.T @ W, np.eye(3), atol=1e-15)


@pytest.mark.parametrize("gain", [1.0, 0.5])
@pytest.mark.parametrize(("d_out", "d_in"), [(30, 50), (50, 30), (40, 40), (1, 7), (7, 1), (1, 1)])
def test_orthogonal(d_out: int, d_in: int, gain: float) -> None:
    W, b = orthogonal(gain)(np.random.default_rng(0), d_out, d_in)
    assert W.shape == (d_out, d_in)
    assert W.dtype == b.dtype == np.float64
    assert b.tolist() == [0.0] * d_out
    shorter = W @ W.T if d_out <= d_in else W.T @ W
    np.testing.assert_allclose(shorter, gain**2 * np.eye(min(d_out, d_in)), atol=1e-14)


@pytest.mark.parametrize(("d_out", "d_in"), [(3, 3), (2, 4), (4, 2)])
def test_orthogonal_matrices_are_drawn_uniformly(d_out: int, d_in: int) -> None:
    """Under the Haar measure an entry has mean 0 and variance 1/d; the sign that LAPACK gives R would show in both."""
    rng, draw, n = np.random.default_rng(0), orthogonal(), 4000
    matrices = np.array([draw(rng, d_out, d_in)[0] for _ in range(n)])
    d = max(d_out, d_in)
    # An entry's fourth moment is 3/(d(d + 2)).
    assert np.abs(matrices.mean(axis=0)).max() < 5 * math.sqrt(1 / d / n)
    assert np.abs((matrices**2).mean(axis=0) - 1 / d).max() < 5 * math.sqrt((3 / (d * (d + 2)) - 1 / d**2) / n)
    if d_out == d_in:  # reflections and rotations alike
        assert abs(np.sign(np.linalg.det(matrices)).mean()) < 5 / math.sqrt(n)


@pytest.mark.parametrize(
    ("activation", "name"),
    [("sigmoid", "glorot_uniform"), ("softmax", "glorot_uniform"), ("relu", "he_normal"), ("selu", "lecun_normal")],
)
def test_the_default_initializer_suits_the_activation(activation: str, name: str) -> None:
    assert get_initializer(None, activation) is get_initializer(name)
    net = nnkit.Network([nnkit.Dense(4, 3, activation)], cost="quadratic", seed=6, dtype="float64")
    W, b = get_initializer(name)(np.random.default_rng([6, 0]), 3, 4)
    assert net.parameters.W[0].tolist() == W.tolist()
    assert net.parameters.b[0].tolist() == b.tolist()


ZEROS = np.zeros((4, 3)), np.zeros(4)
RETURNED: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (None, TypeError, r"returned a NoneType; expected \(W, b\)"),
    "W alone": (ZEROS[0], TypeError, r"returned an array of shape \(4, 3\); expected \(W, b\)"),
    "three": ((*ZEROS, 1), TypeError, r"returned 3 values; expected \(W, b\)"),
    "NaN": ((ZEROS[0], np.array([0, 0, np.nan, 0])), ValueError, r"b holds nan at \[2\]; expected finite"),
    "too large": ((ZEROS[0] + 1e300, ZEROS[1]), ValueError, r"W holds inf at \[0, 0\]; expected .* in float32"),
    "transposed": ((ZEROS[0].T, ZEROS[1]), ValueError, r"W has shape \(3, 4\); expected \(4, 3\); .* transposed"),
    "a column": ((ZEROS[0], ZEROS[1][:, None]), ValueError, r"b has shape \(4, 1\); expected \(4,\)"),
    "complex": ((ZEROS[0] * 1j, ZEROS[1]), TypeError, "W has dtype complex128; expected real numbers"),
    "text": ((np.full((4, 3), "a"), ZEROS[1]), TypeError, "W has dtype .*; expected real numbers"),
    "objects": ((ZEROS[0].astype(object), ZEROS[1]), TypeError, "W has dtype object; expected real numbers"),
    "ragged": (([[1.0], [1.0, 2.0]], ZEROS[1]), ValueError, "W: .*inhomogeneous"),
    "masked": ((np.ma.masked_array(ZEROS[0], True), ZEROS[1]), TypeError, "W is a masked array"),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_results_of_custom_initializers_are_checked(kind: str) -> None:
    value, error, message = RETURNED[kind]

    def mine(rng: Any, d_out: int, d_in: int) -> Any:
        return value

    with pytest.raises(error, match=f"init mine of layer 0: {message}"):
        nnkit.Network([3, 4, 2], init=mine, seed=0)
    with pytest.raises(error, match="init mine of layer 1: "):
        nnkit.Network([nnkit.Dense(5, 3), nnkit.Dense(3, 4, init=mine)], seed=0)


def test_initializers_may_return_lists_and_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    W, b = np.arange(12.0).reshape(4, 3), np.arange(4.0)
    tensors = torch.tensor(W, requires_grad=True), torch.tensor(b)
    for value in ((W, b), (W.tolist(), b.tolist()), [W.astype("float32"), b.astype(int)], tensors):
        net = nnkit.Network([3, 4], init=lambda rng, d_out, d_in, value=value: value, seed=0)  # type: ignore[misc]
        assert np.array_equal(net.parameters.W[0], W)
        assert np.array_equal(net.parameters.b[0], b)
