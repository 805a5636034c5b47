"""Products by tiles: where they were measured to be faster than BLAS, and as native nodes."""

import contextlib
import ctypes
from functools import cache, partial
from importlib import import_module
from itertools import pairwise

import numpy as np

from nnkit.backends.cpu.blocks import location
from nnkit.backends.cpu.native.blas import blas_function
from nnkit.backends.cpu.native.calls import NativeCall, layout, node, run_prepared
from nnkit.backends.cpu.native.compiler import address_of, tried
from nnkit.backends.cpu.native.team import Shared, current, in_team, part_count
from nnkit.backends.cpu.native.tiles import BYTES, ROWS, VECTORS, block_text, product_text
from nnkit.backends.cpu.products import one_thread

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
    found = blas_function("openblas_get_corename")
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


SPEED = {4: 60_000, 8: 30_000}  # multiplications in a µs, by the size of entries
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
    work = len(a) * b.size / SPEED[out.itemsize]
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


def tiled_stacks(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None) -> NativeCall | None:
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
