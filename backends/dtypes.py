"""Which floating-point types nnkit computes with, and how they mix."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

FLOATS = ("float16", "bfloat16", "float32", "float64")
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
ON_GPU = (2, 13)  # DLPack's devices kDLCUDA and kDLCUDAManaged
COMPLEX = ("complex64", "complex128")  # for the complex step


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of any namespace: `"float32"` for `numpy.float32`, `torch.float32` and their like."""
    if isinstance(dtype, np.dtype):
        return _numpy_name(dtype)
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return str(name).rpartition(".")[2]


@lru_cache(maxsize=256)
def _numpy_name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # which NumPy puts together anew each time, in 3 µs


def native(array: np.ndarray) -> np.ndarray:
    """An array with the bytes of its numbers in this machine's order: itself, or a copy."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def promote(operands: Mapping[str, Any]) -> str:
    """The name of the dtype that a formula over these arrays has, as the array-API standard promotes.

    Raises TypeError, naming the operand, for a dtype that is not floating-point, and for float16 with bfloat16.
    """
    names = []
    for operand, array in operands.items():
        name = dtype_name(array.dtype)
        if name not in FLOATS and name not in COMPLEX:
            raise TypeError(f"{operand} has dtype {name}; expected one of {', '.join(FLOATS)}")
        names.append(name)
    found = set(names)
    if len(found) == 1:
        return names[0]
    if found & set(COMPLEX):
        return "complex128" if found & {"complex128", "float64"} else "complex64"
    if found == {"float16", "bfloat16"}:
        raise TypeError("float16 and bfloat16 operands do not mix; cast one of them")
    return max(found, key=FLOATS.index)


def compute_type(name: str) -> str:
    """The type that arithmetic is done in: float32 for the half types, else the type itself."""
    return "float32" if name in ("float16", "bfloat16") else name


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of a name; bfloat16 comes from ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 on NumPy needs ml_dtypes: python -m pip install ml_dtypes") from None
    bfloat16: np.dtype = np.dtype(ml_dtypes.bfloat16)
    return bfloat16
