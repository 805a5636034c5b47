"""Class names: what users call their classes, and the numbers 0 to k − 1 that a network knows them by."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def checked_classes(classes: Sequence[Any] | NDArray[Any], outputs: int) -> NDArray[Any]:
    """Class names as an array (k,), k the number of outputs or 2 for a single one; the first is class 0.

    Raises TypeError for no sequence, ValueError for another number of names or for a name that occurs twice.
    """
    if isinstance(classes, str | bytes) or not hasattr(classes, "__len__"):
        raise TypeError(f"classes is {classes!r}; expected a list of names")
    names = _as_array(classes)
    wanted = max(outputs, 2)
    if names.shape != (wanted,):
        raise ValueError(f"classes has {len(names)} names; expected {wanted} for a network of {outputs} outputs")
    if len(set(names.tolist())) != wanted:
        raise ValueError(f"classes holds a name twice: {names.tolist()}")
    return names


def names_in(labels: Any) -> NDArray[Any] | None:
    """The sorted class names in labels (n,) that are text or other objects; None for numbers, which need no names."""
    if not is_named(labels):
        return None
    try:
        return _as_array(sorted(set(_values(labels))))
    except TypeError as error:  # names of several types, or such as cannot be told apart
        raise TypeError(f"y holds labels that have no order ({error}); give the network its classes") from None


def is_named(labels: Any) -> bool:
    """Whether these are labels (n,) that are no numbers."""
    if hasattr(labels, "__dlpack__") and not isinstance(labels, np.ndarray):
        return False  # text lives on the host only
    if isinstance(labels, np.ma.MaskedArray):
        return False
    try:
        array = np.asarray(labels)
    except ValueError:  # rows of different lengths
        return False
    return array.ndim == 1 and array.dtype.kind not in "biufc"


def class_indices(classes: NDArray[Any], labels: Any, name: str) -> NDArray[np.int64]:
    """The numbers (n,) of labels (n,) that are class names; ValueError for one that is none of them."""
    numbers = {value: number for number, value in enumerate(classes.tolist())}
    values = _values(labels)
    try:
        return np.array([numbers[value] for value in values], np.int64)
    except (KeyError, TypeError):
        at = next(i for i, v in enumerate(values) if not _hashable(v) or v not in numbers)
        known = ", ".join(map(repr, numbers)) if len(numbers) <= 20 else f"one of {len(numbers)} classes"
        raise ValueError(f"{name} holds {values[at]!r} at [{at}]; expected {known}") from None


def _as_array(names: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """One type of NumPy's where the names have one, so that text does not become what it is not: [1, 'a'] stays so."""
    values = _values(names)
    if len({type(value) for value in values}) == 1 and isinstance(values[0], str | int | float):
        return np.array(values)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _values(labels: Any) -> list[Any]:
    """Labels as Python has them: an array of [1, 'a'] would hold text only."""
    if not isinstance(labels, list | tuple):
        found: list[Any] = np.asarray(labels).tolist()
        return found
    return [label.item() if isinstance(label, np.generic) else label for label in labels]


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
