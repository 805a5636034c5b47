"""Preprocessing of a network's samples: normalization, whitening, or others with the same protocol."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import FLOATS, dtype_name
from nnkit.checks import is_of_nnkit

_SMALL = ("bool", "int8", "uint8", "int16", "uint16")  # integers that float32 holds
_TOGETHER = 1 << 18  # entries preprocessed at a time: 2 MB in float64
_LOOKED_AT = 1000  # samples, for the scales of features
_LARGE, _FAR = 10.0, 100.0  # a root mean square, also as a multiple of their median, that disturbs training


class Preprocessing(Protocol):
    """Transform of samples before the first layer: `nnkit.data.Normalization` and `Whitening` (eq. 20 to 22).

    Others are called each time, while the steps of these are recorded; files and ONNX models cannot contain them.
    One with a method `encode(X, name)`, such as `nnkit.data.TableEncoding`, gets tables and other samples as they are,
    and returns an array (n, inputs) of numbers, in which NaN is a missing one.
    """

    kind: str

    @property
    def inputs(self) -> int:
        """The width of the user's samples."""

    @property
    def outputs(self) -> int:
        """The width of the transformed samples."""

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The defining arrays by name."""

    def apply(self, backend: Backend, x: Array, out: Array | None = None) -> Array:
        """Transform samples (n, inputs) on a backend to (n, outputs), in `out` if given."""

    def precision(self, dtype: str) -> str:
        """The dtype of the computation for samples of this dtype."""


def checked_preprocessing(preprocessing: Preprocessing | None, inputs: int) -> Preprocessing | None:
    """Return a preprocessing if it fits a first layer with this many inputs; raises TypeError or ValueError."""
    if preprocessing is None:
        return None
    form = ("kind", "inputs", "outputs", "arrays", "apply", "precision")  # a DataFrame has `apply`, too
    if isinstance(preprocessing, type) or not all(hasattr(preprocessing, name) for name in form):
        hint = "a fitted nnkit.data.Normalization, Whitening or TableEncoding"
        given = preprocessing.__name__ if isinstance(preprocessing, type) else f"a {type(preprocessing).__name__}"
        raise TypeError(f"preprocessing is {given}; expected {hint}")
    kind = type(preprocessing)
    for base in kind.__mro__:
        if "apply" in vars(base) or is_of_nnkit(base):
            break
        if "transform" in vars(base):
            hint = "which a network does not call; override apply(backend, x, out)"
            raise TypeError(f"preprocessing is a {kind.__name__}, and {base.__name__} overrides transform, {hint}")
    if preprocessing.outputs != inputs:
        raise ValueError(f"preprocessing has {preprocessing.outputs} outputs, but the first layer has {inputs} inputs")
    return preprocessing


def is_custom(preprocessing: Preprocessing) -> bool:
    """Whether this is not one of nnkit's: what it computes can be anything, also that of a class derived from them."""
    return not is_of_nnkit(type(preprocessing))


def preprocessed(
    backend: Backend, dtype: str, preprocessing: Preprocessing | None, x: Any, out: Array | None = None
) -> Array:
    """Transform samples (n, inputs) of any real dtype to (n, outputs) for the first layer, in `out` if given.

    The result is cast to the dtype, not the samples: features far from 0 would be rounded to a few values. Blocks of
    rows are transformed, to avoid a float64 copy of all samples.
    """
    if preprocessing is None:
        array = backend.asarray(x, dtype)
        return array if out is None else backend.copy(array, out)
    n, wide = x.shape[0], precision(preprocessing, dtype_name(x.dtype), dtype)
    out = backend.empty((n, preprocessing.outputs), dtype) if out is None else out
    rows = max(1, _TOGETHER // preprocessing.inputs)
    if n <= rows:
        return applied(backend, preprocessing, backend.asarray(x, wide), out)
    x = x if isinstance(x, np.ndarray) else backend.asarray(x)  # arrays on the host go to a device in blocks
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        part, target = x[start:stop, ...], out[start:stop, ...]
        applied(backend, preprocessing, backend.asarray(part, wide), target)
    return out


def applied(backend: Backend, preprocessing: Preprocessing, x: Array, out: Array) -> Array:
    """Transform samples to `out`, also by a custom preprocessing that returns another array."""
    found = preprocessing.apply(backend, x, out)
    return out if found is None or found is out else backend.copy(found, out)


def precision(preprocessing: Preprocessing, samples: str, results: str) -> str:
    """The dtype for preprocessing samples of one dtype to results of another; it represents the samples exactly."""
    if results != "float32":
        return "float64"
    samples = "float32" if samples in _SMALL else samples
    return preprocessing.precision(samples) if samples in FLOATS else "float64"


def warn_of_scales(backend: Backend, samples: Array, features: Sequence[str] | None) -> None:
    """Warn if a feature is much larger than the others in samples (n, d): its weights alone would determine a step."""
    step = max(1, samples.shape[0] // _LOOKED_AT)
    rows = np.asarray(backend.to_numpy(samples[::step, ...]), np.float64)
    with np.errstate(all="ignore"):
        size = np.sqrt(np.square(rows).mean(axis=0))
    largest, median = int(size.argmax()), float(np.sort(size)[(size.size - 1) // 2])
    if size[largest] > max(_LARGE, _FAR * median):
        name = f"feature {largest}" if features is None else f"feature {features[largest]!r}"
        warnings.warn(
            f"{name} has a root mean square of {size[largest]:.3g}, the median of all features is {median:.3g}: "
            "networks learn badly from features that differ by orders of magnitude; give the network "
            "preprocessing=nnkit.data.Normalization.fit(X)",
            stacklevel=4,
        )
