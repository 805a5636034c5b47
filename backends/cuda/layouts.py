"""Layouts of arrays in memory: matrices that BLAS supports, and rows with uniform strides."""

import math
from typing import Any, NamedTuple


class Stored(NamedTuple):
    """Layout: entry (r, c) of matrix i is at i · batch + r · ld + c, or at i · batch + c · ld + r if transposed."""

    transposed: bool
    ld: int
    batch: int


def stored(shape: tuple[int, ...], strides: tuple[int, ...], lead: tuple[int, ...] = ()) -> Stored | None:
    """The layout of matrices (..., rows, columns), broadcast to the leading axes `lead`; `strides` are in entries.

    None if BLAS does not support it.

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
    """The stride between adjacent entries of a row (all axes but the first), or None if it is not uniform.

    >>> row_step((9, 2, 3), (6, 3, 1)), row_step((9, 5), (1, 9)), row_step((9, 2, 3), (8, 4, 1)) is None
    (1, 9, True)
    """
    return _uniform_step(shape[1:], strides[1:]) if math.prod(shape[1:]) > 1 else 1


def _broadcast(shape: tuple[int, ...], strides: tuple[int, ...], lead: tuple[int, ...]) -> tuple[int, ...]:
    steps = tuple(0 if length == 1 else stride for length, stride in zip(shape, strides, strict=True))
    return (0,) * (len(lead) - len(shape)) + steps


def _uniform_step(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The uniform stride ≥ 0 of the entries of these axes in C order, or None."""
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


def strides_of(array: Any) -> tuple[int, ...]:
    """The strides of an array in entries."""
    return tuple(stride // array.itemsize for stride in array.strides)
