"""CuPy: each formula as one CUDA kernel, products by cuBLAS."""

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.backends.base import Backend
from nnkit.backends.cuda_launch import THREADS, grid, layout_of, signature_of
from nnkit.backends.cuda_source import KernelSignature, kernel_source
from nnkit.backends.dtypes import promote
from nnkit.backends.numpy_backend import numpy_dtype
from nnkit.backends.program import Program
from nnkit.backends.tape import Tape, perform, recording

if TYPE_CHECKING:
    from nnkit.backends.formula import Formula


class CupyBackend(Backend):
    """CuPy arrays on one CUDA device; make one with `get_backend("cupy")`, which checks that it can work."""

    def __init__(self, cupy: Any, device: int) -> None:
        self.name = "cupy" if device == 0 else f"cupy:{device}"
        self.xp = cupy
        self._number = device
        self._device = cupy.cuda.Device(device)
        self._multiprocessors = int(self._device.attributes["MultiProcessorCount"])

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        with self._here():
            if not isinstance(values, self.xp.ndarray) and hasattr(values, "__dlpack__"):
                on_gpu = values.__dlpack_device__()[0] == 2  # kDLCUDA
                values = self.xp.from_dlpack(values) if on_gpu else np.from_dlpack(values)
            return self.xp.asarray(values, None if dtype is None else numpy_dtype(dtype))

    def to_numpy(self, array: Any) -> np.ndarray:
        on_host: np.ndarray = self.xp.asnumpy(array)
        return on_host

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        with self._here():
            return self.xp.empty(shape, numpy_dtype(dtype) if isinstance(dtype, str) else dtype)

    def dtype(self, name: str) -> Any:
        return numpy_dtype(name)

    def copy(self, source: Any, out: Any) -> Any:
        with self._here():
            perform([partial(self.xp.copyto, out, source)])
        return out

    def elementwise(
        self,
        formula: "Formula",
        operands: Sequence[Any],
        out: Any = None,
        constants: Mapping[str, float] | None = None,
    ) -> Any:
        arrays = self.operands(formula.operands, operands)
        dtype = promote(dict(zip(formula.operands, arrays, strict=True)))
        program = formula.program(constants)
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        results = self._results(formula.name, shape, dtype, len(program.outputs), out)
        with self._here():
            # The kernel writes C order; a result of other strides gets a copy.
            outs = [r if r.flags.c_contiguous else self.empty(shape, r.dtype) for r in results]
            if outs[0].size:
                self._launch(program, formula.name, arrays, outs)
            for made, result in zip(outs, results, strict=True):
                if made is not result:
                    self.copy(made, result)
        return out if out is not None else results[0] if len(results) == 1 else tuple(results)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        with self._here():
            if out is None:
                shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
                out = self.empty(shape, numpy_dtype(promote({"a": a, "b": b})))
            perform([partial(self.xp.matmul, a, b, out)])
        return out

    def sum(self, a: Any, axis: int | None = None, keepdims: bool = False, out: Any = None) -> Any:
        with self._here():
            return self._into(partial(self.xp.sum, a, axis, None, None, keepdims), out)

    def max(self, a: Any, axis: int, keepdims: bool = False, out: Any = None) -> Any:
        with self._here():
            return self._into(partial(self.xp.amax, a, axis, None, keepdims), out)

    def take(self, rows: Any, indices: Any, out: Any = None) -> Any:
        with self._here():
            out = self.empty((len(indices), *rows.shape[1:]), rows.dtype) if out is None else out
            perform([partial(self.xp.take, rows, indices, 0, out)])
        return out

    def recording(self) -> AbstractContextManager[Tape]:
        return recording(Tape(self._here))

    def synchronize(self) -> None:
        self._device.synchronize()

    def describe(self) -> dict[str, str]:
        properties = self.xp.cuda.runtime.getDeviceProperties(self._number)
        with self._here():
            free, total = self.xp.cuda.runtime.memGetInfo()
        return {
            "cupy": self.xp.__version__,
            "GPU": properties["name"].decode(),
            "memory": f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free",
            "CUDA": f"runtime {self.xp.cuda.runtime.runtimeGetVersion()}, "
            f"driver {self.xp.cuda.runtime.driverGetVersion()}",
        }

    def _here(self) -> Any:
        # A CuPy device object may be entered once only; a fresh one for each block costs nothing.
        return self.xp.cuda.Device(self._number)

    def _results(self, name: str, shape: tuple[int, ...], dtype: str, count: int, out: Any) -> list[Any]:
        if out is None:
            return [self.empty(shape, dtype) for _ in range(count)]
        outs = list(out) if isinstance(out, tuple) else [out]
        if len(outs) != count or any(o.shape != shape for o in outs):
            raise ValueError(f"{name}: out has shape(s) {[o.shape for o in outs]}; expected {count} of {shape}")
        return outs

    def _launch(self, program: Program, name: str, arrays: Sequence[Any], outs: Sequence[Any]) -> None:
        ready, layouts = [], []
        for array in arrays:
            layout = layout_of(array.shape, array.flags.c_contiguous, outs[0].shape)
            if layout is None or any(self._clobbers(out, array, layout) for out in outs):
                layout = "full"
                array = self.copy(self.xp.broadcast_to(array, outs[0].shape), self.empty(outs[0].shape, array.dtype))
            ready.append(array)
            layouts.append(layout)
        signature = signature_of(ready, layouts, outs, [a.data.ptr for a in (*ready, *outs)])
        index = np.uint32 if signature.index == "unsigned int" else np.int64
        n, columns = outs[0].size, outs[0].shape[-1] if outs[0].ndim else 1
        blocks = grid(n, signature.lanes, self._multiprocessors)
        arguments = (*ready, *outs, index(n), index(columns))
        perform([partial(self._kernel(program, name, signature), (blocks,), (THREADS,), arguments)])

    def _clobbers(self, out: Any, array: Any, layout: str) -> bool:
        """Whether threads could overwrite entries of `array` that others still read.

        Not so if the operand is the result itself: each thread reads its own entries before it writes them.
        """
        same = layout == "full" and out.data.ptr == array.data.ptr and out.dtype == array.dtype
        return not same and bool(self.xp.may_share_memory(out, array))

    @functools.lru_cache(maxsize=4096)  # noqa: B019  backends live as long as the process
    def _kernel(self, program: Program, name: str, signature: KernelSignature) -> Any:
        return self.xp.RawKernel(kernel_source(program, name, signature), name, ("--std=c++17",))


def make_cupy_backend(detail: str) -> CupyBackend:
    """The CuPy backend on device `detail` ("" is 0), or BackendUnavailableError with what is missing."""
    from nnkit.backends.cupy_check import checked_cupy

    cupy, device = checked_cupy(detail)
    return CupyBackend(cupy, device)


def cupy_owner(array: Any) -> str | None:
    """The name of the CuPy backend that owns an array, without importing CuPy."""
    if type(array).__module__.partition(".")[0] != "cupy" or not hasattr(array, "device"):
        return None
    device = int(array.device.id)
    return "cupy" if device == 0 else f"cupy:{device}"
