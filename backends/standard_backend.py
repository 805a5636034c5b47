"""A backend for any other array API namespace: array-api-strict in the tests, PyTorch or JAX for experiments.

Formulas are computed by the namespace's functions, without fusion or preallocation. It needs array-api-compat, which
handles the differences between libraries and the standard; NumPy and CuPy do not need it.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnkit.backends import selection
from nnkit.backends.base import Backend, quiet
from nnkit.backends.dtypes import ON_GPU, dtype_name, native, numpy_dtype, resolved
from nnkit.backends.errors import BackendUnavailableError
from nnkit.backends.loading import loading

try:
    import array_api_compat
except ImportError:
    array_api_compat = None

DEFAULT_NAMESPACE = "array_api_strict"
_INSTALL = "array-api-compat is not installed: python -m pip install array-api-compat"


class StandardBackend(Backend):
    """Arrays of an array API namespace on one of its devices (None for its default device)."""

    def __init__(self, name: str, xp: Any, device: Any = None) -> None:
        self.name = name
        self.xp = xp
        self.device = device

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        wanted = None if dtype is None else self.dtype(dtype)
        if not _is_from(values, self.xp):
            owner = selection.owner_of(values)
            if owner is not None:
                values = owner.to_numpy(values)
            elif hasattr(values, "__dlpack__"):
                values = np.from_dlpack(resolved(values))
            # A copy: the result must not share memory with a NumPy array, which may be read-only or change later.
            array = native(np.array(values))
            if wanted is not None and dtype_name(array.dtype) == "bfloat16":  # of ml_dtypes, which few libraries accept
                array = array.astype(np.float32)
            with quiet():  # overflow to infinity in a narrower dtype
                return self.xp.asarray(array, dtype=wanted, device=self.device)
        device = self.xp.__array_namespace_info__().default_device() if self.device is None else self.device
        here = values if device is None else array_api_compat.to_device(values, device)
        if wanted is None or here.dtype == wanted:
            return here
        with quiet():
            return self.xp.astype(here, wanted)

    def to_numpy(self, array: Any) -> np.ndarray:
        if array.__dlpack_device__()[0] in ON_GPU:  # NumPy only reads host memory
            array = array_api_compat.to_device(array, "cpu")
        if dtype_name(array.dtype) == "bfloat16":  # NumPy's DLPack does not support it
            return np.from_dlpack(self.xp.astype(array, self.xp.float32)).astype(numpy_dtype("bfloat16"))
        return np.from_dlpack(resolved(array))

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        dtype = self.dtype(dtype) if isinstance(dtype, str) else dtype
        return self.xp.empty(tuple(shape), dtype=dtype, device=self.device)

    def describe(self) -> dict[str, str]:
        described = {self.xp.__name__: str(getattr(self.xp, "__version__", ""))}
        return described if self.device is None else described | {"device": str(self.device)}


def make_standard_backend(detail: str) -> StandardBackend:
    """The backend for `"NAMESPACE"` or `"NAMESPACE:DEVICE"`; "" is array-api-strict, the reference implementation."""
    if array_api_compat is None:
        raise BackendUnavailableError(f"standard: {_INSTALL}")
    module, _, device_name = (detail or DEFAULT_NAMESPACE).partition(":")
    try:
        with loading():
            xp = importlib.import_module(module)
    except ImportError as error:
        hint = ": python -m pip install array-api-strict" if module == DEFAULT_NAMESPACE else ""
        raise BackendUnavailableError(f"standard: namespace {module!r} cannot be imported ({error}){hint}") from error
    if not hasattr(xp, "__array_namespace_info__"):
        raise BackendUnavailableError(f"standard: {module!r} is not an array API namespace")
    if not device_name:
        return StandardBackend(f"standard:{module}", xp)
    devices = {_device_name(device): device for device in xp.__array_namespace_info__().devices() if device is not None}
    if device_name not in devices:
        raise BackendUnavailableError(f"standard: {module} has no device {device_name!r}; known: {', '.join(devices)}")
    if devices[device_name] == xp.__array_namespace_info__().default_device():
        return StandardBackend(f"standard:{module}", xp)  # the name that `standard_owner` returns
    return StandardBackend(f"standard:{module}:{device_name}", xp, devices[device_name])


def standard_owner(array: Any) -> str | None:
    """The name of the standard backend that owns an array of any array API namespace.

    None for arrays without DLPack, such as Dask's, which have no values until NumPy asks for them.
    """
    if array_api_compat is None or not array_api_compat.is_array_api_obj(array):
        return None
    if not hasattr(array, "__dlpack_device__"):
        return None
    xp = array_api_compat.array_namespace(array)
    device = array_api_compat.device(array)
    if device == xp.__array_namespace_info__().default_device():
        return f"standard:{xp.__name__}"
    return f"standard:{xp.__name__}:{_device_name(device)}"


def _device_name(device: Any) -> str:
    """`device1` for `array_api_strict.Device('device1')`, `cuda:0` for PyTorch's."""
    text = str(device)
    return text.split("'")[1] if "'" in text else text


def _is_from(values: Any, xp: Any) -> bool:
    return array_api_compat.is_array_api_obj(values) and array_api_compat.array_namespace(values) is xp
