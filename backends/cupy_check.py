"""Whether CuPy can work on this machine, and if not, what is missing."""

from types import ModuleType

from nnkit.backends.errors import BackendUnavailableError

# CUDA's status codes (cuda_runtime_api.h).
_INSUFFICIENT_DRIVER = 35
_NO_DEVICE = 100

_INSTALL = "python -m pip install cupy-cuda13x   (for a CUDA 12 driver: python -m pip install cupy-cuda12x)"


def checked_cupy(detail: str) -> tuple[ModuleType, int]:
    """CuPy and the number of the device that `detail` names, or BackendUnavailableError.

    The message tells apart: CuPy not installed, no driver, a driver that is too old, no device, and a device number
    that does not exist.
    """
    if detail and not detail.isdecimal():
        raise BackendUnavailableError(f"cupy:{detail}: expected a device number, as in cupy:0")
    device = int(detail or 0)
    cupy = _import_cupy()
    count = _device_count(cupy)
    if device >= count:
        raise BackendUnavailableError(f"cupy:{device} does not exist; the devices are cupy:0 to cupy:{count - 1}")
    return cupy, device


def _import_cupy() -> ModuleType:
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailableError(f"CuPy is installed but does not import: {error}") from error
        raise BackendUnavailableError(f"CuPy is not installed: {_INSTALL}") from error
    except ImportError as error:
        raise BackendUnavailableError(f"CuPy is installed but does not import: {error}") from error
    module: ModuleType = cupy
    return module


def _device_count(cupy: ModuleType) -> int:
    runtime = cupy.cuda.runtime
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        if error.status == _INSUFFICIENT_DRIVER and runtime.driverGetVersion() == 0:
            message = "no NVIDIA driver found; install one, or use backend 'numpy'"
        elif error.status == _INSUFFICIENT_DRIVER:
            message = (
                f"the NVIDIA driver supports CUDA {runtime.driverGetVersion()}, which is older than CuPy's "
                f"{runtime.runtimeGetVersion()}; update it, or install the CuPy that fits it: {_INSTALL}"
            )
        elif error.status == _NO_DEVICE:
            message = "the NVIDIA driver works but shows no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"
        else:
            message = f"CUDA does not start: {error}"
        raise BackendUnavailableError(f"CuPy is installed, but {message}") from error
    if count == 0:
        raise BackendUnavailableError("CuPy is installed, but the NVIDIA driver shows no GPU")
    return count
