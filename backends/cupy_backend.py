"""CuPy: each formula as one CUDA kernel, products by cuBLAS."""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.backends.base import Backend
from nnkit.backends.cuda_launch import THREADS, clobbers, grid, layout_of, signature_of
from nnkit.backends.cuda_source import KernelSignature, kernel_name, kernel_source
from nnkit.backends.dtypes import FLOATS, compute_type, dtype_name, promote
from nnkit.backends.numpy_backend import numpy_dtype
from nnkit.backends.program import Program
from nnkit.backends.results import broadcast_shape
from nnkit.backends.tape import Tape, active_tape, perform, recording

if TYPE_CHECKING:
    from nnkit.backends.formula import Formula

_ON_GPU = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged


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
            # NumPy's own arrays need no DLPack, which has no bfloat16 there.
            if not isinstance(values, self.xp.ndarray | np.ndarray) and hasattr(values, "__dlpack__"):
                on_gpu = values.__dlpack_device__()[0] in _ON_GPU
                values = self.xp.from_dlpack(values) if on_gpu else np.from_dlpack(values)
            return self.xp.asarray(values, None if dtype is None else numpy_dtype(dtype))

    def to_numpy(self, array: Any) -> np.ndarray:
        on_host: np.ndarray = self.xp.asnumpy(array)
        return on_host

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        with self._here():
            return self.xp.empty(shape, numpy_dtype(dtype) if isinstance(dtype, str) else dtype)

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        with self._here():  # the base writes its zeros from whichever device is current
            return self.xp.zeros(shape, numpy_dtype(dtype) if isinstance(dtype, str) else dtype)

    def has_room(self, size: int) -> bool:
        with self._here():
            free, _ = self.xp.cuda.runtime.memGetInfo()
            unused = self.xp.get_default_memory_pool().free_bytes()
        return bool(size < 0.8 * (free + unused))

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
        if dtype not in FLOATS:
            raise TypeError(f"{formula.name}: operands are {dtype}, which CuPy's kernels are not written for")
        program = formula.program(constants)
        results = self._results(formula, arrays, dtype, len(program.outputs), out)
        with self._here():
            # The kernel writes C order; a result of other strides gets a copy.
            outs = [r if r.flags.c_contiguous else self.empty(r.shape, r.dtype) for r in results]
            if outs[0].size:
                self._launch(program, formula.name, arrays, outs)
            for made, result in zip(outs, results, strict=True):
                if made is not result:
                    self.copy(made, result)
        return out if out is not None else results[0] if len(results) == 1 else tuple(results)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        dtype = promote({"a": a, "b": b})
        with self._here():
            if out is None:
                shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
                out = self.empty(shape, dtype)
            # CuPy has no stacks of bfloat16 products.
            stacked = dtype == "bfloat16" and max(a.ndim, b.ndim) > 2
            perform([partial(self._wide_matmul if stacked else self.xp.matmul, a, b, out=out)])
        return out

    def sum(self, a: Any, axis: int | None = None, keepdims: bool = False, out: Any = None) -> Any:
        # In float32 for the half types, as on NumPy: CUB would round each partial sum of float16.
        name = dtype_name(a.dtype)
        wide = np.float32 if compute_type(name) != name else None
        return self._reduce(partial(self.xp.sum, a, axis=axis, dtype=wide, keepdims=keepdims), a.dtype, out)

    def max(self, a: Any, axis: int, keepdims: bool = False, out: Any = None) -> Any:
        return self._reduce(partial(self.xp.amax, a, axis=axis, keepdims=keepdims), a.dtype, out)

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

    def operands(self, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
        # NumPy's scalars have a dtype, but no place on the device.
        arrays = super().operands(names, values)
        return [self.asarray(a) if isinstance(a, np.generic) else a for a in arrays]

    def _here(self) -> Any:
        return self._device  # as a context manager: CuPy keeps what it goes back to on a stack of each thread

    def _results(self, formula: "Formula", arrays: Sequence[Any], dtype: str, count: int, out: Any) -> list[Any]:
        """The arrays that the results go to, checked if they were given."""
        name, shape = formula.name, broadcast_shape(formula, arrays)
        if out is None:
            return [self.empty(shape, dtype) for _ in range(count)]
        outs = list(out) if isinstance(out, tuple) else [out]
        if len(outs) != count or any(o.shape != shape for o in outs):
            raise ValueError(f"{name}: out has shape(s) {[o.shape for o in outs]}; expected {count} of {shape}")
        for array in outs:
            if dtype_name(array.dtype) not in FLOATS:
                raise TypeError(f"{name}: out has dtype {array.dtype}; expected one of {', '.join(FLOATS)}")
        return outs

    def _reduce(self, reduce: Callable[..., Any], dtype: Any, out: Any) -> Any:
        with self._here():
            if out is None:
                out = reduce().astype(dtype, copy=False)
                if active_tape() is None:
                    return out
            perform([partial(reduce, out=out)])
        return out

    def _wide_matmul(self, a: Any, b: Any, out: Any) -> None:
        out[...] = self.xp.matmul(a.astype(np.float32), b.astype(np.float32))

    def _launch(self, program: Program, name: str, arrays: Sequence[Any], outs: Sequence[Any]) -> None:
        ready, layouts = zip(*(self._ready(array, outs) for array in arrays), strict=True)
        signature = signature_of(ready, layouts, outs, [a.data.ptr for a in (*ready, *outs)])
        index = np.uint32 if signature.index == "unsigned int" else np.int64
        n, columns = outs[0].size, outs[0].shape[-1] if outs[0].ndim else 1
        blocks = grid(n, signature.lanes, self._multiprocessors)
        arguments = (*ready, *outs, index(n), index(columns))
        perform([partial(self._kernel(program, name, signature), (blocks,), (THREADS,), arguments)])

    def _ready(self, array: Any, outs: Sequence[Any]) -> tuple[Any, str]:
        """An operand and its layout; a copy where the kernel could not read it as it is, or not in time."""
        layout = layout_of(array.shape, outs[0].shape)
        if layout is None:
            array, layout = self.xp.broadcast_to(array, outs[0].shape), "full"
        pointer = array.data.ptr
        if not array.flags.c_contiguous or any(clobbers(o, o.data.ptr, array, pointer, layout) for o in outs):
            array = self.copy(array, self.empty(array.shape, array.dtype))
        return array, layout

    @functools.lru_cache(maxsize=4096)  # noqa: B019  backends live as long as the process
    def _kernel(self, program: Program, name: str, signature: KernelSignature) -> Any:
        # CuPy adds -ftz=true after these options: float32 numbers below 1.2e-38 count as 0.
        return self.xp.RawKernel(kernel_source(program, name, signature), kernel_name(name), ("--std=c++17",))


def make_cupy_backend(detail: str) -> CupyBackend:
    """The CuPy backend on device `detail` ("" is 0), or BackendUnavailableError with what is missing."""
    from nnkit.backends.cupy_check import checked_cupy

    cupy, device = checked_cupy(detail)
    return CupyBackend(cupy, device)
