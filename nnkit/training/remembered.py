"""What users' schedules and metrics remember in their attributes: a resumed training goes on with it.

What can be written as JSON is stored and restored. Independently of that, a digest of everything is stored and compared
after restoring, so that a difference is always told.
"""

import copyreg
import hashlib
import io
import pickle
import sys
import threading
import warnings
import weakref
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import (
    BuiltinFunctionType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
    SimpleNamespace,
)
from typing import Any

import numpy as np

from nnkit.backends.selection import owner_of
from nnkit.checks import is_of_nnkit
from nnkit.inputs import on_host
from nnkit.model import Model
from nnkit.schedules import Schedule
from nnkit.training.fingerprints import always_there

_PLAIN = (NoneType, bool, int, float, complex, str, bytes)
_NAMED = (FunctionType, BuiltinFunctionType, type, ModuleType)
_EMPTY = (type(threading.Lock()), type(threading.RLock()), weakref.ref)
_PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__")
_DEPTH = 16  # of objects in objects
_LARGEST = 1 << 20  # numbers in an array or list in the file


def remembered(objects: Mapping[str, Any], model: Model) -> dict[str, dict[str, Any]]:
    """By the role of each object: the values of its attributes, for JSON, and digests of all of them.

    Numbers, text, arrays of numbers, and lists, tuples, sets and dicts of them have values, but not classes derived
    from these; so do the attributes of objects in attributes. The digests are also of other attributes and of those of
    the classes. Functions have none of either, and the model that is trained has none.
    """
    walk = _walked(objects)
    digests = walk.digests(model)
    return {role: {"values": walk.values(role), "digests": digests[role]} for role in digests}


def recall(objects: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], path: str, model: Model) -> None:
    """Set the attributes of these objects to what `remembered` returned; warns of those that are different then."""
    states = {role: state for role, state in states.items() if role in objects}
    walk = _walked(objects)
    for role, state in states.items():
        walk.restore(role, state["values"], state["digests"].keys())
    digests = _walked(objects).digests(model)
    for role, state in states.items():
        wanted, found = state["digests"], digests.get(role, {})
        names = [each for each in sorted(wanted | found) if wanted.get(each) is None or wanted[each] != found.get(each)]
        if names:
            hint = "numbers, text, arrays, and lists, tuples, sets and dicts of them can be stored"
            told = ", ".join(map(repr, names))
            warnings.warn(f"{path}: what its {role} remembers in {told} is not in the file; {hint}", stacklevel=5)


@dataclass
class _Walk:
    """Objects by role and the path of attributes that leads to each, and the attributes that are no such objects."""

    holders: dict[tuple[str, str], Any] = field(default_factory=dict)
    leaves: dict[tuple[str, str], Any] = field(default_factory=dict)
    of_classes: dict[tuple[str, str], Any] = field(default_factory=dict)

    def add(self, role: str, path: str, holder: Any) -> None:
        self.holders[role, path] = holder
        for kind in type(holder).__mro__:
            if not (is_of_nnkit(kind) or _is_pythons(kind)):
                self.of_classes |= {(role, f"{kind.__name__}.{name}"): value for name, value in _data(kind)}
        for name, value in _attributes(holder).items():
            at = f"{path}.{name}" if path else name
            self.leaves[role, at] = value
            known = any(value is each for each in self.holders.values())
            if _has_state(value) and not known and at.count(".") < _DEPTH:
                self.add(role, at, value)

    def values(self, role: str) -> dict[str, Any]:
        found = {}
        for (of, path), value in self.leaves.items():
            try:
                if of == role:
                    found[path] = _encoded(value)
            except (TypeError, RecursionError):  # it has a digest
                continue
        return found

    def digests(self, model: Model) -> dict[str, dict[str, str | None]]:
        """By role and path; None for a value that has no digest, such as an open file."""
        recorder = _Recorder(self.holders, model)
        # Also of an object that has deleted its only attribute.
        found: dict[str, dict[str, str | None]] = {role: {} for role, _ in self.holders}
        for (role, path), value in (self.leaves | self.of_classes).items():
            found.setdefault(role, {})[path] = recorder.digest(value, f"{role} {path}")
        return found

    def restore(self, role: str, values: Mapping[str, Any], known: Container[str]) -> None:
        """Set values, in place where others may have the same object; delete attributes made after the checkpoint."""
        for of, path in self.leaves:
            above, _, name = path.rpartition(".")
            holder = self.holders[of, above]
            if of == role and path not in known and name not in always_there(type(holder)):
                object.__delattr__(holder, name)
        for path, value in values.items():
            above, _, name = path.rpartition(".")
            if (role, above) in self.holders:
                _set(self.holders[role, above], name, value)


def _walked(objects: Mapping[str, Any]) -> _Walk:
    walk = _Walk()
    for role in sorted(objects):
        owner = objects[role]
        while isinstance(owner, partial):
            walk.of_classes |= {(role, "args"): owner.args, (role, "keywords"): owner.keywords}
            owner = owner.func
        owner = owner.__self__ if isinstance(owner, MethodType) else owner
        if not isinstance(owner, FunctionType | type) and not is_of_nnkit(type(owner)):
            walk.add(role, "", owner)
            if items := _items(owner):
                walk.of_classes[role, "items"] = items
    return walk


def _attributes(holder: Any) -> dict[str, Any]:
    """The attributes of an object by name, also those in slots."""
    found = {name: getattr(holder, name) for name in _slots(type(holder)) if hasattr(holder, name)}
    found |= getattr(holder, "__dict__", {})
    return {name: found[name] for name in sorted(found, key=str)}


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        yield from (name for name, each in vars(base).items() if isinstance(each, MemberDescriptorType))


def _data(kind: type) -> Iterator[tuple[str, Any]]:
    """The attributes of a class that are data: neither methods nor what Python itself keeps there."""
    for name, value in sorted(vars(kind).items()):
        if not (hasattr(value, "__get__") or name.startswith(("__", "_abc_"))):
            yield name, value


def _is_pythons(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names


def _has_state(value: Any) -> bool:
    """Whether a value is an object that has attributes and nothing else, which are restored one by one."""
    kind = type(value)
    if isinstance(value, _NAMED) or (_is_pythons(kind) and kind is not SimpleNamespace):
        return False
    plainly = all(getattr(kind, name, None) is getattr(object, name, None) for name in _PICKLING)
    if not (plainly or isinstance(value, Schedule | SimpleNamespace)):
        return False
    return bool(_attributes(value)) and not _items(value)


def _reduced(value: Any) -> list[Any]:
    """What pickle makes of a value: a function, its arguments, the state and the entries; or only a name."""
    reduces = copyreg.dispatch_table.get(type(value))
    found = value.__reduce_ex__(4) if reduces is None else reduces(value)
    return [found] if isinstance(found, str) else [*found[:3], *(list(each) for each in found[3:5] if each)]


def _items(value: Any) -> list[Any]:
    """What a value has beside attributes: the entries of a list or dict that its class is derived from, or a number."""
    try:
        _, arguments, *others = _reduced(value)
    except Exception:  # it cannot be pickled, or by its name
        return []
    return [*arguments[1:], *others[1:]]


def _set(holder: Any, name: str, value: Any) -> None:
    own = _attributes(holder)
    here: Any = own.get(name)
    try:
        if name in own and repr(_encoded(here)) == repr(value):
            return
    except (TypeError, RecursionError):  # it is replaced
        pass
    made: Any = _decoded(value)
    if type(made) is type(here) is np.ndarray and _fits(here, made):
        here[...] = made
    elif type(made) is type(here) is list:
        here[:] = made
    elif type(made) is type(here) and isinstance(here, dict | set):
        here.clear()
        here.update(made)
    elif name in _slots(type(holder)):
        object.__setattr__(holder, name, made)
    else:
        vars(holder)[name] = made


def _fits(here: np.ndarray, made: np.ndarray) -> bool:
    return (here.shape, here.dtype, here.flags.writeable) == (made.shape, made.dtype, True)


def _encoded(value: Any) -> Any:
    """A value for JSON, from which `_decoded` makes an equal one; TypeError for others."""
    kind = type(value)
    if kind in (NoneType, bool, float, str) or (kind is int and value.bit_length() < 1 << 12):
        return value
    if (kind is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind in "biuf" and value.size <= _LARGEST:
        values = [value.dtype.name, list(value.shape), np.ravel(value).tolist()]
        name = "array" if kind is np.ndarray else "number"
    elif kind in (list, tuple, set) and len(value) <= _LARGEST:
        values, name = [_encoded(each) for each in value], kind.__name__
    elif kind is dict and len(value) <= _LARGEST:
        values, name = [[_encoded(each) for each in pair] for pair in value.items()], "dict"
    else:
        raise TypeError(kind.__name__)
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


class _Recorder(pickle.Pickler):
    """Digests of values by what pickle finds in them, also of which mutable objects are one and the same.

    Equal text, numbers and tuples of them have equal digests, though pickle distinguishes whether they are one object.
    """

    def __init__(self, holders: Mapping[tuple[str, str], Any], model: Model) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, 5)
        self._model = model
        self._holders = {id(holder): f"{role} {path}" for (role, path), holder in holders.items()}
        self._owners = dict[int, tuple[Any, str]]()  # of memory, with the first name of each
        self._name = ""

    def digest(self, value: Any, name: str) -> str | None:
        self._name = name
        self._bytes.seek(0)
        self._bytes.truncate()
        try:
            self.dump(value)
        except Exception:  # whatever the class of a user's object raises where it cannot be pickled
            return None
        return hashlib.blake2b(self._bytes.getvalue(), digest_size=8).hexdigest()

    def persistent_id(self, value: Any) -> str | None:
        """What stands for a value in place of its pickle; always new text, as pickle notes which text is the same."""
        kind = type(value)
        if id(value) in self._holders:
            return f"object {kind.__qualname__} {self._holders[id(value)]}"
        if kind in _PLAIN or isinstance(value, np.generic):
            return f"{kind.__name__} {hex(value) if kind is int else value!r}"
        if isinstance(value, Enum):
            return f"{kind.__qualname__}.{value.name}"
        if isinstance(value, _NAMED) and isinstance(getattr(value, "__self__", None), NoneType | ModuleType):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
        if kind is tuple:
            parts = [self.persistent_id(each) for each in value]
            return None if None in parts else f"tuple {parts}"
        if kind in (set, frozenset):
            return f"{kind.__name__} {sorted(map(repr, value))}"
        if not isinstance(value, np.ndarray) and owner_of(value) is not None:
            value = on_host(value.detach() if hasattr(value, "detach") else value)  # PyTorch's, with a gradient
        if type(value) is np.ndarray and not value.dtype.hasobject:
            return f"array {value.dtype.str} {value.shape} {_digest(value)} in {self._memory(value)}"
        if isinstance(value, _EMPTY) or value is self._model:
            return f"a {kind.__qualname__}"
        return None

    def reducer_override(self, value: Any) -> Any:
        """As pickle does it, but all parts are a state, which may contain the object itself."""
        parts = _reduced(value)
        return _Recorder, (f"{type(value).__qualname__} {len(parts)}",), parts

    def _memory(self, array: np.ndarray) -> str:
        owner: Any = array
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        return self._owners.setdefault(id(owner), (owner, self._name))[1]


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()
