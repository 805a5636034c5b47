"""Mean, variance and covariance of samples in two passes; only one chunk at a time is converted to float64."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.dtypes import dtype_name
from nnkit.checks import check_finite
from nnkit.tables import as_samples, is_table, table_numbers, text_names

_NUMBERS = 1 << 18  # per chunk: 2 MB in float64

Real = NDArray[np.float64]


def sample_matrix(X: Any, width: int | None = None, features: Sequence[str] | None = None, owner: str = "") -> Any:
    """Validate samples X (n, d) and return them as an array with rows, still unread if they are on disk.

    Of a table these are the owner's `features`, in their order.

    Raises TypeError unless they are real numbers, ValueError for another shape or no samples.
    """
    samples = table_numbers(X, "X", features, owner) if is_table(X) else as_samples(X, "X")
    shape = tuple(samples.shape)
    if len(shape) != 2 or 0 in shape or (width is not None and shape[1] != width):
        expected = "(samples, features)" if width is None else f"(samples, {width})"
        raise ValueError(f"X has shape {shape}; expected {expected} with at least one sample")
    if dtype_name(samples.dtype).rstrip("0123456789") not in ("bool", "int", "uint", "float", "bfloat"):
        raise TypeError(f"X has dtype {samples.dtype}; expected real numbers")
    return samples


def feature_names(X: Any) -> list[str] | None:
    """The column names of X if it is a table and they are text; else None. Raises like `text_names`."""
    return text_names(X, "X") if is_table(X) else None


# Overflow is checked in the results and underflow is harmless, whatever error handling the caller has set in NumPy.
quiet = np.errstate(all="ignore")


@quiet
def means(samples: Any) -> tuple[Real, NDArray[np.bool_]]:
    """The mean of each feature (d,) of samples (n, d), exact for constant features, and whether a feature is constant.

    Raises ValueError for NaN and infinities; the message gives the first.
    """
    total, first = np.zeros(samples.shape[1]), np.zeros(0)
    lowest, highest = np.full_like(total, np.inf), np.full_like(total, -np.inf)
    for part in _parts(samples):
        first = first if first.size else part[0].copy()
        total += (part - first).sum(axis=0)  # far from 0, such as times, the sum of the samples loses their digits
        lowest, highest = np.minimum(lowest, part.min(axis=0)), np.maximum(highest, part.max(axis=0))
    # With a rounded mean, a constant feature would have a tiny, nonzero deviation.
    constant = lowest == highest
    return _checked(np.where(constant, lowest, first + total / samples.shape[0])), constant


@quiet
def variances(samples: Any, mean: Real, scale: Real | None = None) -> Real:
    """The mean of (X − μ)², or s²(X − μ)² with a scale s (d,), for each feature (d,) of samples (n, d)."""
    total = np.zeros(len(mean))
    for part in _parts(samples):
        part = part - mean
        if scale is not None:
            part *= scale
        total += np.einsum("ij,ij->j", part, part)
    return _checked(total / samples.shape[0])


@quiet
def covariance(samples: Any, mean: Real) -> Real:
    """C = (1/n)(X − μ)ᵀ(X − μ) of samples (n, d), (d, d) (eq. 21)."""
    total = np.zeros((len(mean), len(mean)))
    for part in _parts(samples):
        part = part - mean
        total += part.T @ part
    return _checked(total / samples.shape[0])


def _parts(samples: Any) -> Iterator[Real]:
    rows = max(1, _NUMBERS // samples.shape[1])
    for start in range(0, samples.shape[0], rows):
        part = np.asarray(samples[start : start + rows], np.float64)
        check_finite(part, "X", first=start)
        yield part


def _checked(moment: Real) -> Real:
    if not np.isfinite(moment).all():
        raise ValueError("X holds numbers whose sums or squares overflow in float64; expected smaller numbers")
    return moment
