"""A tape that knows the casts it has made: two products of one recording that read a matrix share its copy.

A matrix that a kernel of nnkit gives is written in both types by that kernel, instead of being read again for the copy.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from nnkit.backends.cuda.chain_tape import ChainTape
from nnkit.backends.cuda.launch import extent, meet
from nnkit.backends.tape import Call, active_tape


class CastTape(ChainTape):
    """A `ChainTape` whose products of other types than their factors' share copies of these."""

    def __init__(self, around: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        super().__init__(around)
        self._casts: dict[tuple[Any, ...], tuple[tuple[int, int], Any]] = {}

    def replay(self, times: int = 1, after_each: Call | None = None) -> None:
        tape = active_tape()
        if isinstance(tape, CastTape):
            tape._casts.clear()  # of whatever these calls write to
        super().replay(times, after_each)

    def cast(self, array: Any, dtype: str, empty: Callable[[], Any], make: Callable[[Any], object]) -> Any:
        """A copy of an array in another dtype: what was cast before, as long as nothing was written there.

        Else it is in a new array, from `empty`, which the kernel that gives the array writes too, or `make`.
        """
        key = (array.data.ptr, array.shape, array.strides, array.dtype, dtype)
        if key not in self._casts:
            copy = empty()
            if not self._written_beside(array, copy):
                make(copy)
            self._casts[key] = extent(array, array.data.ptr), copy
        return self._casts[key][1]

    def leave(self, call: Call, written: Sequence[Any], read: Sequence[Any]) -> None:
        self.forget(written)
        super().leave(call, written, read)

    def put(self, place: int, call: Call, written: Sequence[Any], read: Sequence[Any]) -> None:
        self.forget(written)
        super().put(place, call, written, read)

    def forget(self, written: Sequence[Any]) -> None:
        """Forget the casts of what lies in these arrays' memory."""
        for array in written:
            place = extent(array, array.data.ptr)
            overwritten = [key for key, (cast_from, _) in self._casts.items() if meet(cast_from, place)]
            for key in overwritten:
                del self._casts[key]

    def _written_beside(self, array: Any, copy: Any) -> bool:
        """Let the kernel that gives an array write a copy too, if the array is still what that gave."""
        given = self.giver(array)
        if given is None or not given[1].is_exact(given[2]):
            return False
        made = given[1].with_copy(given[2], copy)
        super().put(given[0], made, made.written, made.operands)  # forgets nothing: the array is what it was
        return True
