"""NumPy: formulas as ufunc calls into preallocated arrays, products by BLAS."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.backends import registry
from nnkit.backends.base import quiet
from nnkit.backends.complex_step import complex_step_namespace
from nnkit.backends.cpu.products import NumpyProducts, reduced_shape
from nnkit.backends.cpu.recording import PASSES, lowered
from nnkit.backends.cpu.rows import NumpyRows
from nnkit.backends.cpu.ufuncs import Elementwise
from nnkit.backends.dtypes import native, numpy_dtype, promote
from nnkit.backends.errors import BackendUnavailableError
from nnkit.backends.recording import Tape, perform, recording
from nnkit.backends.results import broadcast_shape, checked_outs

if TYPE_CHECKING:
    from nnkit.backends.formula import Formula


class NumpyBackend(NumpyRows, NumpyProducts):
    """NumPy arrays in the host's memory."""

    name = "numpy"
    xp = np

    def asarray(self, values: Any, dtype: str | None = None) -> np.ndarray:
        owner = registry.owner_of(values)
        if owner is not None and owner is not self:
            values = owner.to_numpy(values)  # from another device, which NumPy itself does not read
        elif owner is None and hasattr(values, "__dlpack__"):
            values = np.from_dlpack(values)
        if dtype is None:
            return native(np.asarray(values))
        wanted = numpy_dtype(dtype)
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
            perform(call, (source,), (out,), "copy")
        else:
            with quiet():  # a narrower type overflows to infinity
                perform(call, (source,), (out,), "copy")
        return out

    def operands(self, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
        # Calls look at memory as numbers of this machine, and subclasses such as np.matrix have other rules of shapes.
        return [
            a if type(a) is np.ndarray and a.dtype.isnative else self._plain(np.asarray(a))
            for a in super().operands(names, values)
        ]

    def _plain(self, array: np.ndarray) -> np.ndarray:
        """An array with its bytes in this machine's order; a copy is made anew by each replay."""
        if array.dtype.isnative:
            return array
        return self.copy(array, np.empty(array.shape, array.dtype.newbyteorder("=")))

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
        results = self._results(formula, arrays, dtype, len(program.outputs), out)
        outs = [np.asarray(r) if r.dtype.isnative else np.empty(r.shape, r.dtype.newbyteorder("=")) for r in results]
        with quiet():
            perform(Elementwise(program, arrays, outs), tuple(arrays), tuple(outs), formula.name)
        for made, result in zip(outs, results, strict=True):
            if not result.dtype.isnative:
                self.copy(made, result)
        return out if out is not None else outs[0] if len(outs) == 1 else tuple(outs)

    def max(self, a: np.ndarray, axis: int, keepdims: bool = False, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(reduced_shape(a.shape, axis, keepdims), a.dtype) if out is None else out
        with quiet():
            perform(partial(np.maximum.reduce, a, axis, None, out, keepdims), (a,), (out,), "max")
        return out

    def recording(self) -> AbstractContextManager[Tape]:
        return recording(Tape(PASSES, lowered, quiet))

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
