"""Backend: the few things that a device must be able to do for nnkit.

Everything has a plain implementation over an array-API namespace here, so that a new backend starts from a namespace
and replaces what it can do better. A method that takes `out` writes there and returns it; without, it allocates.
While a tape records (`nnkit.backends.tape`), each method leaves calls on it instead of making them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.backends.dtypes import promote
from nnkit.backends.tape import Tape, active_tape, perform, recording

if TYPE_CHECKING:
    from nnkit.backends.formula import Formula

Array = Any  # an array of whichever namespace


class Backend(ABC):
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

    def dtype(self, name: str) -> Any:
        """This namespace's dtype of a name such as `"float32"`."""
        return getattr(self.xp, name)

    def copy(self, source: Array, out: Array) -> Array:
        """Write the values of `source` into `out`."""

        def call() -> None:
            out[...] = source

        perform([call])
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
        arrays = self.operands(formula.operands, operands)
        promote(dict(zip(formula.operands, arrays, strict=True)))
        return self._into(lambda: formula.function(self.xp, *arrays, **(constants or {})), out)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The matrix product over the last two axes."""
        return self._into(lambda: self.xp.matmul(a, b), out)

    def sum(self, a: Array, axis: int | None = None, keepdims: bool = False, out: Array | None = None) -> Array:
        """The sum over one axis, or over all."""
        return self._into(lambda: self.xp.sum(a, axis=axis, keepdims=keepdims), out)

    def max(self, a: Array, axis: int, keepdims: bool = False, out: Array | None = None) -> Array:
        """The largest value along one axis; NaN where there is one."""
        return self._into(lambda: self.xp.max(a, axis=axis, keepdims=keepdims), out)

    def take(self, rows: Array, indices: Array, out: Array | None = None) -> Array:
        """The rows of a matrix (or the entries of a vector) at `indices`, which the caller has checked."""
        return self._into(lambda: self.xp.take(rows, indices, axis=0), out)

    # --- recording ----------------------------------------------------------------------------------------------

    def recording(self) -> AbstractContextManager[Tape]:
        """Write what this backend is asked to do in the `with` block on a tape that can be replayed."""
        return recording(Tape())

    def synchronize(self) -> None:  # noqa: B027  most namespaces compute at once
        """Wait until the device has done all that it was given."""

    # --- description --------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, str]:
        """What a person wants to know of this backend: versions, device, memory."""
        return {"namespace": getattr(self.xp, "__name__", str(self.xp))}

    # --- helpers for subclasses ---------------------------------------------------------------------------------

    def operands(self, names: Sequence[str], values: Sequence[Any]) -> list[Array]:
        """Arrays of this backend from arrays and numbers; numbers take the dtype of the arrays they meet."""
        arrays = {n: v for n, v in zip(names, values, strict=True) if hasattr(v, "dtype")}
        number_type = promote(arrays) if arrays else "float64"
        return [v if n in arrays else self.asarray(v, number_type) for n, v in zip(names, values, strict=True)]

    def _into(self, compute: Callable[[], Any], out: Any) -> Any:
        """Compute into `out` if it is given, else into new arrays; on a tape, do so at each replay."""
        tape = active_tape()
        if tape is None and out is None:
            return compute()
        # Recording without `out`: the result of a trial run on whatever the operands hold has the right arrays.
        result = compute() if out is None else out
        targets = _tuple(result)
        perform([lambda: _assign(targets, compute())])
        return result


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _assign(targets: tuple[Any, ...], values: Any) -> None:
    for target, value in zip(targets, _tuple(values), strict=True):
        target[...] = value
