"""Backend: the few things that a device must be able to do for nnkit.

Everything has a plain implementation over an array-API namespace here, so that a new backend starts from a namespace
and replaces what it can do better. A method that takes `out` writes there and returns it; without, it allocates.
While a tape records (`nnkit.backends.recording`), each method leaves calls on it instead of making them.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.backends.dtypes import FLOATS, dtype_name, promote
from nnkit.backends.errors import OutOfMemoryError
from nnkit.backends.recording import Tape, active_tape, perform, recording
from nnkit.backends.results import broadcast_shape, checked_outs
from nnkit.backends.row_access import Array as Array
from nnkit.backends.row_access import RowAccess

if TYPE_CHECKING:
    from nnkit.backends.formula import Formula

# Formulas are written so that infinities on the way give the right result: exp(1000) -> inf, 1/(1 + inf) -> 0.
quiet = functools.partial(np.errstate, all="ignore")


class Backend(RowAccess, ABC):
    """Arrays of one namespace on one device.

    Attributes:
        name: what selects this backend, such as `"numpy"` or `"cupy:1"`.
        xp: its array-API namespace.
    """

    name: str
    xp: Any

    # --- moving arrays ------------------------------------------------------------------------------------------

    @abstractmethod
    def asarray(self, values: Any, dtype: str | None = None) -> Array:
        """An array here with the values of any array, list, number or DLPack object; no copy where none is needed."""

    @abstractmethod
    def to_numpy(self, array: Array) -> np.ndarray:
        """The values as a NumPy array on the host; waits for the device."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        """An uninitialised C-contiguous array."""

    def zeros(self, shape: Sequence[int], dtype: Any) -> Array:
        """A C-contiguous array of zeros."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def has_room(self, size: int) -> bool:
        """Whether the device can hold that many bytes more and still work; the host's memory counts as endless."""
        return True

    def out_of_memory(self, error: BaseException) -> OutOfMemoryError | None:
        """What an error of this device's library says in nnkit's words, if it is that its memory is full; else None."""
        return error if isinstance(error, OutOfMemoryError) else None

    def release(self) -> None:
        """Give memory that is held for later use, but not used, back to the device."""

    def dtype(self, name: str) -> Any:
        """This namespace's dtype of a name such as `"float32"`."""
        return getattr(self.xp, name)

    def copy(self, source: Array, out: Array) -> Array:
        """Write the values of `source` into `out`."""
        self._perform("copy", lambda: self._write(source, out), (source,), (out,))
        return out

    # --- computing ----------------------------------------------------------------------------------------------

    def elementwise(
        self,
        formula: "Formula",
        operands: Sequence[Any],
        out: Any = None,
        constants: Mapping[str, float] | None = None,
    ) -> Any:
        """Evaluate a formula over broadcast operands; one array, or a tuple where it has several results."""
        return self._call(formula, self.xp, self.operands(formula.operands, operands), out, constants)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The matrix product over the last two axes."""
        return self._into("matmul", lambda: self.xp.matmul(a, b), (a, b), out)

    def sum(self, a: Array, axis: int | None = None, keepdims: bool = False, out: Array | None = None) -> Array:
        """The sum over one axis, or over all."""
        return self._into("sum", lambda: self.xp.sum(a, axis=axis, keepdims=keepdims), (a,), out)

    def max(self, a: Array, axis: int, keepdims: bool = False, out: Array | None = None) -> Array:
        """The largest value along one axis; NaN where there is one."""
        return self._into("max", lambda: self.xp.max(a, axis=axis, keepdims=keepdims), (a,), out)

    def by_columns(self, d_out: int, d_in: int, dtype: str) -> bool:
        """Whether x Wᵀ is faster with a W (d_out, d_in) that lies column by column."""
        return False

    # --- recording ----------------------------------------------------------------------------------------------

    def recording(self) -> AbstractContextManager[Tape]:
        """Write what this backend is asked to do in the `with` block on a tape that can be replayed."""
        return recording(Tape(around=quiet))

    def stream(self) -> Hashable:
        """Which stream the device gets its work on now: what is on one comes in order; None where there is but one."""
        return None

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""

    # --- description --------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, str]:
        """What a person wants to know of this backend: versions, device, memory."""
        return {"namespace": getattr(self.xp, "__name__", str(self.xp))}

    # --- helpers for subclasses ---------------------------------------------------------------------------------

    def operands(self, names: Sequence[str], values: Sequence[Any]) -> list[Array]:
        """Arrays of this backend from arrays and numbers; numbers take the dtype of the arrays they meet."""
        named = dict(zip(names, values, strict=True))
        for name, value in named.items():
            if value is None:
                raise TypeError(f"{name} is None; expected an array, a list or a number")
        arrays = {n: v for n, v in named.items() if hasattr(v, "dtype") and not _is_number(v)}
        # Among themselves, NumPy's floating-point numbers keep their dtype.
        deciding = arrays or {n: v for n, v in named.items() if dtype_name(getattr(v, "dtype", "")) in FLOATS}
        number_type = promote(deciding) if deciding else "float64"
        return [v if n in arrays else self._numbers(n, v, number_type) for n, v in named.items()]

    def _numbers(self, name: str, values: Any, dtype: str) -> Array:
        try:
            return self.asarray(values, dtype)
        except OverflowError:
            raise ValueError(f"{name} holds a whole number that is too large for {dtype}") from None

    def _call(
        self, formula: "Formula", xp: Any, arrays: Sequence[Array], out: Any, constants: Mapping[str, float] | None
    ) -> Any:
        """Evaluate a formula as a plain function over `xp`, into arrays of their own."""
        dtype = promote(dict(zip(formula.operands, arrays, strict=True)))
        shape = broadcast_shape(formula, arrays)
        checked_outs(formula, out, shape, len(formula.program(constants).outputs))

        def compute() -> Any:
            values = formula.function(xp, *arrays, **(constants or {}))
            used, results = list(arrays), []
            for value in _tuple(values):
                # A formula may hand back an operand, one value twice, a number, or what is not broadcast yet.
                own = not any(value is other for other in used)
                if not own or getattr(value, "shape", None) != shape or dtype_name(value.dtype) != dtype:
                    whole = xp.broadcast_to(self.asarray(value, dtype), shape)
                    value = xp.astype(whole, self.dtype(dtype), copy=True)
                used.append(value)
                results.append(value)
            return tuple(results) if isinstance(values, tuple) else results[0]

        return self._into(formula.name, compute, tuple(arrays), out)

    def _perform(
        self, name: str, call: Callable[[], None], read: tuple[Array, ...], written: tuple[Array, ...]
    ) -> None:
        with quiet():
            perform(call, read, written, name)

    def _into(self, name: str, compute: Callable[[], Any], read: tuple[Array, ...], out: Any) -> Any:
        """Compute into `out` if it is given, else into new arrays; on a tape, do so at each replay."""
        with quiet():
            # Recording without `out`: the result of a trial run on whatever the operands hold has the right arrays.
            result = self._arrays(compute()) if out is None else out
            if out is not None or active_tape() is not None:
                perform(lambda: self._write_all(compute(), result), read, _tuple(result), name)
        return result

    def _arrays(self, values: Any) -> Any:
        """What a namespace has computed, with 0-d arrays in place of the scalars that NumPy's functions return."""
        if isinstance(values, tuple):
            return tuple(map(self._arrays, values))
        return self.xp.asarray(values) if isinstance(values, np.generic) else values

    def _write_all(self, values: Any, outs: Any) -> None:
        for value, out in zip(_tuple(values), _tuple(outs), strict=True):
            if tuple(out.shape) != tuple(value.shape):  # assignment would broadcast
                raise ValueError(f"out has shape {tuple(out.shape)}; expected {tuple(value.shape)}")
            self._write(value, out)

    def _write(self, value: Array, out: Array) -> None:
        # The standard leaves open whether an assignment casts.
        out[...] = value if value.dtype == out.dtype else self.xp.astype(value, out.dtype)


def _is_number(value: Any) -> bool:
    return isinstance(value, np.generic) and not isinstance(value, np.complexfloating)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
