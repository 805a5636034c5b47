"""One-hot encoding of integer labels."""

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.inputs import label_rows
from nnkit.tables import as_array


def one_hot(labels: ArrayLike, classes: int | None = None, dtype: DTypeLike = "float32") -> NDArray[Any]:
    """One-hot rows (n, classes) in `dtype`: 1 at the label's column and 0 elsewhere.

    Args:
        labels: (n,) integers or booleans, 0 to classes - 1.
        classes: the number of columns; by default the largest label plus one.
        dtype: any real NumPy dtype.

    Raises TypeError if labels or classes are not integers, or the dtype is not real; ValueError for labels of another
    shape or out of range, with the first such label, for no labels without `classes`, and for classes below 1.

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
    with suppress(TypeError):
        if np.dtype(dtype).kind in "biuf":
            return np.dtype(dtype)
    raise TypeError(f"dtype is {dtype!r}; expected a real NumPy dtype")


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
