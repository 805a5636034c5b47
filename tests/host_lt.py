"""What cuBLASLt does with a `Matmul`, by NumPy on the host's memory, in column order as its documentation has it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.cuda.cublas_lt import Epilogue, Matmul, Place
from nnkit.backends.cuda.gemm import DATA_TYPES
from nnkit.backends.dtypes import numpy_dtype
from tests.host_memory import memory

Array = NDArray[Any]
FLOAT = np.dtype(np.float32)
TYPES = {number: name for name, number in DATA_TYPES.items()}
_RELU = (Epilogue.RELU_BIAS, Epilogue.RELU_AUX_BIAS)
_GELU = (Epilogue.GELU_BIAS, Epilogue.GELU_AUX_BIAS)


def evaluate(matmul: Matmul) -> None:
    """Do it."""
    rows, columns, inner = matmul.sizes
    a, b = (
        _factor(place, shape, flag)
        for place, shape, flag in zip(
            (matmul.a, matmul.b), ((rows, inner), (inner, columns)), matmul.transposed, strict=True
        )
    )
    d = _matrix(matmul.d, (rows, columns))
    assert d.dtype == FLOAT
    alpha, beta = (memory(pointer, (), (), FLOAT) for pointer in (matmul.alpha, matmul.beta))
    found = alpha * (a @ b) + (beta * d if beta else 0)
    if matmul.epilogue == Epilogue.BGRADB:
        _vector(matmul.bias, columns)[...] = b.sum(axis=0)
        d[...] = found
        return
    if matmul.epilogue not in (Epilogue.DRELU, Epilogue.DGELU):
        found = found + _vector(matmul.bias, rows)[:, None]
    d[...] = _activated(matmul, found)


def _activated(matmul: Matmul, p: Array) -> Array:
    """What an epilogue makes of P and its bias, with what it leaves or reads."""
    epilogue, (rows, columns, _) = matmul.epilogue, matmul.sizes
    bits: Any = None
    if epilogue in (Epilogue.RELU_AUX_BIAS, Epilogue.DRELU):
        assert matmul.aux_ld % 128 == 0
        assert matmul.aux_ld >= rows
        assert matmul.aux % 16 == 0
        bits = memory(matmul.aux, (matmul.aux_ld // 8, columns), (1, matmul.aux_ld // 8), np.dtype(np.uint8))
    if epilogue == Epilogue.DRELU:
        return np.where(np.unpackbits(bits, axis=0, bitorder="little")[:rows], p, 0)
    saved: Any = None
    if epilogue in (Epilogue.GELU_AUX_BIAS, Epilogue.DGELU):
        assert matmul.aux_ld % 8 == 0
        assert matmul.aux % 16 == 0
        saved = memory(matmul.aux, (rows, columns), (4, 4 * matmul.aux_ld), FLOAT)
    if epilogue == Epilogue.DGELU:
        step = 1e-20  # the derivative by a complex step, not by the formula that is replaced
        derivative: Array = p * (_gelu(saved + 1j * step).imag / step)
        return derivative
    if epilogue == Epilogue.GELU_AUX_BIAS:
        saved[...] = p
    if epilogue == Epilogue.RELU_AUX_BIAS:
        whole = np.zeros((matmul.aux_ld, columns), bool)
        whole[:rows] = p > 0
        bits[...] = np.packbits(whole, axis=0, bitorder="little")
    return np.maximum(p, 0) if epilogue in _RELU else _gelu(p) if epilogue in _GELU else p


def _gelu(x: Array) -> Array:
    """Hendrycks and Gimpel, arXiv:1606.08415, eq. 2."""
    value: Array = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * x * (1 + 0.044715 * x * x)))
    return value


def _vector(pointer: int, length: int) -> Array:
    assert pointer % 16 == 0
    return memory(pointer, (length,), (4,), FLOAT)


def _factor(place: Place, shape: tuple[int, int], transposed: int) -> Array:
    stored = _matrix(place, shape[::-1] if transposed else shape)
    factor: Array = (stored.T if transposed else stored).astype(np.float32)
    return factor


def _matrix(place: Place, shape: tuple[int, int]) -> Array:
    """A matrix in column order."""
    dtype = numpy_dtype(TYPES[place.kind])
    assert place.ld >= max(1, shape[0])
    return memory(place.pointer, shape, (dtype.itemsize, place.ld * dtype.itemsize), dtype)
