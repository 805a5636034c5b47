"""cuBLASLt: products that change their result before it is written, by what it calls an epilogue.

CuPy's library is called by ctypes, with the functions and numbers of cublasLt.h. Its descriptions of a call, which are
on the host, are made for each call: of a recording that becomes a CUDA graph, that is twice.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from nnkit.backends.cuda.cublas import NOT_SUPPORTED, TRANSPOSED, CublasError, Product, bound

RELU_BIAS, RELU_AUX_BIAS, DRELU = 6, 134, 136  # cublasLtEpilogue_t
_FLOAT = 0  # CUDA_R_32F, the type of α and β
_FLAG_A, _FLAG_B, _EPILOGUE, _BIAS, _MASK, _MASK_LD = 3, 4, 7, 8, 11, 12  # cublasLtMatmulDescAttributes_t
_WORKSPACE, _ALIGNMENTS = 1, (5, 6, 7, 8)  # cublasLtMatmulPreferenceAttributes_t; of A, B, C and D
_MASK_ROW = 128  # bits, of which the rows of a mask are multiples

_P, _I, _N, _Size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t
_SIGNATURES: dict[str, list[Any]] = {
    "cublasLtMatmulDescCreate": [_P, _I, _I],  # type of the sums, of α and β
    "cublasLtMatmulDescSetAttribute": [_P, _I, _P, _Size],
    "cublasLtMatmulDescDestroy": [_P],
    "cublasLtMatrixLayoutCreate": [_P, _I, ctypes.c_uint64, ctypes.c_uint64, _N],  # type, rows, columns, ld
    "cublasLtMatrixLayoutDestroy": [_P],
    "cublasLtMatmulPreferenceCreate": [_P],
    "cublasLtMatmulPreferenceSetAttribute": [_P, _I, _P, _Size],
    "cublasLtMatmulPreferenceDestroy": [_P],
    # handle, operation, layouts of A, B, C and D, preference, number wanted, algorithms, number found
    "cublasLtMatmulAlgoGetHeuristic": [*[_P] * 7, _I, _P, _P],
    # handle, operation, α, A, layout, B, layout, β, C, layout, D, layout, algorithm, workspace, its size, stream
    "cublasLtMatmul": [*[_P] * 14, _Size, _P],
}


class _Algorithm(ctypes.Structure):  # cublasLtMatmulHeuristicResult_t
    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8), ("workspace", _Size), ("state", _I), ("waves", ctypes.c_float),
        ("reserved", _I * 4),
    )  # fmt: skip


@functools.cache
def cublas_lt() -> Any:
    """CuPy's cuBLASLt; ImportError, RuntimeError or OSError if it cannot be loaded, AttributeError if it is too old."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return bound(load_nvidia_dynamic_lib("cublasLt").abs_path, _SIGNATURES)


@contextmanager
def _making() -> Iterator[Callable[..., Any]]:
    """A function that makes an object of cuBLASLt, with attributes; they are destroyed at the end of the block."""
    library = cublas_lt()
    with ExitStack() as end:

        def make(what: str, arguments: tuple[int, ...], attributes: Mapping[int, Any]) -> Any:
            made = _P()
            getattr(library, f"{what}Create")(ctypes.byref(made), *arguments)
            end.callback(getattr(library, f"{what}Destroy"), made)
            for attribute, value in attributes.items():
                address, size = ctypes.byref(value), ctypes.sizeof(value)
                getattr(library, f"{what}SetAttribute")(made, attribute, address, size)
            return made

        yield make


def mask_shape(rows: int, columns: int) -> tuple[int, int]:
    """The shape in bytes of a mask with one bit for each entry of a matrix, in rows of whole 128 bits.

    >>> mask_shape(5, 100), mask_shape(5, 129)
    ((5, 16), (5, 32))
    """
    return rows, -(-columns // _MASK_ROW) * _MASK_ROW // 8


class LtProduct:
    """The call of a `Product` with an epilogue, after `choose`.

    RELU_BIAS is max(ab + bias, 0), RELU_AUX_BIAS also writes where this is positive to the mask, and DRELU is ab there
    and 0 elsewhere. The bias has the dtype of the result, which is in C order.
    """

    def __init__(self, product: Product, epilogue: int, bias: Any = None, mask: Any = None) -> None:
        self.product, self.epilogue, self.bias, self.mask = product, epilogue, bias, mask
        self._best = _Algorithm()

    @property
    def read(self) -> tuple[Any, ...]:
        """All arrays that it reads."""
        return (*self.product.factors, self.mask if self.epilogue == DRELU else self.bias)

    @property
    def written(self) -> tuple[Any, ...]:
        """All arrays that it writes."""
        return (self.product.out, self.mask) if self.epilogue == RELU_AUX_BIAS else (self.product.out,)

    def choose(self) -> None:
        """Let cuBLASLt choose an algorithm; CublasError if it has none."""
        handle, _, size, _ = self.product.device.handles.get().place()
        (a, b, d), found = self._pointers, _I()
        aligned = [ctypes.c_uint32(min(pointer & -pointer, 256)) for pointer in (a, b, d, d)]
        wanted = {_WORKSPACE: ctypes.c_uint64(size)} | dict(zip(_ALIGNMENTS, aligned, strict=True))
        with _making() as make:
            operation, *layouts = self._described(make, self.bias)
            cublas_lt().cublasLtMatmulAlgoGetHeuristic(
                handle, operation, *layouts, layouts[-1], make("cublasLtMatmulPreference", (), wanted), 1,
                ctypes.byref(self._best), ctypes.byref(found),
            )  # fmt: skip
        if not found.value or self._best.state:
            raise CublasError("cublasLtMatmulAlgoGetHeuristic", self._best.state or NOT_SUPPORTED)

    def __call__(self, bias: Any = None) -> None:
        """Compute it on the current stream; with another bias, if given."""
        handle, workspace, size, stream = self.product.device.handles.get().place()
        (a, b, d), one, zero = self._pointers, ctypes.c_float(1), ctypes.c_float(0)
        with _making() as make:
            operation, in_a, in_b, in_d = self._described(make, self.bias if bias is None else bias)
            cublas_lt().cublasLtMatmul(
                handle, operation, ctypes.byref(one), a, in_a, b, in_b, ctypes.byref(zero), d, in_d, d, in_d,
                ctypes.byref(self._best), workspace, size, stream,
            )  # fmt: skip

    @property
    def _pointers(self) -> tuple[int, int, int]:
        """A, B and D in column-major order, in which the product is outᵀ = bᵀaᵀ."""
        (a, b), out = self.product.factors, self.product.out
        return b.data.ptr, a.data.ptr, out.data.ptr

    def _described(self, make: Callable[..., Any], bias: Any) -> list[Any]:
        """The operation, and the layouts of A, B and D."""
        given: Any = self.product.arguments  # of cublasGemmEx
        flag_a, flag_b, m, n, k = given[:5]
        values: dict[int, Any] = {_FLAG_A: _I(flag_a), _FLAG_B: _I(flag_b), _EPILOGUE: ctypes.c_uint32(self.epilogue)}
        if bias is not None:
            values[_BIAS] = _P(bias.data.ptr)
        if self.mask is not None:
            values |= {_MASK: _P(self.mask.data.ptr), _MASK_LD: _N(8 * self.mask.shape[1])}
        made = [make("cublasLtMatmulDesc", (given[16], _FLOAT), values)]
        for (kind, ld), shape, flag in (
            (given[7:9], (m, k), flag_a), (given[10:12], (k, n), flag_b), (given[14:16], (m, n), 0),
        ):  # fmt: skip
            rows, columns = reversed(shape) if flag == TRANSPOSED else shape
            made.append(make("cublasLtMatrixLayout", (kind, rows, columns, ld), {}))
        return made
