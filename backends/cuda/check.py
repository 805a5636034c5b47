"""Check whether CuPy works on this machine, and what is missing otherwise."""

import time
from collections.abc import Callable
from types import ModuleType

from nnkit.backends.base import Backend
from nnkit.backends.cuda.cublas import cublas_version
from nnkit.backends.errors import FORKED, BackendUnavailableError
from nnkit.backends.formula import Formula
from nnkit.backends.loading import loading

# CUDA's status codes (cuda_runtime_api.h).
_INITIALIZATION = 3  # of a process that was forked
_INSUFFICIENT_DRIVER = 35
_NO_DEVICE = 100

_OLDEST = 14  # CuPy version; it includes cuda-pathfinder, which finds cuBLAS


def _libraries(cuda: int) -> str:
    """The libraries that nnkit uses and CuPy's wheel does not contain: cuBLAS, NVRTC and the runtime's headers."""
    return f'"cuda-toolkit[cublas,cudart,nvrtc]=={cuda}.*"'


def _packages(cuda: int) -> str:
    return f'"cupy-cuda{cuda}x>={_OLDEST}" {_libraries(cuda)}'


# Not nnkit's extras: on the package index, the name belongs to another project.
_INSTALL = f"python -m pip install {_packages(13)}   (for a CUDA 12 driver: {_packages(12)})"


def checked_cupy(detail: str) -> tuple[ModuleType, int]:
    """CuPy and the device number in `detail`; raises BackendUnavailableError.

    The message distinguishes: CuPy not installed or too old, no driver, a driver that is too old, no device, an invalid
    device number, and a missing CUDA library.
    """
    if detail and not detail.isdecimal():
        raise BackendUnavailableError(f"cupy:{detail}: expected a device number, as in cupy:0")
    device = int(detail or 0)
    cupy = _import_cupy()
    count = _device_count(cupy)
    if device >= count:
        raise BackendUnavailableError(f"cupy:{device} does not exist; the devices are cupy:0 to cupy:{count - 1}")
    check_libraries(cupy)
    return cupy, device


def _import_cupy() -> ModuleType:
    try:
        with loading():
            import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailableError(f"CuPy is installed but does not import: {error}") from error
        raise BackendUnavailableError(f"CuPy is not installed: {_INSTALL}") from error
    except ImportError as error:
        raise BackendUnavailableError(f"CuPy is installed but does not import: {error}") from error
    module: ModuleType = cupy
    if int(module.__version__.partition(".")[0]) < _OLDEST:
        raise BackendUnavailableError(f"CuPy is {module.__version__}; expected {_OLDEST} or newer: {_INSTALL}")
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
                f"{runtime.runtimeGetVersion()}; update it, or install a matching CuPy: {_INSTALL}"
            )
        elif error.status == _INITIALIZATION:
            message = f"CUDA does not start ({error}). Perhaps {FORKED}"
        elif error.status == _NO_DEVICE:
            message = "the NVIDIA driver works but finds no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"
        else:
            message = f"CUDA does not start: {error}"
        raise BackendUnavailableError(f"CuPy is installed, but {message}") from error
    if count == 0:
        raise BackendUnavailableError("CuPy is installed, but the NVIDIA driver finds no GPU")
    return count


def check_libraries(cupy: ModuleType) -> None:
    """Raise BackendUnavailableError unless NVRTC, for kernels, and cuBLAS, for products, can be loaded."""
    try:
        cupy.cuda.nvrtc.getVersion()
        cublas_version()
    except (ImportError, OSError, RuntimeError) as error:
        missing = str(error).strip().partition("\n")[0]
        raise BackendUnavailableError(
            f"CuPy is installed, but a library of the CUDA toolkit is missing: {missing}; {_remedy(cupy)}"
        ) from error


_doubled = Formula(lambda xp, a: 2 * a, "doubled", ["a"])


def trial(backend: Backend, cupy: ModuleType) -> dict[str, str]:
    """Compile and run a kernel, a product and a recording of both; returns the time of each.

    A library that loads may still not work, for example if NVRTC finds no headers. Raises BackendUnavailableError with
    the failure and its remedy.
    """
    one = backend.asarray([[1.0]], "float32")
    with backend.recording() as tape:
        recorded = backend.elementwise(_doubled, (backend.matmul(one, one),))

    def replayed() -> object:
        tape.replay()  # makes the calls
        tape.replay()  # captures them
        return recorded

    steps: dict[str, tuple[float, Callable[[], object]]] = {
        "kernel": (2.0, lambda: backend.elementwise(_doubled, (one,))),
        "product": (1.0, lambda: backend.matmul(one, one)),
        "recording": (2.0, replayed),
    }
    took = {}
    for name, (expected, run) in steps.items():
        began = time.perf_counter()
        try:
            found = float(backend.to_numpy(run())[0, 0])
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
            raise BackendUnavailableError(
                f"CuPy is installed, but a first {name} fails ({reason}); {_remedy(cupy)}"
            ) from error
        if found != expected:
            raise BackendUnavailableError(f"CuPy is installed, but a first {name} gives {found}, not {expected}")
        took[f"first {name}"] = f"{time.perf_counter() - began:.2f} s"
    return took


def _remedy(cupy: ModuleType) -> str:
    """The command that installs the libraries for this CuPy."""
    return f"python -m pip install {_libraries(cupy.cuda.runtime.runtimeGetVersion() // 1000)}"
