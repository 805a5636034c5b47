"""Integer labels as rows of zeros with a single one."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.tables import as_array


def one_hot(labels: ArrayLike, classes: int | None = None, dtype: DTypeLike = "float32") -> NDArray[Any]:
    """Return one row per label, 1 at the label's column and 0 elsewhere.

    Args:
        labels: (n,) integers or booleans, 0 to classes - 1.
        classes: the number of columns; by default the largest label plus one.
        dtype: the type of the result, any real number type of NumPy.

    Returns:
        (n, classes) array of `dtype`.

    Raises:
        TypeError: labels are not integers, classes is not an integer, or dtype is not a real number type.
        ValueError: labels are not one-dimensional, or empty without `classes`; classes is below 1; or a
            label is out of range: the message names the first such label and its index.

    Example:
        >>> one_hot([2, 0], classes=3)
        array([[0., 0., 1.],
               [1., 0., 0.]], dtype=float32)

    """
    result_type = _real_dtype(dtype)
    column = _label_array(labels)
    width = _width(column, classes)
    outside = (column < 0) | (column >= width)
    if outside.any():
        index = int(np.argmax(outside))
        expected = "at least 0" if classes is None else f"from 0 to {width - 1}"
        raise ValueError(f"labels must be {expected}, got {column[index]} at index {index}")
    rows = np.zeros((column.size, width), dtype=result_type)
    rows[np.arange(column.size), column] = 1
    return rows


def _real_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype must be a real number type of NumPy, got {dtype!r}") from error
    if found.kind not in "biuf":
        raise TypeError(f"dtype must be a real number type of NumPy, got {dtype!r}")
    return found


def _label_array(labels: ArrayLike) -> NDArray[Any]:
    try:
        number = np.isscalar(labels)  # whose shape is refused below
        array = np.asarray(labels if number else as_array(labels, "labels"))
    except (TypeError, ValueError) as error:
        raise TypeError(f"labels must be a one-dimensional array of integers: {error}") from error
    if array.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, got shape {array.shape}")
    # NumPy gives an empty list the type float64, and True and False are the labels 1 and 0.
    if array.size == 0 or array.dtype.kind == "b":
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {array.dtype}")
    return array


def _width(labels: NDArray[Any], classes: int | None) -> int:
    """Return the number of classes: the given one, or the largest of the labels (n,) plus one."""
    if classes is None:
        if labels.size == 0:
            raise ValueError("classes must be given when labels is empty: there is no largest label")
        return int(labels.max()) + 1
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer):
        raise TypeError(f"classes must be an integer or None, got {classes!r}")
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}")
    return int(classes)
