"""Which backend computes: the known names, the selected one, and the owner of a call's arrays.

A backend is selected by argument > using_backend() > use_backend() > NNKIT_BACKEND > numpy. Arrays decide for
themselves: the backend of a call is the one of its arrays.
"""

import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.backends.base import Backend
from nnkit.backends.errors import (
    BackendFallbackWarning,
    BackendMismatchError,
    BackendUnavailableError,
    UnknownBackendError,
)

Factory = Callable[[str], Backend]
Owner = Callable[[Any], "str | None"]


@dataclass(frozen=True, slots=True)
class _Entry:
    make: Factory
    owner: Owner


# Types that every backend accepts and none owns.
NEUTRAL = (float, int, bool, list, tuple, type(None), np.generic)

_entries: dict[str, _Entry] = {}
_asked: tuple[_Entry, ...] = ()  # who owns an array
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
        _ask_in_order()


def unregister_backend(name: str) -> None:
    """Remove a registered backend; raises KeyError if there is none with this name."""
    with _lock:
        del _entries[name]
        _ask_in_order()
        for full in [full for full in _made if full.partition(":")[0] == name]:
            del _made[full]


def _ask_in_order() -> None:
    """Ask the latest first, and "standard" last, since it accepts any array of the array API standard."""
    global _asked
    latest = [name for name in reversed(_entries) if name != "standard"]
    _asked = tuple(_entries[name] for name in (*latest, "standard") if name in _entries)


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
    for entry in _asked:
        full_name = entry.owner(array)
        if full_name is not None:
            return make_backend(full_name)
    return None


_context: ContextVar[Backend | None] = ContextVar("nnkit_backend", default=None)
_process: Backend | None = None
_auto: Backend | None = None


def get_backend(name: str | Backend | None = None) -> Backend:
    """The backend with this name; without a name, the currently selected backend.

    Names are `numpy`, `cupy`, `cupy:1` for a device, `standard:NAMESPACE` for any array API namespace, `auto`, and
    registered ones (`register_backend`). Raises BackendUnavailableError, which says what is missing, if it is not
    available.

    >>> get_backend("numpy").name
    'numpy'
    """
    if isinstance(name, Backend):
        return name
    if name is not None:
        if not isinstance(name, str):
            raise TypeError(f"name is {name!r}; expected the name of a backend, such as 'numpy', or a Backend")
        return _resolve(name, "")
    selected = _context.get() or _process
    if selected is not None:
        return selected
    variable = os.environ.get("NNKIT_BACKEND", "").strip()
    return _resolve(variable, "NNKIT_BACKEND: ") if variable else make_backend("numpy")


def use_backend(name: str | Backend | None) -> None:
    """Select a backend for the whole process; None restores NNKIT_BACKEND.

    Existing networks and arrays are not moved. Raises BackendUnavailableError, without a change of the selection, if
    the backend is not available.
    """
    global _process
    _process = None if name is None else get_backend(name)


def using_backend(name: str | Backend) -> AbstractContextManager[Backend]:
    """Select a backend inside a `with` block, for this thread or asyncio task only.

    Raises TypeError if `name` is neither a name nor a Backend, and BackendUnavailableError if it is not available.

    >>> with using_backend("numpy") as backend:
    ...     backend is get_backend()
    True
    """
    if name is None:
        raise TypeError("name is None; expected the name of a backend, such as 'numpy', or a Backend")
    return _using(get_backend(name))


@contextmanager
def _using(backend: Backend) -> Iterator[Backend]:
    token = _context.set(backend)
    try:
        yield backend
    finally:
        _context.reset(token)


def _resolve(name: str, source: str) -> Backend:
    try:
        return _automatic() if name == "auto" else make_backend(name)
    except BackendUnavailableError as error:
        raise type(error)(f"{source}{error}") from error.__cause__


def _automatic() -> Backend:
    """CuPy if available, else NumPy, with a warning that gives the reason once."""
    global _auto
    if _auto is None:
        try:
            _auto = make_backend("cupy")
        except BackendUnavailableError as error:
            _auto = make_backend("numpy")
            warnings.warn(f"backend 'auto' uses numpy: {error}", BackendFallbackWarning, stacklevel=4)
    return _auto


_NUMPY = {np.ndarray, type(None)}


def backend_of(**arguments: Any) -> Backend:
    """The backend that owns these arrays; the selected backend if they are all numbers, lists or None.

    Raises BackendMismatchError, which names both arguments, if the arrays belong to two backends.

    >>> backend_of(x=np.zeros(3), slope=0.5).name
    'numpy'
    """
    kinds = set(map(type, arguments.values()))
    if np.ndarray in kinds and kinds <= _NUMPY:  # nearly always on the CPU
        return _made.get("numpy") or make_backend("numpy")
    found: Backend | None = None
    owner = ""
    for name, value in arguments.items():
        if value is None:
            continue
        for array in _arrays(name, value):
            backend = owner_of(array)
            if backend is None:
                raise _foreign(name, array)
            if found is None:
                found, owner = backend, name
            elif backend is not found:
                raise BackendMismatchError(
                    f"{owner} is on backend {found.name!r} and {name} on {backend.name!r}; "
                    f"expected one backend: for example, use nnkit.get_backend({found.name!r}).asarray({name})"
                )
    return get_backend() if found is None else found


def _arrays(name: str, value: Any) -> tuple[Any, ...]:
    """The arrays in an argument: none for a number or a list, each array of a tuple of results."""
    if name == "out":
        outs = value if isinstance(value, tuple) else (value,)
        for out in outs or ((),):
            if isinstance(out, NEUTRAL):
                raise TypeError(f"out is or holds a {type(out).__name__}; expected an array, or a tuple of arrays")
        return outs
    return () if isinstance(value, NEUTRAL) else (value,)


def _foreign(name: str, value: Any) -> TypeError:
    # An array of another library: the "standard" backend recognizes it only with array-api-compat.
    foreign = hasattr(value, "__dlpack__") and importlib.util.find_spec("array_api_compat") is None
    hint = "; for arrays of other libraries: python -m pip install array-api-compat" if foreign else ""
    return TypeError(f"{name} is a {type(value).__name__}; expected an array, a list or a number{hint}")


def switch(variable: str, default: bool) -> bool:
    """Whether an environment variable is 1, or if it is unset or empty the default; ValueError if it is not 0 either.

    >>> switch("NNKIT_CUDA_GRAPHS", True)
    True
    """
    value = os.environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{variable} is {value!r}; expected 0 or 1")
    return value == "1" if value else default


def cache_folder() -> Path:
    r"""nnkit's cache directory, the same as `pooch.os_cache("nnkit")`, without importing pooch.

    As defined by platformdirs, which pooch uses: %LOCALAPPDATA%\nnkit\nnkit\Cache on Windows; elsewhere nnkit in the
    directory XDG_CACHE_HOME if that is set, or else in ~/Library/Caches on macOS and in ~/.cache on other systems.
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or os.path.join("~", "AppData", "Local")
        return Path(os.path.expanduser(local), "nnkit", "nnkit", "Cache")
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    usual = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(chosen if os.path.isabs(chosen) else os.path.expanduser(usual), "nnkit")
