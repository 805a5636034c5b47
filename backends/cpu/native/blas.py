"""NumPy's BLAS by address, and products by it as native nodes."""

import contextlib
import ctypes
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from nnkit.backends.cpu.native.calls import NativeCall, node
from nnkit.backends.cpu.products import columns_of

# The same library as np.dot's: it gives the same bits, and has the same threads. The names are those of NumPy's wheels,
# with integers of 64 bits, and of BLAS elsewhere; first of Fortran's functions, then of C's.
_NAMES = (("scipy_{}_64_", np.int64), ("{}_", np.int32), ("scipy_{}64_", np.int64), ("{}", np.int32))


@cache
def blas_function(name: str) -> tuple[int, Any] | None:
    """The address of a function of NumPy's BLAS, and its type of integers; None if that cannot be found."""
    try:
        library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)
    except (ImportError, OSError):
        return None
    for pattern, integers in _NAMES:
        with contextlib.suppress(AttributeError):  # a library finds what those have that it needs
            found = ctypes.cast(getattr(library, pattern.format(name)), ctypes.c_void_p).value
            if found is not None:
                return found, integers
    return None


@cache
def _through(count: int) -> str:
    """The text that calls a function with `count` arguments; the first of its own is the address."""
    return f"def f(arguments):\n    call({', '.join(f'arguments[{i}]' for i in range(count + 1))})\n"


_DOT = """\
def f(arguments):
    one, dot, terms, out = arguments[0], arguments[1], arguments[2], REALs(arguments[5])
    if terms == 1:
        out[0] = REALs(arguments[3])[0] * REALs(arguments[4])[0]
    else:
        out[0] = REAL(0) + call_REAL(dot, terms, arguments[3], one, arguments[4], one)
"""


def _dot(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> NativeCall | None:
    """The product of one row and one column as NumPy computes it: by `dot`; `gemv` rounds otherwise."""
    # C's function: what Fortran's returns for float32 depends on the compiler.
    blas = blas_function("cblas_sdot" if out.dtype == np.float32 else "cblas_ddot")
    return None if blas is None else node(_DOT.replace("REAL", out.dtype.name), [1, blas[0], a.size], [a, b, out])


def by_blas(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: np.ndarray | None) -> NativeCall | None:
    """The product by `gemm`, or `gemv` where one side is 1; None if an operand is not contiguous."""
    if not out.flags.f_contiguous:
        a, b, out = b.T, a.T, out.T
    first, second, dtype, (m, n) = columns_of(a), columns_of(b), out.dtype, out.shape
    if first is None or second is None or min(*a.shape, *b.shape) == 0:
        return None
    if m == n == 1 and alpha is None:
        return _dot(a, b, out)
    blas = blas_function(("s" if dtype == np.float32 else "d") + ("gemv" if 1 in (m, n) else "gemm"))
    if blas is None:
        return None
    (a, ta), (b, tb), (address, integers) = first, second, blas
    real = np.array([1.0, 0.0 if alpha is None else 1.0], dtype)
    scale, beta = real[:1] if alpha is None else alpha, real[1:]
    letters, sizes = np.frombuffer(b"NT", np.uint8), np.array([m, n, b.shape[tb], a.shape[0], b.shape[0], 1], integers)
    one = sizes[5:]
    if n == 1 or m == 1:
        matrix, vector, transposed = (a, b, ta) if n == 1 else (b, a, 1 - tb)
        shape = np.array(matrix.shape, integers)
        given: list[Any] = [letters[transposed:], shape, shape[1:], scale, matrix, shape, vector, one, beta, out, one]
    else:
        given = [letters[ta:], letters[tb:], sizes, sizes[1:], sizes[2:], scale, a, sizes[3:], b, sizes[4:], beta, out]
        given.append(sizes)
    return node(_through(len(given)), [address], given)
