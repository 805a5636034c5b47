"""cuBLASLt by NumPy on the host's memory, as its documentation has it: D = epilogue(αAB + βC), in column order.

It is strict: what is not in the documentation's table of types is not supported, and an algorithm is only for the
problem, and the alignments, for which it was asked.
"""

import ctypes
import sys
from collections.abc import Callable
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_longlong, c_size_t, c_uint32, c_void_p
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.cuda import cublas_lt, epilogues
from nnkit.backends.cuda.cublas import CublasError
from nnkit.backends.dtypes import numpy_dtype
from tests.support.host_memory import memory

INVALID_VALUE, NOT_SUPPORTED = 7, 15
FLOAT, BFLOAT16 = 0, 14  # CUDA_R_32F, CUDA_R_16BF
TYPES = {FLOAT: "float32", BFLOAT16: "bfloat16"}
# The types of A and B, and of C, D and the bias; those of sums.
TABLE = {(FLOAT, FLOAT): (68, 77), (BFLOAT16, FLOAT): (68,), (BFLOAT16, BFLOAT16): (68,)}
ATTRIBUTES: dict[int, Any] = {3: c_int32, 4: c_int32, 7: c_uint32, 8: c_void_p, 11: c_void_p, 12: c_int64}
PREFERENCES: dict[int, Any] = {1: c_size_t, 5: c_uint32, 6: c_uint32, 7: c_uint32, 8: c_uint32}
RELU_BIAS, RELU_AUX_BIAS, DRELU = 6, 134, 136
P, N = c_void_p, c_int

made: dict[int, Any] = {}  # what descriptors describe, by their addresses
problems: list[Any] = []  # those with an algorithm, which has their index
# How it is not as expected: NaN becomes 0; what is added to results, by epilogue; epilogues without algorithms, and
# those whose algorithms cublasLtMatmul then does not support.
options = SimpleNamespace(drops_nan=False, added={}, without=(), unsupported=())


def _new(place: int, value: Any) -> int:
    address = 0x5000 + 16 * len(made) if not made else max(made) + 16
    made[address] = value
    ctypes.cast(place, POINTER(P))[0] = P(address)
    return 0


def _operation(place: int, compute: int, scale: int) -> int:
    return _new(place, {"compute": compute}) if scale == FLOAT else NOT_SUPPORTED


def _set(types: dict[int, Any]) -> Callable[..., int]:
    def setting(descriptor: int, attribute: int, value: int, size: int) -> int:
        if size != ctypes.sizeof(types[attribute]):
            return INVALID_VALUE
        made[descriptor][attribute] = ctypes.cast(value, POINTER(types[attribute]))[0]
        return 0

    return setting


def _problem(operation: int, layouts: tuple[int, int, int, int]) -> tuple[Any, ...] | None:
    """What is asked for, without pointers; None if it is not supported."""
    given, (a, b, c, d) = made[operation], (made[layout] for layout in layouts)
    flags = given.get(3, 0), given.get(4, 0)
    (m, k), (inner, n) = (each[1:3][::-1] if flag else each[1:3] for each, flag in zip((a, b), flags, strict=True))
    epilogue, types = given.get(7, 1), (a[0], d[0])
    assert (c, k, (m, n)) == (d, inner, d[1:3])
    assert all(ld >= rows for _, rows, _, ld in (a, b, d))
    if a[0] != b[0] or given["compute"] not in TABLE.get(types, ()):
        return None
    if epilogue in (RELU_AUX_BIAS, DRELU):
        assert given[12] % 128 == 0
        assert given[12] >= m
        assert given[11] % 16 == 0
    assert bool(given.get(8)) == (epilogue in (RELU_BIAS, RELU_AUX_BIAS))
    assert bool(given.get(11)) == (epilogue in (RELU_AUX_BIAS, DRELU))
    return given["compute"], flags, epilogue, given.get(12), a, b, d


def _heuristic(handle: int, operation: int, a: int, b: int, c: int, d: int, preference: int, wanted: int,
               results: int, found: int) -> int:  # fmt: skip
    problem = _problem(operation, (a, b, c, d))
    ctypes.cast(found, POINTER(N))[0] = 0
    if problem is None:
        return NOT_SUPPORTED
    if problem[2] not in options.without:
        problems.append((problem, made[preference]))
        ctypes.memset(results, 0, 96)  # the size of cublasLtMatmulHeuristicResult_t
        ctypes.cast(results, POINTER(c_longlong))[0] = len(problems) - 1
        ctypes.cast(found, POINTER(N))[0] = 1
    return 0


def matmul(
    handle: int, operation: int, alpha: int, a: int, in_a: int, b: int, in_b: int, beta: int, c: int, in_c: int, d: int,
    in_d: int, algorithm: int, workspace: int, size: int, stream: int,
) -> Callable[[], None] | None:  # fmt: skip
    """The work of a call, whose descriptors may be gone when it is done; None if it is not supported."""
    problem, preference = problems[ctypes.cast(algorithm, POINTER(c_longlong))[0]]
    assert problem == _problem(operation, (in_a, in_b, in_c, in_d))
    assert size >= preference[1]
    assert all(pointer % preference[number] == 0 for number, pointer in zip((5, 6, 7, 8), (a, b, c, d), strict=True))
    scale, kept = (ctypes.cast(pointer, POINTER(c_float))[0] for pointer in (alpha, beta))
    _, flags, epilogue, aux_ld, *layouts = problem
    if epilogue in options.unsupported:
        return None
    bias, aux = made[operation].get(8), made[operation].get(11)

    def work() -> None:
        left, right, out = (_matrix(p, layout) for p, layout in zip((a, b, d), layouts, strict=True))
        m, n = out.shape
        with np.errstate(all="ignore"):
            x, y = (f.astype(np.float32) for f in (left.T if flags[0] else left, right.T if flags[1] else right))
            p = scale * (x @ y) + (kept * out if kept else 0)
            if epilogue in (RELU_BIAS, RELU_AUX_BIAS):
                p = p + memory(int(bias), (m,), (out.itemsize,), out.dtype).astype(np.float32)[:, None]
        bits: Any = None
        if epilogue in (RELU_AUX_BIAS, DRELU):
            bits = memory(int(aux), (aux_ld // 8, n), (1, aux_ld // 8), np.dtype(np.uint8))
        if epilogue == RELU_AUX_BIAS:
            whole = np.zeros((aux_ld, n), bool)
            whole[:m] = p > 0
            bits[...] = np.packbits(whole, axis=0, bitorder="little")
        if epilogue == DRELU:
            p = np.where(np.unpackbits(bits, axis=0, bitorder="little")[:m], p, 0)
        else:
            p = (np.fmax if options.drops_nan else np.maximum)(p, 0)
        out[...] = (p + options.added.get(epilogue, 0)).astype(out.dtype)

    return work


def _matrix(pointer: int, layout: tuple[int, int, int, int]) -> NDArray[Any]:
    kind, rows, columns, ld = layout
    dtype = numpy_dtype(TYPES[kind])
    return memory(pointer, (rows, columns), (dtype.itemsize, ld * dtype.itemsize), dtype)


def _destroy(descriptor: int) -> int:
    del made[descriptor]
    return 0


# The C signatures, and what the functions do; that of cublasLtMatmul is in `matmul`.
MATMUL = "cublasLtMatmul"
FUNCTIONS: dict[str, tuple[list[Any], Callable[..., int]]] = {
    "cublasLtMatmulDescCreate": ([P, N, N], _operation),
    "cublasLtMatmulDescSetAttribute": ([P, N, P, c_size_t], _set(ATTRIBUTES)),
    "cublasLtMatmulDescDestroy": ([P], _destroy),
    "cublasLtMatrixLayoutCreate": ([P, N, *[c_longlong] * 3], lambda place, *values: _new(place, values)),
    "cublasLtMatrixLayoutDestroy": ([P], _destroy),
    "cublasLtMatmulPreferenceCreate": ([P], lambda place: _new(place, {})),
    "cublasLtMatmulPreferenceSetAttribute": ([P, N, P, c_size_t], _set(PREFERENCES)),
    "cublasLtMatmulPreferenceDestroy": ([P], _destroy),
    "cublasLtMatmulAlgoGetHeuristic": ([*[P] * 7, N, P, P], _heuristic),
    MATMUL: ([*[P] * 14, c_size_t, P], lambda *arguments: at_once(matmul(*arguments))),
}


def at_once(work: Callable[[], None] | None) -> int:
    """Do the work; the status."""
    return NOT_SUPPORTED if work is None else work() or 0


def install(monkeypatch: Any) -> dict[str, int]:
    """Put it in the place of cuBLASLt, also for small products; functions in the result return the status there."""
    refuse: dict[str, int] = {}
    library = SimpleNamespace(**{name: _callable(name, *entry, refuse) for name, entry in FUNCTIONS.items()})
    monkeypatch.setattr(cublas_lt, "cublas_lt", lambda: library)
    monkeypatch.setattr(epilogues, "LEAST", 1)
    monkeypatch.setattr(sys.modules[__name__], "options", SimpleNamespace(**vars(options)))
    return refuse


def _callable(name: str, types: list[Any], function: Callable[..., int], refuse: dict[str, int]) -> Any:
    def called(*arguments: Any) -> int:
        try:
            return refuse.get(name) or function(*arguments)
        except BaseException as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return 999

    def checked(status: int, *_: Any) -> None:
        if status:
            raise CublasError(name, status)

    made_function: Any = ctypes.CFUNCTYPE(c_int, *types)(called)
    made_function.errcheck = checked
    return made_function
