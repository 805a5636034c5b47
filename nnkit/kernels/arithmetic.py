"""Sums, products, precision and the formulas of preprocessing (eq. 20, 22), for arrays of any backend."""

from typing import Any

from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import compute_type, dtype_name
from nnkit.backends.formula import formula
from nnkit.kernels.rectifiers import identity


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


@formula
def encoded(xp: Any, x: Any, mean: Any, deviation: Any, inverse_bound: Any, code: Any) -> Any:
    """z/√(1 + (c z)²) of z = (x − μ)/σ, 0 where x is NaN (missing), in columns whose code is NaN; elsewhere [x = code].

    The code ∞ is that of missing values. x: samples (n, d); c: the inverse bound; all but x are (d,).
    """
    largest = 1e15 / inverse_bound  # ∞ without a bound; the result is ±1/c in every dtype, before the square overflows
    z = xp.minimum(xp.maximum((x - mean) / deviation, -largest), largest)
    missing = xp.not_equal(x, x)
    absent = xp.logical_and(xp.equal(0.5 * code, code), xp.not_equal(code, 0.0))  # ∞ in every dtype
    bounded = z / xp.sqrt(1 + xp.square(inverse_bound * z))
    number = xp.where(missing, 0.0, xp.where(xp.equal(inverse_bound, 0.0), z, bounded))  # not 0 ∞, where z overflows
    found = xp.logical_or(xp.equal(x, code), xp.logical_and(missing, absent))
    return xp.where(xp.not_equal(code, code), number, xp.astype(found, x.dtype))


def widened(backend: Backend, array: Array) -> Array:
    """The array, of half precision in float32: the sums of many terms overflow there, or lose the terms."""
    return rounded(backend, array, compute_type(dtype_name(array.dtype)))


def rounded(backend: Backend, array: Array, dtype: str) -> Array:
    """The array in this dtype."""
    if dtype_name(array.dtype) == dtype:
        return array
    return backend.elementwise(identity, (array,), backend.empty(array.shape, dtype))
