"""A tape that knows which arrays its calls read and write, so that one call can do what another was left for.

That may be done where nothing between the two would see it: the later call's work moves to the earlier one's place.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from nnkit.backends.cuda.launch import extent, meet
from nnkit.backends.tape import Call, Tape

Range = tuple[int, int]


class _Touched(NamedTuple):
    """The ranges of memory that a call reads, and those that it writes."""

    read: list[Range]
    written: list[Range]


class DeviceTape(Tape):
    """A `Tape` of calls on arrays of a device; whoever leaves a call here says what it reads and writes."""

    def __init__(self, around: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        super().__init__(around)
        self._touched: dict[int, _Touched] = {}  # by a call's place; of others nothing is known

    def leave(self, call: Call, written: Sequence[Any], read: Sequence[Any]) -> None:
        """Write down a call that reads and writes these arrays, and no other of those that calls here are about."""
        self.calls.append(call)
        self._touched[len(self.calls) - 1] = _Touched(_ranges(read), _ranges(written))

    def put(self, place: int, call: Call, written: Sequence[Any], read: Sequence[Any]) -> None:
        """Write down a call in the place of one that is there."""
        self.calls[place] = call
        self._touched[place] = _Touched(_ranges(read), _ranges(written))

    def untouched(self, array: Any, place: int) -> bool:
        """Whether the calls from a place on are known to neither read nor write this array."""
        return self._free(array, place, lambda touched: touched.read + touched.written)

    def unwritten(self, array: Any, place: int) -> bool:
        """Whether the calls from a place on are known not to write to this array."""
        return self._free(array, place, lambda touched: touched.written)

    def _free(self, array: Any, place: int, ranges: Callable[[_Touched], list[Range]]) -> bool:
        own = extent(array, array.data.ptr)
        for later in range(place, len(self.calls)):
            touched = self._touched.get(later)
            if touched is None or any(meet(own, other) for other in ranges(touched)):
                return False
        return True


def same(one: Any, other: Any) -> bool:
    """Whether two arrays are the same entries of memory, in the same order."""
    return bool(
        one.data.ptr == other.data.ptr
        and (one.shape, one.strides, one.dtype) == (other.shape, other.strides, other.dtype)
    )


def _ranges(arrays: Sequence[Any]) -> list[Range]:
    return [extent(array, array.data.ptr) for array in arrays if array.size]
