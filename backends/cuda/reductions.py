"""Sums and maxima of CuPy arrays by nnkit's kernel: CuPy's allocate memory, which is not allowed in CUDA graphs."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from nnkit.backends.cuda.device import CupyDevice
from nnkit.backends.cuda.elementwise import ElementwiseCall
from nnkit.backends.cuda.formula_text import MERGED, NEUTRAL, PRELUDE, STORAGE
from nnkit.backends.cuda.launch import THREADS, ColumnSums, Launch, overlap
from nnkit.backends.dtypes import compute_type, dtype_name
from nnkit.backends.formulas.program import row_reduction
from nnkit.backends.recording import perform

_COLUMNS = 32  # adjacent results per block, for coalesced reads
_BLOCKS = 8  # per multiprocessor, at most
_ENTRIES = 32  # per thread, at least, before the axis is split

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


def reduced(shape: tuple[int, ...], axis: int | None) -> Shape:
    """A reduction's view of an array for an axis; None means all axes.

    >>> reduced((2, 3, 4), -1)
    Shape(outer=6, n=4, inner=1)
    """
    if axis is None:
        return Shape(1, math.prod(shape), 1)
    axis %= len(shape)
    return Shape(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


class Configuration(NamedTuple):
    """The launch configuration of a reduction: `blocks` in x (results) and y (parts), and threads per result."""

    blocks: tuple[int, int]
    lanes: int
    part: int  # entries of the axis in each part


def launch_of(shape: Shape, multiprocessors: int, whole: bool = False) -> Configuration:
    """The launch configuration; in one part if `whole`, or if several would not be faster.

    >>> launch_of(Shape(1, 8192, 4096), 132)
    Configuration(blocks=(128, 8), lanes=8, part=1024)
    """
    if shape.inner == 1:
        lanes = min(_power_of_2(shape.n), THREADS)
    else:
        lanes = THREADS // min(_power_of_2(shape.inner), _COLUMNS)
    across = -(-shape.outputs * lanes // THREADS)
    parts = 1 if whole else max(1, min(multiprocessors * _BLOCKS // across, shape.n // (lanes * _ENTRIES)))
    part = max(1, -(-shape.n // parts))
    return Configuration((across, max(1, -(-shape.n // part))), lanes, part)


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
    text = _KERNEL.replace("MERGED", MERGED[operation]).replace("NEUTRAL", NEUTRAL[operation])
    text = text.replace("STORE", _ADD if added else _STORE).replace("NAME", reduction_name(operation, added))
    types = f"typedef {STORAGE[dtype]} S; typedef {accumulated} A; typedef {STORAGE[result]} D;\n"
    return PRELUDE + types + text


class Reduction(Launch):
    """The call of the kernel for one pass of a reduction: each part of `x`, as viewed by `shape`, into `out`.

    `kind` is "sum" or "max". With `alpha`, a 0-d array, α times the result is added to `out`.
    """

    def __init__(
        self, device: Any, kind: str, x: Any, shape: Shape, how: Configuration, out: Any, alpha: Any = None
    ) -> None:
        self.device, self.kind, self.name, self.shape, self.alpha = device, kind, kind, shape, alpha
        self.operands, self.outs = (x,) if alpha is None else (x, alpha, out), (out,)
        text = reduction_source(kind, dtype_name(x.dtype), dtype_name(out.dtype), alpha is not None)
        sizes = map(np.int64, (shape.outputs, shape.n, shape.inner, how.part))
        self._arguments = (x, out, out if alpha is None else alpha, *sizes, np.int32(how.lanes))
        self._blocks = how.blocks
        self._kernel = device.kernel(text, reduction_name(kind, alpha is not None))

    def by_rows(self) -> ElementwiseCall | None:
        """The same as a program that reduces the rows of a matrix, to be fused; None if it is something else."""
        (x, *_), (out,) = self.operands, self.outs
        if self.alpha is not None or x.ndim != 2 or out.shape != (x.shape[0], 1) or x.size == 0:
            return None
        if self.shape != Shape(x.shape[0], x.shape[1], 1):
            return None
        program = row_reduction(f"row {self.kind}")
        return ElementwiseCall(self.device, program, self.kind, (x,), ("full",), (out,), x.shape)


class CupyReductions(CupyDevice):
    """Sums and maxima, accumulated in float32 for the half types."""

    def run_reduction(self, operation: str, a: Any, axis: int | None, keepdims: bool, out: Any) -> Any:
        dtype = dtype_name(a.dtype)
        with self.here():
            if out.size:
                kept = dtype_name(out.dtype) in (dtype, compute_type(dtype)) and out.flags.c_contiguous
                target = out if kept and not overlap(out, a) else self.empty(out.shape, dtype)
                if operation == "sum" and a.ndim == 2 and axis in (0, -2):
                    perform(*ColumnSums(self, a, target).node)
                else:
                    self._passes(operation, self.contiguous(a), reduced(a.shape, axis), target)
                if target is not out:
                    self.copy(target, out)
        return out

    def sum_columns(self, a: Any, out: Any, alpha: Any) -> None:
        """Execute a `ColumnSums`."""
        self._passes("sum", self.contiguous(a), Shape(1, *a.shape), out, alpha)

    def finish_sums(self, sums: Any, out: Any, alpha: Any) -> None:
        """Execute it from partial sums (rows, columns)."""
        shape = Shape(1, *sums.shape)
        self._pass("sum", sums, shape, launch_of(shape, self.multiprocessors, whole=True), out, alpha)

    def _passes(self, operation: str, x: Any, shape: Shape, out: Any, alpha: Any = None) -> None:
        how = launch_of(shape, self.multiprocessors)
        parts = how.blocks[1]
        if parts > 1:
            partial = self.empty((parts, shape.outputs), compute_type(dtype_name(x.dtype)))
            self._pass(operation, x, shape, how, partial)
            x, shape = partial, Shape(1, parts, shape.outputs)
            how = launch_of(shape, self.multiprocessors, whole=True)
        self._pass(operation, x, shape, how, out, alpha)

    def _pass(self, operation: str, x: Any, shape: Shape, how: Configuration, out: Any, alpha: Any = None) -> None:
        perform(*Reduction(self, operation, x, shape, how, out, alpha).node)
