"""The arrays and numbers that a custom optimizer's state holds in its attributes, also in lists and dicts there."""

import warnings
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np

from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.selection import owner_of
from nnkit.parameters import Parameters

_NAMES = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
_DTYPES = {"bool", "float16", "bfloat16", "float32", "float64", *_NAMES}  # which files contain
_NUMBERS = (bool, int, float, np.generic)


class Held:
    """A value in an attribute, or in a list, tuple or dict there, and where it is.

    `tuple` is where the tuple is that has the value, which is replaced by another one.
    """

    def __init__(self, holder: Any, key: Any, backend: Backend, is_attribute: bool = False, tuple_: Any = None) -> None:
        self._holder, self.key, self.backend, self.is_attribute = holder, key, backend, is_attribute
        self.tuple: Held | None = tuple_

    @property
    def value(self) -> Any:
        return (self._holder if self.tuple is None else self.tuple.value)[self.key]

    @property
    def array(self) -> Array:
        """The value as an array of the backend: itself, or a new one for a number, or an array on the host."""
        value = self.value
        if isinstance(value, _NUMBERS):
            return self.backend.asarray(np.asarray(value))
        return value if owner_of(value) is self.backend else self.backend.asarray(value)

    def set(self, value: Array) -> None:
        """Set it: the entries of an array of this shape and dtype, else the value itself."""
        here = self.value
        if isinstance(here, _NUMBERS):
            number = np.asarray(self.backend.to_numpy(value))
            self._assign(type(here)(number.item()) if number.shape == () else value)
            return
        if isinstance(here, np.ndarray) and not isinstance(value, np.ndarray):
            value = np.array(self.backend.to_numpy(value))  # on the host also here
        if here is None or (here.shape, here.dtype) != (value.shape, value.dtype):
            self._assign(value)
        elif isinstance(here, np.ndarray):
            here[...] = value
        else:
            self.backend.copy(value, here)

    def _assign(self, value: Any) -> None:
        if self.tuple is None:
            self._holder[self.key] = value
            return
        entries, kind = list(self.tuple.value), type(self.tuple.value)
        entries[self.key] = value
        self.tuple._assign(kind(*entries) if hasattr(kind, "_fields") else kind(entries))

    def drop(self) -> None:
        """Remove it: from an attribute, which becomes None, or a list or dict; a tuple as a whole."""
        if self.tuple is not None:
            self.tuple.drop()
        elif self.is_attribute:
            self._holder[self.key] = None
        elif isinstance(self._holder, dict):
            self._holder.pop(self.key, None)
        else:
            del self._holder[self.key]


def held(state: Any, without: frozenset[str]) -> dict[str, Held]:
    """The arrays and numbers of a state by name, with dots for those in containers, without these attributes."""
    own = [(name, value) for name, value in vars(state).items() if name not in without]
    return {
        name: each
        for attribute, value in own
        for name, each in _found(Held(vars(state), attribute, state.backend, True), attribute, value, ())
    }


def _found(place: Held, name: str, value: Any, above: tuple[int, ...]) -> Iterator[tuple[str, Held]]:
    if isinstance(value, Parameters):
        yield name, Held(vars(value), "flat", place.backend, True)
    elif isinstance(value, list | dict | tuple) and id(value) not in above:
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            inner = Held(value, key, place.backend, tuple_=place if isinstance(value, tuple) else None)
            yield from _found(inner, f"{name}.{key}", each, (*above, id(value)))
    elif _is_kept(value):
        yield name, place


def _is_kept(value: Any) -> bool:
    if isinstance(value, bool | float) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63):
        return True
    is_array = isinstance(value, np.generic) or owner_of(value) is not None
    return is_array and dtype_name(value.dtype) in _DTYPES


_NOT_KEPT = (str, bytes, NoneType, Parameters, Backend, FunctionType, MethodType, type, ModuleType, list, dict, tuple)


def warn_of_others(state: Any, without: frozenset[str]) -> None:
    """Warn of attributes with what copies and files of the state will not have."""
    names = {name.partition(".")[0] for name in held(state, without)}
    for name, value in vars(state).items():
        if name not in without and name not in names and not isinstance(value, _NOT_KEPT):
            what = f"{type(state).__name__}: its attribute {name!r} is a {type(value).__name__}"
            hint = "keep arrays and numbers, also in lists and dicts, or override arrays"
            warnings.warn(f"{what}, which copies, pickles and resumed trainings will not have; {hint}", stacklevel=5)


def made_place(state: Any, name: str) -> Held | None:
    """Where a value is set that the state does not have yet: in an attribute that is None, or a list or dict."""
    *path, key = name.split(".")
    holder: Any = vars(state)
    for part in path:
        if isinstance(holder, list) and part.isdigit() and int(part) < len(holder):
            holder = holder[int(part)]
        else:
            holder = holder.get(part) if isinstance(holder, dict) else None
    if isinstance(holder, list) and key == str(len(holder)):
        holder.append(None)
        return Held(holder, int(key), state.backend)
    if isinstance(holder, dict) and path and all(isinstance(each, str) for each in holder):
        holder[key] = None
        return Held(holder, key, state.backend)
    if not path and name in holder and holder[name] is None:
        return Held(holder, name, state.backend, True)
    return None
