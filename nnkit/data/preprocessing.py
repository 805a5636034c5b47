"""Normalization and whitening (eq. 20 to 22): fitted on the training part, applied to every part.

A network that is given one applies it to all samples that it gets: `nnkit.Network(..., preprocessing=normalization)`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.checks import flag, in_range, unknown_name, whole
from nnkit.data.fitted import Fitted, checked_array
from nnkit.data.moments import Real, covariance, feature_names, means, quiet, sample_matrix, variances
from nnkit.kernels.preprocessing import centered, normalized

_SMALL, _SCALE = 1e-290, 2.0**600  # variances that have lost digits, and what makes them others


class Normalization(Fitted):
    """X_n = (X − μ)/σ (eq. 20), each feature by its own mean and deviation, or all by one.

    Args:
        mean: μ, (d,). deviation: σ, (d,), above 0. features: the names of the d columns, if they have some. `fit`
            finds them.

    Raises ValueError for arrays of other shapes, not finite, or with a deviation that is not positive.

    >>> normalization = nnkit.data.Normalization.fit([[1.0, 5.0], [3.0, 5.0]])
    >>> normalization.transform([[2.0, 5.0], [3.0, 6.0]])
    array([[0., 0.],
           [1., 1.]])
    """

    kind = "normalization"

    def __init__(self, mean: ArrayLike, deviation: ArrayLike, features: Sequence[str] | None = None) -> None:
        self.mean = checked_array("mean", mean, 1)
        self.deviation = checked_array("deviation", deviation, 1, self.mean.size, positive=True)
        super().__init__(self.mean.size, features, mean=self.mean, deviation=self.deviation)
        # Rounding μ moves (x − μ)/σ by up to 2⁻²⁴ |μ|/σ: with 4, by a few units in the last place of 1. Bytes of
        # 784-100-10 are gathered so in minibatches of 32 in 153 µs a step, and in float64 in 195.
        usual = (self.deviation > 1e-30) & (self.deviation < 1e30)  # nothing over- or underflows
        self._float32_suffices = bool((usual & (np.abs(self.mean) <= 4 * np.minimum(self.deviation, 1e30))).all())

    @classmethod
    @quiet
    def fit(cls, X: Any, per_feature: bool = True) -> Self:
        """The mean and the deviation of samples X (n, d); constant features get σ = 1.

        X is an array, a table whose columns it keeps the names of, or rows on a disk (`nnkit.data.open_npy`); it is
        read twice, some rows at a time, in float64: of whole numbers above 2⁵³ the last digits are lost.
        With `per_feature` False one mean and one deviation of all entries, as for images: a pixel at the edge that is
        hardly ever set would else become a large number where it is. Raises ValueError unless X is a matrix with
        samples, all finite, TypeError unless it holds real numbers.

        >>> nnkit.data.Normalization.fit([[0.0, 2.0], [2.0, 4.0]], per_feature=False).mean
        array([2., 2.])
        """
        per_feature = flag("Normalization.fit", "per_feature", per_feature)
        samples = sample_matrix(X)
        mean, constant = means(samples)
        if not per_feature and (mean != mean[0]).any():  # the mean of equal numbers might be rounded
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
        """X/255 for images of bytes with `width` pixels: μ = 0 and σ = 255, or another largest value.

        >>> nnkit.data.Normalization.pixels(2).transform(np.array([[0, 255]], np.uint8))
        array([[0., 1.]])
        """
        width = whole("Normalization.pixels", "width", width, 1)
        largest = in_range("Normalization.pixels", "largest", largest, above=True)
        return cls(np.zeros(width), np.full(width, largest))

    def _constants(self) -> tuple[Real, Real]:
        return self.mean, self.deviation

    def _compute(self, backend: Backend, x: Array, mean: Array, scale: Array, out: Array) -> None:
        backend.elementwise(normalized, (x, mean, scale), out=out)

    @staticmethod
    def _bound(deviations: Real, scale: Real) -> Real:
        return deviations / scale


class Whitening(Fitted):
    """Rotated and rescaled samples whose covariance is the identity (eq. 21, 22).

    C = (1/n)(X − μ)ᵀ(X − μ) = U S Uᵀ, and X_w = (X − μ) U S^(−½). Directions whose singular value is below 10⁻¹⁰ of the
    largest hold rounding only and are left out, so that the result has k ≤ d features.

    Args:
        mean: μ, (d,). rotation: U, (d, k). singular_values: S, (k,), above 0. features: the names of the d columns,
            if they have some. `fit` finds them.

    Raises ValueError for arrays of other shapes, not finite, or with a singular value that is not positive.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2)) @ [[2.0, 1.0], [0.0, 0.5]]
    >>> white = nnkit.data.Whitening.fit(X).transform(X)
    >>> bool(np.allclose(white.T @ white / 500, np.eye(2)))
    True
    """

    kind = "whitening"

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
        """The mean and the singular vectors of the covariance of samples X (n, d), as in `Normalization.fit`.

        Raises ValueError unless it is a matrix with samples, all finite and not all alike, TypeError unless it holds
        real numbers.
        """
        samples = sample_matrix(X)
        mean, constant = means(samples)
        rotation, values, _ = np.linalg.svd(covariance(samples, mean), hermitian=True)
        if not values[0] > 0 and not constant.all():
            raise ValueError("X holds numbers whose squares are too small for float64; multiply them first")
        if not values[0] > 0:
            raise ValueError("X has samples that are all alike; there is no direction to whiten")
        kept = values > 1e-10 * values[0]
        return cls(mean, rotation[:, kept], values[kept], feature_names(X))

    @quiet
    def _constants(self) -> tuple[Real, Real]:
        return self.mean, self.rotation / np.sqrt(self.singular_values)

    def _compute(self, backend: Backend, x: Array, mean: Array, scale: Array, out: Array) -> None:
        deviations = backend.elementwise(centered, (x, mean))
        if out.dtype == deviations.dtype:
            backend.matmul(deviations, scale, out=out)
        else:
            backend.copy(backend.matmul(deviations, scale), out)

    @staticmethod
    def _bound(deviations: Real, scale: Real) -> Real:
        return deviations @ scale


def preprocessing_from(kind: str, arrays: Mapping[str, ArrayLike], features: Sequence[str] | None = None) -> Fitted:
    """The preprocessing of a kind from its arrays and the names of its columns, if it has them, as a file keeps them.

    Raises ValueError for other arrays than it has.

    >>> normalization = nnkit.data.Normalization.pixels(3)
    >>> nnkit.data.preprocessing_from(normalization.kind, normalization.arrays)
    Normalization(3 → 3 features)
    """
    kinds: dict[str, tuple[Any, set[str]]] = {
        "normalization": (Normalization, {"mean", "deviation"}),
        "whitening": (Whitening, {"mean", "rotation", "singular_values"}),
    }
    if kind not in kinds:
        raise unknown_name("preprocessing", kind, kinds)
    make, names = kinds[kind]
    if set(arrays) != names:
        raise ValueError(f"{kind} has the arrays {sorted(arrays)}; expected {sorted(names)}")
    made: Fitted = make(**arrays, features=features)
    return made
