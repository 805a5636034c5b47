"""The CuPy backend without a GPU: CuPy's arrays over the host's memory, and nnkit's own kernels compiled for the host.

Everything but CUDA is the backend's own: which kernel, with which arguments, over how many blocks; which product, with
which pointers, flags and strides. A product is computed from those by three loops' worth of NumPy.
"""

import ctypes
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.cuda.cublas import COMPUTE_DOUBLE, DATA_TYPES
from nnkit.backends.cuda.formula_text import PRELUDE
from nnkit.backends.cuda.recording import PASSES
from nnkit.backends.cupy_backend import CupyBackend
from nnkit.backends.dtypes import numpy_dtype
from nnkit.backends.recording import Tape, perform, recording
from tests.support.host_cuda import aligned, build, kernel_with_driver
from tests.support.host_memory import memory, on_host

Array = NDArray[Any]
TYPES = {number: name for name, number in DATA_TYPES.items()}


class HostGemm:
    """What cuBLAS does with the arguments of its calls, in column order as its documentation has it."""

    def get(self) -> "HostGemm":
        return self

    def place(self) -> tuple[int, int, int, int]:
        return 0, 0, 1 << 25, 0

    def gemm(self, arguments: tuple[Any, ...]) -> None:
        head, (a, b, c), compute = arguments[:6], (arguments[6:9], arguments[9:12], arguments[13:16]), arguments[16]
        self._compute(head, [(*place, 0) for place in (a, b, c)], arguments[12], 1, compute)

    def gemm_strided_batched(self, arguments: tuple[Any, ...]) -> None:
        head, places = arguments[:6], [arguments[6:10], arguments[10:14], arguments[15:19]]
        self._compute(head, places, arguments[14], *arguments[19:21])

    def _compute(self, head: Any, places: Any, beta: int, count: int, compute: int) -> None:
        flag_a, flag_b, m, n, k, alpha = head
        wide = np.float64 if compute == COMPUTE_DOUBLE else np.float32
        factor, kept = (memory(pointer, (), (), np.dtype(wide)) for pointer in (alpha, beta))
        for i in range(count):
            a = self._matrix(places[0], (m, k) if flag_a == 0 else (k, m), i)
            b = self._matrix(places[1], (k, n) if flag_b == 0 else (n, k), i)
            c = self._matrix(places[2], (m, n), i)
            with np.errstate(all="ignore"):  # a GPU does not warn
                product = (a if flag_a == 0 else a.T).astype(wide) @ (b if flag_b == 0 else b.T).astype(wide)
                c[...] = (factor * product + (kept * c.astype(wide) if kept else 0)).astype(c.dtype)

    def _matrix(self, place: Any, shape: tuple[int, int], i: int) -> Array:
        """A matrix in column order at a pointer, with its type, leading dimension and distance to the next."""
        pointer, kind, ld, batch = place
        dtype = numpy_dtype(TYPES[kind])
        assert ld >= max(1, shape[0])  # or cuBLAS refuses it
        return memory(pointer + i * batch * dtype.itemsize, shape, (dtype.itemsize, ld * dtype.itemsize), dtype)


class HostDevice(CupyBackend):
    """The CuPy backend over the host's memory."""

    def __init__(self, cupy: Any, multiprocessors: int = 2) -> None:
        self.name, self.xp, self.multiprocessors = "cupy", cupy, multiprocessors
        self.handles: Any = HostGemm()
        self.units = {name: list(self.asarray(np.arange(2), name)) for name in ("float32", "float64")}
        self.launched: list[tuple[str, tuple[int, ...]]] = []

    def here(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stream(self) -> int:
        return 0

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        if isinstance(values, self.xp.ndarray):
            assert dtype is None or values.dtype == numpy_dtype(dtype)
            return values
        return self.place(aligned(np.asarray(values, None if dtype is None else numpy_dtype(dtype))))

    def place(self, array: Array) -> Any:
        """An array of NumPy's as one of CuPy's, in the same memory."""
        owner = self.xp.cuda.UnownedMemory(array.ctypes.data, max(array.nbytes, 1), array, device_id=0)
        return self.xp.ndarray(
            array.shape, array.dtype, self.xp.cuda.MemoryPointer(owner, 0), strides=array.strides
        )  # fmt: skip

    def to_numpy(self, array: Any) -> Array:
        return on_host(array).copy()

    def new(self, shape: Sequence[int], dtype: Any) -> Any:
        return self.place(aligned(np.full(shape, 77).astype(dtype)))

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        dtype = numpy_dtype(dtype) if isinstance(dtype, str) else np.dtype(dtype)
        return self.place(aligned(np.zeros(shape, dtype)))

    def copy(self, source: Any, out: Any) -> Any:
        perform(partial(_copy, on_host(out), on_host(source), (source, out)), (source,), (out,), "copy")
        return out

    def recording(self) -> AbstractContextManager[Tape]:
        return recording(Tape(PASSES))

    def synchronize(self) -> None:
        pass

    def kernel(self, text: str, name: str) -> Any:  # type: ignore[override]
        return partial(self._run, text, name)

    def _run(
        self, text: str, name: str, blocks: tuple[int, ...], threads: tuple[int], arguments: tuple[Any, ...]
    ) -> None:
        self.launched.append((name, blocks))
        values = [
            ctypes.c_void_p(a.data.ptr) if hasattr(a, "data") and hasattr(a.data, "ptr") else a for a in arguments
        ]
        numbers = [np.asarray(a) if isinstance(a, np.generic) else a for a in values]
        places = [a.ctypes.data if isinstance(a, np.ndarray) else ctypes.addressof(a) for a in numbers]
        across, parts = (*blocks, 1)[:2]
        run = getattr(_library(text, name), f"run_{name}")
        run((ctypes.c_void_p * len(places))(*places), *map(ctypes.c_uint, (across, parts, threads[0])))


def _copy(out: Array, source: Array, kept: Any) -> None:
    out[...] = source


@cache
def _library(text: str, name: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        return build(kernel_with_driver(text.removeprefix(PRELUDE), name), Path(folder))


def views(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Iterator[tuple[str, Array]]:
    """Matrices (..., rows, columns) of this shape in all the ways that memory can hold them."""
    rng = np.random.default_rng([seed, *shape])

    def new(*sizes: int) -> Array:
        values: Array = rng.normal(size=sizes).astype(numpy_dtype(dtype))
        return aligned(values)

    lead, (rows, columns) = shape[:-2], shape[-2:]
    yield "C order", new(*shape)
    yield "transposed", new(*lead, columns, rows).swapaxes(-1, -2)
    yield "every second column", new(*lead, rows, 2 * columns)[..., ::2]
    yield "every second row", new(*lead, 2 * rows, columns)[..., ::2, :]
    yield "columns of a wider one", new(*lead, rows, columns + 3)[..., 1 : columns + 1]
    yield "transposed columns of a wider one", new(*lead, columns, rows + 2)[..., :rows].swapaxes(-1, -2)
    yield "one row again and again", np.broadcast_to(new(*lead, 1, columns), shape)
    if lead:
        yield "one matrix again and again", np.broadcast_to(new(rows, columns), shape)
        yield "stacked between the rows", np.moveaxis(new(rows, math.prod(lead), columns), 0, 1).reshape(shape)


class Written(HostDevice):
    """A device that keeps the text of every kernel by its name."""

    def __init__(self, cupy: Any) -> None:
        super().__init__(cupy)
        self.texts: dict[str, str] = {}

    def kernel(self, text: str, name: str) -> Any:  # type: ignore[override]
        self.texts[text] = name
        return super().kernel(text, name)
