"""Arrays decide for themselves: the backend of a call is the backend of its arrays."""

from typing import Any

import numpy as np

from nnkit.backends import registry, selection
from nnkit.backends.base import Backend
from nnkit.backends.errors import BackendMismatchError

# What every backend accepts and none owns.
_NEUTRAL = (float, int, bool, list, tuple, type(None), np.generic)


def backend_of(**arguments: Any) -> Backend:
    """The backend that owns these arrays; the selected one if they are all numbers, lists or None.

    Raises BackendMismatchError, naming both sides, when two backends own arrays among them.

    >>> backend_of(x=np.zeros(3), slope=0.5).name
    'numpy'
    """
    found: Backend | None = None
    owner = ""
    for name, value in arguments.items():
        if isinstance(value, _NEUTRAL) and not (isinstance(value, tuple) and name == "out"):
            continue
        backend = _owner(name, value[0] if isinstance(value, tuple) else value)
        if found is None:
            found, owner = backend, name
        elif backend is not found:
            raise BackendMismatchError(
                f"{owner} is on backend {found.name!r} and {name} on {backend.name!r}; "
                f"move one of them first, with nnkit.get_backend({found.name!r}).asarray({name}) for example"
            )
    return selection.get_backend() if found is None else found


def _owner(name: str, value: Any) -> Backend:
    backend = registry.owner_of(value)
    if backend is None:
        raise TypeError(f"{name} is a {type(value).__name__}; expected an array, a list or a number")
    return backend
