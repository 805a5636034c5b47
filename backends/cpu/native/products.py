"""Native nodes for products of matrices: tiles for small ones, NumPy's BLAS by address for others."""

import contextlib
import ctypes
from functools import cache, partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from nnkit.backends.cpu.blocks import location
from nnkit.backends.cpu.native.calls import NativeCall, layout, node, run_prepared
from nnkit.backends.cpu.native.compiler import address_of, tried
from nnkit.backends.cpu.native.team import Shared, current, in_team, part_count
from nnkit.backends.cpu.native.tiles import BYTES, ROWS, VECTORS, block_text, product_text
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


@cache
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
    work = a.size * out.shape[2] / _SPEED[out.itemsize]
    count = min(part_count(work), len(out))
    if count > 1:
        parts = [products(a[i:j], b[i:j], out[i:j], alpha) for i, j in pairwise(bounds(len(out), count, 1, len(out)))]
        return Shared.of([part for part in parts if part is not None], work) if None not in parts else None
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

# Rows of the result with its columns in groups of as equal numbers of vectors as possible. First, an A by columns is
# transposed, and a B that is by columns or large copied to panels of one vector a term. Long sums are made in parts,
# and the columns of a copied B in blocks that stay in the cache.
_TILES = f"""\
def f(arguments):
    m, n, k, size, parts, blocks = arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]
    tile, alpha, transpose, copy = arguments[6], arguments[8], arguments[9], arguments[10]
    down, right, next, across, below = arguments[11], arguments[12], arguments[13], arguments[14], arguments[15]
    panels = arguments[20]
    width = {BYTES} // size
    vectors = (n + width - 1) // width
    groups = (vectors + {VECTORS[-1] - 1}) // {VECTORS[-1]}
    base, larger = vectors // groups, vectors % groups
    for part in range(parts):
        start = k * part // parts
        terms = k * (part + 1) // parts - start
        rows = arguments[16] + start * right
        if transpose != 0:
            down = (terms * size + {BYTES - 1}) // {BYTES} * {BYTES}
            for t in range(0, terms, width):
                for j in range(0, m, width):
                    line, panel = rows + t * right + j * size, arguments[19] + j * down + t * size
                    call(transpose, line, panel, right, down, terms - t, m - j)
            rows = arguments[19]
        for block in range(blocks):
            first, stop = groups * block // blocks, groups * (block + 1) // blocks
            begin, end = first * base + min(first, larger), stop * base + min(stop, larger)
            b, row, beside = arguments[17] + start * next + begin * width * across, next, {BYTES}
            if copy != 0:
                row, beside = {BYTES}, {BYTES} * terms
                for t in range(0, terms, width):
                    for v in range(end - begin):
                        line, panel = b + t * next + v * width * across, panels + t * {BYTES} + v * beside
                        entries = n - (begin + v) * width
                        if across == size:
                            call(copy, line, panel, next, {BYTES}, terms - t, entries)
                        else:
                            call(copy, line, panel, across, {BYTES}, entries, terms - t)
                b = panels
            i = 0
            for shape in range({len(ROWS)}):
                while m - i >= {ROWS[0]} >> shape:
                    a, c, v = rows + i * down, arguments[18] + i * below, begin
                    for group in range(first, stop):
                        count = base + (1 if group < larger else 0)
                        last = min(n - (v + count - 1) * width, width)
                        call(tile, {len(VECTORS)} * shape + count - 1, terms, a, b + (v - begin) * beside,
                             c + v * {BYTES}, alpha, down, row, beside, below, last)
                        v += count
                    i += {ROWS[0]} >> shape
        tile = arguments[7]
"""


@cache
def has_tiles() -> bool:
    """Whether the CPU has the vectors of AVX-512, with which tiles were measured."""
    with contextlib.suppress(ImportError, AttributeError):
        return bool(import_module("numpy._core._multiarray_umath").__cpu_features__.get("AVX512F"))
    return False


@cache
def _narrow() -> bool:
    """Whether NumPy's OpenBLAS does not use these vectors, as 0.3.31 on a Zen 5, which it does not know."""
    found = _blas("openblas_get_corename")
    name = b"" if found is None else ctypes.CFUNCTYPE(ctypes.c_char_p)(found[0])()
    return name.lower() in (b"haswell", b"zen", b"sandybridge", b"prescott")


def alike_in_team(dtype: str) -> bool:
    """Whether the products of a team have the bits of those of one thread: tiles compute the same ones."""
    return dtype != "float32" or _narrow()


def wide(columns: int, itemsize: int) -> bool:
    """Whether rows of this many entries fill the vectors of tiles."""
    return 2 * columns * itemsize >= 3 * BYTES


_WIDE, _NARROW = 40_000, 2_000  # multiplications, below which BLAS is as fast for a B by columns, with its vectors
_BY_ROWS, _MANY_TERMS = 1 << 20, 256  # likewise for one by rows, and an eighth of it with many terms
_SQUARE = 64  # rows and columns of δᵀx, below which BLAS is as fast; in float32 it always is
_THREADED = 1 << 22  # above which several threads of BLAS are faster
_TERMS, _COPIED_TERMS, _BLOCK = 1024, 256, 1 << 19  # terms of a part, also with an A by columns; bytes of a block
_LARGE, _HUGE = 1 << 16, 1 << 20  # bytes of a B that is copied, for 64 rows of A and more and for fewer


@cache
def fewest() -> int:
    """The multiplications from which a product may be computed by tiles."""
    return _NARROW if _narrow() else _WIDE


_SPEED = {4: 60_000, 8: 30_000}  # multiplications in a µs, by the size of entries
_Product = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b and out


def tiled(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None = None) -> NativeCall | None:
    """The product by tiles, where that was measured to be faster; None elsewhere, and without vectors of 64 bytes.

    It depends on sizes and strides only, so that a product has the same bits in a recording and outside; an entry has
    the same for any number of rows, and of parts for the threads of a team.
    """
    product = _suited(a, b, out)
    if product is None:
        return None
    a, b, out = product
    work = len(a) * b.size / _SPEED[out.itemsize]
    parts = _parts(a, b, out, part_count(work))
    return _tiles(a, b, out, alpha) if len(parts) == 1 else Shared.of([_tiles(*part, alpha) for part in parts], work)


def _tiled_alone(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> NativeCall | None:
    product = _suited(a, b, out)
    return None if product is None else _tiles(*product, None)


def _parts(a: np.ndarray, b: np.ndarray, out: np.ndarray, count: int) -> list[_Product]:
    """Up to `count` products for parts of `out`: its columns, as those of b are copied, or else its rows."""
    width, height = BYTES // out.itemsize, ROWS[0]
    vectors, lines = -(-out.shape[1] // width), -(-len(out) // height)
    if vectors >= 2 * count or vectors > lines:
        columns = bounds(vectors, count, width, out.shape[1])
        return [(a, b[:, i:j], out[:, i:j]) for i, j in pairwise(columns)]
    return [(a[i:j], b, out[i:j]) for i, j in pairwise(bounds(lines, count, height, len(out)))]


def bounds(units: int, count: int, unit: int, end: int) -> list[int]:
    """The bounds of up to `count` parts of whole units, except for the last one's, whose end is given."""
    count = min(count, units)
    return [*(units * i // count * unit for i in range(count)), end]


def _suited(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> _Product | None:
    """The product for tiles, of the transposed matrices if `out` is by columns; None if BLAS computes it."""
    if not out.flags.c_contiguous:
        a, b, out = b.T, a.T, out.T
    (m, k), n, size = a.shape, b.shape[1], out.itemsize
    work, by_columns, by_rows = m * n * k, a.strides[1] != size, b.strides[1] == size
    if min(m, n) < 2 or size not in a.strides or size not in b.strides or not has_tiles():
        return None
    if (by_columns and not by_rows) or work < fewest() or (work >= _THREADED and not one_thread()):
        return None
    if not _narrow():
        if m < 4 or 2 * n * size < BYTES:
            return None
        if by_columns and not ((size == 8 or in_team()) and min(m, n) >= _SQUARE):  # a team needs parts
            return None
        enough = (_BY_ROWS if k < _MANY_TERMS or by_columns else _BY_ROWS // 8) if by_rows else _WIDE
        few = m < 16 and (not by_rows or b.nbytes > _HUGE)
        if work < enough or few:
            return None
    return a, b, out


def _tiles(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None) -> NativeCall:
    """The product by tiles; the rows or columns of a and b, and the rows of out, are contiguous."""
    (m, k), n, size, dtype = a.shape, b.shape[1], out.itemsize, out.dtype.name
    by_columns, by_rows = a.strides[1] != size, b.strides[1] == size
    copies = not by_rows or b.nbytes > (_HUGE if m < 64 else _LARGE)
    parts, vectors = -(-k // (_COPIED_TERMS if by_columns else _TERMS)), -(-n * size // BYTES)
    terms, groups = -(-k // parts), -(-vectors // VECTORS[-1])
    blocks = min(groups, -(-terms * n * size // _BLOCK)) if copies else 1
    adds = alpha is not None  # which all parts do, and those after the first in any case
    tile, added = (address_of(product_text(dtype, adding)) for adding in (adds, adds or parts > 1))
    first = address_of(block_text(dtype, True)) if by_columns else 0
    second = address_of(block_text(dtype, not by_rows)) if copies else 0
    rows = panels(m * (terms * size + BYTES) * by_columns)
    lines = panels(terms * -(-groups // blocks) * VECTORS[-1] * BYTES * copies)
    factor = np.ones((), dtype) if alpha is None else alpha
    numbers = [m, n, k, size, parts, blocks, tile, added, location(factor), first, second]
    numbers += [*a.strides, *b.strides, out.strides[0]]
    return node(_TILES, numbers, [a, b, out, rows, lines], [tile, added, first, second, factor])


def panels(size: int) -> np.ndarray:
    """Memory of whole lines of the cache."""
    memory = np.empty(size + BYTES, np.uint8)
    return memory[-location(memory) % BYTES :]


def fits(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    """Whether all are in native byte order, and `out` is contiguous and apart from the operands."""
    apart = not (np.may_share_memory(a, out) or np.may_share_memory(b, out))
    return apart and out.flags.forc and out.dtype.isnative and a.dtype.isnative


def run_tiled(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    """Compute out ← a b outside recordings by `tiled`, where that `fits`; False if that returns None."""
    if a.size * b.shape[1] < _THREADED:  # above, it depends on the number of threads
        key = tiled, current.get() is None, *map(layout, (a, b, out))
        return run_prepared(key, partial(_tiled_alone, a, b, out), (a, b, out))
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
        block[16 + i] = arguments[6 + i]
    for k in range(count):
        call(tiles, arguments[5])
        for i in range(3):
            block[16 + i] += arguments[2 + i]
"""


def _tiled_stacks(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None) -> NativeCall | None:
    """Small products of stacks by tiles; None for others."""
    if out.strides[2] != out.itemsize:
        a, b, out = b.mT, a.mT, out.mT
    (_, m, k), n, size = a.shape, b.shape[2], out.itemsize
    if (
        not has_tiles()
        or min(m, n, k) == 1
        or (m * n * k > _SMALL and not _narrow())
        or size not in a.strides[1:]
        or size not in b.strides[1:]
        or out.strides[2] != size
    ):
        return None
    one = _tiles(a[0], b[0], out[0], alpha)
    steps = (matrices.strides[0] for matrices in (a, b, out))
    return node(_STACKS, [one.address, len(out), *steps], [one.block, a, b, out], [one])
