"""The arrays that results go to: their shape, and whether those that were given can hold them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.backends.dtypes import COMPLEX, FLOATS, dtype_name

if TYPE_CHECKING:
    from nnkit.backends.formula import Formula

_AXES = 32


def broadcast_shape(formula: "Formula", arrays: Sequence[Any]) -> tuple[int, ...]:
    """The shape of a formula's results.

    Raises ValueError with every operand's shape if they do not broadcast, and for one of more than 32 axes.
    """
    for name, array in zip(formula.operands, arrays, strict=True):
        check_axes(name, array)
    try:
        return np.broadcast_shapes(*(tuple(a.shape) for a in arrays))
    except ValueError:
        shapes = ", ".join(f"{n} {tuple(a.shape)}" for n, a in zip(formula.operands, arrays, strict=True))
        raise ValueError(f"{formula.name}: operands do not broadcast: {shapes}") from None


def check_axes(name: str, array: Any) -> None:
    """ValueError for an array of more axes than NumPy's iterators know."""
    if len(array.shape) > _AXES:
        raise ValueError(f"{name} has {len(array.shape)} axes; expected at most {_AXES}")


def checked_outs(formula: "Formula", out: Any, shape: tuple[int, ...], count: int) -> list[Any]:
    """The arrays that were given for the results, if any; refuses those that cannot hold them."""
    outs: list[Any] = [] if out is None else list(out if isinstance(out, tuple) else [out])
    if outs and len(outs) != count:
        raise ValueError(f"{formula.name}: out has {len(outs)} array(s); expected {count}")
    for array in outs:
        name = dtype_name(array.dtype)
        if tuple(array.shape) != shape:
            raise ValueError(f"{formula.name}: out has shape {tuple(array.shape)}; expected {shape}")
        if name not in FLOATS + COMPLEX:
            raise TypeError(f"{formula.name}: out has dtype {name}; expected one of {', '.join(FLOATS)}")
    return outs
