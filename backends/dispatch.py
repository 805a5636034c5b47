"""Dispatch: the backend of a call is the backend of its arrays."""

import importlib.util
from typing import Any

import numpy as np

from nnkit.backends import registry, selection
from nnkit.backends.base import Backend
from nnkit.backends.errors import BackendMismatchError

_NUMPY = {np.ndarray, type(None)}


def backend_of(**arguments: Any) -> Backend:
    """The backend that owns these arrays; the selected backend if they are all numbers, lists or None.

    Raises BackendMismatchError, which names both arguments, if the arrays belong to two backends.

    >>> backend_of(x=np.zeros(3), slope=0.5).name
    'numpy'
    """
    kinds = set(map(type, arguments.values()))
    if np.ndarray in kinds and kinds <= _NUMPY:  # nearly always on the CPU
        return registry.make_backend("numpy")
    found: Backend | None = None
    owner = ""
    for name, value in arguments.items():
        for array in _arrays(name, value):
            backend = _owner(name, array)
            if found is None:
                found, owner = backend, name
            elif backend is not found:
                raise BackendMismatchError(
                    f"{owner} is on backend {found.name!r} and {name} on {backend.name!r}; "
                    f"expected one backend: for example, use nnkit.get_backend({found.name!r}).asarray({name})"
                )
    return selection.get_backend() if found is None else found


def _arrays(name: str, value: Any) -> tuple[Any, ...]:
    """The arrays in an argument: none for a number or a list, each array of a tuple of results."""
    if name == "out" and value is not None:
        outs = value if isinstance(value, tuple) else (value,)
        for out in outs or ((),):
            if isinstance(out, registry.NEUTRAL):
                raise TypeError(f"out is or holds a {type(out).__name__}; expected an array, or a tuple of arrays")
        return outs
    return () if isinstance(value, registry.NEUTRAL) else (value,)


def _owner(name: str, value: Any) -> Backend:
    backend = registry.owner_of(value)
    if backend is None:
        # An array of another library: the "standard" backend recognizes it only with array-api-compat.
        foreign = hasattr(value, "__dlpack__") and importlib.util.find_spec("array_api_compat") is None
        hint = "; for arrays of other libraries: python -m pip install array-api-compat" if foreign else ""
        raise TypeError(f"{name} is a {type(value).__name__}; expected an array, a list or a number{hint}")
    return backend
