"""Selection of the backend: argument > using_backend() > use_backend() > NNKIT_BACKEND > numpy."""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from nnkit.backends.base import Backend
from nnkit.backends.errors import BackendFallbackWarning, BackendUnavailableError
from nnkit.backends.registry import make_backend

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
