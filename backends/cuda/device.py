"""CuPy arrays on one CUDA device: creation, transfer and copies, and launches that can be recorded."""

import functools
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from nnkit.backends.base import quiet
from nnkit.backends.cuda.cublas import Handles, cublas_version
from nnkit.backends.cuda.graph import GraphLowering, capturing
from nnkit.backends.cuda.memory import CupyMemory
from nnkit.backends.cuda.prepared import Prepared
from nnkit.backends.cuda.recording import PASSES
from nnkit.backends.dtypes import ON_GPU, dtype_name, numpy_dtype, promoted, resolved
from nnkit.backends.errors import FORKED, BackendUnavailableError
from nnkit.backends.recording import Tape, perform, recording
from nnkit.backends.selection import make_backend

AMPERE, _HOPPER = 80, 90  # compute capabilities; tensor cores have TensorFloat-32 and bfloat16 from Ampere on
_MIB = 1 << 20


class CupyDevice(CupyMemory):
    """The common base of the CuPy backend's parts: a device, its memory, kernels and tape."""

    tried: dict[str, str] = {}  # noqa: RUF012  the times of the first calls
    capability = AMPERE

    def __init__(self, cupy: Any, device: int) -> None:
        self.name = "cupy" if device == 0 else f"cupy:{device}"
        self.xp = cupy
        self._number, self._process = device, os.getpid()
        self._device = cupy.cuda.Device(device)
        self.multiprocessors = int(self._device.attributes["MultiProcessorCount"])
        self.capability = int(self._device.compute_capability)
        # cuBLAS's default workspace: 32 MiB from Hopper on, 4 MiB before.
        self.handles = Handles(cupy, (32 if self.capability >= _HOPPER else 4) * _MIB)
        # 0 and 1 as α and β of products, on any stream.
        self.units = {name: list(self.asarray(np.arange(2), name)) for name in ("float32", "float64")}
        self.synchronize()

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        with self.here():
            # NumPy arrays are not imported by DLPack, which does not support their bfloat16.
            if not isinstance(values, self.xp.ndarray | np.ndarray) and hasattr(values, "__dlpack__"):
                on_gpu = values.__dlpack_device__()[0] in ON_GPU
                values = self.xp.from_dlpack(resolved(values)) if on_gpu else make_backend("numpy").asarray(values)
            with quiet():  # the host casts; a narrower type overflows to infinity
                return self.xp.asarray(values, None if dtype is None else numpy_dtype(dtype))

    def to_numpy(self, array: Any) -> np.ndarray:
        with self.here():
            on_host: np.ndarray = self.xp.asnumpy(array)
        return on_host

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        with self.here():
            return self.new(shape, numpy_dtype(dtype) if isinstance(dtype, str) else dtype)

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        with self.here():  # the base class would write zeros from the current device
            return self.xp.zeros(shape, numpy_dtype(dtype) if isinstance(dtype, str) else dtype)

    def dtype(self, name: str) -> Any:
        return numpy_dtype(name)

    def copy(self, source: Any, out: Any) -> Any:
        with self.here():
            perform(partial(self.xp.copyto, out, source), (source,), (out,), "copy")
        return out

    def recording(self) -> AbstractContextManager[Tape]:
        with self.here():
            return recording(Tape(PASSES, GraphLowering(self.xp.cuda, self.handles), self.here))

    def stream(self) -> int:
        pointer: int = self.xp.cuda.get_current_stream(self._number).ptr
        return pointer

    def synchronize(self) -> None:
        with self.here(), capturing:
            self._device.synchronize()

    def describe(self) -> dict[str, str]:
        with self.here():
            properties = self.xp.cuda.runtime.getDeviceProperties(self._number)
            free, total = self.xp.cuda.runtime.memGetInfo()
        return {
            "cupy": self.xp.__version__,
            "GPU": properties["name"].decode(),
            "memory": f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free",
            "CUDA": f"runtime {self.xp.cuda.runtime.runtimeGetVersion()}, "
            f"driver {self.xp.cuda.runtime.driverGetVersion()}",
            "cuBLAS": cublas_version(),
        } | self.tried

    def operands(self, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
        if {*map(type, values)} == {self.xp.ndarray}:  # the usual case
            promoted(names, [dtype_name(value.dtype) for value in values])
            return [*values]
        # NumPy's scalars have a dtype, but are not on the device.
        arrays = super().operands(names, values)
        return [self.asarray(a) if isinstance(a, np.generic) else a for a in arrays]

    # --- for the parts of this backend --------------------------------------------------------------------------

    def here(self) -> Any:
        if os.getpid() != self._process:
            raise BackendUnavailableError(f"{self.name}: {FORKED}")
        return self._device

    def new(self, shape: Sequence[int], dtype: Any) -> Any:
        """An uninitialised array on the current device."""
        return self.xp.ndarray(shape, dtype)

    @functools.cached_property
    def prepared(self) -> Prepared:
        """Calls outside of recordings, each decided once."""
        return Prepared(self.xp.ndarray, self.new)

    def contiguous(self, array: Any) -> Any:
        """The array in C order, copied if necessary, at each replay."""
        return array if array.flags.c_contiguous else self.copy(array, self.empty(array.shape, array.dtype))

    @functools.lru_cache(maxsize=4096)  # noqa: B019  backends live as long as the process
    def kernel(self, text: str, name: str) -> Any:
        """The kernel with this name in a CUDA source, compiled at its first launch."""
        # CuPy appends -ftz=true: float32 numbers below 1.2e-38 are flushed to 0.
        return self.xp.RawKernel(text, name, ("--std=c++17",))
