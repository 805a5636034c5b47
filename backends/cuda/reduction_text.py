"""Sums and maxima over one axis as CUDA text: one kernel for all, without atomics, in an order that is always the same.

An array in C order is (outer, n, inner) to it; the middle axis goes. `lanes` threads share a result: each takes every
`lanes`-th entry, and a tree in shared memory merges what they have. Where the results alone would leave multiprocessors
idle, the axis is cut into parts, whose results a second launch merges.
"""

import functools
import math
from typing import NamedTuple

from nnkit.backends.cuda.formula_text import PRELUDE, STORAGE
from nnkit.backends.dtypes import compute_type

THREADS = 256  # in a block; the shared memory below is made for them
_COLUMNS = 32  # neighbouring results of a block: their entries are neighbours in memory
_BLOCKS = 8  # of a multiprocessor, at most
_ENTRIES = 32  # that a thread takes at least before the axis is cut

# How two values are merged, and what changes none. A NaN is greater than everything.
_MERGED = {"sum": "a + b", "max": "(b > a || b != b) ? b : a"}
_NEUTRAL = {"sum": "0", "max": "-__uint_as_float(0x7f800000u)"}

_KERNEL = """\
__device__ inline A merged(A a, A b) { return MERGED; }
extern "C" __global__ void NAME(
    const S *x, D *out, const A *alpha, long long outputs, long long n, long long inner, long long part, int lanes) {
    __shared__ A shared[256];
    const int t = threadIdx.x, width = 256 / lanes;
    const bool along = inner == 1;  // then neighbouring threads share a result
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
    """An array in C order as a reduction sees it."""

    outer: int
    n: int
    inner: int

    @property
    def outputs(self) -> int:
        """How many results there are."""
        return self.outer * self.inner


def reduced(shape: tuple[int, ...], axis: int | None, keepdims: bool) -> tuple[Shape, tuple[int, ...]]:
    """What a reduction over an axis (None: over all) sees of an array, and the shape of its results.

    >>> reduced((2, 3, 4), -1, True)
    (Shape(outer=6, n=4, inner=1), (2, 3, 1))
    """
    if axis is None:
        return Shape(1, math.prod(shape), 1), (1,) * len(shape) if keepdims else ()
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis is {axis}; the array has shape {shape}")
    axis %= len(shape)
    before, after = shape[:axis], shape[axis + 1 :]
    results = (*before, 1, *after) if keepdims else before + after
    return Shape(math.prod(before), shape[axis], math.prod(after)), results


class Launch(NamedTuple):
    """How a reduction is spread over the GPU: `blocks` in x (results) and y (parts), and threads for each result."""

    blocks: tuple[int, int]
    lanes: int
    part: int  # entries of the axis in each part


def launch_of(shape: Shape, multiprocessors: int, whole: bool = False) -> Launch:
    """How to launch the kernel; in one part if `whole`, or if more would not be faster.

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
    """The smallest power of 2 that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def reduction_name(operation: str, added: bool = False) -> str:
    """The C name of a reduction's kernel."""
    return f"nnkit_{'add_' if added else ''}{operation}"


@functools.cache
def reduction_source(operation: str, dtype: str, result: str, added: bool = False) -> str:
    """The CUDA text of a `"sum"` or `"max"` of entries of a dtype.

    The results are of another, the type's own or that of its arithmetic; α times them is `added` to what is there.
    """
    accumulated = STORAGE[compute_type(dtype)]
    text = _KERNEL.replace("MERGED", _MERGED[operation]).replace("NEUTRAL", _NEUTRAL[operation])
    text = text.replace("STORE", _ADD if added else _STORE).replace("NAME", reduction_name(operation, added))
    types = f"typedef {STORAGE[dtype]} S; typedef {accumulated} A; typedef {STORAGE[result]} D;\n"
    return PRELUDE + types + text
