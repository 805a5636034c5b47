"""Native nodes for products of matrices and of stacks: by tiles where they are faster, else by NumPy's BLAS."""

from itertools import pairwise

import numpy as np

from nnkit.backends.cpu.native.blas import blas_function, by_blas
from nnkit.backends.cpu.native.calls import NativeCall, node
from nnkit.backends.cpu.native.team import Shared, part_count
from nnkit.backends.cpu.native.tiling import SPEED, bounds, tiled, tiled_stacks


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None = None) -> NativeCall | None:
    """out ← a b or out ← out + α a b for matrices of one dtype, float32 or float64, and a contiguous out.

    None if `out` overlaps an operand.
    """
    if _overlap(a, b, out):
        return None
    return tiled(a, b, out, alpha) or by_blas(a, b, out, alpha)


def _overlap(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    return np.may_share_memory(a, out) or np.may_share_memory(b, out)


_PRODUCTS = """\
def f(arguments):
    a, b, out = arguments[9], arguments[11], arguments[14]
    for k in range(arguments[0]):
        call(arguments[4], arguments[5], arguments[6], arguments[7], arguments[8], arguments[15], arguments[16], a,
             arguments[10], b, arguments[12], arguments[13], out, arguments[17])
        a, b, out = a + arguments[1], b + arguments[2], out + arguments[3]
"""


def products(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None = None) -> NativeCall | None:
    """out ← a b or out ← out + α a b for stacks of matrices (count, ...), whose rows or columns are contiguous."""
    dtype = out.dtype
    if (
        not a.dtype == b.dtype == dtype
        or dtype.name not in ("float32", "float64")
        or not dtype.isnative
        or 0 in (*a.shape, *b.shape)
        or _overlap(a, b, out)
    ):
        return None
    work = a.size * out.shape[2] / SPEED[out.itemsize]
    count = min(part_count(work), len(out))
    if count > 1:
        parts = [products(a[i:j], b[i:j], out[i:j], alpha) for i, j in pairwise(bounds(len(out), count, 1, len(out)))]
        return Shared.of([part for part in parts if part is not None], work) if None not in parts else None
    small = tiled_stacks(a, b, out, alpha)
    if small is not None:
        return small
    if out.strides[1] != out.itemsize:  # BLAS is column-major
        a, b, out = b.mT, a.mT, out.mT
    leading = [_leading(matrix) for matrix in (a, b, out)]
    blas = blas_function(("s" if dtype == np.float32 else "d") + "gemm")
    if blas is None or None in leading or leading[2][1]:  # type: ignore[index]
        return None
    (lda, ta), (ldb, tb), (ldc, _) = leading  # type: ignore[misc]
    address, integers = blas
    real = np.array([1.0, 0.0 if alpha is None else 1.0], dtype)
    letters, (count, m, n) = np.frombuffer(b"NT", np.uint8), out.shape
    sizes = np.array([m, n, a.shape[2], lda, ldb, ldc], integers)
    given = [letters[ta:], letters[tb:], sizes, sizes[1:], a, sizes[3:], b, sizes[4:], real[1:], out]
    given += [sizes[2:], real if alpha is None else alpha, sizes[5:]]
    return node(_PRODUCTS, [count, a.strides[0], b.strides[0], out.strides[0], address], given, (real, sizes))


def _leading(matrices: np.ndarray) -> tuple[int, int] | None:
    """The leading dimension of a stack's matrices in column-major order, and whether they are transposed; or None."""
    _, rows, columns = matrices.strides
    size, (_, m, n) = matrices.itemsize, matrices.shape
    if rows == size or m == 1:
        return (max(columns // size, m), 0) if columns % size == 0 and (n == 1 or columns >= m * size) else None
    return (max(rows // size, n), 1) if (columns == size or n == 1) and rows % size == 0 and rows >= n * size else None
