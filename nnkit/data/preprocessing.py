"""Normalization and whitening (eq. 20 to 22): fitted on the training part, applied to every part.

A network with one applies it to all its samples: `nnkit.Network(..., preprocessing=normalization)`.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import COMPLEX, FLOATS, dtype_name
from nnkit.checks import check_finite, checked_features, flag, in_range, named, whole
from nnkit.data.moments import Real, covariance, feature_names, means, quiet, sample_matrix, variances
from nnkit.inputs import on_host
from nnkit.kernels.arithmetic import centered, divided, normalized
from nnkit.tables import as_array


class Fitted(ABC):
    """The base class of normalization and whitening.

    Attributes:
        kind: "normalization" or "whitening".
        inputs: the number of features.
        outputs: their number after the transform.
        arrays: the defining constants, read-only float64 arrays by name.
        features: the column names of the table that it was fitted on; columns of other tables are matched by name.
            None if unknown; only the arrays are then compared for equality.
    """

    kind: str
    array_names: tuple[str, ...]
    _float32_suffices = False  # for samples that are float32

    def __init__(self, outputs: int, features: Sequence[str] | None, **arrays: Real) -> None:
        self.arrays = MappingProxyType(arrays)
        self.inputs, self.outputs = arrays["mean"].size, outputs
        self.features = None if features is None else checked_features(features, self.inputs)
        self._placed: dict[tuple[Backend, str], list[Array]] = {}  # constants on devices, by dtype

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) and not name.startswith("_"):  # networks and devices have what follows from it
            raise AttributeError(f"{name} of a {type(self).__name__} is fixed; create another one with the new values")
        super().__setattr__(name, value)

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
        return type(self), (*self.arrays.values(), self.features)  # without copies on devices

    def transform(self, X: Any) -> Real:
        """Transform samples X (n, inputs); returns (n, outputs), float64 on the host.

        The columns of a table are put in the order of `features`, if known. Raises ValueError for another shape or
        other columns, TypeError unless X contains real numbers.
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
            self._placed[backend, wide] = [
                backend.asarray(array, wide if array.dtype.kind == "f" else None) for array in self._constants()
            ]
        out = backend.empty((x.shape[0], self.outputs), x.dtype) if out is None else out
        self._compute(backend, x, *self._placed[backend, wide], out=out)
        return out

    @abstractmethod
    def backward(self, backend: Backend, delta: Array) -> Array:
        """The gradient by samples x, (..., inputs), from that by their transform, Δ (..., outputs)."""

    def precision(self, dtype: str) -> str:
        """The dtype of the computation for samples of this dtype: float32 if it suffices for them, else float64."""
        return dtype if dtype == "float32" and self._float32_suffices else "float64"

    @cached_property
    @quiet
    def keeps_finite(self) -> bool:
        """Whether samples of magnitude up to 2 · 10¹⁹, as all 64-bit integers, stay finite in float32."""
        mean, scale = self._constants()
        return bool((self._bound(np.abs(mean) + 2e19, np.abs(scale)) < 3e38).all())

    @abstractmethod
    def _constants(self) -> tuple[Any, ...]:
        """The constant arrays of the transform, two if it can keep samples finite (`keeps_finite`)."""

    @abstractmethod
    def _compute(self, backend: Backend, x: Array, *constants: Array, out: Array) -> None:
        """Write the transform to `out`, with these constants on the backend."""

    @staticmethod
    @abstractmethod
    def _bound(deviations: Real, scale: Real) -> Real:
        """Bounds (outputs,) of the transform for deviations from the mean of at most these (inputs,)."""


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


_SMALL, _SCALE = 1e-290, 2.0**600  # below, variances have lost digits; a factor for data that avoids it


class Normalization(Fitted):
    """X_n = (X − μ)/σ (eq. 20), with mean and standard deviation per feature or common to all.

    Args:
        mean: μ, (d,).
        deviation: σ, (d,), above 0.
        features: the names of the d columns, if any. `fit` determines them.

    Raises ValueError for other shapes, entries that are not finite, or deviations that are not positive.

    >>> normalization = nnkit.data.Normalization.fit([[1.0, 5.0], [3.0, 5.0]])
    >>> normalization.transform([[2.0, 5.0], [3.0, 6.0]])
    array([[0., 0.],
           [1., 1.]])
    """

    kind = "normalization"
    array_names = ("mean", "deviation")

    def __init__(self, mean: ArrayLike, deviation: ArrayLike, features: Sequence[str] | None = None) -> None:
        self.mean = checked_array("mean", mean, 1)
        self.deviation = checked_array("deviation", deviation, 1, self.mean.size, positive=True)
        super().__init__(self.mean.size, features, mean=self.mean, deviation=self.deviation)
        # Rounding μ changes (x − μ)/σ by up to 2⁻²⁴ |μ|/σ: with 4, by a few units in the last place of 1. For
        # 784-100-10 on bytes in minibatches of 32, a step then takes 153 µs, with float64 195 µs.
        usual = (self.deviation > 1e-30) & (self.deviation < 1e30)  # no over- or underflow
        self._float32_suffices = bool((usual & (np.abs(self.mean) <= 4 * np.minimum(self.deviation, 1e30))).all())

    @classmethod
    @quiet
    def fit(cls, X: Any, per_feature: bool = True) -> Self:
        """Compute mean and standard deviation of samples X (n, d); constant features get σ = 1.

        X is an array, a table, whose column names are kept, or rows on a disk (`nnkit.data.open_npy`). It is read
        twice in blocks of rows, in float64: integers above 2⁵³ lose their last digits. With `per_feature` False, mean
        and deviation are those of all entries, as for images: otherwise a pixel at the edge that is rarely set would
        become a large number. Raises ValueError unless X is a finite, nonempty matrix, TypeError unless it contains
        real numbers.

        >>> nnkit.data.Normalization.fit([[0.0, 2.0], [2.0, 4.0]], per_feature=False).mean
        array([2., 2.])
        """
        per_feature = flag("Normalization.fit", "per_feature", per_feature)
        samples = sample_matrix(X)
        mean, constant = means(samples)
        if not per_feature and (mean != mean[0]).any():  # the mean of equal numbers may be rounded
            mean = np.full_like(mean, mean.mean())
        variance = variances(samples, mean)
        if not per_feature:
            variance = np.full_like(variance, variance.mean())
        deviation = np.sqrt(variance)
        small = (variance < _SMALL) & ~constant
        if per_feature and small.any():
            scale = np.where(small, _SCALE, 1.0)
            deviation = np.sqrt(variances(samples, mean, scale)) / scale
        return cls(mean, np.where(deviation > 0, deviation, 1.0), feature_names(X))

    @classmethod
    def pixels(cls, width: int, largest: float = 255.0) -> Self:
        """X/255 for byte images with `width` pixels: μ = 0 and σ = 255, or another maximum.

        >>> nnkit.data.Normalization.pixels(2).transform(np.array([[0, 255]], np.uint8))
        array([[0., 1.]])
        """
        width = whole("Normalization.pixels", "width", width, 1)
        largest = in_range("Normalization.pixels", "largest", largest, above=True)
        return cls(np.zeros(width), np.full(width, largest))

    def _constants(self) -> tuple[Real, Real]:
        return self.mean, self.deviation

    def _compute(self, backend: Backend, x: Array, *constants: Array, out: Array) -> None:
        backend.elementwise(normalized, (x, *constants), out=out)

    def backward(self, backend: Backend, delta: Array) -> Array:
        return backend.elementwise(divided, (delta, backend.asarray(self.deviation, dtype_name(delta.dtype))))

    @staticmethod
    def _bound(deviations: Real, scale: Real) -> Real:
        return deviations / scale


_ROUNDED = 1e-13  # of the largest singular value: smaller ones are rounding errors


class Whitening(Fitted):
    """Rotated and rescaled samples whose covariance is the identity (eq. 21, 22).

    C = (1/n)(X − μ)ᵀ(X − μ) = U S Uᵀ, and X_w = (X − μ) U S^(−½). Directions with a singular value below 10⁻¹³ of the
    largest contain only rounding errors and are omitted: the result has k ≤ d features.

    Args:
        mean: μ, (d,).
        rotation: U, (d, k).
        singular_values: S, (k,), above 0.
        features: the names of the d columns, if any. `fit` determines them.

    Raises ValueError for other shapes, entries that are not finite, or singular values that are not positive.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2)) @ [[2.0, 1.0], [0.0, 0.5]]
    >>> white = nnkit.data.Whitening.fit(X).transform(X)
    >>> bool(np.allclose(white.T @ white / 500, np.eye(2)))
    True
    """

    kind = "whitening"
    array_names = ("mean", "rotation", "singular_values")

    def __init__(
        self,
        mean: ArrayLike,
        rotation: ArrayLike,
        singular_values: ArrayLike,
        features: Sequence[str] | None = None,
    ) -> None:
        self.mean = checked_array("mean", mean, 1)
        self.rotation = checked_array("rotation", rotation, 2, self.mean.size)
        if self.rotation.shape[1] > self.mean.size:
            raise ValueError(f"rotation has shape {self.rotation.shape}; expected at most {self.mean.size} columns")
        k = self.rotation.shape[1]
        self.singular_values = checked_array("singular_values", singular_values, 1, k, positive=True)
        arrays = {"mean": self.mean, "rotation": self.rotation, "singular_values": self.singular_values}
        super().__init__(self.rotation.shape[1], features, **arrays)

    @classmethod
    @quiet
    def fit(cls, X: Any) -> Self:
        """Compute mean and singular vectors of the covariance of samples X (n, d), read as in `Normalization.fit`.

        Warns of features that vary, but so little beside others that they are lost in the omitted directions. Raises
        ValueError unless X is a finite matrix with differing samples, TypeError unless it contains real numbers.
        """
        samples = sample_matrix(X)
        mean, constant = means(samples)
        squares = covariance(samples, mean)
        rotation, values, _ = np.linalg.svd(squares, hermitian=True)
        if constant.all():
            raise ValueError("X has only equal samples; there is no direction to whiten")
        tiny = values < np.finfo(np.float64).smallest_normal  # subnormal numbers have fewer digits
        if _ROUNDED * values[0] < np.finfo(np.float64).smallest_normal and tiny.sum() > constant.sum():
            raise ValueError("X holds numbers whose squares are too small for float64; multiply them first")
        kept, names = values > _ROUNDED * values[0], feature_names(X)
        lost = rotation[:, kept] ** 2 @ values[kept] < squares.diagonal() / 2
        if (lost & ~constant).any():
            at = int((lost & ~constant).argmax())
            name, small, large = at if names is None else repr(names[at]), squares[at, at] ** 0.5, values[0] ** 0.5
            what = f"X: feature {name} has a standard deviation of {small:.3g}, which is lost beside {large:.3g}"
            warnings.warn(f"{what} of others; give it other units, or use Normalization", stacklevel=2)
        return cls(mean, rotation[:, kept], values[kept], names)

    @quiet
    def _constants(self) -> tuple[Real, Real]:
        return self.mean, self.rotation / np.sqrt(self.singular_values)

    def _compute(self, backend: Backend, x: Array, *constants: Array, out: Array) -> None:
        mean, scale = constants
        deviations = backend.elementwise(centered, (x, mean))
        if out.dtype == deviations.dtype:
            backend.matmul(deviations, scale, out=out)
        else:
            backend.copy(backend.matmul(deviations, scale), out)

    def backward(self, backend: Backend, delta: Array) -> Array:
        scale = backend.asarray(self._constants()[1], dtype_name(delta.dtype))
        return backend.matmul(delta, scale.mT)

    @staticmethod
    def _bound(deviations: Real, scale: Real) -> Real:
        return deviations @ scale


def preprocessing_from(
    kind: str, arrays: Mapping[str, ArrayLike], features: Sequence[str] | None = None, categories: Any = None
) -> Fitted:
    """Create a preprocessing of this kind from its arrays, column names and categories, if any, as saved in a file.

    Raises ValueError for an unknown kind or other arrays.

    >>> normalization = nnkit.data.Normalization.pixels(3)
    >>> nnkit.data.preprocessing_from(normalization.kind, normalization.arrays)
    Normalization(3 → 3 features)
    """
    make: Any = named("preprocessing", kind, {each.kind: each for each in Fitted.__subclasses__()})
    if set(arrays) != set(make.array_names):
        raise ValueError(f"{kind} has the arrays {sorted(arrays)}; expected {sorted(make.array_names)}")
    made: Fitted = make(**arrays, features=features, **({} if categories is None else {"categories": categories}))
    return made
