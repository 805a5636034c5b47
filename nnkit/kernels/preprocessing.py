"""Formulas of preprocessing (eq. 20, 22), for arrays of any backend."""

from typing import Any

from nnkit.backends.formula import formula


@formula
def normalized(xp: Any, x: Any, mean: Any, deviation: Any) -> Any:
    """X_n = (X − μ)/σ (eq. 20); x: samples (n, d), mean: μ and deviation: σ, (d,).

    >>> nnkit.kernels.preprocessing.normalized(np.array([[3.0, 1.0]]), np.array([1.0, 1.0]), np.array([2.0, 1.0]))
    array([[1., 0.]])
    """
    return (x - mean) / deviation


@formula
def centered(xp: Any, x: Any, mean: Any) -> Any:
    """X − μ, the first step of whitening (eq. 22); x: samples (n, d), mean: μ, (d,)."""
    return x - mean
