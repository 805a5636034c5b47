"""Products that add to what is there, C ← C + α AB, by SciPy's BLAS where SciPy is installed.

NumPy's own products only overwrite. So the gradient of gradient descent goes straight into the weights: it is neither
written nor read again, which for a small network is most of an update's time.
"""

import ctypes
import os
import sys
from functools import cache, partial
from threading import RLock
from typing import Any

import numpy as np

from nnkit.backends.recording import Call

# Held while libraries are loaded or looked for, and by whoever forks: a child would wait for ever for the locks of
# Python's imports and of the loader that a thread had which it does not have.
_loading = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release)


@cache
def blas_function(name: str, dtype: str) -> Any:
    """SciPy's `gemm` or `gemv` for float32 or float64; None without SciPy or for another type."""
    if dtype not in ("float32", "float64"):
        return None
    with _loading:
        try:
            from scipy.linalg import blas
        except ImportError:
            return None
    return getattr(blas, ("s" if dtype == "float32" else "d") + name)


def one_thread() -> bool:
    """Whether every BLAS that is loaded is known to compute with one thread; without threadpoolctl none is.

    NumPy and SciPy each bring an OpenBLAS of their own, whose idle threads spin. With two threads each on two cores, a
    step of 784-100-10 that used both took 12.6 ms instead of 0.13 (measured).
    """
    found = loaded_blas()
    return found is not None and thread_counts(found) <= {1}


def thread_counts(found: Any) -> set[int]:
    """How many threads each of the libraries that `loaded_blas` has found computes with."""
    return {library.num_threads for library in found.lib_controllers}


_found: tuple[object, Any] = (None, None)  # which libraries were loaded, and the BLAS among them


def loaded_blas() -> Any:
    """The BLAS of this process, as threadpoolctl's controller of them; None where that is not installed.

    Looking for them takes 1 to 4 ms, reading every library's name: they are kept until another library is loaded.
    """
    global _found
    with _loading:
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
    """What changes when this process loads a library: the loader's own count, or else how many modules there are."""
    seen: list[object] = [len(sys.modules)]

    def note(library: Any, size: int, data: Any) -> int:
        if size >= ctypes.sizeof(_Library):
            seen[0] = (library.contents.loads, library.contents.unloads)
        return 1  # every library tells the same

    iterate = _dl_iterate_phdr()
    if iterate is not None:
        iterate(_NOTE(note), None)
    return seen[0]


@cache
def _dl_iterate_phdr() -> Any:
    """The function of the C library that goes through the libraries of a process; None where there is none."""
    try:
        return getattr(ctypes.CDLL(None), "dl_iterate_phdr", None)
    except (OSError, TypeError):  # as on Windows
        return None


def _columns(matrix: np.ndarray) -> tuple[np.ndarray, int] | None:
    """A matrix as BLAS wants it, in Fortran order, and whether it is to be transposed; None if it is neither order."""
    if matrix.flags.f_contiguous:
        return matrix, 0
    return (matrix.T, 1) if matrix.flags.c_contiguous else None


class AddProduct:
    """The call `out ← out + α ab` for a (m, k), b (k, n) and a contiguous out (m, n), all of one dtype.

    `alpha` is a 0-d array that is read at each call. In BLAS's column order a C-contiguous out is outᵀ ← outᵀ + α bᵀaᵀ.
    """

    __slots__ = ("a", "alpha", "b", "gemm", "out", "transposed_a", "transposed_b")

    def __init__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray) -> None:
        self.gemm = blas_function("gemm", out.dtype.name)
        if not out.flags.f_contiguous:
            a, b, out = b.T, a.T, out.T
        self.alpha, self.out = alpha, out
        first, second = _columns(a), _columns(b)
        if first is None or second is None or not out.flags.f_contiguous or not a.dtype == b.dtype == out.dtype:
            raise ValueError("a product can be added only to a contiguous matrix, from contiguous ones of its type")
        (self.a, self.transposed_a), (self.b, self.transposed_b) = first, second

    def __call__(self) -> None:
        # After alpha, a, b: beta, c, whether to transpose a and b, write into c.
        self.gemm(self.alpha.item(), self.a, self.b, 1.0, self.out, self.transposed_a, self.transposed_b, 1)


def add_row_call(row: np.ndarray, out: np.ndarray) -> Call | None:
    """The call `out ← out + 1 rowᵀ`, a row added to each of a C-contiguous matrix; None where BLAS has none.

    It rounds as np.add does, which goes through a loop of its own for each row: 0.9 and 0.4 µs at 10 × 30, 3.2 and 1.5
    at 128 × 100 (float32).
    """
    ger = blas_function("ger", out.dtype.name)
    if ger is None or out.ndim != 2 or row.shape != out.shape[1:] or row.dtype != out.dtype:
        return None
    if not (out.flags.c_contiguous and row.flags.c_contiguous and out.size) or np.may_share_memory(row, out):
        return None
    # alpha, x, y, steps of x and y, a, and leave to write over each of the three.
    return partial(ger, 1.0, row, np.ones(len(out), out.dtype), 1, 1, out.T, 1, 1, 1)


FEW = 64  # terms that may be added to what is there one by one


class AddColumnSums:
    """The call `out ← out + α 1ᵀa` for a C-contiguous a (n, d) and out (d,) of its dtype; `alpha` is a 0-d array.

    Few rows are added to `out` in one product. Many are summed first: one small term after the other, rounded beside a
    large entry, would lose digits (1024 rows of float32 were ten times as far from float64).
    """

    __slots__ = ("a", "alpha", "gemv", "ones", "out", "sums")

    def __init__(self, a: np.ndarray, out: np.ndarray, alpha: np.ndarray) -> None:
        self.gemv = blas_function("gemv", out.dtype.name)
        self.a, self.out, self.alpha = a, out, alpha
        self.ones = np.ones(a.shape[0], a.dtype)
        self.sums = None if a.shape[0] <= FEW else np.empty(a.shape[1], a.dtype)

    def __call__(self) -> None:
        if self.sums is None:
            # After alpha, a, x: beta, y, offset and step of x, offset and step of y, transpose, write into y.
            self.gemv(self.alpha.item(), self.a.T, self.ones, 1.0, self.out, 0, 1, 0, 1, 0, 1)
            return
        np.dot(self.ones, self.a, self.sums)
        np.multiply(self.sums, self.alpha, self.sums)
        np.add(self.out, self.sums, self.out)
