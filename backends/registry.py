"""The registry of backends by name; each is created on first use."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnkit.backends.base import Backend
from nnkit.backends.errors import UnknownBackendError

Factory = Callable[[str], Backend]
Owner = Callable[[Any], "str | None"]


@dataclass(frozen=True, slots=True)
class _Entry:
    make: Factory
    owner: Owner


# Types that every backend accepts and none owns.
NEUTRAL = (float, int, bool, list, tuple, type(None), np.generic)

_entries: dict[str, _Entry] = {}
_made: dict[str, Backend] = {}
_lock = threading.RLock()


def _forked() -> None:
    """Replace the lock in a child process, which lacks the thread that may hold it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def register_backend(name: str, make: Factory, owner: Owner) -> None:
    """Register a custom backend under a name.

    Args:
        name: letters, digits, `-` and `_`; users select it with `use_backend(name)` or `NNKIT_BACKEND`.
        make: called once with the part after the colon of `"name:detail"` (or `""`); returns the `Backend`, or raises
            `BackendUnavailableError` with a message that says what is missing.
        owner: takes any array and returns the full name (`"name"` or `"name:detail"`) of the backend that owns it, or
            None. It must be fast and must not import libraries.

    Raises ValueError if the name is taken or malformed, TypeError if `make` or `owner` is not a function.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; expected a string")
    for argument, function in (("make", make), ("owner", owner)):
        if not callable(function):
            raise TypeError(f"{argument} is {function!r}; expected a function")
    if not name.replace("-", "").replace("_", "").isalnum() or name == "auto":
        raise ValueError(f"backend name {name!r}: expected letters, digits, - or _, and not 'auto'")
    with _lock:
        if name in _entries:
            raise ValueError(f"backend name {name!r} is taken; unregister_backend({name!r}) frees it")
        _entries[name] = _Entry(make, owner)


def unregister_backend(name: str) -> None:
    """Remove a registered backend; raises KeyError if there is none with this name."""
    with _lock:
        del _entries[name]
        for full in [full for full in _made if full.partition(":")[0] == name]:
            del _made[full]


def backend_names() -> list[str]:
    """The names that can be selected, except `auto`."""
    return list(_entries)


def make_backend(full_name: str) -> Backend:
    """The backend with a name such as `"cupy:1"`, created on first use."""
    backend = _made.get(full_name)
    if backend is not None:
        return backend
    name, _, detail = full_name.partition(":")
    if name not in _entries:
        known = ", ".join([*_entries, "auto"])
        raise UnknownBackendError(f"unknown backend {full_name!r}; known: {known}")
    with _lock:
        if full_name not in _made:
            made = _entries[name].make(detail)
            if made.name.partition(":")[0] != name:
                raise ValueError(f"the backend made for {full_name!r} has the name {made.name!r}; expected {name!r}")
            _made[full_name] = _made.setdefault(made.name, made)  # "cupy" and "cupy:0" are the same
        return _made[full_name]


def owner_of(array: Any) -> Backend | None:
    """The backend that owns an array, or None if the argument is not an array."""
    if type(array) is np.ndarray:
        return make_backend("numpy")
    if isinstance(array, NEUTRAL):
        return None
    # The latest first, and "standard" last, since it accepts any array of the array API standard.
    names = [name for name in reversed([*_entries]) if name != "standard"]
    for entry in [_entries.get(name) for name in [*names, "standard"]]:
        full_name = None if entry is None else entry.owner(array)
        if full_name is not None:
            return make_backend(full_name)
    return None
