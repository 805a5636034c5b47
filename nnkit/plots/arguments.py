"""Validation of plot arguments; arrays become NumPy arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.selection import owner_of
from nnkit.checks import check_finite
from nnkit.tables import as_array


def on_host(values: Any, name: str) -> NDArray[Any]:
    """Convert a list, a column or an array of any backend to NumPy; raises ValueError for rows of different lengths."""
    array = as_array(values, name)
    backend = owner_of(array)
    return np.asarray(array) if backend is None else backend.to_numpy(array)


def real_numbers(values: Any, name: str, axes: int, expected: str) -> NDArray[Any]:
    """A nonempty array of real numbers with `axes` dimensions; error messages describe its shape as `expected`."""
    array = on_host(values, name)
    if array.dtype.kind not in "biuf" and array.size:
        raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
    if array.ndim != axes or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    return array


def finite_numbers(values: Any, name: str, axes: int, expected: str) -> NDArray[np.float64]:
    """Like `real_numbers`, but finite and converted to float64."""
    array = real_numbers(values, name, axes, expected).astype(np.float64)
    check_finite(array, name)
    return array


def label_pair(y: Any, predicted: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """True and predicted labels (n,), both integers or both strings, with n at least 1."""
    pair = _labels(y, "y"), _labels(predicted, "predicted")
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"y has {len(pair[0])} labels and predicted {len(pair[1])}; expected equal lengths")
    if pair[0].dtype.kind != pair[1].dtype.kind:
        kinds = ["strings" if labels.dtype.kind == "U" else "integers" for labels in pair]
        raise TypeError(f"y holds {kinds[0]} and predicted {kinds[1]}; expected the same type")
    return pair


def _labels(values: Any, name: str) -> NDArray[Any]:
    array = on_host(values, name)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected labels (n,), at least one")
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array):
        array = array.astype(str)
    if array.dtype.kind not in "UT":
        raise TypeError(f"{name} has dtype {array.dtype}; expected integer or string labels")
    return array.astype(str)
