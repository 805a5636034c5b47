"""Products and sums of NumPy arrays by BLAS."""

from functools import partial
from typing import Any

import numpy as np

from nnkit.backends.base import Backend, quiet
from nnkit.backends.dtypes import compute_type, dtype_name
from nnkit.backends.recording import perform

# OpenBLAS's products with the transpose of a matrix take up to four times as long if it is in row-major instead of
# column-major order, except for long sums with few rows; see bench/NOTES.md.
WIDE, NARROW = 40, 64


class NumpyProducts(Backend):
    """The matrix products and sums of the NumPy backend."""

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        dtype = np.result_type(a, b) if a.dtype != b.dtype else a.dtype
        if _is_half(dtype):
            return self._half_matmul(a, b, out, dtype)
        if out is None:
            shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
            out = np.empty(shape, dtype)
        # np.dot has half of np.matmul's overhead on small matrices, but needs 2-D, one dtype and a C-ordered result.
        plain = a.ndim == b.ndim == 2 and a.dtype == b.dtype == out.dtype
        if plain and out.flags.f_contiguous and not out.flags.c_contiguous:
            call = partial(np.dot, b.T, a.T, out.T)
        else:
            call = partial(np.dot if plain and out.flags.c_contiguous else np.matmul, a, b, out)
        with quiet():
            perform(call, (a, b), (out,), "matmul")
        return out

    def sum(
        self, a: np.ndarray, axis: int | None = None, keepdims: bool = False, out: np.ndarray | None = None
    ) -> np.ndarray:
        if _is_half(a.dtype):
            return self._half_sum(a, axis, keepdims, out)
        if out is None:
            out = np.empty(reduced_shape(a.shape, axis, keepdims), a.dtype)
        columns = axis == 0 and a.ndim == 2 and not keepdims and a.dtype.kind == "f" and a.flags.c_contiguous
        with quiet():
            if columns and out.flags.c_contiguous and out.dtype == a.dtype:
                # A product with ones sums columns in half the time of a reduction over the first axis.
                perform(partial(np.dot, np.ones(a.shape[0], a.dtype), a, out), (a,), (out,), "sum")
            else:
                perform(partial(np.add.reduce, a, axis, None, out, keepdims), (a,), (out,), "sum")
        return out

    def by_columns(self, d_out: int, d_in: int, dtype: str) -> bool:
        return dtype == "float32" and (d_out >= WIDE or d_in <= NARROW)

    def _half_matmul(self, a: Any, b: Any, out: Any, dtype: Any) -> np.ndarray:
        """Products of half-precision matrices, accumulated in float32, as on a GPU."""
        product: np.ndarray = self._into(
            "matmul", lambda: np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(dtype), (a, b), out
        )
        return product

    def _half_sum(self, a: Any, axis: int | None, keepdims: bool, out: Any) -> np.ndarray:
        """Sums of half-precision entries, accumulated in float32: in float16, 2048 + 1 is 2048."""
        total: np.ndarray = self._into(
            "sum",
            lambda: np.asarray(np.sum(a, axis=axis, dtype=np.float32, keepdims=keepdims)).astype(a.dtype),
            (a,),
            out,
        )
        return total


def _is_half(dtype: np.dtype) -> bool:
    name = dtype_name(dtype)
    return compute_type(name) != name


def reduced_shape(shape: tuple[int, ...], axis: int | None, keepdims: bool) -> tuple[int, ...]:
    """The shape after a reduction over one axis or, with None, all axes."""
    if axis is None:
        return (1,) * len(shape) if keepdims else ()
    axis %= len(shape)
    return tuple(1 if i == axis else n for i, n in enumerate(shape) if keepdims or i != axis)
