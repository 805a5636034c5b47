"""The common base of normalization and whitening: validated constants and their copies on devices."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import COMPLEX, FLOATS, dtype_name
from nnkit.checks import check_finite, checked_features
from nnkit.data.moments import Real, quiet, sample_matrix
from nnkit.inputs import on_host
from nnkit.tables import as_array


class Fitted(ABC):
    """The base class of normalization and whitening.

    Attributes:
        kind: "normalization" or "whitening". inputs: the number of features. outputs: their number after the transform.
        arrays: the defining constants, read-only float64 arrays by name.
        features: the names of the columns that it was fitted on, where these were a table's: other tables are then
            taken by these names. None where they are not known: equal is then what has equal arrays.
    """

    kind: str
    _float32_suffices = False  # for samples that are float32

    def __init__(self, outputs: int, features: Sequence[str] | None, **arrays: Real) -> None:
        self.arrays = arrays
        self.inputs, self.outputs = arrays["mean"].size, outputs
        self.features = None if features is None else checked_features(features, self.inputs)
        self._placed: dict[tuple[Backend, str], list[Array]] = {}  # constants on devices, by dtype

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inputs} → {self.outputs} features)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fitted) or self.kind != other.kind:
            return False
        known = self.features is not None and other.features is not None
        if known and self.features != other.features:
            return False
        return all(np.array_equal(array, other.arrays[name]) for name, array in self.arrays.items())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.arrays.values(), self.features)  # without the copies on devices

    def transform(self, X: Any) -> Real:
        """Transform samples X (n, inputs); returns (n, outputs), float64 on the host.

        The columns of a table are put in the order of `features`, if these are known. Raises ValueError for another
        shape and other columns, TypeError unless X contains real numbers.
        """
        samples = sample_matrix(X, self.inputs, self.features, self.kind)
        return np.asarray(self.apply(get_backend("numpy"), np.asarray(samples, np.float64)))

    def apply(self, backend: Backend, x: Array, out: Array | None = None) -> Array:
        """Transform samples x (n, inputs) on their backend; returns (n, outputs) in their dtype, or in that of `out`.

        The computation is in float64, and the result is rounded: for features far from 0, x − μ in another dtype would
        only be rounding errors. If the means are small, float32 samples are transformed in float32 (`precision`). The
        constants are kept on the device after the first call. Raises TypeError unless the dtype is floating-point,
        ValueError for another shape.
        """
        dtype = dtype_name(x.dtype)
        if dtype not in FLOATS + COMPLEX:
            raise TypeError(f"x has dtype {dtype}; expected one of {', '.join(FLOATS)}")
        if len(x.shape) != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (samples, {self.inputs})")
        wide = self.precision(dtype)
        if (backend, wide) not in self._placed:
            self._placed[backend, wide] = [backend.asarray(array, wide) for array in self._constants()]
        out = backend.empty((x.shape[0], self.outputs), x.dtype) if out is None else out
        mean, scale = self._placed[backend, wide]
        self._compute(backend, x, mean, scale, out)
        return out

    def precision(self, dtype: str) -> str:
        """The dtype of the computation for samples of this dtype: float32 if it suffices for them, else float64."""
        return dtype if dtype == "float32" and self._float32_suffices else "float64"

    @cached_property
    @quiet
    def keeps_finite(self) -> bool:
        """Whether samples of at most 2 · 10¹⁹, which all 64-bit integers are, stay finite in float32."""
        mean, scale = self._constants()
        return bool((self._bound(np.abs(mean) + 2e19, np.abs(scale)) < 3e38).all())

    @abstractmethod
    def _constants(self) -> tuple[Real, Real]:
        """The two constant arrays of the transform."""

    @abstractmethod
    def _compute(self, backend: Backend, x: Array, mean: Array, scale: Array, out: Array) -> None:
        """Write the transform to `out`, with these constants on the backend."""

    @staticmethod
    @abstractmethod
    def _bound(deviations: Real, scale: Real) -> Real:
        """The largest entries (outputs,) that deviations from the mean of at most these (inputs,) may give."""


def checked_array(
    name: str, values: ArrayLike, ndim: int, length: int | None = None, *, positive: bool = False
) -> Real:
    """A new float64 array; raises ValueError unless it is real, finite and has `ndim` axes, the first of `length`."""
    given = np.asarray(on_host(as_array(values, name)))
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {given.dtype}; expected real numbers")
    array = given.astype(np.float64)
    array.flags.writeable = False  # devices have copies
    if array.ndim != ndim or array.size == 0 or (length is not None and array.shape[0] != length):
        expected = f"{ndim} axes" + ("" if length is None else f", the first of length {length}")
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    check_finite(array, name)
    if positive and not (array > 0).all():
        raise ValueError(f"{name} holds {array.min()}; expected numbers above 0")
    return array
