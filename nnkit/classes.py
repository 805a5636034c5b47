"""Class names, and their mapping to the class indices 0 to k − 1 of a network."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import get_backend
from nnkit.backends.dtypes import FLOATS, dtype_name
from nnkit.tables import TIMES, as_array, is_missing, is_table


def checked_classes(classes: Sequence[Any] | NDArray[Any], outputs: int) -> NDArray[Any]:
    """Class names as an array (k,), where k is the number of outputs, or 2 for a single one; the first is class 0.

    Raises TypeError unless they are a sequence, ValueError for another number of names or duplicates.
    """
    if isinstance(classes, str | bytes) or not hasattr(classes, "__len__"):
        raise TypeError(f"classes is {classes!r}; expected a list of names")
    if is_table(classes) or isinstance(classes, Mapping | Set):
        raise TypeError(f"classes is a {type(classes).__name__}; expected a list of names")
    wanted, shape = max(outputs, 2), tuple(getattr(classes, "shape", (0,)))
    if len(shape) != 1:
        raise ValueError(f"classes has shape {shape}; expected ({wanted},)")
    names = _as_array(classes)
    unnamed = next((name for name in listed(names) if not _hashable(name)), None)
    if unnamed is not None:
        raise TypeError(f"classes holds {unnamed!r}; expected names, such as text and integers")
    if names.shape != (wanted,):
        raise ValueError(f"classes has {len(names)} names; expected {wanted} for a network of {outputs} outputs")
    if len(set(listed(names))) != wanted:
        raise ValueError(f"classes contains duplicates: {listed(names)}")
    names.flags.writeable = False  # NumPy would truncate longer names on assignment
    return names


def names_in(labels: Any, outputs: int) -> NDArray[Any] | None:
    """The sorted class names in labels, for a network with this number of outputs; None if it needs no names.

    Text and other objects (n,) are names. So are booleans for two classes, and integers other than the class indices
    with one distinct value per class: −1 and 1, or 1 to k. Raises ValueError for another number of names and for
    missing ones, TypeError for bytes, as of h5py, and names that cannot be sorted.
    """
    if len(labels.shape) != 1 or 0 in labels.shape or dtype_name(labels.dtype) in FLOATS:
        return None
    labels = _on_host(labels)
    wanted = max(outputs, 2)
    if labels.dtype.kind == "b":
        return np.array([False, True]) if wanted == 2 else None
    if labels.dtype.kind in "iu":
        if labels.min() >= 0 and labels.max() < wanted:
            return None  # some classes may be absent
        found = np.unique(labels)
        return found if len(found) == wanted else None
    values = listed(labels)
    for at, value in enumerate(values):
        if is_missing(value):
            raise ValueError(f"y holds {value!r} at [{at}]; expected a class name")
        if isinstance(value, bytes):
            hint = "np.char.decode(y.astype(bytes)), or asstr() of h5py"
            raise TypeError(f"y holds {value!r} at [{at}]; expected the name of a class as text: {hint}")
    try:
        names = _as_array(sorted(set(values)))
    except TypeError as error:  # names of several types, or without order or hash
        raise TypeError(f"y holds labels that cannot be sorted ({error}); give the network its classes") from None
    if len(names) != wanted:
        raise ValueError(f"y holds {len(names)} classes, {listed(names)}; this network has {wanted}")
    return names


def class_indices(classes: NDArray[Any], labels: Any, name: str) -> NDArray[np.int64]:
    """The class indices (n,) of labels (n,) that are class names; raises ValueError for an unknown name.

    If all names are text, integers and booleans are compared by their text: the labels of a file with only the classes
    1 and 2 of 1, 2 and 3a are read as numbers.
    """
    host = _on_host(labels)
    if host.dtype.kind in "biu" and all(isinstance(name, str) for name in listed(classes)):
        host = host.astype(str)
    if _compare_exactly(host.dtype, classes.dtype):
        order = np.argsort(classes, kind="stable")
        found: NDArray[np.int64] = order[np.searchsorted(classes[order], host).clip(max=len(order) - 1)]
        wrong = np.flatnonzero(classes[found] != host)
        if wrong.size:
            raise _unknown_label(classes, listed(host[wrong[:1]])[0], int(wrong[0]), name)
        return found
    numbers = {value: number for number, value in enumerate(listed(classes))}
    values = listed(host) if classes.dtype.kind in "mM" else host.tolist()  # dates match Python's
    try:
        return np.array([numbers[value] for value in values], np.int64)
    except (KeyError, TypeError):
        at = next(i for i, v in enumerate(values) if not _hashable(v) or v not in numbers)
        raise _unknown_label(classes, values[at], at, name) from None


def _unknown_label(classes: NDArray[Any], label: Any, at: int, name: str) -> ValueError:
    known = ", ".join(map(repr, listed(classes))) if len(classes) <= 20 else f"one of {len(classes)} classes"
    return ValueError(f"{name} holds {label!r} at [{at}]; expected {known}")


def _on_host(labels: Any) -> NDArray[Any]:
    """Labels as a NumPy array; text in lists as objects."""
    host: NDArray[Any] = get_backend("numpy").asarray(as_array(labels, "y"))
    return host


def _as_array(names: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """An array of names, with a NumPy dtype only if they have one common type: [1, 'a'] is kept as objects."""
    values = listed(names)
    if len({type(value) for value in values}) == 1 and isinstance(values[0], (str, int, float, *TIMES)):
        array = np.array(values)
        found = listed(array)  # NumPy drops trailing NUL characters, and converts 1 and 2⁶³ to floats
        if found == values and type(found[0]) is type(values[0]):
            return array
    array = np.empty(len(values), object)
    array[:] = values
    return array


def listed(labels: Any) -> list[Any]:
    """Labels as Python objects, except NumPy's times, which Python converts to integers in nanoseconds."""
    if isinstance(labels, list | tuple):
        values = list(labels)
    else:
        array = np.asarray(labels)
        values = list(array) if array.dtype.kind in "mM" else array.tolist()
    numbers = (isinstance(value, np.generic) and not isinstance(value, TIMES) for value in values)
    return [value.item() if number else value for value, number in zip(values, numbers, strict=True)]


def _compare_exactly(a: np.dtype[Any], b: np.dtype[Any]) -> bool:
    """Whether NumPy compares these labels and names exactly; int64 and uint64 would be converted to float."""
    if a.kind in "biu" and b.kind in "biu":
        return np.result_type(a, b).kind in "biu"
    return a == b and a.kind in "fmM"


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
