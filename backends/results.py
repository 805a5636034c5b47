"""The arrays that results go to: their shape, and whether those that were given can hold them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nnkit.backends.dtypes import FLOATS, dtype_name, promoted

_AXES = 32


class Result(NamedTuple):
    """What each result of a formula is."""

    shape: tuple[int, ...]
    dtype: str


@lru_cache(maxsize=1024)
def result_of(operands: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], dtypes: tuple[str, ...]) -> Result:
    """The shape and the dtype of the results of a formula over operands of these shapes and dtypes.

    Raises ValueError with every operand's shape if they do not broadcast, and for one of more than 32 axes; TypeError
    like `promote`.
    """
    for name, shape in zip(operands, shapes, strict=True):
        _check_axes(name, len(shape))
    dtype = promoted(operands, dtypes)
    try:
        return Result(np.broadcast_shapes(*map(tuple, shapes)), dtype)
    except ValueError:
        given = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(operands, shapes, strict=True))
        raise ValueError(f"operands do not broadcast: {given}") from None


def check_axes(name: str, array: Any) -> None:
    """ValueError for an array of more axes than NumPy's iterators know."""
    _check_axes(name, len(array.shape))


def _check_axes(name: str, axes: int) -> None:
    if axes > _AXES:
        raise ValueError(f"{name} has {axes} axes; expected at most {_AXES}")


def checked_outs(formula: str, out: Any, shape: tuple[int, ...], count: int, types: Sequence[str]) -> list[Any]:
    """The arrays that were given for the results; refuses those that cannot hold them, of other types than these."""
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
