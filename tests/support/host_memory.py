"""NumPy's view of memory that is known by its address."""

import ctypes
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array = NDArray[Any]


def on_host(array: Any) -> Array:
    """NumPy's view of the memory of an array of CuPy's."""
    return memory(array.data.ptr, array.shape, tuple(array.strides), array.dtype)


def memory(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of NumPy's at an address; strides are in bytes."""
    if 0 in shape:
        return np.empty(shape, dtype)
    first = np.ctypeslib.as_array((ctypes.c_uint8 * dtype.itemsize).from_address(pointer)).view(dtype)
    return as_strided(first, shape, strides)
