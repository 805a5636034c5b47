"""Class names: what users call their classes, and the numbers 0 to k − 1 that a network knows them by."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import get_backend
from nnkit.backends.dtypes import FLOATS, dtype_name
from nnkit.tables import as_array, is_table


def checked_classes(classes: Sequence[Any] | NDArray[Any], outputs: int) -> NDArray[Any]:
    """Class names as an array (k,), k the number of outputs or 2 for a single one; the first is class 0.

    Raises TypeError for no sequence, ValueError for another number of names or for a name that occurs twice.
    """
    if isinstance(classes, str | bytes) or not hasattr(classes, "__len__"):
        raise TypeError(f"classes is {classes!r}; expected a list of names")
    if is_table(classes) or isinstance(classes, Mapping | Set):
        raise TypeError(f"classes is a {type(classes).__name__}; expected a list of names")
    wanted, shape = max(outputs, 2), tuple(getattr(classes, "shape", (0,)))
    if len(shape) != 1:
        raise ValueError(f"classes has shape {shape}; expected ({wanted},)")
    names = _as_array(classes)
    unnamed = next((name for name in names.tolist() if not _hashable(name)), None)
    if unnamed is not None:
        raise TypeError(f"classes holds {unnamed!r}; expected names, such as text and whole numbers")
    if names.shape != (wanted,):
        raise ValueError(f"classes has {len(names)} names; expected {wanted} for a network of {outputs} outputs")
    if len(set(names.tolist())) != wanted:
        raise ValueError(f"classes holds a name twice: {names.tolist()}")
    return names


def names_in(labels: Any, outputs: int) -> NDArray[Any] | None:
    """The sorted class names in an array of labels, for a network of so many outputs; None where it needs none.

    Text and other objects (n,) are names, of as many classes as the network has. So are truth values where it has two,
    and whole numbers that are not the numbers of its classes, if as many differ: −1 and 1, or 1 to k. Raises ValueError
    for another number of names and for missing ones, TypeError for names that have no order.
    """
    if len(labels.shape) != 1 or 0 in labels.shape or dtype_name(labels.dtype) in FLOATS:
        return None
    labels = _on_host(labels)
    wanted = max(outputs, 2)
    if labels.dtype.kind == "b":
        return np.array([False, True]) if wanted == 2 else None
    if labels.dtype.kind in "iu":
        if labels.min() >= 0 and labels.max() < wanted:
            return None  # some of the classes may be absent
        found = np.unique(labels)
        return found if len(found) == wanted else None
    values = _values(labels)
    for at, value in enumerate(values):
        if value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value):
            raise ValueError(f"y holds {value!r} at [{at}]; expected the name of a class")
    try:
        names = _as_array(sorted(set(values)))
    except TypeError as error:  # names of several types, or such as cannot be told apart
        raise TypeError(f"y holds labels that have no order ({error}); give the network its classes") from None
    if len(names) != wanted:
        raise ValueError(f"y holds {len(names)} classes, {names.tolist()}; this network has {wanted}")
    return names


def class_indices(classes: NDArray[Any], labels: Any, name: str) -> NDArray[np.int64]:
    """The numbers (n,) of labels (n,) that are class names; ValueError for one that is none of them.

    Where all names are text, whole numbers and truth values are compared by their text: the labels of a file in which
    only the classes 1 and 2 of 1, 2 and 3a occur are read as numbers.
    """
    host = _on_host(labels)
    if host.dtype.kind in "biu" and all(isinstance(name, str) for name in classes.tolist()):
        host = host.astype(str)
    if host.dtype.kind in "biuf" and classes.dtype.kind in "biuf":
        order = np.argsort(classes, kind="stable")
        found: NDArray[np.int64] = order[np.searchsorted(classes[order], host).clip(max=len(order) - 1)]
        wrong = np.flatnonzero(classes[found] != host)
        if wrong.size:
            raise _unknown_label(classes, host[wrong[0]].item(), int(wrong[0]), name)
        return found
    numbers = {value: number for number, value in enumerate(classes.tolist())}
    values = _values(host)
    try:
        return np.array([numbers[value] for value in values], np.int64)
    except (KeyError, TypeError):
        at = next(i for i, v in enumerate(values) if not _hashable(v) or v not in numbers)
        raise _unknown_label(classes, values[at], at, name) from None


def _unknown_label(classes: NDArray[Any], label: Any, at: int, name: str) -> ValueError:
    known = ", ".join(map(repr, classes.tolist())) if len(classes) <= 20 else f"one of {len(classes)} classes"
    return ValueError(f"{name} holds {label!r} at [{at}]; expected {known}")


def _on_host(labels: Any) -> NDArray[Any]:
    """Labels of any kind as NumPy's array, text in lists as objects."""
    host: NDArray[Any] = get_backend("numpy").asarray(as_array(labels, "y"))
    return host


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
    values = labels if isinstance(labels, list | tuple) else np.asarray(labels).tolist()
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
