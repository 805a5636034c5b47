"""Products and sums on NumPy, by its own BLAS and, where it is installed, by SciPy's, which adds to what is there."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from nnkit.backends.base import Backend, quiet
from nnkit.backends.loading import loading
from nnkit.backends.recording import Call, perform

after_loading: list[Callable[[], None]] = []  # called when SciPy's BLAS has been loaded, with threads of its own


@cache
def blas_function(name: str, dtype: str) -> Any:
    """SciPy's `gemm` or `gemv` for float32 or float64; None without SciPy or for another dtype."""
    if dtype not in ("float32", "float64"):
        return None
    with loading():
        try:
            from scipy.linalg import blas
        except ImportError:
            return None
    for call in after_loading:
        call()
    return getattr(blas, ("s" if dtype == "float32" else "d") + name)


def one_thread() -> bool:
    """Whether every loaded BLAS is known to use one thread; False without threadpoolctl.

    NumPy and SciPy each ship their own OpenBLAS, whose idle threads spin. With two threads each on two cores, a step of
    784-100-10 that used both took 12.6 ms instead of 0.13 (measured).
    """
    found = loaded_blas()
    return found is not None and thread_counts(found) <= {1}


def thread_counts(found: Any) -> set[int]:
    """The numbers of threads of the libraries found by `loaded_blas`."""
    return {library.num_threads for library in found.lib_controllers}


_found: tuple[object, Any] = (None, None)  # the state of loaded libraries, and the BLAS libraries among them


def loaded_blas() -> Any:
    """threadpoolctl's controller of the BLAS libraries in this process; None if threadpoolctl is not installed.

    The search takes 1 to 4 ms, as it reads every library's name, so the result is cached until another one is loaded.
    """
    global _found
    with loading():
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError:
            return None
        loaded = _libraries_loaded()
        if loaded != _found[0]:
            _found = loaded, ThreadpoolController().select(user_api="blas")
        return _found[1]


class _Library(ctypes.Structure):
    """The start of glibc's dl_phdr_info."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("count", ctypes.c_uint16),
        ("loads", ctypes.c_ulonglong),
        ("unloads", ctypes.c_ulonglong),
    )


_NOTE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)


def _libraries_loaded() -> object:
    """A value that changes when this process loads a library: the loader's counts, else the number of modules."""
    seen: list[object] = [len(sys.modules)]

    def note(library: Any, size: int, data: Any) -> int:
        if size >= ctypes.sizeof(_Library):
            seen[0] = (library.contents.loads, library.contents.unloads)
        return 1  # stop: the counts are the same for every library

    iterate = _dl_iterate_phdr()
    if iterate is not None:
        iterate(_NOTE(note), None)
    return seen[0]


@cache
def _dl_iterate_phdr() -> Any:
    """The C library's function that iterates over the libraries of a process; None if there is none."""
    try:
        return getattr(ctypes.CDLL(None), "dl_iterate_phdr", None)
    except (OSError, TypeError):  # as on Windows
        return None


def columns_of(matrix: np.ndarray) -> tuple[np.ndarray, int] | None:
    """A matrix in Fortran order for BLAS and whether to transpose it; None if it is not contiguous."""
    if matrix.flags.f_contiguous:
        return matrix, 0
    return (matrix.T, 1) if matrix.flags.c_contiguous else None


class AddProduct:
    """The call `out ← out + α ab` for a (m, k), b (k, n) and a contiguous out (m, n), all of one dtype.

    `alpha` is a 0-d array that is read in each call. For BLAS, which uses column-major order, a C-contiguous out is
    computed as outᵀ ← outᵀ + α bᵀaᵀ.
    """

    __slots__ = ("a", "alpha", "b", "gemm", "native", "out", "transposed_a", "transposed_b")

    def __init__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray) -> None:
        self.gemm = blas_function("gemm", out.dtype.name)
        if not out.flags.f_contiguous:
            a, b, out = b.T, a.T, out.T
        self.alpha, self.out = alpha, out
        first, second = columns_of(a), columns_of(b)
        if first is None or second is None or not out.flags.f_contiguous or not a.dtype == b.dtype == out.dtype:
            raise ValueError("a, b or out differ in dtype or are not contiguous; expected contiguous, of one dtype")
        (self.a, self.transposed_a), (self.b, self.transposed_b) = first, second

    def __call__(self) -> None:
        # The arguments after alpha, a, b: beta, c, trans_a, trans_b, overwrite_c.
        self.gemm(self.alpha.item(), self.a, self.b, 1.0, self.out, self.transposed_a, self.transposed_b, 1)


class AddProducts:
    """`AddProduct` for stacks a (count, m, k), b (count, k, n) and out (count, m, n); native code, where there is."""

    __slots__ = ("a", "alpha", "b", "native", "out")

    def __init__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray) -> None:
        self.a, self.b, self.out, self.alpha = a, b, out, alpha

    def __call__(self) -> None:
        self.out += self.alpha * np.matmul(self.a, self.b)


def add_row_call(row: np.ndarray, out: np.ndarray) -> Call | None:
    """The call `out ← out + 1 rowᵀ`, which adds a row to each row of a C-contiguous matrix; None if unsupported.

    It rounds like np.add, which runs a separate loop for each row: np.add and this took 0.9 and 0.4 µs at 10 × 30, 3.2
    and 1.5 at 128 × 100 (float32).
    """
    ger = blas_function("ger", out.dtype.name)
    if ger is None or out.ndim != 2 or row.shape != out.shape[1:] or row.dtype != out.dtype:
        return None
    if not (out.flags.c_contiguous and row.flags.c_contiguous and out.size) or np.may_share_memory(row, out):
        return None
    # The arguments: alpha, x, y, incx, incy, a, overwrite_x, overwrite_y, overwrite_a.
    return partial(ger, 1.0, row, np.ones(len(out), out.dtype), 1, 1, out.T, 1, 1, 1)


FEW = 64  # terms that may be added to `out` one by one


class AddColumnSums:
    """The call `out ← out + α 1ᵀa` for a C-contiguous a (n, d) and out (d,) of its dtype; `alpha` is a 0-d array.

    Few rows are added to `out` in one product. Many are summed first: adding small terms one by one to a large entry
    would lose digits (with 1024 rows of float32, the error with respect to float64 was ten times as large).
    """

    __slots__ = ("a", "alpha", "gemv", "native", "ones", "out", "sums")

    def __init__(self, a: np.ndarray, out: np.ndarray, alpha: np.ndarray) -> None:
        self.gemv = blas_function("gemv", out.dtype.name)
        self.a, self.out, self.alpha = a, out, alpha
        self.ones = np.ones(a.shape[0], a.dtype)
        self.sums = None if a.shape[0] <= FEW else np.empty(a.shape[1], a.dtype)

    def __call__(self) -> None:
        if self.sums is None:
            # The arguments after alpha, a, x: beta, y, offx, incx, offy, incy, trans, overwrite_y.
            self.gemv(self.alpha.item(), self.a.T, self.ones, 1.0, self.out, 0, 1, 0, 1, 0, 1)
            return
        np.dot(self.ones, self.a, self.sums)
        np.multiply(self.sums, self.alpha, self.sums)
        np.add(self.out, self.sums, self.out)


# OpenBLAS's products with the transpose of a matrix take up to four times as long if it is in row-major instead of
# column-major order, except for long sums with few rows; see bench/NOTES.md.
WIDE, NARROW = 40, 64


class NumpyProducts(Backend):
    """The matrix products, sums and maxima of the NumPy backend; half-precision types are accumulated in float32."""

    @quiet()
    def run_matmul(self, a: np.ndarray, b: np.ndarray, out: Any) -> Any:
        if a.dtype.itemsize == b.dtype.itemsize == 2:
            wide, half = np.float32, a.dtype.newbyteorder("=")
            return self._into("matmul", lambda: np.matmul(a.astype(wide), b.astype(wide)).astype(half), (a, b), out)
        # np.dot has half of np.matmul's overhead on small matrices, but needs 2-D, one native dtype and a C-ordered and
        # aligned result.
        plain = a.ndim == b.ndim == 2 and a.dtype == b.dtype == out.dtype and out.dtype.isnative
        if plain and not out.flags.carray and out.T.flags.carray:
            call = partial(np.dot, b.T, a.T, out.T)
        else:
            call = partial(np.dot if plain and out.flags.carray else np.matmul, a, b, out)
        perform(call, (a, b), (out,), "matmul")
        return out

    @quiet()
    def run_reduction(self, operation: str, a: np.ndarray, axis: int | None, keepdims: bool, out: Any) -> Any:
        columns = axis == 0 and a.ndim == 2 and not keepdims and a.dtype.kind == "f" and a.flags.c_contiguous
        if operation == "max":
            call = partial(np.maximum.reduce, a, axis, None, out, keepdims)
        elif a.dtype.itemsize == 2:
            # In float16, 2048 + 1 is 2048.
            half = a.dtype.newbyteorder("=")
            return self._into(
                "sum", lambda: np.asarray(np.sum(a, axis, np.float32, keepdims=keepdims)).astype(half), (a,), out
            )
        elif columns and out.flags.carray and out.dtype == a.dtype and a.dtype.isnative:
            # A product with ones sums columns in half the time of a reduction over the first axis.
            call = partial(np.dot, np.ones(a.shape[0], a.dtype), a, out)
        else:
            call = partial(np.add.reduce, a, axis, None, out, keepdims)
        perform(call, (a,), (out,), operation)
        return out

    def by_columns(self, d_out: int, d_in: int, dtype: str) -> bool:
        return dtype == "float32" and (d_out >= WIDE or d_in <= NARROW)
