"""NumPy: formulas as ufuncs with preallocated arrays, products by BLAS."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np

from nnkit.backends import selection
from nnkit.backends.base import quiet
from nnkit.backends.cpu.calls import Elementwise
from nnkit.backends.cpu.native.calls import layout, run_prepared
from nnkit.backends.cpu.native.compiler import describe, enabled
from nnkit.backends.cpu.native.nodes import same_largest
from nnkit.backends.cpu.native.tiling import fewest, fits, has_tiles, run_tiled, wide
from nnkit.backends.cpu.products import NumpyProducts
from nnkit.backends.cpu.recording import PASSES, lowered
from nnkit.backends.cpu.rows import NumpyRows
from nnkit.backends.dtypes import COMPLEX, FLOATS, ITEMSIZE, native, numpy_dtype, resolved
from nnkit.backends.errors import BackendUnavailableError
from nnkit.backends.formulas.program import Program
from nnkit.backends.recording import Tape, active_tape, perform, recording

_ARRAYS, _TYPES = {np.ndarray}, {np.dtype(name) for name in (*FLOATS, *COMPLEX) if name != "bfloat16"}
_DTYPE = attrgetter("dtype")


class NumpyBackend(NumpyRows, NumpyProducts):
    """NumPy arrays in host memory."""

    name = "numpy"
    xp = np
    runs_programs = True

    @property
    def compiles(self) -> bool:  # type: ignore[override]
        return enabled()

    def asarray(self, values: Any, dtype: str | None = None) -> np.ndarray:
        owner = None if isinstance(values, selection.NEUTRAL) else selection.owner_of(values)
        if owner is not None and owner is not self:
            values = owner.to_numpy(values)  # from another device, which NumPy cannot read
        elif owner is None and hasattr(values, "__dlpack__"):
            values = np.from_dlpack(resolved(values))
        if dtype is None:
            return native(np.asarray(values))
        wanted = numpy_dtype(dtype)
        if getattr(values, "dtype", wanted) == wanted:
            return np.asarray(values, wanted)
        with quiet():  # a narrower type overflows to infinity
            return np.asarray(values, wanted)

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def numbers(self, arrays: Sequence[Any]) -> list[float]:
        return list(map(float, arrays))

    def empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        return np.empty(shape, numpy_dtype(dtype) if isinstance(dtype, str) else dtype)

    def dtype(self, name: str) -> np.dtype:
        return numpy_dtype(name)

    def copy(self, source: Any, out: np.ndarray) -> np.ndarray:
        if active_tape() is not None:
            perform(partial(np.copyto, out, source, casting="same_kind"), (source,), (out,), "copy")
        elif source.dtype == out.dtype:
            np.copyto(out, source)
        else:
            with quiet():  # a narrower type overflows to infinity
                np.copyto(out, source, "same_kind")
        return out

    def operands(self, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
        if set(map(type, values)) == _ARRAYS and set(map(_DTYPE, values)) <= _TYPES:  # the usual case
            return list(values)
        # Calls need native byte order, and subclasses such as np.matrix have other shape rules.
        return [
            a if type(a) is np.ndarray and a.dtype.isnative else self._plain(np.asarray(a))
            for a in super().operands(names, values)
        ]

    def _plain(self, array: np.ndarray) -> np.ndarray:
        """The array in native byte order; each replay repeats the copy, if any."""
        if array.dtype.isnative:
            return array
        return self.copy(array, np.empty(array.shape, _native(array.dtype)))

    def run_matmul(self, a: np.ndarray, b: np.ndarray, out: Any) -> Any:
        many = a.ndim == b.ndim == 2 and a.size * b.shape[1] >= fewest() and a.dtype == b.dtype and has_tiles()
        if many and self.compiles and a.dtype.char in "fd" and a.dtype.char == out.dtype.char:
            if not fits(a, b, out):  # a copy of what another `out` would have, to the bit
                made = np.empty(out.shape, _native(a.dtype))
                return self.copy(self.run_matmul(self._plain(a), self._plain(b), made), out)
            if active_tape() is None and run_tiled(a, b, out):
                return out
        return super().run_matmul(a, b, out)

    def same_largest(self, a: np.ndarray, b: np.ndarray, groups: int = 1) -> Any:
        if active_tape() is None and self.compiles:
            out = np.empty(groups, np.int64)
            key = same_largest, groups, layout(a), layout(b)
            if run_prepared(key, partial(same_largest, a, b, out), (a, b, out)):
                return out
        return super().same_largest(a, b, groups)

    def by_columns(self, d_out: int, d_in: int, dtype: str) -> bool:
        tiles = has_tiles() and wide(d_out, ITEMSIZE[dtype]) and self.compiles
        return tiles or super().by_columns(d_out, d_in, dtype)

    @quiet()
    def run_program(self, program: Program, name: str, operands: Sequence[Any], outs: Sequence[Any]) -> None:
        if outs[0].dtype.isnative and len(outs) == 1 and type(outs[0]) is np.ndarray:
            made = outs
        else:
            made = [np.asarray(o) if o.dtype.isnative else np.empty(o.shape, _native(o.dtype)) for o in outs]
        perform(Elementwise(program, operands, made), tuple(operands), tuple(made), name)
        if made is not outs:
            for array, out in zip(made, outs, strict=True):
                if not out.dtype.isnative:
                    self.copy(array, out)

    def recording(self) -> AbstractContextManager[Tape]:
        return recording(Tape(PASSES, lowered, quiet))

    def describe(self) -> dict[str, str]:
        return {"numpy": np.__version__, "native code": describe()}


def _native(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("=")


def make_numpy_backend(detail: str) -> NumpyBackend:
    """The NumPy backend; `detail` must be empty, as there is only one device."""
    if detail:
        raise BackendUnavailableError(f"numpy:{detail}: NumPy has one device; use 'numpy'")
    return NumpyBackend()


def numpy_owner(array: Any) -> str | None:
    """`"numpy"` for NumPy arrays and memory maps; TypeError for masked arrays, whose mask would be lost."""
    if not isinstance(array, np.ndarray):
        return None
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("masked arrays are not supported; fill the mask first, with array.filled(value)")
    return "numpy"
