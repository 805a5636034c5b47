"""Calls outside of recordings, decided once for arrays of the same shapes, strides and types: a launch is then all.

A decision is which kernel, over how many blocks, with which numbers beside the addresses; or cuBLAS's arguments but for
the addresses. It depends on addresses by their alignment, by which are equal, and by which arrays overlap: where a
result overlaps an operand without being it, nothing is kept.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from nnkit.backends.cuda.launch import extent
from nnkit.backends.recording import active_tape

KEPT = 256  # decisions of a device
_ALIGNED = 16  # bytes that a thread reads at once, at most

Call = Callable[[Sequence[Any], Sequence[Any]], object]  # of operands and results


class Prepared:
    """The decisions of a device, by what is computed and the layout of the arrays."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, Call] = {}

    def made(self, key: Hashable, operands: Sequence[Any], outs: Sequence[Any]) -> bool:
        """Whether a call with this key was kept, and made for these arrays."""
        call = self._calls.get(key)
        if call is None:
            return False
        call(operands, outs)
        return True

    def keep(self, key: Hashable, call: Call) -> None:
        """Keep a call for its key."""
        if len(self._calls) >= KEPT:
            self._calls.clear()
        self._calls[key] = call


def key_of(what: Hashable, operands: Sequence[Any], outs: Sequence[Any]) -> Hashable:
    """The key of a call; None while recording, or if a result overlaps another array without being it."""
    if active_tape() is not None:
        return None
    arrays = (*operands, *outs)
    at = [array.data.ptr for array in arrays]
    ranges = [extent(array, pointer) for array, pointer in zip(arrays, at, strict=True)]
    for i in range(len(operands), len(arrays)):
        start, end = ranges[i]
        for j in range(i):
            if ranges[j][0] < end and start < ranges[j][1] and at[i] != at[j]:
                return None
    layouts = [(a.shape, a.strides, a.dtype, pointer % _ALIGNED) for a, pointer in zip(arrays, at, strict=True)]
    return what, *layouts, *map(at.index, at)
