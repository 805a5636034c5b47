"""Products that add to what is there, C ← βC + α AB, by SciPy's BLAS where SciPy is installed.

NumPy's own products only overwrite. With β = 1 the gradient of gradient descent goes straight into the weights: it is
neither written nor read again, which for a small network is most of an update's time.
"""

from functools import cache
from typing import Any

import numpy as np


@cache
def blas_function(name: str, dtype: str) -> Any:
    """SciPy's `gemm` or `gemv` for float32 or float64; None without SciPy or for another type."""
    if dtype not in ("float32", "float64"):
        return None
    try:
        from scipy.linalg import blas
    except ImportError:
        return None
    return getattr(blas, ("s" if dtype == "float32" else "d") + name)


def _columns(matrix: np.ndarray) -> tuple[np.ndarray, int] | None:
    """A matrix as BLAS wants it, in Fortran order, and whether it is to be transposed; None if it is neither order."""
    if matrix.flags.f_contiguous:
        return matrix, 0
    return (matrix.T, 1) if matrix.flags.c_contiguous else None


class AddProduct:
    """The call `out ← β out + α ab` for a (m, k), b (k, n) and a C-contiguous out (m, n), all of one dtype.

    `alpha` and `beta` are 0-d arrays that are read at each call. In BLAS's column order this is outᵀ ← β outᵀ + α bᵀaᵀ.
    """

    __slots__ = ("a", "alpha", "b", "beta", "gemm", "out", "transposed_a", "transposed_b")

    def __init__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> None:
        self.gemm = blas_function("gemm", out.dtype.name)
        self.alpha, self.beta, self.out = alpha, beta, out.T
        first, second = _columns(b.T), _columns(a.T)
        if first is None or second is None or not out.flags.c_contiguous or not a.dtype == b.dtype == out.dtype:
            raise ValueError("a product can be added only to a C-contiguous matrix, from contiguous ones of its type")
        (self.b, self.transposed_b), (self.a, self.transposed_a) = first, second

    def __call__(self) -> None:
        alpha, beta = self.alpha.item(), self.beta.item()
        self.gemm(alpha, self.b, self.a, beta, self.out, self.transposed_b, self.transposed_a, 1)


class AddColumnSums:
    """The call `out ← out + α 1ᵀa` for a C-contiguous a (n, d) and out (d,) of its dtype; `alpha` is a 0-d array."""

    __slots__ = ("a", "alpha", "gemv", "ones", "out")

    def __init__(self, a: np.ndarray, out: np.ndarray, alpha: np.ndarray) -> None:
        self.gemv = blas_function("gemv", out.dtype.name)
        self.a, self.out, self.alpha = a.T, out, alpha
        self.ones = np.ones(a.shape[0], a.dtype)

    def __call__(self) -> None:
        # After alpha, a, x: beta, y, offset and step of x, offset and step of y, transpose, write into y.
        self.gemv(self.alpha.item(), self.a, self.ones, 1.0, self.out, 0, 1, 0, 1, 0, 1)
