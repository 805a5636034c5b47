"""What a network may do to its samples first: normalization or whitening, or what else has their form."""

from typing import Any, Protocol

import numpy as np

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import FLOATS, dtype_name

_SMALL = ("bool", "int8", "uint8", "int16", "uint16")  # integers that float32 holds
_TOGETHER = 1 << 18  # numbers that are preprocessed together: 2 MB in float64


class Preprocessing(Protocol):
    """What is done to samples before the first layer: `nnkit.data.Normalization` and `Whitening` (eq. 20 to 22)."""

    kind: str

    @property
    def inputs(self) -> int:
        """The width of samples as users have them."""

    @property
    def outputs(self) -> int:
        """The width of what the first layer gets."""

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What defines it, by name."""

    def apply(self, backend: Backend, x: Array, out: Array | None = None) -> Array:
        """Samples (n, inputs) of a backend as the first layer gets them, (n, outputs); in `out` if it is given."""

    def precision(self, dtype: str) -> str:
        """The dtype that samples of this one are computed in."""


def checked_preprocessing(preprocessing: Preprocessing | None, inputs: int) -> Preprocessing | None:
    """A preprocessing as it is, if a first layer with so many inputs takes what it gives; TypeError or ValueError."""
    if preprocessing is None:
        return None
    form = ("kind", "inputs", "outputs", "arrays", "apply", "precision")  # a DataFrame has an `apply` too
    if isinstance(preprocessing, type) or not all(hasattr(preprocessing, name) for name in form):
        hint = "a fitted nnkit.data.Normalization or Whitening"
        given = preprocessing.__name__ if isinstance(preprocessing, type) else f"a {type(preprocessing).__name__}"
        raise TypeError(f"preprocessing is {given}; expected {hint}")
    if preprocessing.outputs != inputs:
        raise ValueError(f"preprocessing gives {preprocessing.outputs} features, but the first layer takes {inputs}")
    return preprocessing


def preprocessed(
    backend: Backend, dtype: str, preprocessing: Preprocessing | None, x: Any, out: Array | None = None
) -> Array:
    """Samples (n, inputs), an array of any real type, as the first layer gets them, (n, outputs); in `out` if given.

    A preprocessing sees them as they are, and what it gives is cast to the dtype: the other way round, features far
    from 0 would be rounded to a few values. Some rows at a time, so that no copy of all of them is made in float64.
    """
    if preprocessing is None:
        array = backend.asarray(x, dtype)
        return array if out is None else backend.copy(array, out)
    n, wide = x.shape[0], precision(preprocessing, dtype_name(x.dtype), dtype)
    out = backend.empty((n, preprocessing.outputs), dtype) if out is None else out
    rows = max(1, _TOGETHER // preprocessing.inputs)
    if n <= rows:
        return preprocessing.apply(backend, backend.asarray(x, wide), out)
    x = x if isinstance(x, np.ndarray) else backend.asarray(x)  # what is on the host goes to a device in parts
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        part, target = x[start:stop, ...], out[start:stop, ...]
        preprocessing.apply(backend, backend.asarray(part, wide), target)
    return out


def precision(preprocessing: Preprocessing, samples: str, results: str) -> str:
    """The dtype that samples of one dtype are preprocessed in for results of another one; it holds the samples."""
    if results != "float32":
        return "float64"
    samples = "float32" if samples in _SMALL else samples
    return preprocessing.precision(samples) if samples in FLOATS else "float64"
