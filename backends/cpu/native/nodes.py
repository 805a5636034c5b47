"""Native nodes for what a recorded step does besides formulas: products, sums, maxima, copies and rows.

A node is made from the call that NumPy would execute: `native_call` recognizes it by its function or class.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from itertools import groupby, pairwise
from types import FunctionType
from typing import Any

import numpy as np

from nnkit.backends.cpu.calls import Elementwise
from nnkit.backends.cpu.native.calls import ADVANCE, NativeCall, node
from nnkit.backends.cpu.native.compiler import tried
from nnkit.backends.cpu.native.formulas import native_calls
from nnkit.backends.cpu.native.products import product, products
from nnkit.backends.cpu.native.rows import COLUMNS
from nnkit.backends.cpu.native.runs import NativeRun
from nnkit.backends.cpu.native.team import Shared, part_count
from nnkit.backends.cpu.products import AddColumnSums, AddProduct, AddProducts
from nnkit.backends.cpu.rows import copy_from, copy_into, gather
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.recording import Call

_REALS = ("float32", "float64")
_STORED = {"bool": "uint8"} | {n: n for n in ("uint8", "uint16", "int32", "uint32", "int64", *_REALS)}


def native_calls_of(call: Call) -> list[Call] | None:
    """The native nodes of a recorded call, made once, as several tapes may have it; None if it stays as it is."""
    if isinstance(call, NativeCall):
        return [call]
    made: Any = getattr(call, "native", None)
    if made is None:
        made = _native_calls_of(call)
        if not isinstance(call, FunctionType):
            call.native = made or ()  # type: ignore[attr-defined]
    return made or None


def _native_calls_of(call: Call) -> list[Call] | None:
    if isinstance(call, Elementwise):
        return native_calls(call.program, call.operands, call.outs)
    found = tried(native_call, call)
    return None if found is None else [found]


def native_call(call: Call) -> NativeCall | None:
    """The native node of a call other than a formula; None if there is none."""
    if isinstance(call, AddProduct):
        a, b = (m.T if t else m for m, t in ((call.a, call.transposed_a), (call.b, call.transposed_b)))
        return product(a, b, call.out, call.alpha)
    if isinstance(call, AddProducts):
        return products(call.a, call.b, call.out, call.alpha)
    if isinstance(call, AddColumnSums):
        return _column_sums(call.a, call.out, call.alpha)
    if not isinstance(call, partial):
        return None
    make = _MAKERS.get(call.func)
    return None if make is None else make(*call.args)


def in_runs(calls: Sequence[Call]) -> list[Call]:
    """The calls with adjacent native ones as runs."""
    found: list[Call] = []
    for native, group in groupby(calls, lambda call: isinstance(call, NativeCall)):
        adjacent: list[Any] = list(group)
        found += [NativeRun(adjacent)] if native else adjacent
    return found


def _product_of(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> NativeCall | None:
    """out ← a b for matrices; for the column sums 1ᵀ b, a is a vector of ones."""
    if a.ndim == 1 and b.ndim == 2:
        return _column_sums(b, out)
    if a.ndim == b.ndim == out.ndim == 3:
        return products(a, b, out)
    fits = a.ndim == b.ndim == out.ndim == 2 and a.dtype == b.dtype == out.dtype and out.dtype.char in "fd"
    if not fits or not out.dtype.isnative or not out.flags.forc:
        return None
    return product(a, b, out)


# --- sums and maxima -----------------------------------------------------------------------------------------------

_BLOCK = 256  # rows
# Four rows are added first: a quarter of the roundings in the sum, and of the passes over it. The sums of blocks are
# added in pairs, as a sum loses digits with many terms: of 10⁶ in float32, three were right.
_COLUMN_SUMS = f"""\
def f(arguments):
    rows, columns, below = arguments[0], arguments[1], arguments[2]
    a, s, sums = REALs(arguments[3]), REALs(arguments[4]), REALs(arguments[5])
    top, blocks = 0, (rows + {_BLOCK - 1}) // {_BLOCK} + (rows == 0)
    for block in range(blocks):
        start, t = block * {_BLOCK}, top * columns
        end = rows if block == blocks - 1 else start + {_BLOCK}
        whole = end - (end - start) % 4
        for j in range(columns):
            store(sums, t + j, REAL(0), 1)
        for i in range(start, whole, 4):
            k = i * below
            for j in range(columns):
                two = load(a, k + j, 0) + load(a, k + below + j, 0)
                more = load(a, k + 2 * below + j, 0) + load(a, k + 3 * below + j, 0)
                store(sums, t + j, load(sums, t + j, 1) + (two + more), 1)
        for i in range(whole, end):
            for j in range(columns):
                store(sums, t + j, load(sums, t + j, 1) + load(a, i * below + j, 0), 1)
        top, odd = top + 1, block
        while top > 1 + (end == rows) and (odd % 2 == 1 or end == rows):
            top -= 1
            t = (top - 1) * columns
            for j in range(columns):
                store(sums, t + j, load(sums, t + j, 1) + load(sums, t + columns + j, 1), 1)
            odd //= 2
    if top == 2:  # else `sums` is `s`
        for j in range(columns):
            store(s, j, load(sums, j, 1) + load(sums, columns + j, 1), 1)
"""
_ADDED = """\
    out, alpha = REALs(arguments[6]), REALs(arguments[7])[0]
    for j in range(columns):
        store(out, j, load(out, j, 2) + alpha * load(s, j, 1), 2)
"""


def _column_sums(a: np.ndarray, out: np.ndarray, alpha: np.ndarray | None = None) -> NativeCall | None:
    """out ← 1ᵀa, or out ← out + α 1ᵀa."""
    if not _fit(a, out):
        return None
    work = a.nbytes / 20_000  # µs
    columns, count = a.shape[1], max(1, min(part_count(work), a.shape[1]))
    bounds = [columns * i // count for i in range(count + 1)]
    parts = [_sums(a[:, i:j], out[i:j], alpha) for i, j in pairwise(bounds)]
    return parts[0] if len(parts) == 1 else Shared.of(parts, work)


def _sums(a: np.ndarray, out: np.ndarray, alpha: np.ndarray | None) -> NativeCall:
    sum_ = out if alpha is None else np.empty(out.shape, out.dtype)
    blocks, below = -(-len(a) // _BLOCK), a.strides[0] // a.itemsize
    sums = sum_ if blocks < 2 else np.empty((blocks.bit_length() + 1, *out.shape), out.dtype)
    text, arrays = (_COLUMN_SUMS, []) if alpha is None else (_COLUMN_SUMS + _ADDED, [out, alpha])
    return node(text.replace("REAL", dtype_name(a.dtype)), [*a.shape, below], [a, sum_, sums, *arrays])


# NumPy's pairwise sums: leaves of at most 128 entries with eight partial sums each, put together as in its recursion.
_ROW_SUMS = f"""\
def f(arguments):
    rows, columns, leaves = arguments[0], arguments[1], arguments[2]
    a, out, sums = REALs(arguments[3]), REALs(arguments[4]), REALs(arguments[5])
    starts, merges = int64s(arguments[6]), int64s(arguments[7])
    for i in range(rows):
        top = 0
        for leaf in range(leaves):
            k, end = i * columns + starts[leaf], i * columns + starts[leaf + 1]
            total = REAL(-0.0)
            if end - k >= 8:
                whole = end - (end - k) % 8
                {"; ".join(f"s{j} = load(a, k + {j}, 0)" for j in range(8))}
                for j in range(k + 8, whole, 8):
                    {"; ".join(f"s{j} += load(a, j + {j}, 0)" for j in range(8))}
                total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
                k = whole
            for j in range(k, end):
                total += load(a, j, 0)
            for merge in range(merges[leaf]):
                top -= 1
                total = sums[top] + total
            sums[top] = total
            top += 1
        store(out, i, sums[0], 1)
"""


@cache
def _leaves(start: int, size: int) -> tuple[tuple[int, int], ...]:
    """The start of each leaf of a pairwise sum, and how many sums before it are added to it."""
    if size <= 128:
        return ((start, 0),)
    half = size // 2 - size // 2 % 8
    *more, (last, merges) = _leaves(start + half, size - half)
    return (*_leaves(start, half), *more, (last, merges + 1))


_ROW_MAXIMA = """\
def f(arguments):
    rows, columns = arguments[0], arguments[1]
    a, out = REALs(arguments[2]), REALs(arguments[3])
    for i in range(rows):
        largest = load(a, i * columns, 0)
        for j in range(i * columns + 1, (i + 1) * columns):
            x = load(a, j, 0)
            largest = select((x > largest) | (x != x), x, largest)
        store(out, i, largest, 1)
"""
_SAME_LARGEST = """\
def f(arguments):
    rows, columns, groups = arguments[0], COLUMNS, GROUPS
    a, b, counts = REALs(arguments[3]), REALs(arguments[4]), int64s(arguments[5])
    for group in range(groups):
        count = 0
        for i in range(group, rows, groups):
            k = i * columns
            x, y, p, q = load(a, k, 0), load(b, k, 1), 0, 0
            for j in range(1, columns):
                u, v = load(a, k + j, 0), load(b, k + j, 1)
                more, larger = (u > x) | ((u != u) & (x == x)), (v > y) | ((v != v) & (y == y))
                x, y, p, q = select(more, u, x), select(larger, v, y), select(more, j, p), select(larger, j, q)
            count += p == q
        counts[group] = count
"""
_MANY = 1 << 20  # entries of a sum


def _row_sums(a: np.ndarray, axis: int | None, _: None, out: np.ndarray, keepdims: bool) -> NativeCall | None:
    """The sums over the last axis, or over all."""
    columns = a.size if axis is None else a.shape[axis]
    if not _fit(a, out) or not 0 < columns <= _MANY or axis not in (None, -1, a.ndim - 1):
        return None
    starts, merges = _leaf_arrays(columns)
    text, sums = _ROW_SUMS.replace("REAL", dtype_name(a.dtype)), np.empty(64, a.dtype)
    return node(text, [a.size // columns, columns, len(merges)], [a, out, sums, starts, merges])


@lru_cache(maxsize=64)
def _leaf_arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The starts of the leaves, and the end; the numbers of sums that are added."""
    starts, merges = zip(*_leaves(0, size), strict=True)
    return np.array([*starts, size]), np.array(merges)


def _row_maxima(a: np.ndarray, axis: int, _: None, out: np.ndarray, keepdims: bool) -> NativeCall | None:
    if not _fit(a, out) or a.size == 0 or axis not in (-1, a.ndim - 1):
        return None
    return node(_ROW_MAXIMA.replace("REAL", dtype_name(a.dtype)), (a.size // a.shape[-1], a.shape[-1]), [a, out])


def same_largest(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> NativeCall | None:
    """`Backend.same_largest` into `out`, (groups,) of int64."""
    if not _plain(a, b) or a.dtype != b.dtype or a.size == 0:
        return None
    text = _SAME_LARGEST.replace("REAL", dtype_name(a.dtype))
    # Few columns of one group are constants, for which LLVM vectorizes the loop over rows.
    few = a.shape[1] <= COLUMNS and out.size == 1
    for name, constant, given in (("COLUMNS", a.shape[1], "arguments[1]"), ("GROUPS", 1, "arguments[2]")):
        text = text.replace(name, str(constant) if few else given)
    return node(text, [*a.shape, out.size], [a, b, out])


def _fit(a: np.ndarray, out: np.ndarray) -> bool:
    """Whether a sum or maximum of `a` can be written to `out` while `a` is read."""
    return _plain(a, out) and a.dtype == out.dtype and not np.may_share_memory(a, out)


def _plain(*arrays: np.ndarray) -> bool:
    """Whether these are C-contiguous arrays of float32 or float64."""
    return all(a.flags.carray and a.dtype.isnative and a.dtype.char in "fd" for a in arrays)


# --- copies and rows -----------------------------------------------------------------------------------------------

# `count` rows of `width` entries, from row start[0] on, or those that `order` has from there on.
_MOVE = """\
def f(arguments):
    count, width, stride, other = arguments[0], arguments[1], arguments[2], arguments[3]
    source, out = SOURCEs(arguments[4]), OUTs(arguments[5])
    first = int64s(arguments[6])[0]
    for i in range(count):
        FROM
        TO
        for j in range(width):
            store(out, to + j, OUT(load(source, at + j, 0)), 1)
"""
_PLACES = {
    "taken": ("at = (first + i) * stride", "to = i * other"),
    "gathered": ("at = load(int64s(arguments[7]), first + i, 2) * stride", "to = i * other"),
    "put": ("at = i * stride", "to = (first + i) * other"),
}


def _moved(
    kind: str, source: np.ndarray, start: np.ndarray, out: np.ndarray, order: np.ndarray | None = None
) -> NativeCall | None:
    """The rows of `source` and `out`, which have a row stride each, and contiguous rows."""
    small, large = (source, out) if kind == "put" else (out, source)
    if small.ndim < large.ndim:
        small = small[None, ...]
        source, out = (small, large) if kind == "put" else (large, small)
    entries = [_STORED.get(dtype_name(a.dtype)) for a in (source, out)]
    apart = not np.may_share_memory(source, out)
    if None in entries or not all(map(_has_rows, (source, out))) or start.dtype != np.int64 or not apart:
        return None
    if order is not None and (order.dtype != np.int64 or not order.flags.carray):
        return None
    if source.dtype != out.dtype and entries[1] not in _REALS:
        return None
    text, width = _move_text(kind, *entries), small.size // len(small)
    strides = [a.strides[0] // a.itemsize for a in (source, out)]
    work = (source.itemsize + out.itemsize) * small.size / 20_000  # µs
    count = min(part_count(work), len(small))
    bounds = [len(small) * i // count for i in range(count + 1)]
    parts = []
    for i, j in pairwise(bounds):
        rows = [source[i:] if kind != "gathered" else source, out[i:], start, *([] if order is None else [order[i:]])]
        parts.append(node(text, [j - i, width, *strides], rows))
    return parts[0] if count == 1 else Shared.of(parts, work)


@cache
def _move_text(kind: str, source: str, out: str) -> str:
    start, end = _PLACES[kind]
    return _MOVE.replace("SOURCE", source).replace("OUT", out).replace("FROM", start).replace("TO", end)


def _has_rows(a: np.ndarray) -> bool:
    """Whether the rows of an array are contiguous, in ascending order."""
    return a.size > 0 and a.dtype.isnative and a.flags.aligned and a[0].flags.c_contiguous and a.strides[0] >= 0


def _copied(out: np.ndarray, source: np.ndarray, *_: Any) -> NativeCall | None:
    if source.shape != out.shape or not (source.flags.c_contiguous and out.flags.carray):
        return None
    return _moved("taken", source.reshape(1, -1), np.zeros((), np.int64), out.reshape(1, -1))


def _advanced(start: np.ndarray, count: np.ndarray, out: np.ndarray) -> NativeCall | None:
    """The counter of `Backend.advance`."""
    counts = start is out and start.shape == count.shape == () and start.dtype == count.dtype == np.int64
    return node(ADVANCE, [int(count)], [start]) if counts else None


_MAKERS: dict[Any, Callable[..., NativeCall | None]] = {
    np.dot: _product_of,
    np.matmul: _product_of,
    np.add.reduce: _row_sums,
    np.maximum.reduce: _row_maxima,
    np.copyto: _copied,
    np.add: _advanced,
    gather: lambda take, order, start, out, n: _moved("gathered", take.__self__, start, out, order),
    copy_from: lambda rows, start, out, single: _moved("taken", rows, start, out),
    copy_into: lambda values, start, out, n: _moved("put", values, start, out),
}
