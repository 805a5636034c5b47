"""Sums and maxima of CuPy arrays by nnkit's own kernel: CuPy's allocate as they run, which no CUDA graph may."""

from typing import Any

import numpy as np

from nnkit.backends.cuda.device import CupyDevice
from nnkit.backends.cuda.launch import overlap
from nnkit.backends.cuda.recording import ColumnSums
from nnkit.backends.cuda.reduction_text import (
    THREADS,
    Launch,
    Shape,
    launch_of,
    reduced,
    reduction_name,
    reduction_source,
)
from nnkit.backends.dtypes import FLOATS, compute_type, dtype_name
from nnkit.backends.recording import perform


class CupyReductions(CupyDevice):
    """`sum` and `max`, accumulated in float32 for the half types."""

    def sum(self, a: Any, axis: int | None = None, keepdims: bool = False, out: Any = None) -> Any:
        return self._reduce("sum", a, axis, keepdims, out)

    def max(self, a: Any, axis: int, keepdims: bool = False, out: Any = None) -> Any:
        return self._reduce("max", a, axis, keepdims, out)

    def _reduce(self, operation: str, a: Any, axis: int | None, keepdims: bool, out: Any) -> Any:
        dtype = dtype_name(a.dtype)
        if dtype not in FLOATS:
            raise TypeError(f"{operation}: a has dtype {dtype}; expected one of {', '.join(FLOATS)}")
        shape, results = reduced(a.shape, axis, keepdims)
        if operation == "max" and shape.n == 0:
            raise ValueError(f"max: a has shape {a.shape}; there is no largest of no entries")
        if out is not None and out.shape != results:
            raise ValueError(f"{operation}: out has shape {out.shape}; expected {results}")
        with self.here():
            result = self.empty(results, dtype) if out is None else out
            if result.size:
                kept = dtype_name(result.dtype) in (dtype, compute_type(dtype)) and result.flags.c_contiguous
                target = result if kept and not overlap(result, a) else self.empty(results, dtype)
                if operation == "sum" and a.ndim == 2 and axis in (0, -2):
                    perform(*ColumnSums(self, a, target).node)
                else:
                    self._passes(operation, self.contiguous(a), shape, target)
                if target is not result:
                    self.copy(target, result)
        return result

    def sum_columns(self, a: Any, out: Any, alpha: Any) -> None:
        """Do what a `ColumnSums` asks for."""
        self._passes("sum", self.contiguous(a), Shape(1, *a.shape), out, alpha)

    def finish_sums(self, sums: Any, out: Any, alpha: Any) -> None:
        """Do it from sums (rows, columns), each of some of the rows."""
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

    def _pass(self, operation: str, x: Any, shape: Shape, how: Launch, out: Any, alpha: Any = None) -> None:
        text = reduction_source(operation, dtype_name(x.dtype), dtype_name(out.dtype), alpha is not None)
        sizes = map(np.int64, (shape.outputs, shape.n, shape.inner, how.part))
        arguments = (x, out, out if alpha is None else alpha, *sizes, np.int32(how.lanes))
        kernel, read = (text, reduction_name(operation, alpha is not None)), (x,) if alpha is None else (x, alpha, out)
        self.launch(kernel, (how.blocks, THREADS), arguments, read, (out,), operation)
