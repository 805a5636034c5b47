"""What users' schedules and metrics remember in their attributes: a resumed training goes on with it."""

import warnings
from collections import deque
from collections.abc import Mapping
from functools import partial
from types import FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np

from nnkit.training.fingerprints import is_of_nnkit, written_by_methods

_CONTAINERS = (list, dict, set, deque, np.ndarray)
_GENERATORS = ("Generator", "RandomState", "Random")  # by name, as an import of numpy.random takes time


def remembered(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By the role of each object: the values of its attributes, for JSON, and the names of those left out.

    Numbers, text, arrays of numbers, and lists, tuples, sets and dicts of them are stored, but not classes derived from
    these; of an attribute that is an object, its attributes. Others are left out if they may change: those that a
    method assigns, containers, iterators and generators of random numbers.
    """
    found = {role: _state(_owner(given), set()) for role, given in objects.items()}
    return {role: state for role, state in found.items() if "names" in state}


def recall(objects: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], path: str) -> None:
    """Set the attributes of these objects to what `remembered` returned; warns of those left out."""
    for role, state in states.items():
        if role not in objects:
            continue
        _restore(_owner(objects[role]), state)
        if state["left_out"]:
            names = ", ".join(map(repr, state["left_out"]))
            hint = "numbers, text, arrays, and lists, tuples, sets and dicts of them can be stored"
            warnings.warn(f"{path}: what its {role} remembers in {names} is not in the file; {hint}", stacklevel=5)


def _restore(owner: Any, state: Mapping[str, Any]) -> None:
    own: dict[str, Any] = getattr(owner, "__dict__", {})
    for name in [*own] if "names" in state else ():  # which a checkpoint of an earlier version does not have
        if name not in state["names"]:
            object.__delattr__(owner, name)
    for name, value in state["values"].items():
        here: Any = getattr(owner, name, None)
        if isinstance(value, dict) and "object" in value:
            _restore(here, value["object"])
            continue
        made = _decoded(value)
        arrays = type(made) is type(here) is np.ndarray
        if arrays and (here.shape, here.dtype, here.flags.writeable) == (made.shape, made.dtype, True):
            here[...] = made  # others may be views of it
        else:
            object.__setattr__(owner, name, made)


def _owner(given: Any) -> Any:
    while isinstance(given, partial):
        given = given.func
    return given.__self__ if isinstance(given, MethodType) else given


def _state(owner: Any, seen: set[int]) -> dict[str, Any]:
    values, left_out, own = dict[str, Any](), list[str](), getattr(owner, "__dict__", {})
    if isinstance(owner, FunctionType | type) or is_of_nnkit(type(owner)):
        return {"values": values, "left_out": left_out}
    seen.add(id(owner))
    written = written_by_methods(type(owner))  # also of slots
    for name in sorted({*own, *(name for name in written if hasattr(owner, name))}):
        value = own[name] if name in own else getattr(owner, name)
        try:
            values[name] = _encoded(value, seen)
        except TypeError:
            inner = _state(value, seen) if _has_state(value) and id(value) not in seen else None
            if inner is not None and not (name in written and name in own):
                values[name] = {"object": inner}
                left_out += [f"{name}.{each}" for each in inner["left_out"]]
            elif name in written or _changes(value):
                left_out.append(name)
    return {"values": values, "left_out": left_out, "names": sorted(own)}


def _has_state(value: Any) -> bool:
    """Whether a value is an object of a class of the user's, with attributes, that is not a container or array."""
    return hasattr(value, "__dict__") and not (
        isinstance(value, FunctionType | type | ModuleType | MethodType | partial)
        or is_of_nnkit(type(value))
        or _changes(value)
    )


def _changes(value: Any) -> bool:
    return isinstance(value, _CONTAINERS) or hasattr(type(value), "__next__") or type(value).__name__ in _GENERATORS


def _encoded(value: Any, seen: set[int]) -> Any:
    """A value for JSON, from which `_decoded` makes an equal one; TypeError for others, also for one object twice."""
    kind = type(value)
    if kind in (NoneType, bool, int, float, str):
        return value
    if (kind is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind in "biuf":
        values = [value.dtype.name, list(value.shape), np.ravel(value).tolist()]
        name = "array" if kind is np.ndarray else "number"
    elif kind in (list, tuple, set):
        values, name = [_encoded(each, seen) for each in value], kind.__name__
    elif kind is dict:
        values, name = [[_encoded(each, seen) for each in pair] for pair in value.items()], "dict"
    else:
        raise TypeError(kind.__name__)
    if name not in ("tuple", "number") and id(value) in seen:
        raise TypeError("one object twice")
    seen.add(id(value))
    return {name: values}


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((name, values),) = value.items()
    if name in ("array", "number"):
        made = np.array(values[2], values[0]).reshape(values[1])
        return made if name == "array" else made[()]
    if name == "dict":
        return {_decoded(key): _decoded(each) for key, each in values}
    return {"list": list, "tuple": tuple, "set": set}[name](map(_decoded, values))
