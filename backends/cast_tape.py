"""A tape that knows the casts it has made: two products of one recording that read a matrix share its copy."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from nnkit.backends.cuda_launch import extent, meet
from nnkit.backends.tape import Call, Tape, active_tape


class CastTape(Tape):
    """A `Tape` of calls on arrays of a device; whoever leaves a call here says what it reads and writes."""

    def __init__(self, around: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        super().__init__(around)
        self._casts: dict[tuple[Any, ...], tuple[tuple[int, int], Any]] = {}

    def replay(self, times: int = 1, after_each: Call | None = None) -> None:
        tape = active_tape()
        if isinstance(tape, CastTape):
            tape._casts.clear()  # of whatever these calls write to
        super().replay(times, after_each)

    def cast(self, array: Any, dtype: str, make: Callable[[], Any]) -> Any:
        """A copy of an array in another dtype: what the first `make` gave, as long as nothing was written there."""
        key = (array.data.ptr, array.shape, array.strides, array.dtype, dtype)
        if key not in self._casts:
            self._casts[key] = extent(array, array.data.ptr), make()
        return self._casts[key][1]

    def leave(self, call: Call, written: Sequence[Any], read: Sequence[Any] = ()) -> None:
        """Write down a call that reads and writes these arrays, and no other of those that calls here are about."""
        for array in written:
            self.written(array)
        self.calls.append(call)

    def written(self, array: Any) -> None:
        """Forget the casts of what lies in this array's memory."""
        place = extent(array, array.data.ptr)
        overwritten = [key for key, (cast_from, _) in self._casts.items() if meet(cast_from, place)]
        for key in overwritten:
            del self._casts[key]
