"""Sums, products and the formulas of preprocessing (eq. 20, 22), for arrays of any backend."""

from typing import Any

from nnkit.backends.formula import formula


@formula
def product(xp: Any, a: Any, b: Any) -> Any:
    """a b."""
    return a * b


@formula
def divided(xp: Any, a: Any, b: Any) -> Any:
    """a/b."""
    return a / b


@formula
def scaled_sum(xp: Any, a: Any, b: Any, alpha: Any) -> Any:
    """a + α b."""
    return a + alpha * b


@formula
def normalized(xp: Any, x: Any, mean: Any, deviation: Any) -> Any:
    """X_n = (X − μ)/σ (eq. 20); x: samples (n, d), mean: μ and deviation: σ, (d,).

    >>> nnkit.kernels.arithmetic.normalized(np.array([[3.0, 1.0]]), np.array([1.0, 1.0]), np.array([2.0, 1.0]))
    array([[1., 0.]])
    """
    return (x - mean) / deviation


@formula
def centered(xp: Any, x: Any, mean: Any) -> Any:
    """X − μ, the first step of whitening (eq. 22); x: samples (n, d), mean: μ, (d,)."""
    return x - mean
