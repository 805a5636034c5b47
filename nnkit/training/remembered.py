"""What users' schedules and metrics remember in their attributes: a resumed training goes on with it."""

import warnings
from collections import deque
from collections.abc import Mapping
from functools import partial
from types import FunctionType, MethodType, NoneType
from typing import Any

import numpy as np

from nnkit.training.fingerprints import is_of_nnkit, written_by_methods

_CONTAINERS = (list, dict, set, deque, np.ndarray)
_GENERATORS = ("Generator", "RandomState", "Random")  # by name, as an import of numpy.random takes time


def remembered(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By the role of each object: the values of its attributes that change, for JSON, and the names of those left out.

    These are attributes that a method assigns, except for `__init__`, and containers. Numbers, text, arrays of numbers,
    and lists, tuples, sets and dicts of them are stored, but not classes derived from these.
    """
    found = {role: _state(given) for role, given in objects.items()}
    return {role: state for role, state in found.items() if state["values"] or state["left_out"]}


def recall(objects: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], path: str) -> None:
    """Set the attributes of these objects to what `remembered` returned; warns of those left out."""
    for role, state in states.items():
        if role not in objects:
            continue
        owner = _owner(objects[role])
        for name, value in state["values"].items():
            object.__setattr__(owner, name, _decoded(value))
        if state["left_out"]:
            names = ", ".join(map(repr, state["left_out"]))
            hint = "numbers, text, arrays, and lists, tuples, sets and dicts of them can be stored"
            warnings.warn(f"{path}: what its {role} remembers in {names} is not in the file; {hint}", stacklevel=5)


def _owner(given: Any) -> Any:
    while isinstance(given, partial):
        given = given.func
    return given.__self__ if isinstance(given, MethodType) else given


def _state(given: Any) -> dict[str, Any]:
    owner = _owner(given)
    values, left_out, seen = dict[str, Any](), list[str](), set[int]()
    if not isinstance(owner, FunctionType | type) and not is_of_nnkit(type(owner)):
        names = written_by_methods(type(owner))
        names |= {name for name, value in getattr(owner, "__dict__", {}).items() if _changes(value)}
        for name in sorted(name for name in names if hasattr(owner, name)):
            try:
                values[name] = _encoded(getattr(owner, name), seen)
            except TypeError:
                left_out.append(name)
    return {"values": values, "left_out": left_out}


def _changes(value: Any) -> bool:
    return isinstance(value, _CONTAINERS) or type(value).__name__ in _GENERATORS


def _encoded(value: Any, seen: set[int]) -> Any:
    """A value for JSON, from which `_decoded` makes an equal one; TypeError for others, also for one object twice."""
    kind = type(value)
    if kind in (NoneType, bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic) and kind.__module__ == "numpy" and value.dtype.kind in "biuf":
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
