"""What of an optimizer's state goes on in copies, files and undone epochs.

Of a custom one these are also the arrays and numbers in its attributes, and in lists, tuples and dicts there.
"""

import warnings
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np

from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.selection import owner_of
from nnkit.checks import is_of_nnkit
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


_NOT_KEPT = (str, bytes, NoneType, Parameters, Backend, FunctionType, MethodType, type, ModuleType, list, dict, tuple)
_OWN = frozenset(  # the attributes of OptimizerState itself
    (
        "optimizer", "backend", "dtype", "options", "rate", "numbers", "vectors", "factors", "average", "share",
        "samples", "recordable", "_given", "_later", "_constants", "_squares", "_parts",
    )
)  # fmt: skip


class Kept:
    """The part of `OptimizerState` that says what goes on, and sets it as of another state."""

    backend: Backend

    @property
    def arrays(self) -> dict[str, Array]:
        raise NotImplementedError

    @property
    def averages(self) -> dict[str, Array]:
        raise NotImplementedError

    @property
    def is_custom(self) -> bool:
        """Whether the class is a user's, whose arrays may be others after each update."""
        return not is_of_nnkit(type(self))

    @property
    def kept(self) -> dict[str, Array]:
        """All that goes on in copies, files and other placements: `arrays`, averages, and what attributes hold.

        Raises ValueError if `arrays` has a name of the averages.
        """
        own, averages = self.arrays, self.averages
        for name in own.keys() & averages.keys():
            raise ValueError(f"{type(self).__name__}.arrays: {name!r} is that of the averages by `ema`; rename it")
        return {name: each.array for name, each in self._held().items()} | own | averages

    def _held(self) -> dict[str, Held]:
        """The arrays and numbers in the attributes that a subclass adds."""
        return held(self, _OWN) if self.is_custom else {}

    def check_kept(self) -> None:
        """Warn of attributes that are not `kept`, unless a subclass says by `arrays` what is.

        Raises ValueError for a copy in `arrays` that cannot be set.
        """
        places, again = self._held(), self.arrays
        for name, array in self.arrays.items():
            if array is not again[name] and name not in places:
                what = f"{type(self).__name__}.arrays: {name!r} is a copy"
                raise ValueError(f"{what}; expected the array itself, or the name of its attribute")
        says = any("arrays" in vars(base) and not is_of_nnkit(base) for base in type(self).__mro__)
        if says or not self.is_custom:
            return
        kept = _OWN.union(name.partition(".")[0] for name in places)
        for name, value in vars(self).items():
            if name not in kept and not isinstance(value, _NOT_KEPT):
                what = f"{type(self).__name__}: its attribute {name!r} is a {type(value).__name__}"
                lost = "which copies, pickles and resumed trainings will not have"
                hint = "keep arrays and numbers, also in lists and dicts, or override arrays"
                warnings.warn(f"{what}, {lost}; {hint}", stacklevel=4)

    def fill(self, values: Mapping[str, Array]) -> None:
        """Set all that is `kept`, as of another state: the entries of arrays, or attributes themselves.

        The latter for numbers, and where a custom state assigns arrays of another shape or dtype, or makes them in its
        first update; they need an attribute with their name. What has no value was made since: an attribute becomes
        None, an entry of a list or dict is removed. Raises ValueError for an array without attribute.

        Args:
            values: arrays of this backend by name, which the state may keep.
        """
        (own, again), places = (self.kept for _ in range(2)), self._held()
        for name in sorted(places.keys() - values.keys(), key=_in_order, reverse=True):
            places[name].drop()
        for name in sorted(values, key=_in_order):
            value, array = values[name], own.get(name)
            live: Any = array if array is not None and array is again.get(name) else None  # not a copy of `arrays`
            same = live is not None and (live.shape, live.dtype) == (value.shape, value.dtype)
            if same and not isinstance(live, np.generic):
                self.backend.copy(value, live)
                continue
            place = places.get(name) or made_place(self, name)
            attributes = [attribute for attribute, there in vars(self).items() if live is not None and there is live]
            if place is not None:
                place.set(value)
            elif attributes:
                for attribute in attributes:
                    setattr(self, attribute, value)
            else:
                raise ValueError(f"{type(self).__name__}.arrays: {name!r} is not an attribute of this name")


def _in_order(name: str) -> list[tuple[int, str]]:
    """For entries of a list in its order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
