"""CUDA source for sums and maxima over one axis: one kernel for all cases, deterministic and without atomics.

It views an array in C order as (outer, n, inner) and reduces the middle axis. `lanes` threads share a result: each
reduces every `lanes`-th entry, and a tree in shared memory merges their values. If there are too few results to occupy
all multiprocessors, the axis is split into parts, whose results a second launch merges.
"""

import functools
import math
from typing import NamedTuple

from nnkit.backends.cuda.formula_text import PRELUDE, STORAGE
from nnkit.backends.dtypes import compute_type

THREADS = 256  # in a block; the size of the shared memory below
_COLUMNS = 32  # adjacent results per block, for coalesced reads
_BLOCKS = 8  # per multiprocessor, at most
_ENTRIES = 32  # per thread, at least, before the axis is split

# How to merge two values, and the neutral element. NaN is greater than everything.
_MERGED = {"sum": "a + b", "max": "(b > a || b != b) ? b : a"}
_NEUTRAL = {"sum": "0", "max": "-__uint_as_float(0x7f800000u)"}

_KERNEL = """\
__device__ inline A merged(A a, A b) { return MERGED; }
extern "C" __global__ void NAME(
    const S *x, D *out, const A *alpha, long long outputs, long long n, long long inner, long long part, int lanes) {
    __shared__ A shared[256];
    const int t = threadIdx.x, width = 256 / lanes;
    const bool along = inner == 1;  // adjacent threads share a result then
    const int lane = along ? t % lanes : t / width, step = along ? 1 : width;
    const long long output = (long long)blockIdx.x * width + (along ? t / lanes : t % width);
    const long long start = blockIdx.y * part, end = start + part < n ? start + part : n;
    A total = NEUTRAL;
    if (output < outputs) {
        const S *entries = x + output / inner * n * inner + output % inner;
        #pragma unroll 4
        for (long long i = start + lane; i < end; i += lanes) total = merged(total, widen(entries[i * inner]));
    }
    shared[t] = total;
    for (int half = lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) shared[t] = merged(shared[t], shared[t + half * step]);
    }
    if (lane == 0 && output < outputs) {
        D &result = out[blockIdx.y * outputs + output];
        STORE
    }
}
"""
_STORE = "narrow(shared[t], result);"
_ADD = "result += *alpha * shared[t];"


class Shape(NamedTuple):
    """The shape of an array in C order as viewed by a reduction."""

    outer: int
    n: int
    inner: int

    @property
    def outputs(self) -> int:
        """The number of results."""
        return self.outer * self.inner


def reduced(shape: tuple[int, ...], axis: int | None, keepdims: bool) -> tuple[Shape, tuple[int, ...]]:
    """A reduction's view of an array for an axis (None: all axes), and the shape of the result.

    >>> reduced((2, 3, 4), -1, True)
    (Shape(outer=6, n=4, inner=1), (2, 3, 1))
    """
    if axis is None:
        return Shape(1, math.prod(shape), 1), (1,) * len(shape) if keepdims else ()
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis is {axis}; expected an axis of an array of shape {shape}")
    axis %= len(shape)
    before, after = shape[:axis], shape[axis + 1 :]
    results = (*before, 1, *after) if keepdims else before + after
    return Shape(math.prod(before), shape[axis], math.prod(after)), results


class Launch(NamedTuple):
    """The launch configuration of a reduction: `blocks` in x (results) and y (parts), and threads per result."""

    blocks: tuple[int, int]
    lanes: int
    part: int  # entries of the axis in each part


def launch_of(shape: Shape, multiprocessors: int, whole: bool = False) -> Launch:
    """The launch configuration; in one part if `whole`, or if several would not be faster.

    >>> launch_of(Shape(1, 8192, 4096), 132)
    Launch(blocks=(128, 8), lanes=8, part=1024)
    """
    if shape.inner == 1:
        lanes = min(_power_of_2(shape.n), THREADS)
    else:
        lanes = THREADS // min(_power_of_2(shape.inner), _COLUMNS)
    across = -(-shape.outputs * lanes // THREADS)
    parts = 1 if whole else max(1, min(multiprocessors * _BLOCKS // across, shape.n // (lanes * _ENTRIES)))
    part = max(1, -(-shape.n // parts))
    return Launch((across, max(1, -(-shape.n // part))), lanes, part)


def _power_of_2(n: int) -> int:
    """The smallest power of 2 that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def reduction_name(operation: str, added: bool = False) -> str:
    """The C name of a reduction's kernel."""
    return f"nnkit_{'add_' if added else ''}{operation}"


@functools.cache
def reduction_source(operation: str, dtype: str, result: str, added: bool = False) -> str:
    """The CUDA source of a `"sum"` or `"max"` of entries of a dtype.

    The dtype of the `result` is the same or that of the arithmetic. With `added`, α times the result is added to `out`.
    """
    accumulated = STORAGE[compute_type(dtype)]
    text = _KERNEL.replace("MERGED", _MERGED[operation]).replace("NEUTRAL", _NEUTRAL[operation])
    text = text.replace("STORE", _ADD if added else _STORE).replace("NAME", reduction_name(operation, added))
    types = f"typedef {STORAGE[dtype]} S; typedef {accumulated} A; typedef {STORAGE[result]} D;\n"
    return PRELUDE + types + text
