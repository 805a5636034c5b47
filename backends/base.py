"""Backend: the operations that nnkit needs from a device.

All have a plain implementation with an array-API namespace, so that a new backend starts from a namespace and overrides
what it can do better. Methods with `out` write to it and return it; without, they allocate. While a tape records
(`nnkit.backends.recording`), methods append calls to it instead of making them.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any

import numpy as np

from nnkit.backends.dtypes import (
    COMPLEX,
    FLOATS,
    Result,
    checked_outs,
    dtype_name,
    formula_result,
    product_result,
    promote,
    reduction_result,
)
from nnkit.backends.errors import OutOfMemoryError
from nnkit.backends.formulas.operations import complex_step_namespace
from nnkit.backends.formulas.program import Program, Traceable, python_function
from nnkit.backends.recording import Tape, active_tape, perform, recording

Array = Any  # an array of any namespace

# Formulas are correct with infinite intermediate values: exp(1000) -> inf, 1/(1 + inf) -> 0.
quiet = functools.partial(np.errstate, all="ignore")  # also a decorator, `@quiet()`, with less overhead

_SHAPE, _DTYPE = attrgetter("shape"), attrgetter("dtype")


class Backend(ABC):
    """Arrays of one namespace on one device.

    Attributes:
        name: the name that selects this backend, such as `"numpy"` or `"cupy:1"`.
        xp: its array-API namespace.
    """

    name: str
    xp: Any
    types: tuple[str, ...] = FLOATS + COMPLEX  # of formulas
    compiles = False  # whether recordings are compiled for the CPU
    runs_programs = False  # whether `run_program` etc. compute into given arrays, instead of functions of the namespace

    # --- moving arrays ------------------------------------------------------------------------------------------

    @abstractmethod
    def asarray(self, values: Any, dtype: str | None = None) -> Array:
        """Any array, list, number or DLPack object as an array of this backend; copied only if necessary."""

    @abstractmethod
    def to_numpy(self, array: Array) -> np.ndarray:
        """The array as a NumPy array on the host; waits for the device."""

    def numbers(self, arrays: Sequence[Array]) -> list[float]:
        """The values of `arrays`, 0-d and of any dtypes, in one transfer; waits for the device."""
        wide = [self.xp.astype(array, self.xp.float64) for array in arrays]
        found: list[float] = self.to_numpy(self.xp.stack(wide)).tolist() if wide else []
        return found

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        """An uninitialised C-contiguous array."""

    def zeros(self, shape: Sequence[int], dtype: Any) -> Array:
        """A C-contiguous array of zeros."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def has_room(self, size: int) -> bool:
        """Whether the device can allocate this many more bytes; host memory is treated as unlimited."""
        return True

    def out_of_memory(self, error: BaseException) -> OutOfMemoryError | None:
        """Translate the device library's out-of-memory errors; None for other errors."""
        return error if isinstance(error, OutOfMemoryError) else None

    def release(self) -> None:  # noqa: B027
        """Return cached memory to the device."""

    def dtype(self, name: str) -> Any:
        """The namespace's dtype with a name such as `"float32"`."""
        return getattr(self.xp, name)

    def copy(self, source: Array, out: Array) -> Array:
        """Copy the values of `source` to `out`."""
        self._perform("copy", lambda: self._write(source, out), (source,), (out,))
        return out

    # --- computing ----------------------------------------------------------------------------------------------

    def elementwise(
        self, formula: Traceable, operands: Sequence[Any], out: Any = None, constants: Mapping[str, float] | None = None
    ) -> Any:
        """Evaluate a formula with broadcast operands; returns one array, or a tuple for several results."""
        arrays = self.operands(formula.operands, operands)
        try:
            result = formula_result(self, formula.operands, tuple(map(_SHAPE, arrays)), tuple(map(_DTYPE, arrays)))
        except ValueError as error:
            raise ValueError(f"{formula.name}: {error}") from None
        if result.dtype not in self.types:
            raise self._unsupported(formula.name, result.dtype)
        program = formula.program(constants)
        count = len(program.outputs)
        outs = [] if out is None else checked_outs(formula.name, out, result.shape, count, self.types)
        if not self.runs_programs or result.dtype in COMPLEX:
            return self._call(formula, arrays, result, out, constants)
        if out is None:
            for _ in program.outputs:
                outs.append(self.empty(*result))
        self.run_program(program, formula.name, arrays, outs)
        return out if out is not None else outs[0] if count == 1 else tuple(outs)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The matrix product over the last two axes.

        Raises ValueError for shapes that do not match and TypeError for other dtypes, like `sum` and `max`.
        """
        result = product_result(self, (a.shape, b.shape), (a.dtype, b.dtype))
        return self.run_matmul(a, b, self._target("matmul", out, result))

    def sum(self, a: Array, axis: int | None = None, keepdims: bool = False, out: Array | None = None) -> Array:
        """The sum over one axis, or over all."""
        result = reduction_result(self, "sum", a.shape, a.dtype, axis, keepdims)
        return self.run_reduction("sum", a, axis, keepdims, self._target("sum", out, result))

    def max(self, a: Array, axis: int, keepdims: bool = False, out: Array | None = None) -> Array:
        """The maximum along one axis; NaN if there is one."""
        result = reduction_result(self, "max", a.shape, a.dtype, axis, keepdims)
        return self.run_reduction("max", a, axis, keepdims, self._target("max", out, result))

    # All arguments of these are checked; with `runs_programs`, out is never None. Results may overlap operands.

    def run_program(self, program: Program, name: str, operands: Sequence[Array], outs: Sequence[Array]) -> None:
        """Compute a formula's program with float arrays that broadcast, into `outs`, which have the same shape.

        For backends with `runs_programs`; others compute it by the functions of the namespace.
        """
        raise NotImplementedError

    def run_matmul(self, a: Array, b: Array, out: Array | None) -> Array:
        """Compute `matmul`; returns `out` if it is given."""
        return self._into("matmul", lambda: self.xp.matmul(a, b), (a, b), out)

    def run_reduction(self, operation: str, a: Array, axis: int | None, keepdims: bool, out: Array | None) -> Array:
        """Compute `sum` or `max`, the operation's name; returns `out` if it is given."""
        function = getattr(self.xp, operation)
        return self._into(operation, lambda: function(a, axis=axis, keepdims=keepdims), (a,), out)

    def _target(self, operation: str, out: Array | None, result: Result) -> Array | None:
        """The given `out`, checked, or a new array if this backend computes into given ones."""
        if result.dtype not in self.types:
            raise self._unsupported(operation, result.dtype)
        if out is None:
            return self.empty(*result) if self.runs_programs else None
        return checked_outs(operation, out, result.shape, 1, self.types)[0]

    def _unsupported(self, operation: str, dtype: str) -> TypeError:
        return TypeError(f"{operation}: operands are {dtype}; expected one of {', '.join(self.types)}")

    def by_columns(self, d_out: int, d_in: int, dtype: str) -> bool:
        """Whether x Wᵀ is faster with W (d_out, d_in) in column-major order."""
        return False

    def same_largest(self, a: Array, b: Array, groups: int = 1) -> Array:
        """How many rows of two matrices have their largest entry, NaN or the first of equal ones, in the same place.

        Row i counts for group i modulo `groups`; (groups,) of int64.
        """
        places = [self.xp.argmax(matrix, axis=1) for matrix in (a, b)]
        same = self.xp.astype(places[0] == places[1], self.xp.int64)
        return self.xp.sum(self.xp.reshape(same, (-1, groups)), axis=0)

    # --- rows: one recording serves all minibatches of an epoch, as each replay reads where they start -----------

    def take(self, rows: Array, indices: Array, out: Array | None = None) -> Array:
        """The rows of a matrix (or entries of a vector) at `indices`, which the caller has checked."""
        if out is None and active_tape() is not None:  # no trial run: `indices` may not be set yet
            out = self.empty((*indices.shape, *rows.shape[1:]), rows.dtype)
        return self._into("take", lambda: self.xp.take(rows, indices, axis=0), (rows, indices), out)

    def take_at(self, rows: Array, start: Array, out: Array, order: Array | None = None) -> Array:
        """out[:] = rows[order[start : start + n]] for the n rows of `out`; without an order, rows[start : start + n].

        `start` is a 0-d array of int64. `out` can have another dtype; if it has one axis less than `rows`, it is one
        row. The caller has checked all indices.
        """
        single = out.ndim < rows.ndim

        def take() -> None:
            first = int(start)
            if order is None:
                found = rows[first, ...] if single else rows[first : first + out.shape[0], ...]
            elif single:
                found = rows[int(order[first]), ...]
            else:
                found = self.xp.take(rows, order[first : first + out.shape[0]], axis=0)
            self._write(found, out)

        self._perform("take", take, (rows, start) if order is None else (rows, start, order), (out,))
        return out

    def put_at(self, values: Array, start: Array, out: Array) -> Array:
        """out[start : start + n] = values, for n rows of values; `start` as in `take_at`."""

        def put() -> None:
            first = int(start)
            self._write(values, out[first : first + values.shape[0], ...])

        self._perform("put", put, (values, start), (out,))
        return out

    def advance(self, start: Array, count: int) -> None:
        """start ← start + count, for a 0-d array of int64."""
        self._perform("advance", lambda: self._write(start + count, start), (start,), (start,))

    # --- recording ----------------------------------------------------------------------------------------------

    def recording(self) -> AbstractContextManager[Tape]:
        """Record the operations in the `with` block on a tape that can be replayed."""
        return recording(Tape(around=quiet))

    def stream(self) -> Hashable:
        """The current stream, on which work is executed in order; None if there is only one."""
        return None

    def synchronize(self) -> None:  # noqa: B027
        """Wait until the device has finished all work."""

    # --- description --------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, str]:
        """Information for users: versions, device, memory."""
        return {"namespace": getattr(self.xp, "__name__", str(self.xp))}

    # --- helpers for subclasses ---------------------------------------------------------------------------------

    def operands(self, names: Sequence[str], values: Sequence[Any]) -> list[Array]:
        """Convert arrays and numbers to arrays of this backend; numbers get the dtype of the arrays."""
        named = dict(zip(names, values, strict=True))
        for name, value in named.items():
            if value is None:
                raise TypeError(f"{name} is None; expected an array, a list or a number")
        arrays = {n: v for n, v in named.items() if hasattr(v, "dtype") and not _is_number(v)}
        # Without arrays, NumPy's floating-point numbers keep their dtype.
        deciding = arrays or {n: v for n, v in named.items() if dtype_name(getattr(v, "dtype", "")) in FLOATS}
        number_type = promote(deciding) if deciding else "float64"
        return [v if n in arrays else self._numbers(n, v, number_type) for n, v in named.items()]

    def _numbers(self, name: str, values: Any, dtype: str) -> Array:
        try:
            return self.asarray(values, dtype)
        except OverflowError:
            raise ValueError(f"{name} holds an integer that is too large for {dtype}") from None
        except (TypeError, ValueError) as error:  # such as rows of different lengths
            raise (ValueError if isinstance(error, ValueError) else TypeError)(f"{name}: {error}") from None

    def _call(self, formula: Traceable, arrays: Sequence[Array], result: Result, out: Any, constants: Any) -> Any:
        """Evaluate a formula's program by the functions of the namespace, into separate arrays."""
        shape, dtype = result
        # The program, not the formula's function, in which `z += 1` would change an operand.
        function, array = python_function(formula.program(constants)), functools.partial(self.asarray, dtype=dtype)
        xp = complex_step_namespace if self.xp is np and dtype in COMPLEX else self.xp

        def compute() -> Any:
            values = function(xp, self.dtype(dtype), array, *arrays)
            used, results = list(arrays), []
            for value in _tuple(values):
                # A formula may return an operand, the same value twice, a number, or an array not yet broadcast.
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
        """Compute into `out`, or into new arrays; if recording, at each replay."""
        with quiet():
            # When recording without `out`, a trial run with any values makes arrays of the right shape and dtype.
            result = self._arrays(compute()) if out is None else out
            if out is not None or active_tape() is not None:
                perform(lambda: self._write_all(compute(), result), read, _tuple(result), name)
        return result

    def _arrays(self, values: Any) -> Any:
        """Results of the namespace, with NumPy's scalars as 0-d arrays."""
        if isinstance(values, tuple):
            return tuple(map(self._arrays, values))
        return self.xp.asarray(values) if isinstance(values, np.generic) else values

    def _write_all(self, values: Any, outs: Any) -> None:
        for value, out in zip(_tuple(values), _tuple(outs), strict=True):
            if tuple(out.shape) != tuple(value.shape):  # assignment would broadcast
                raise ValueError(f"out has shape {tuple(out.shape)}; expected {tuple(value.shape)}")
            self._write(value, out)

    def _write(self, value: Array, out: Array) -> None:
        # The array-API standard does not specify whether assignment casts.
        out[...] = value if value.dtype == out.dtype else self.xp.astype(value, out.dtype)


def _is_number(value: Any) -> bool:
    return isinstance(value, np.generic) and not isinstance(value, np.complexfloating)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
