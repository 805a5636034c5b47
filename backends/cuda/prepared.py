"""Calls outside of recordings, decided once for arrays of the same shapes, strides and types: a launch is then all.

A decision is which kernel, over how many blocks, with which numbers beside the addresses; or cuBLAS's arguments but for
the addresses. It depends on addresses by their alignment, by which are equal, and by which arrays overlap: where a
result overlaps an operand without being it, nothing is kept.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import starmap
from typing import Any, NamedTuple

from nnkit.backends.cuda.launch import reach
from nnkit.backends.recording import active_tape

KEPT = 256  # decisions of a device
_ALIGNED = 16  # bytes that a thread reads at once, at most

Call = Callable[[Sequence[Any], Sequence[Any]], object]  # of operands and results


class _Kept(NamedTuple):
    call: Call
    reaches: tuple[tuple[int, int], ...]  # of operands and results from their addresses
    results: tuple[tuple[Any, Any], ...]  # their shapes and dtypes


class Prepared:
    """The decisions of a device, by what is computed and the layout of the arrays.

    `kind` is the type of the device's arrays, `new` makes one from a shape and a dtype.
    """

    def __init__(self, kind: type, new: Callable[[Any, Any], Any]) -> None:
        self._kinds, self._new = {kind}, new
        self._calls: dict[Hashable, _Kept] = {}

    def made(self, what: Hashable, operands: Sequence[Any], out: Any) -> Any:
        """The results of a call that was kept for such arrays: `out`, or new arrays. None if there is no such call."""
        outs = _tuple(out)
        arrays = (*operands, *outs)
        if active_tape() is not None or {*map(type, arrays)} != self._kinds:
            return None
        at = [array.data.ptr for array in arrays]
        kept = self._calls.get(_key(what, arrays, at))
        if kept is None:
            return None
        if out is not None:
            if _crossing(kept.reaches, at, len(operands)):
                return None
            kept.call(operands, outs)
            return out
        outs = tuple(starmap(self._new, kept.results))
        if not _aligned(outs):
            return None
        kept.call(operands, outs)
        return outs[0] if len(outs) == 1 else outs

    def keep(self, what: Hashable, operands: Sequence[Any], outs: Sequence[Any], call: Call) -> None:
        """Keep a call that was made into given arrays, unless a result overlaps another array without being it."""
        arrays = (*operands, *outs)
        at = [array.data.ptr for array in arrays]
        reaches = tuple(reach(array.shape, array.strides, array.itemsize) for array in arrays)
        if not _crossing(reaches, at, len(operands)):
            results = tuple((out.shape, out.dtype) for out in outs)
            self._store(_key(what, arrays, at), _Kept(call, reaches, results))

    def keep_new(self, what: Hashable, operands: Sequence[Any], made: Any) -> None:
        """Keep a call for new results as well, after it was kept for these ones, which were new."""
        arrays = (*operands, *_tuple(made))
        if active_tape() is not None or {*map(type, arrays)} != self._kinds:
            return
        at = [array.data.ptr for array in arrays]
        kept = self._calls.get(_key(what, arrays, at))
        if kept is not None and _aligned(arrays[len(operands) :]):
            self._store(_key(what, operands, at[: len(operands)]), kept)

    def _store(self, key: Hashable, kept: _Kept) -> None:
        if len(self._calls) >= KEPT:
            self._calls.clear()
        self._calls[key] = kept


def _tuple(out: Any) -> tuple[Any, ...]:
    return () if out is None else out if isinstance(out, tuple) else (out,)


def _aligned(outs: Sequence[Any]) -> bool:
    """Whether new arrays are aligned, as CuPy's are; those of a user's memory allocator may not be."""
    return not any(out.data.ptr % _ALIGNED for out in outs)


def _key(what: Hashable, arrays: Sequence[Any], at: Sequence[int]) -> Hashable:
    """What is computed, the layouts of operands and results, and for each array the first one at its address."""
    layouts = [(a.shape, a.strides, a.dtype, start % _ALIGNED) for a, start in zip(arrays, at, strict=True)]
    return what, *layouts, *map(at.index, at)


def _crossing(reaches: Sequence[tuple[int, int]], at: Sequence[int], operands: int) -> bool:
    """Whether a result overlaps another array without being it."""
    for i in range(operands, len(at)):
        start, end = at[i] + reaches[i][0], at[i] + reaches[i][1]
        for j in range(i):
            if at[j] + reaches[j][0] < end and start < at[j] + reaches[j][1] and at[i] != at[j]:
                return True
    return False
