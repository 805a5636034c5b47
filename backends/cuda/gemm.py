"""How matrices meet a BLAS product: which memory is a matrix in column order, which transposed, and how a stack steps.

Works on shapes and strides only. BLAS knows matrices in column order, so that a C-contiguous matrix is its own
transpose there: C = AB in row order is Cᵀ = BᵀAᵀ, the product of the same memory with its factors changed over.
"""

import math
from typing import Any, NamedTuple

# The flags and numbers of cublas_api.h and library_types.h.
AS_IS, TRANSPOSED = 0, 1
DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
COMPUTE_FLOAT, COMPUTE_TF32, COMPUTE_DOUBLE = 68, 77, 70
DEFAULT_ALGORITHM = -1
_LARGEST = 2**31 - 1  # of an int


class Stored(NamedTuple):
    """Where entry (r, c) of matrix i is: at i · batch + r · ld + c, or at i · batch + c · ld + r if transposed."""

    transposed: bool
    ld: int
    batch: int


def stored(shape: tuple[int, ...], strides: tuple[int, ...], lead: tuple[int, ...] = ()) -> Stored | None:
    """How matrices (..., rows, columns), broadcast to the leading axes `lead`, are stored; `strides` are in entries.

    None if it is not as BLAS takes them.

    >>> stored((3, 4), (4, 1)), stored((4, 3), (1, 4)), stored((3, 2), (4, 2)) is None
    (Stored(transposed=False, ld=4, batch=0), Stored(transposed=True, ld=4, batch=0), True)
    """
    batch = _uniform_step(lead, _broadcast(shape[:-2], strides[:-2], lead))
    (rows, columns), (down, across) = shape[-2:], strides[-2:]
    if batch is None:
        return None
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return Stored(False, down if rows > 1 else max(columns, 1), batch)
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return Stored(True, across if columns > 1 else max(rows, 1), batch)
    return None


def row_step(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The stride between neighbouring entries of a row (all axes but the first), or None if it is not the same for all.

    >>> row_step((9, 2, 3), (6, 3, 1)), row_step((9, 5), (1, 9)), row_step((9, 2, 3), (8, 4, 1)) is None
    (1, 9, True)
    """
    return _uniform_step(shape[1:], strides[1:]) if math.prod(shape[1:]) > 1 else 1


def _broadcast(shape: tuple[int, ...], strides: tuple[int, ...], lead: tuple[int, ...]) -> tuple[int, ...]:
    steps = tuple(0 if length == 1 else stride for length, stride in zip(shape, strides, strict=True))
    return (0,) * (len(lead) - len(shape)) + steps


def _uniform_step(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The one stride ≥ 0 with which all entries of these axes follow each other in C order, if there is one."""
    step, inner = None, 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length == 1:
            continue
        if step is None:
            step = stride
        if stride != step * inner or stride < 0:
            return None
        inner *= length
    return step or 0


def gemm_arguments(m: int, n: int, k: int, a: Stored, b: Stored) -> tuple[int, int, int, int, int]:
    """The flags and sizes of the BLAS product for C (m, n) = AB in row order: of B, of A, then n, m and k.

    Raises ValueError for sizes that cuBLAS cannot count, which a call would cut off.
    """
    largest = max(m, n, k, a.ld, b.ld)
    if largest > _LARGEST:
        raise ValueError(f"matmul: a matrix has {largest} rows or columns; expected at most {_LARGEST}")
    flags = [TRANSPOSED if matrix.transposed else AS_IS for matrix in (b, a)]
    return flags[0], flags[1], n, m, k


def strides_of(array: Any) -> tuple[int, ...]:
    """The strides of an array in entries."""
    return tuple(stride // array.itemsize for stride in array.strides)
