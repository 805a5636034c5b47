"""One-hot encoding of integer labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.inputs import label_rows
from nnkit.tables import as_array


def one_hot(labels: ArrayLike, classes: int | None = None, dtype: DTypeLike = "float32") -> NDArray[Any]:
    """Return one row per label, 1 at the label's column and 0 elsewhere.

    Args:
        labels: (n,) integers or booleans, 0 to classes - 1.
        classes: the number of columns; by default the largest label plus one.
        dtype: the dtype of the result, any real NumPy dtype.

    Returns:
        (n, classes) array of `dtype`.

    Raises:
        TypeError: labels are not integers, classes is not an integer, or dtype is not a real dtype.
        ValueError: labels are not one-dimensional, or empty without `classes`; classes is below 1; or a label is out of
            range: the message gives the first such label and its index.

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
        expected = "of at least 0" if classes is None else f"from 0 to {width - 1}"
        raise ValueError(f"labels holds {column[index]} at [{index}]; expected whole numbers {expected}")
    return label_rows(column, width, result_type)


def _real_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype is {dtype!r}; expected a real NumPy dtype") from error
    if found.kind not in "biuf":
        raise TypeError(f"dtype is {dtype!r}; expected a real NumPy dtype")
    return found


def _label_array(labels: ArrayLike) -> NDArray[Any]:
    try:
        number = np.isscalar(labels)  # rejected below, by its shape
        array = np.asarray(labels if number else as_array(labels, "labels"))
    except (TypeError, ValueError) as error:
        raise TypeError(f"labels is a {type(labels).__name__}; expected integers (n,) on the host: {error}") from error
    if array.ndim != 1:
        raise ValueError(f"labels has shape {array.shape}; expected (n,)")
    # An empty list becomes float64 in NumPy; True and False are the labels 1 and 0.
    if array.size == 0 or array.dtype.kind == "b":
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels has dtype {array.dtype}; expected integers")
    return array


def _width(labels: NDArray[Any], classes: int | None) -> int:
    """Return the number of classes: the given one, or the largest of the labels (n,) plus one."""
    if classes is None:
        if labels.size == 0:
            raise ValueError("classes is None and labels is empty; expected the number of classes")
        return int(labels.max()) + 1
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer):
        raise TypeError(f"classes is {classes!r}; expected a whole number of at least 1, or None")
    if classes < 1:
        raise ValueError(f"classes is {classes}; expected a whole number of at least 1")
    return int(classes)
