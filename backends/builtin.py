"""The backends that come with nnkit, each imported when it is first asked for."""

from typing import Any

from nnkit.backends.base import Backend
from nnkit.backends.numpy_backend import make_numpy_backend, numpy_owner
from nnkit.backends.registry import register_backend


def _make_cupy(detail: str) -> Backend:
    from nnkit.backends.cupy_backend import make_cupy_backend

    return make_cupy_backend(detail)


def _cupy_owner(array: Any) -> str | None:
    # By the name of its module: CuPy is not imported to find out that an array is not CuPy's.
    if type(array).__module__.partition(".")[0] != "cupy" or not hasattr(array, "device"):
        return None
    device = int(array.device.id)
    return "cupy" if device == 0 else f"cupy:{device}"


def _make_standard(detail: str) -> Backend:
    from nnkit.backends.standard_backend import make_standard_backend

    return make_standard_backend(detail)


def _standard_owner(array: Any) -> str | None:
    from nnkit.backends.standard_backend import standard_owner

    return standard_owner(array)


def register_builtin_backends() -> None:
    """Make numpy, cupy and standard known, in the order in which arrays are offered to them."""
    register_backend("numpy", make_numpy_backend, numpy_owner)
    register_backend("cupy", _make_cupy, _cupy_owner)
    register_backend("standard", _make_standard, _standard_owner)
