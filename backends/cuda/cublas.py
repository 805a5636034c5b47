"""cuBLAS with nnkit's own handles, so that products can be part of a CUDA graph: CuPy's cannot be captured.

CuPy's cuBLAS library is called by ctypes, with the functions of cublas_api.h. A handle is for one thread and one
device. Products use preallocated workspaces, so that cuBLAS does not allocate and results are reproducible: one per
stream, as products on a stream run in order. α and β are on the device, where each replay of a graph reads them.
"""

import ctypes
import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nnkit.backends.cuda.launch import same
from nnkit.backends.cuda.layouts import Stored, stored, strides_of
from nnkit.backends.cuda.prepared import Call
from nnkit.backends.dtypes import compute_type, dtype_name
from nnkit.backends.recording import Node

# Constants of cublas_api.h and library_types.h.
AS_IS, TRANSPOSED = 0, 1
DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
COMPUTE_FLOAT, COMPUTE_TF32, COMPUTE_DOUBLE = 68, 77, 70
DEFAULT_ALGORITHM = -1
_LARGEST = 2**31 - 1  # of an int


def gemm_arguments(m: int, n: int, k: int, a: Stored, b: Stored) -> tuple[int, int, int, int, int]:
    """The flags and sizes of the BLAS product for C (m, n) = AB in row-major order: of B, of A, then n, m and k.

    Raises ValueError for sizes that do not fit into cuBLAS's integers.
    """
    largest = max(m, n, k, a.ld, b.ld)
    if largest > _LARGEST:
        raise ValueError(f"matmul: a matrix has {largest} rows or columns; expected at most {_LARGEST}")
    flags = [TRANSPOSED if matrix.transposed else AS_IS for matrix in (b, a)]
    return flags[0], flags[1], n, m, k


_POINTERS_ON_DEVICE = 1
_FLOAT_PARTIAL_SUMS = 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION, with default math: no implicit tf32
_KEPT = 8  # workspaces per handle

_P, _I, _N = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
_SIGNATURES: dict[str, list[Any]] = {
    "cublasCreate_v2": [_P],
    "cublasGetProperty": [_I, _P],
    "cublasSetPointerMode_v2": [_P, _I],
    "cublasSetMathMode": [_P, _I],
    "cublasSetStream_v2": [_P, _P],
    "cublasSetWorkspace_v2": [_P, _P, ctypes.c_size_t],
    # handle, op(A), op(B), m, n, k, α, A, type, ld, B, type, ld, β, C, type, ld, type of the sums, algorithm
    "cublasGemmEx": [_P, _I, _I, _I, _I, _I, _P, *[_P, _I, _I] * 2, _P, _P, _I, _I, _I, _I],
    # the same, with the distance to the next matrix after each ld, and the number of matrices
    "cublasGemmStridedBatchedEx": [_P, _I, _I, _I, _I, _I, _P, *[_P, _I, _I, _N] * 2, _P, _P, _I, _I, _N, _I, _I, _I],
}


_ARCH_MISMATCH, NOT_SUPPORTED = 8, 15  # statuses of products that this GPU or cuBLAS does not have


class CublasError(RuntimeError):
    """A failed call of cuBLAS, with its status (cublasStatus_t in cublas_api.h)."""

    def __init__(self, function: str, status: int) -> None:
        super().__init__(f"{function} of cuBLAS failed with status {status}")
        self.unsupported = status in (_ARCH_MISMATCH, NOT_SUPPORTED)


def _checked(status: int, function: Any, arguments: tuple[Any, ...]) -> None:
    if status:
        raise CublasError(function.__name__, status)


def bound(path: str, signatures: Mapping[str, list[Any]] = _SIGNATURES) -> ctypes.CDLL:
    """Load a library from a file, with the signatures of the functions used; OSError if it cannot be loaded."""
    library = ctypes.CDLL(path)
    for name, types in signatures.items():
        function = getattr(library, name)
        function.argtypes, function.restype, function.errcheck = types, _I, _checked
    return library


@functools.cache
def cublas() -> ctypes.CDLL:
    """CuPy's cuBLAS; ImportError, RuntimeError or OSError, with the missing file, if it cannot be loaded."""
    from cuda.pathfinder import load_nvidia_dynamic_lib  # a dependency of CuPy, which uses it as well

    return bound(load_nvidia_dynamic_lib("cublas").abs_path)


def cublas_version() -> str:
    """The version of the loaded cuBLAS, such as 12.9.1."""
    number, parts = _I(), []
    for part in range(3):
        cublas().cublasGetProperty(part, ctypes.byref(number))
        parts.append(str(number.value))
    return ".".join(parts)


class Handle:
    """A cuBLAS handle of the current device."""

    def __init__(self, cupy: Any, workspace_size: int) -> None:
        self._cuda, self._cublas, self._size = cupy.cuda, cublas(), workspace_size
        made = ctypes.c_void_p()
        self._cublas.cublasCreate_v2(ctypes.byref(made))
        self._handle = int(made.value or 0)
        self._cublas.cublasSetPointerMode_v2(self._handle, _POINTERS_ON_DEVICE)
        self._cublas.cublasSetMathMode(self._handle, _FLOAT_PARTIAL_SUMS)
        self.workspaces: dict[tuple[int, int], Any] = {}
        self._lent: Mapping[int, Any] = {}

    def workspace(self, stream: Any, captured: int = 0) -> Any:
        """The workspace for products on the current stream, or on the first or second stream of graphs for it."""
        key = (stream.ptr, captured)
        found = self.workspaces.pop(key) if key in self.workspaces else self._cuda.alloc(self._size)
        self.workspaces[key] = found  # the most recent is last; the oldest is removed
        while len(self.workspaces) > _KEPT:
            del self.workspaces[next(iter(self.workspaces))]
        return found

    @contextmanager
    def lent(self, workspaces: Mapping[int, Any]) -> Iterator[None]:
        """Use these workspaces in the `with` block, by streams' pointers."""
        self._lent = workspaces
        try:
            yield
        finally:
            self._lent = {}

    def gemm(self, arguments: tuple[Any, ...]) -> None:
        """`cublasGemmEx` with these arguments after the handle, on the current stream."""
        self._cublas.cublasGemmEx(self._ready(), *arguments)

    def gemm_strided_batched(self, arguments: tuple[Any, ...]) -> None:
        """`cublasGemmStridedBatchedEx`, the same way."""
        self._cublas.cublasGemmStridedBatchedEx(self._ready(), *arguments)

    def place(self) -> tuple[int, int, int, int]:
        """The handle, the workspace for products on the current stream, its size, and the stream."""
        stream = self._cuda.get_current_stream()
        workspace = self._lent[stream.ptr] if self._lent else self.workspace(stream)
        return self._handle, workspace.ptr, self._size, stream.ptr

    def _ready(self) -> int:
        handle, workspace, size, stream = self.place()
        self._cublas.cublasSetStream_v2(handle, stream)  # resets the workspace
        self._cublas.cublasSetWorkspace_v2(handle, workspace, size)
        return handle


class Handles:
    """The handles of one device, one per thread; handles of finished threads are reused."""

    def __init__(self, cupy: Any, workspace_size: int) -> None:
        self._cupy, self._size = cupy, workspace_size
        self._threads = threading.local()
        self._idle: list[Handle] = []

    def get(self) -> Handle:
        """The calling thread's handle; the device must be current."""
        lease: _Lease | None = getattr(self._threads, "lease", None)
        if lease is None:
            try:
                handle = self._idle.pop()
            except IndexError:
                handle = Handle(self._cupy, self._size)
            lease = self._threads.lease = _Lease(handle, self._idle)
        return lease.handle


class _Lease:
    """Returns its handle when its thread ends: destroying a handle would synchronize the device."""

    def __init__(self, handle: Handle, idle: list[Handle]) -> None:
        self.handle, self._idle = handle, idle

    def __del__(self) -> None:
        # The thread's work may still use them, on a default stream of its own.
        self.handle.workspaces.clear()
        self._idle.append(self.handle)


_EVERYWHERE = (("float32", COMPUTE_FLOAT), ("float64", COMPUTE_DOUBLE))


class Product:
    """The call `out ← α ab + β out` for non-empty matrices, or stacks of them, with `out` in row-major order.

    cuBLAS supports the layout of the factors, and reads them in the dtype `kind`; the call casts factors of other
    dtypes. If α is given, a 0-d array in the dtype of the sums, β is 1; otherwise α is 1 and β 0. A product that cuBLAS
    does not support on this GPU is computed in float32.
    """

    __slots__ = ("_instead", "_stacked", "alpha", "arguments", "compute", "device", "factors", "kind", "out")

    def __init__(
        self,
        device: Any,
        factors: tuple[Any, Any],
        out: Any,
        kind: str,
        compute: int,
        alpha: Any = None,
    ) -> None:
        self.device, self.factors, self.out, self.kind = device, factors, out, kind
        self.compute, self.alpha = compute, alpha
        self._stacked = math.prod(out.shape[:-2]) > 1
        self.arguments = None if self.to_cast() else self._bound()
        self._instead: list[Callable[[], object]] = []

    @property
    def node(self) -> Node:
        """Its node in a recording."""
        if self.alpha is None:
            return Node(self, self.factors, (self.out,), "matmul")
        return Node(self, (*self.factors, self.alpha, self.out), (self.out,), "add_product")

    @property
    def is_everywhere(self) -> bool:
        """Whether every GPU computes it, with its factors as they are."""
        return self.arguments is not None and (self.kind, self.compute) in _EVERYWHERE

    def prepared(self) -> Call:
        """The function that computes it for other factors and results of the same layouts."""
        arguments, handles, stacked = self.arguments, self.device.handles, self._stacked
        assert arguments is not None
        b, a, out = (6, 10, 15) if stacked else (6, 9, 13)  # where their addresses are

        def call(factors: Sequence[Any], outs: Sequence[Any]) -> None:
            given = [*arguments]
            given[a], given[b], given[out] = factors[0].data.ptr, factors[1].data.ptr, outs[0].data.ptr
            handle = handles.get()
            (handle.gemm_strided_batched if stacked else handle.gemm)(tuple(given))

        return call

    def added_to(self, out: Any, alpha: Any) -> "Product | None":
        """The product that adds to a matrix; None if it already does, or for unsupported dtypes or layouts."""
        types = {dtype_name(array.dtype) for array in (*self.factors, self.out, out, alpha)}
        layout = stored(out.shape, strides_of(out), out.shape[:-2])
        if self.alpha is not None or layout is None or layout.transposed or types not in ({"float32"}, {"float64"}):
            return None
        return Product(self.device, self.factors, out, self.kind, self.compute, alpha)

    def to_cast(self) -> list[Any]:
        """The matrices to cast, in row-major order: one copy is for the matrix and its transpose."""
        return [self._in_rows(factor) for factor in self.factors if dtype_name(factor.dtype) != self.kind]

    def reading(self, copies: Sequence[tuple[Any, Any]]) -> "Product":
        """The product that reads copies instead of matrices to cast, from pairs (matrix, copy)."""
        factors = []
        for factor in self.factors:
            if dtype_name(factor.dtype) != self.kind:
                rows = self._in_rows(factor)
                copy = next(copy for matrix, copy in copies if same(matrix, rows))
                factor = copy if rows is factor else copy.mT
            factors.append(factor)
        return Product(self.device, (factors[0], factors[1]), self.out, self.kind, self.compute, self.alpha)

    def reads(self, array: Any) -> bool:
        """Whether a matrix or its transpose is a factor."""
        return any(same(array, factor) or same(array.mT, factor) for factor in self.factors)

    def instead_of(self, copies: Sequence[tuple[Any, Any]]) -> "Product":
        """The product that reads other arrays with the same entries, from pairs (array, other)."""
        pairs = [*copies, *((array.mT, other.mT) for array, other in copies)]
        a, b = (next((new for old, new in pairs if same(old, factor)), factor) for factor in self.factors)
        return Product(self.device, (a, b), self.out, self.kind, self.compute, self.alpha)

    def __call__(self) -> None:
        if self.arguments is None:
            empty, to_cast = self.device.empty, self.to_cast()
            self.reading([(a, self.device.round(a, empty(a.shape, self.kind))) for a in to_cast])()
            return
        if not self._instead:
            handle = self.device.handles.get()
            try:
                (handle.gemm_strided_batched if self._stacked else handle.gemm)(self.arguments)
                return
            except CublasError as error:
                if not error.unsupported or (self.kind, self.compute) in _EVERYWHERE:
                    raise
                self.device.lacks(f"of {self.kind}" if self.compute == COMPUTE_FLOAT else "in TensorFloat-32", error)
            self._instead = self._in_float32()  # from now on, also while a graph is captured
        for call in self._instead:
            call()

    def _in_float32(self) -> list[Callable[[], object]]:
        """The calls that compute it in float32, with their memory."""
        device, out = self.device, self.out
        wide = out if dtype_name(out.dtype) == "float32" else device.empty(out.shape, "float32")
        product = Product(device, self.factors, wide, "float32", COMPUTE_FLOAT, self.alpha)
        copies = [(a, device.empty(a.shape, "float32")) for a in product.to_cast()]
        calls: list[Callable[[], object]] = [functools.partial(device.round, *pair) for pair in copies]
        calls.append(product.reading(copies))
        return calls if wide is out else [*calls, functools.partial(device.round, wide, out)]

    def _bound(self) -> tuple[Any, ...]:
        """The arguments for cuBLAS after the handle."""
        (a, b), out = self.factors, self.out
        zero, one = self.device.units[compute_type(dtype_name(out.dtype))]
        alpha, beta = (one, zero) if self.alpha is None else (self.alpha, one)
        in_a, in_b, in_out = (self._stored(array) for array in (a, b, out))

        def place(array: Any, layout: Stored) -> tuple[int, ...]:
            step = (layout.batch,) if self._stacked else ()
            return (array.data.ptr, DATA_TYPES[dtype_name(array.dtype)], layout.ld, *step)

        return (
            *gemm_arguments(out.shape[-2], out.shape[-1], a.shape[-1], in_a, in_b),
            alpha.data.ptr, *place(b, in_b), *place(a, in_a), beta.data.ptr, *place(out, in_out),
            *((math.prod(out.shape[:-2]),) if self._stacked else ()), self.compute, DEFAULT_ALGORITHM,
        )  # fmt: skip

    def _in_rows(self, factor: Any) -> Any:
        return factor.mT if self._stored(factor).transposed else factor

    def _stored(self, array: Any) -> Stored:
        layout = stored(array.shape, strides_of(array), self.out.shape[:-2])
        assert layout is not None
        return layout
