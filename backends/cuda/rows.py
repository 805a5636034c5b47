"""Rows of CuPy arrays: kernels read on the device where they start, so that nothing waits for the host."""

import math
from typing import Any

import numpy as np

from nnkit.backends.cuda.device import CupyDevice
from nnkit.backends.cuda.gemm import row_step, strides_of
from nnkit.backends.cuda.launch import grid, overlap
from nnkit.backends.cuda.row_text import ADVANCE, INTEGERS, THREADS, RowSignature, conversion, lanes_of, rows_source
from nnkit.backends.dtypes import dtype_name


class CupyRows(CupyDevice):
    """`RowAccess` as one launch each."""

    def take(self, rows: Any, indices: Any, out: Any = None) -> Any:
        indices = self.asarray(indices)
        shape = (*indices.shape, *rows.shape[1:])
        out = self.empty(shape, rows.dtype) if out is None else out
        if out.shape != shape:
            raise ValueError(f"take: out has shape {out.shape}; expected {shape}")
        return self._take(rows, None, out, indices)

    def take_at(self, rows: Any, start: Any, out: Any, order: Any = None) -> Any:
        if out.shape not in (rows.shape[1:], (*out.shape[:1], *rows.shape[1:])):
            raise ValueError(f"take_at: out has shape {out.shape}; expected rows of {rows.shape}, or one")
        return self._take(rows, start, out, order)

    def put_at(self, values: Any, start: Any, out: Any) -> Any:
        if values.shape[1:] != out.shape[1:]:
            raise ValueError(f"put_at: values have shape {values.shape}; expected rows of {out.shape}")
        with self.here():
            if row_step(out.shape, strides_of(out)) is None:
                raise ValueError(f"rows of an array of shape {out.shape} and strides {out.strides} cannot be written")
            if conversion(values.dtype, out.dtype) is None:
                values = self.copy(values, self.empty(values.shape, out.dtype))
            self._move(self.contiguous(values), out, start, None, puts=True)
        return out

    def advance(self, start: Any, count: int) -> None:
        if dtype_name(start.dtype) != "int64":
            raise TypeError(f"start has dtype {start.dtype}; expected int64")
        with self.here():
            kernel, arguments = (ADVANCE, "nnkit_advance"), (start, np.int64(count))
            self.launch(kernel, ((1,), 1), arguments, (start,), (start,), "advance")

    def _take(self, rows: Any, start: Any, out: Any, order: Any) -> Any:
        with self.here():
            if row_step(rows.shape, strides_of(rows)) is None:
                rows = self.contiguous(rows)
            dtype = rows.dtype if conversion(rows.dtype, out.dtype) is None else out.dtype
            direct = out.flags.c_contiguous and dtype == out.dtype and not overlap(out, rows)
            target = out if direct else self.empty(out.shape, dtype)
            self._move(rows, target, start, order, puts=False)
            if target is not out:
                self.copy(target, out)
        return out

    def _move(self, source: Any, target: Any, start: Any, order: Any, puts: bool) -> None:
        """Rows of `source` into `target`; the one of the two that is not the large array is in C order."""
        large, few = (target, source) if puts else (source, target)
        types = conversion(source.dtype, target.dtype)
        if types is None:
            raise TypeError(f"rows of {source.dtype} cannot be read into {target.dtype}")
        if few.size == 0:
            return
        width, strides = math.prod(large.shape[1:]), strides_of(large)
        step = row_step(large.shape, strides) or 0
        lanes = lanes_of(width, strides[0], step, [(a.data.ptr, a.itemsize) for a in (source, target)])
        n = few.size // lanes
        order = None if order is None else self.contiguous(order)
        integer = "long long" if order is None else INTEGERS[dtype_name(order.dtype)]
        index, number = ("unsigned int", np.uint32) if n < 2**31 else ("long long", np.int64)
        signature = RowSignature(*types, integer, lanes, puts, index)
        places = (np.int64(0) if a is None else a for a in (start, order))  # 0 is no array
        read = (source, *(a for a in (start, order) if a is not None))
        numbers = (number(n), number(width // lanes), np.int64(strides[0]), np.int64(step))
        kernel, blocks = (rows_source(signature), signature.name), (grid(n, 1, self.multiprocessors),)
        arguments = (source, target, *places, *numbers)
        self.launch(kernel, (blocks, THREADS), arguments, read, (target,), "put" if puts else "take")
