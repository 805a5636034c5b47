"""The floating-point dtypes of nnkit, their promotion, and the shapes and dtypes of results."""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

HALF = ("float16", "bfloat16")  # whose arithmetic is in float32
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


def resolved(values: Any) -> Any:
    """An array whose memory has its values: that of PyTorch's `z.conj().imag` has the other sign, also in DLPack."""
    return values.resolve_neg() if hasattr(values, "resolve_neg") else values


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
    return "float32" if name in HALF else name


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


# --- results: what is computed from arrays of some shapes and dtypes is checked and decided once ----------------------

_AXES = 32
Shape = tuple[int, ...]


class Result(NamedTuple):
    """The shape and dtype of a result."""

    shape: Shape
    dtype: str


# `owner` is the backend: dtypes of two namespaces may not be comparable, and are then not found in its place.


@lru_cache(maxsize=1024)
def formula_result(
    owner: Hashable, operands: tuple[str, ...], shapes: tuple[Shape, ...], dtypes: tuple[Any, ...]
) -> Result:
    """The shape and dtype of a formula's results.

    Raises ValueError with all shapes if they do not broadcast, and for more than 32 axes; TypeError like `promote`.
    """
    for name, shape in zip(operands, shapes, strict=True):
        check_axes(name, shape)
    dtype = promoted(operands, tuple(map(dtype_name, dtypes)))
    try:
        return Result(np.broadcast_shapes(*map(tuple, shapes)), dtype)
    except ValueError:
        given = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(operands, shapes, strict=True))
        raise ValueError(f"operands do not broadcast: {given}") from None


@lru_cache(maxsize=1024)
def product_result(owner: Hashable, shapes: tuple[Shape, Shape], dtypes: tuple[Any, Any]) -> Result:
    """The shape and dtype of a matrix product over the last two axes."""
    a, b = map(tuple, shapes)
    dtype = _promoted("matmul", ("a", "b"), dtypes)
    if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
        raise ValueError(f"matmul: a has shape {a} and b {b}, which do not match")
    try:
        return Result((*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]), dtype)
    except ValueError:
        raise ValueError(f"matmul: a has shape {a} and b {b}, whose leading axes do not broadcast") from None


@lru_cache(maxsize=1024)
def reduction_result(
    owner: Hashable, operation: str, shape: Shape, dtype: Any, axis: int | None, keepdims: bool
) -> Result:
    """The shape and dtype of a `"sum"` or `"max"` over one axis, or over all."""
    name, shape = _promoted(operation, ("a",), (dtype,)), tuple(shape)
    if axis is not None and not -len(shape) <= axis < len(shape):
        raise ValueError(f"{operation}: axis is {axis}; expected an axis of an array of shape {shape}")
    reduced = range(len(shape)) if axis is None else (axis % len(shape),)
    if operation == "max" and any(shape[i] == 0 for i in reduced):
        raise ValueError(f"max: a has shape {shape}; the maximum of an empty axis is undefined")
    return Result(tuple(1 if i in reduced else n for i, n in enumerate(shape) if keepdims or i not in reduced), name)


def _promoted(operation: str, operands: Sequence[str], dtypes: Sequence[Any]) -> str:
    try:
        return promoted(operands, tuple(map(dtype_name, dtypes)))
    except TypeError as error:
        raise TypeError(f"{operation}: {error}") from None


def check_axes(name: str, shape: Sequence[int]) -> None:
    """Raise ValueError for the shape of an array with more axes than NumPy's iterators support."""
    if len(shape) > _AXES:
        raise ValueError(f"{name} has {len(shape)} axes; expected at most {_AXES}")


def checked_outs(formula: str, out: Any, shape: Shape, count: int, types: Sequence[str]) -> list[Any]:
    """The given output arrays as a list; raises ValueError or TypeError for wrong counts, shapes and dtypes."""
    outs: list[Any] = list(out) if isinstance(out, tuple) else [out]
    if len(outs) != count:
        raise ValueError(f"{formula}: out has {len(outs)} array(s); expected {count}")
    for array in outs:
        name = dtype_name(array.dtype)
        if tuple(array.shape) != shape:
            raise ValueError(f"{formula}: out has shape {tuple(array.shape)}; expected {shape}")
        if name not in types:
            raise TypeError(f"{formula}: out has dtype {name}; expected one of {', '.join(FLOATS)}")
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"{formula}: out is read-only")
    return outs
