"""What users' schedules and metrics remember in their attributes: a resumed training goes on with it."""

import warnings
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from nnkit.training.fingerprints import written_by_methods


def remembered(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By the role of each object: the values of its attributes that change, and the names of those left out.

    These are attributes that a method assigns, except for `__init__`, and lists and dicts; numbers, text, and lists and
    dicts of them are stored.
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
            as_tuple = isinstance(getattr(owner, name, None), tuple)
            object.__setattr__(owner, name, tuple(value) if as_tuple else value)
        if state["left_out"]:
            names = ", ".join(map(repr, state["left_out"]))
            hint = "numbers, text, lists and dicts can be stored"
            warnings.warn(f"{path}: what its {role} remembers in {names} is not in the file; {hint}", stacklevel=5)


def _owner(given: Any) -> Any:
    return given.__self__ if isinstance(given, MethodType) else given


def _state(given: Any) -> dict[str, Any]:
    owner = _owner(given)
    values, left_out = dict[str, Any](), list[str]()
    if isinstance(owner, FunctionType | type) or type(owner).__module__.startswith("nnkit."):
        return {"values": values, "left_out": left_out}
    names = written_by_methods(type(owner))
    names |= {name for name, value in getattr(owner, "__dict__", {}).items() if isinstance(value, list | dict)}
    for name in sorted(name for name in names if hasattr(owner, name)):
        try:
            values[name] = _plain(getattr(owner, name))
        except TypeError:
            left_out.append(name)
    return {"values": values, "left_out": left_out}


def _plain(value: Any) -> Any:
    """A copy that JSON keeps; TypeError for what it cannot keep."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic) and isinstance(value.item(), bool | int | float | str):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(each) for key, each in value.items()}
    raise TypeError(type(value).__name__)
