"""Normalization and whitening (eq. 20 to 22): fitted on the training part, applied to every part."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Normalization(NamedTuple):
    """X_n = (X − μ)/σ (eq. 20), each feature by its own mean and deviation.

    Attributes:
        mean: μ, (d,) float64. deviation: σ, (d,) float64; 1 where a feature is constant, which becomes 0.

    >>> normalization = nnkit.data.Normalization.fit([[1.0, 5.0], [3.0, 5.0]])
    >>> normalization.transform([[2.0, 5.0], [3.0, 6.0]])
    array([[0., 0.],
           [1., 1.]])
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def fit(cls, X: ArrayLike) -> "Normalization":
        """The mean and the deviation of samples X (n, d); ValueError unless it is a matrix with samples."""
        samples = _matrix(X)
        deviation = samples.std(axis=0)
        return cls(samples.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Normalized samples (n, d), float64; ValueError for another width."""
        return (_matrix(X, self.mean.size) - self.mean) / self.deviation


class Whitening(NamedTuple):
    """Rotated and rescaled samples whose covariance is the identity (eq. 21, 22).

    C = (1/n)(X − μ)ᵀ(X − μ) = U S Uᵀ, and X_w = (X − μ) U S^(−½). Directions whose singular value is below 10⁻¹⁰ of the
    largest hold rounding only and are left out, so that the result has k ≤ d features.

    Attributes:
        mean: μ, (d,). rotation: U, (d, k). singular_values: S, (k,), largest first. All float64.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2)) @ [[2.0, 1.0], [0.0, 0.5]]
    >>> white = nnkit.data.Whitening.fit(X).transform(X)
    >>> bool(np.allclose(white.T @ white / 500, np.eye(2)))
    True
    """

    mean: NDArray[np.float64]
    rotation: NDArray[np.float64]
    singular_values: NDArray[np.float64]

    @classmethod
    def fit(cls, X: ArrayLike) -> "Whitening":
        """The mean and the singular vectors of the covariance of X (n, d); ValueError unless a matrix with samples."""
        samples = _matrix(X)
        mean = samples.mean(axis=0)
        covariance = (samples - mean).T @ (samples - mean) / len(samples)
        rotation, values, _ = np.linalg.svd(covariance, hermitian=True)
        kept = values > 1e-10 * values[0]
        return cls(mean, rotation[:, kept], values[kept])

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Whitened samples (n, k), float64; ValueError for another width."""
        return (_matrix(X, self.mean.size) - self.mean) @ self.rotation / np.sqrt(self.singular_values)


def _matrix(X: Any, width: int | None = None) -> NDArray[np.float64]:
    samples = np.asarray(X, np.float64)
    if samples.ndim != 2 or samples.size == 0 or (width is not None and samples.shape[1] != width):
        expected = "(samples, features)" if width is None else f"(samples, {width})"
        raise ValueError(f"X has shape {samples.shape}; expected {expected} with at least one sample")
    return samples
