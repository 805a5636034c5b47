"""NumPy: formulas as ufunc calls into preallocated arrays, products by BLAS."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.backends import registry
from nnkit.backends.base import Backend, quiet
from nnkit.backends.blas import AddColumnSums, AddProduct, blas_function, one_thread
from nnkit.backends.complex_step import complex_step_namespace
from nnkit.backends.dtypes import compute_type, dtype_name, promote
from nnkit.backends.errors import BackendUnavailableError
from nnkit.backends.numpy_rows import NumpyRows
from nnkit.backends.results import broadcast_shape, checked_outs
from nnkit.backends.scratch import thread_scratch
from nnkit.backends.tape import Tape, active_tape, perform, recording
from nnkit.backends.ufuncs import ufunc_calls

if TYPE_CHECKING:
    from nnkit.backends.formula import Formula


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of a name; bfloat16 comes from ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 on NumPy needs ml_dtypes: python -m pip install ml_dtypes") from None
    bfloat16: np.dtype = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


# OpenBLAS's products with the transpose of a matrix that lies row by row take up to four times as long as with one that
# lies column by column, but not with few rows of long sums; see bench/NOTES.md.
WIDE, NARROW = 40, 64
MANY = 512  # rows, whose gradient NumPy's product and an update of its own are as fast for


def _is_half(dtype: np.dtype) -> bool:
    name = dtype_name(dtype)
    return compute_type(name) != name


class NumpyBackend(NumpyRows, Backend):
    """NumPy arrays in the host's memory."""

    name = "numpy"
    xp = np

    def asarray(self, values: Any, dtype: str | None = None) -> np.ndarray:
        owner = registry.owner_of(values)
        if owner is not None and owner is not self:
            values = owner.to_numpy(values)  # from another device, which NumPy itself does not read
        elif owner is None and hasattr(values, "__dlpack__"):
            values = np.from_dlpack(values)
        wanted = None if dtype is None else numpy_dtype(dtype)
        if getattr(values, "dtype", wanted) == wanted:
            return np.asarray(values, wanted)
        with quiet():  # a narrower type overflows to infinity
            return np.asarray(values, wanted)

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        return np.empty(shape, numpy_dtype(dtype) if isinstance(dtype, str) else dtype)

    def dtype(self, name: str) -> np.dtype:
        return numpy_dtype(name)

    def copy(self, source: Any, out: np.ndarray) -> np.ndarray:
        call = partial(np.copyto, out, source, casting="same_kind")
        if source.dtype == out.dtype:
            perform([call])
        else:
            with quiet():  # a narrower type overflows to infinity
                perform([call])
        return out

    def elementwise(
        self,
        formula: "Formula",
        operands: Sequence[Any],
        out: Any = None,
        constants: Mapping[str, float] | None = None,
    ) -> Any:
        arrays = self.operands(formula.operands, operands)
        dtype = promote(dict(zip(formula.operands, arrays, strict=True)))
        if dtype.startswith("complex"):
            return self._call(formula, complex_step_namespace, arrays, out, constants)
        program = formula.program(constants)
        outs = self._results(formula, arrays, dtype, len(program.outputs), out)
        tape = active_tape()
        scratch = thread_scratch() if tape is None else tape.scratch
        with quiet():
            perform(ufunc_calls(program, arrays, outs, scratch))
        return out if out is not None else outs[0] if len(outs) == 1 else tuple(outs)

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        dtype = np.result_type(a, b) if a.dtype != b.dtype else a.dtype
        if _is_half(dtype):
            return self._half_matmul(a, b, out, dtype)
        if out is None:
            shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
            out = np.empty(shape, dtype)
        # np.dot has half of np.matmul's overhead on small matrices, but wants 2-D, one dtype and a C-ordered result.
        plain = a.ndim == b.ndim == 2 and a.dtype == b.dtype == out.dtype and out.flags.c_contiguous
        call = partial(np.dot if plain else np.matmul, a, b, out)
        if not plain and a.ndim == b.ndim == 2 and a.dtype == b.dtype == out.dtype and out.flags.f_contiguous:
            call = partial(np.dot, b.T, a.T, out.T)
        with quiet():
            perform([call])
        return out

    def sum(
        self, a: np.ndarray, axis: int | None = None, keepdims: bool = False, out: np.ndarray | None = None
    ) -> np.ndarray:
        if _is_half(a.dtype):
            return self._half_sum(a, axis, keepdims, out)
        if out is None:
            out = np.empty(_reduced(a.shape, axis, keepdims), a.dtype)
        columns = axis == 0 and a.ndim == 2 and not keepdims and a.dtype.kind == "f" and a.flags.c_contiguous
        with quiet():
            if columns and out.flags.c_contiguous and out.dtype == a.dtype:
                # BLAS sums columns as a product with ones, in half the time of a reduction over the first axis.
                perform([partial(np.dot, np.ones(a.shape[0], a.dtype), a, out)])
            else:
                perform([partial(np.add.reduce, a, axis, None, out, keepdims)])
        return out

    def max(self, a: np.ndarray, axis: int, keepdims: bool = False, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(_reduced(a.shape, axis, keepdims), a.dtype) if out is None else out
        with quiet():
            perform([partial(np.maximum.reduce, a, axis, None, out, keepdims)])
        return out

    def by_columns(self, d_out: int, d_in: int, dtype: str) -> bool:
        return dtype == "float32" and (d_out >= WIDE or d_in <= NARROW)

    def adds_products(self, out: np.ndarray, terms: int) -> bool:
        if out.dtype == np.float32 and terms > MANY:
            return False
        # Asked before SciPy is imported, and again of SciPy's own threads.
        return one_thread() and blas_function("gemm", out.dtype.name) is not None and one_thread()

    def add_product(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray) -> None:
        perform([AddProduct(a, b, out, alpha)])

    def add_column_sums(self, a: np.ndarray, out: np.ndarray, alpha: np.ndarray) -> None:
        perform([AddColumnSums(a, out, alpha)])

    def recording(self) -> AbstractContextManager[Tape]:
        return recording(Tape(quiet))

    def describe(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def _results(
        self, formula: "Formula", arrays: Sequence[np.ndarray], dtype: str, count: int, out: Any
    ) -> list[np.ndarray]:
        """The arrays that the results go to, checked if they were given."""
        shape = broadcast_shape(formula, arrays)
        if out is None:
            return [np.empty(shape, numpy_dtype(dtype)) for _ in range(count)]
        outs = checked_outs(formula, out, shape, count)
        if not all(array.flags.writeable for array in outs):
            raise ValueError(f"{formula.name}: out is read-only")
        return outs

    def _half_matmul(self, a: Any, b: Any, out: Any, dtype: Any) -> np.ndarray:
        """Products of half-precision matrices, accumulated in float32 as on a GPU."""
        product: np.ndarray = self._into(
            lambda: np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(dtype), out
        )
        return product

    def _half_sum(self, a: Any, axis: int | None, keepdims: bool, out: Any) -> np.ndarray:
        """Sums of half-precision entries, in float32 likewise: in float16, 2048 + 1 is 2048."""
        total: np.ndarray = self._into(
            lambda: np.asarray(np.sum(a, axis=axis, dtype=np.float32, keepdims=keepdims)).astype(a.dtype), out
        )
        return total


def _reduced(shape: tuple[int, ...], axis: int | None, keepdims: bool) -> tuple[int, ...]:
    if axis is None:
        return (1,) * len(shape) if keepdims else ()
    axis %= len(shape)
    return tuple(1 if i == axis else n for i, n in enumerate(shape) if keepdims or i != axis)


def make_numpy_backend(detail: str) -> NumpyBackend:
    """The NumPy backend; it has no devices to choose from."""
    if detail:
        raise BackendUnavailableError(f"numpy:{detail}: NumPy has one device; use 'numpy'")
    return NumpyBackend()


def numpy_owner(array: Any) -> str | None:
    """`"numpy"` for NumPy arrays, memory maps included; a masked array's mask would be lost, so it is refused."""
    if not isinstance(array, np.ndarray):
        return None
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("masked arrays are not supported; fill the mask first, with array.filled(value)")
    return "numpy"
