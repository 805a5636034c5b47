"""Native nodes for products of matrices: tiles for small ones, NumPy's BLAS by address for others."""

import contextlib
import ctypes
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from nnkit.backends.cpu.native.calls import NativeCall, node, run_prepared
from nnkit.backends.cpu.native.compiler import address_of, tried
from nnkit.backends.cpu.native.tiles import BYTES, ROWS, VECTORS, product_text, transpose_text
from nnkit.backends.cpu.products import columns_of, one_thread

# The same library as np.dot's: it gives the same bits, and has the same threads. The names are those of NumPy's wheels,
# with integers of 64 bits, and of BLAS elsewhere; first of Fortran's functions, then of C's.
_NAMES = (("scipy_{}_64_", np.int64), ("{}_", np.int32), ("scipy_{}64_", np.int64), ("{}", np.int32))


@cache
def _blas(name: str) -> tuple[int, Any] | None:
    """The address of a function of NumPy's BLAS, and its type of integers; None if that cannot be found."""
    try:
        library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)
    except (ImportError, OSError):
        return None
    for pattern, integers in _NAMES:
        with contextlib.suppress(AttributeError):  # a library finds what those have that it needs
            found = ctypes.cast(getattr(library, pattern.format(name)), ctypes.c_void_p).value
            if found is not None:
                return found, integers
    return None


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None = None) -> NativeCall | None:
    """out ← a b or out ← out + α a b for matrices of one dtype, float32 or float64, and a contiguous out.

    None if `out` overlaps an operand.
    """
    if _overlap(a, b, out):
        return None
    return tiled(a, b, out, alpha) or _by_blas(a, b, out, alpha)


def _overlap(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    return np.may_share_memory(a, out) or np.may_share_memory(b, out)


def _through(count: int) -> str:
    """The text that calls a function with `count` arguments; the first of its own is the address."""
    return f"def f(arguments):\n    call({', '.join(f'arguments[{i}]' for i in range(count + 1))})\n"


_DOT = """\
def f(arguments):
    one, dot, terms, out = arguments[0], arguments[1], arguments[2], REALs(arguments[5])
    if terms == 1:
        out[0] = REALs(arguments[3])[0] * REALs(arguments[4])[0]
    else:
        out[0] = REAL(0) + call_REAL(dot, terms, arguments[3], one, arguments[4], one)
"""


def _dot(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> NativeCall | None:
    """The product of one row and one column as NumPy computes it: by `dot`; `gemv` rounds otherwise."""
    # C's function: what Fortran's returns for float32 depends on the compiler.
    blas = _blas("cblas_sdot" if out.dtype == np.float32 else "cblas_ddot")
    return None if blas is None else node(_DOT.replace("REAL", out.dtype.name), [1, blas[0], a.size], [a, b, out])


def _by_blas(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None) -> NativeCall | None:
    """The product by `gemm`, or `gemv` where one side is 1; None if an operand is not contiguous."""
    if not out.flags.f_contiguous:
        a, b, out = b.T, a.T, out.T
    first, second, dtype, (m, n) = columns_of(a), columns_of(b), out.dtype, out.shape
    if first is None or second is None or min(*a.shape, *b.shape) == 0:
        return None
    if m == n == 1 and alpha is None:
        return _dot(a, b, out)
    blas = _blas(("s" if dtype == np.float32 else "d") + ("gemv" if 1 in (m, n) else "gemm"))
    if blas is None:
        return None
    (a, ta), (b, tb), (address, integers) = first, second, blas
    real = np.array([1.0, 0.0 if alpha is None else 1.0], dtype)
    scale, beta = real[:1] if alpha is None else alpha, real[1:]
    letters, sizes = np.frombuffer(b"NT", np.uint8), np.array([m, n, b.shape[tb], a.shape[0], b.shape[0], 1], integers)
    one = sizes[5:]
    if n == 1 or m == 1:
        matrix, vector, transposed = (a, b, ta) if n == 1 else (b, a, 1 - tb)
        shape = np.array(matrix.shape, integers)
        given: list[Any] = [letters[transposed:], shape, shape[1:], scale, matrix, shape, vector, one, beta, out, one]
    else:
        given = [letters[ta:], letters[tb:], sizes, sizes[1:], sizes[2:], scale, a, sizes[3:], b, sizes[4:], beta, out]
        given.append(sizes)
    return node(_through(len(given)), [address], given)


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
    small = _tiled_stacks(a, b, out, alpha)
    if small is not None:
        return small
    if out.strides[1] != out.itemsize:  # BLAS is column-major
        a, b, out = b.mT, a.mT, out.mT
    leading = [_leading(matrix) for matrix in (a, b, out)]
    blas = _blas(("s" if dtype == np.float32 else "d") + "gemm")
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


# --- tiles ---------------------------------------------------------------------------------------------------------

# Rows of the result with its columns in groups of as equal numbers of vectors as possible, so that A is read once from
# memory. Where columns of B are contiguous, not rows, it is transposed first.
_TILES = f"""\
def f(arguments):
    tile, m, n, k, size, block = arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]
    down, right, next, below = arguments[6], arguments[7], arguments[8], arguments[9]
    a, b, c, alpha = arguments[10], arguments[11], arguments[12], arguments[13]
    width = {BYTES} // size
    if block != 0:
        source, b = b, arguments[14]
        for i in range(0, n, width):
            for j in range(0, k, width):
                call(block, source + i * next + j * size, b + (j * n + i) * size, next, n * size, n - i, k - j)
        next = n * size
    vectors = (n + width - 1) // width
    groups, i = (vectors + {VECTORS[-1] - 1}) // {VECTORS[-1]}, 0
    for shape in range({len(ROWS)}):
        rows = {ROWS[0]} >> shape
        while m - i >= rows:
            first = 0
            for group in range(groups):
                stop = vectors * (group + 1) // groups
                last = width if stop < vectors else n - (vectors - 1) * width
                kind, there = {len(VECTORS)} * shape + stop - first - 1, c + i * below + {BYTES} * first
                call(tile, kind, k, a + i * down, b + {BYTES} * first, there, alpha, down, right, next, below, last)
                first = stop
            i += rows
"""


@cache
def has_tiles() -> bool:
    """Whether the CPU has the vectors of AVX-512, with which tiles were measured."""
    with contextlib.suppress(ImportError, AttributeError):
        return bool(import_module("numpy._core._multiarray_umath").__cpu_features__.get("AVX512F"))
    return False


def wide(columns: int, itemsize: int) -> bool:
    """Whether rows of this many entries fill the vectors of tiles."""
    return 2 * columns * itemsize >= 3 * BYTES


PRODUCTS = 1 << 17  # multiplications, below which BLAS is as fast
_THREADED = 1 << 22  # above which several threads of BLAS are faster
_CACHED = 1 << 20  # bytes of B
_COLUMNS = 32  # terms for which rows of A need not be contiguous


def tiled(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None = None) -> NativeCall | None:
    """The product by tiles, where that was measured to be faster; None elsewhere, and without vectors of 64 bytes.

    It depends on sizes and strides only, so that a product has the same bits in a recording and outside; an entry has
    the same for any number of rows.
    """
    if not out.flags.c_contiguous:
        a, b, out = b.T, a.T, out.T
    (m, k), n, size = a.shape, b.shape[1], out.itemsize
    if m * n * k < PRODUCTS or m < 4 or not wide(n, size) or k * n * size > _CACHED or not has_tiles():
        return None
    if a.strides[1] != size and (k > _COLUMNS or m * n * k < 2 * PRODUCTS):
        return None
    by_rows = b.strides[1] == size
    if (not by_rows and (b.strides[0] != size or m < 16)) or (m * n * k >= _THREADED and not one_thread()):
        return None
    return _tiles(a, b, out, alpha)


def _tiles(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None) -> NativeCall:
    """The product by tiles; the rows or columns of b, and the rows of out, are contiguous."""
    (m, k), n, size, by_rows = a.shape, b.shape[1], out.itemsize, b.strides[1] == out.itemsize
    tile, block = address_of(product_text(out.dtype.name, alpha is not None)), 0
    if not by_rows:
        block, b = address_of(transpose_text(out.dtype.name)), b.T
    arrays = [a, b, out, out if alpha is None else alpha, *([] if by_rows else [np.empty((k, n), out.dtype)])]
    numbers = [tile, m, n, k, size, block, *a.strides, b.strides[0], out.strides[0]]
    return node(_TILES, numbers, arrays, [tile, block])


def run_tiled(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    """Compute out ← a b outside recordings by `tiled`; False if that returns None, or `out` overlaps an operand."""
    if _overlap(a, b, out):
        return False
    if a.size * b.shape[1] < _THREADED:  # above, it depends on the number of threads
        return run_prepared(tiled, a, b, out)
    call = tried(tiled, a, b, out)
    if call is not None:
        call()
    return call is not None


# BLAS takes a tenth of a microsecond for each call: 16 products of 10 × 7 × 3 took 1.7 µs by it and 0.9 by tiles.
_SMALL = 1 << 13  # multiplications
_STACKS = """\
def f(arguments):
    tiles, count, block = arguments[0], arguments[1], int64s(arguments[5])
    for i in range(3):
        block[10 + i] = arguments[6 + i]
    for k in range(count):
        call(tiles, arguments[5])
        for i in range(3):
            block[10 + i] += arguments[2 + i]
"""


def _tiled_stacks(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None) -> NativeCall | None:
    """Small products of stacks by tiles; None for others."""
    if out.strides[2] != out.itemsize:
        a, b, out = b.mT, a.mT, out.mT
    (_, m, k), n, size = a.shape, b.shape[2], out.itemsize
    if (
        not has_tiles()
        or min(m, n, k) == 1
        or m * n * k > _SMALL
        or size not in b.strides[1:]
        or out.strides[2] != size
    ):
        return None
    one = _tiles(a[0], b[0], out[0], alpha)
    steps = (matrices.strides[0] for matrices in (a, b, out))
    return node(_STACKS, [one.address, len(out), *steps], [one.block, a, b, out], [one])
