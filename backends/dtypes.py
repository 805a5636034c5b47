"""The floating-point dtypes of nnkit and their promotion."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

FLOATS = ("float16", "bfloat16", "float32", "float64")
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
ON_GPU = (2, 13)  # DLPack's devices kDLCUDA and kDLCUDAManaged
COMPLEX = ("complex64", "complex128")  # for the complex step


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of any namespace, such as `"float32"` for `numpy.float32` and `torch.float32`."""
    if isinstance(dtype, np.dtype):
        return _numpy_name(dtype)
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return str(name).rpartition(".")[2]


@lru_cache(maxsize=256)
def _numpy_name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # cached, as NumPy assembles it on each access, in 3 µs


def native(array: np.ndarray) -> np.ndarray:
    """The array in native byte order: itself, or a copy."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def promote(operands: Mapping[str, Any]) -> str:
    """The name of the result dtype of a formula of these arrays, by the promotion rules of the array API standard.

    Raises TypeError for a dtype that is not floating-point, naming the operand, and for float16 with bfloat16.
    """
    return promoted(list(operands), [dtype_name(array.dtype) for array in operands.values()])


def promoted(operands: Sequence[str], names: Sequence[str]) -> str:
    """The same for operands of these dtypes, by name."""
    for operand, name in zip(operands, names, strict=True):
        if name not in FLOATS and name not in COMPLEX:
            raise TypeError(f"{operand} has dtype {name}; expected one of {', '.join(FLOATS)}")
    found = set(names)
    if len(found) == 1:
        return names[0]
    if found & set(COMPLEX):
        return "complex128" if found & {"complex128", "float64"} else "complex64"
    if found == {"float16", "bfloat16"}:
        raise TypeError("operands have dtypes float16 and bfloat16; expected one of them")
    return max(found, key=FLOATS.index)


def compute_type(name: str) -> str:
    """The dtype of the arithmetic: float32 for the half-precision types, else the dtype itself."""
    return "float32" if name in ("float16", "bfloat16") else name


@lru_cache(maxsize=64)
def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype with this name; bfloat16 comes from ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 on NumPy needs ml_dtypes: python -m pip install ml_dtypes") from None
    bfloat16: np.dtype = np.dtype(ml_dtypes.bfloat16)
    return bfloat16
