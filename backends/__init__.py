"""Arrays and devices: the backends and their selection.

A backend is selected by argument > `using_backend()` > `use_backend()` > `NNKIT_BACKEND` > `numpy`. The names are
`numpy`, `cupy` (`cupy:1` for a device), `standard:NAMESPACE` for any array-API namespace, and `auto`.

**Custom backends.** Derive from `Backend`, whose other methods have a plain implementation with an array-API namespace,
and register a name; the backend can then be selected and its arrays are recognised:

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

This package is independent of networks. Formulas are in `nnkit.backends.formula`; `cpu` and `cuda` compile them for
`numpy_backend` and `cupy_backend`.
"""

from typing import Any

from nnkit.backends.base import Backend
from nnkit.backends.errors import (
    BackendError,
    BackendFallbackWarning,
    BackendMismatchError,
    BackendUnavailableError,
    FormulaError,
    OutOfMemoryError,
    UnknownBackendError,
)
from nnkit.backends.numpy_backend import make_numpy_backend, numpy_owner
from nnkit.backends.selection import (
    backend_names,
    backend_of,
    get_backend,
    register_backend,
    unregister_backend,
    use_backend,
    using_backend,
)

__all__ = [
    "Backend", "BackendError", "BackendFallbackWarning", "BackendMismatchError", "BackendUnavailableError",
    "FormulaError", "OutOfMemoryError", "UnknownBackendError", "backend_names", "backend_of", "get_backend",
    "register_backend", "unregister_backend", "use_backend", "using_backend",
]  # fmt: skip


def _make_cupy(detail: str) -> Backend:
    from nnkit.backends.cupy_backend import make_cupy_backend

    return make_cupy_backend(detail)


def _cupy_owner(array: Any) -> str | None:
    # The module name identifies CuPy's arrays without importing CuPy.
    device = getattr(array, "device", None) if type(array).__module__.partition(".")[0] == "cupy" else None
    if device is None:
        return None
    return "cupy" if device.id == 0 else f"cupy:{device.id}"


def _make_standard(detail: str) -> Backend:
    from nnkit.backends.standard_backend import make_standard_backend

    return make_standard_backend(detail)


def _standard_owner(array: Any) -> str | None:
    from nnkit.backends.standard_backend import standard_owner

    return standard_owner(array)


# Backends other than NumPy are imported on first use. `selection.owner_of` has the order in which owners are asked.
register_backend("numpy", make_numpy_backend, numpy_owner)
register_backend("cupy", _make_cupy, _cupy_owner)
register_backend("standard", _make_standard, _standard_owner)


def __dir__() -> list[str]:
    return sorted(__all__)
