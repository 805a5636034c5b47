"""Arrays and devices: which backend computes, and how.

A backend is selected by argument > `using_backend()` > `use_backend()` > `NNKIT_BACKEND` > `numpy`. The names are
`numpy`, `cupy` (`cupy:1` for a device), `standard:NAMESPACE` for any array-API namespace, and `auto`.

**A backend of your own.** Derive from `Backend`, whose every method has a plain implementation over an array-API
namespace, and register it under a name; from then on it can be selected and its arrays are recognised:

>>> import numpy as np
>>> from nnkit.backends import Backend, get_backend, register_backend, unregister_backend
>>> class Mine(Backend):
...     name, xp = "mine", np
...     def asarray(self, values, dtype=None):
...         return np.asarray(values, dtype)
...     def to_numpy(self, array):
...         return np.asarray(array)
...     def empty(self, shape, dtype):
...         return np.empty(shape, dtype)
>>> register_backend("mine", lambda detail: Mine(), owner=lambda array: None)
>>> get_backend("mine").name
'mine'
>>> unregister_backend("mine")

This package knows nothing of networks. Formulas, which it compiles, are in `nnkit.backends.formula`; what it compiles
them to is in `cpu` and `cuda`, one for each of `numpy_backend` and `cupy_backend`.
"""

from nnkit.backends.base import Backend
from nnkit.backends.builtin import register_builtin_backends
from nnkit.backends.dispatch import backend_of
from nnkit.backends.errors import (
    BackendError,
    BackendFallbackWarning,
    BackendMismatchError,
    BackendUnavailableError,
    FormulaError,
    OutOfMemoryError,
    UnknownBackendError,
)
from nnkit.backends.registry import backend_names, register_backend, unregister_backend
from nnkit.backends.selection import get_backend, use_backend, using_backend

register_builtin_backends()

__all__ = [
    "Backend",
    "BackendError",
    "BackendFallbackWarning",
    "BackendMismatchError",
    "BackendUnavailableError",
    "FormulaError",
    "OutOfMemoryError",
    "UnknownBackendError",
    "backend_names",
    "backend_of",
    "get_backend",
    "register_backend",
    "unregister_backend",
    "use_backend",
    "using_backend",
]


def __dir__() -> list[str]:
    return sorted(__all__)
