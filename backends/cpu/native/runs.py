"""Runs of native nodes: adjacent ones as one call, once, several times, or as a function of other arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnkit.backends.cpu.blocks import HEAD, HEAD_IS_KNOWN, location
from nnkit.backends.cpu.native.calls import ADVANCE, PLAIN, NativeCall
from nnkit.backends.cpu.native.compiler import address_of
from nnkit.backends.cpu.native.team import Shared, made

_RUN = """\
def f(arguments):
    nodes, count, times, stop = int64s(arguments[0]), arguments[1], arguments[2], int64s(arguments[3])
    flush, done = arguments[5], 0
    if flush != 0:
        flush_subnormals(flush)
    while done < times and stop[0] == 0:
        for k in range(count):
            call(nodes[2 * k], nodes[2 * k + 1])
        done += 1
    if flush != 0:
        restore_mode(flush)
    arguments[4] = done
"""


class NativeRun:
    """Native calls in order, as one call of compiled code.

    Attributes:
        stop: an int64 array of one entry; unless it is 0, no repetition starts. Another thread or a node may set it.
    """

    def __init__(self, calls: Sequence[NativeCall], stop: np.ndarray | None = None) -> None:
        self.calls = tuple(calls)
        self.stop = np.zeros(1, np.int64) if stop is None else stop
        self._nodes = np.array([(c.address, c.place) for c in calls], np.int64).reshape(-1, 2)
        self._shared = [call for call in calls if isinstance(call, Shared)]
        self._flushes = False
        self._once: NativeCall | None = None
        self._several: NativeCall | None = None

    def _repeated(self, times: int, flushes: bool) -> NativeCall:
        kept = np.zeros(1, np.int64)  # the mode of the CPU
        flush = location(kept) if flushes else 0
        block = np.array([location(self._nodes), len(self.calls), times, location(self.stop), 0, flush], np.int64)
        return NativeCall(address_of(_RUN), block, [kept])

    def __call__(self) -> None:
        self._once = self._once or self._repeated(1, self._flushes)
        made(self._once, self._shared, 1, self._flushes)

    def flush(self) -> None:
        """Take subnormal numbers as 0 in single calls, too, as `repeat` does."""
        self._once, self._flushes = None, True

    def function(self, x: np.ndarray, out: np.ndarray) -> "NativeFunction | None":
        """These calls as a function of other rows than those of `x`, to others than those of `out`."""
        made = NativeFunction(self.calls, x, out)
        return made if made.complete else None

    def repeat(self, times: int) -> int:
        """Make all calls, in order, up to `times` times; returns how often, less than `times` if `stop` was set.

        Subnormal numbers are 0 here, as in JAX: means of gradients that stay 0, such as those of a ReLU that is always
        0, decay to such numbers, with which an Intel CPU is many times slower (784-100-10, Adam: 470 → 180 µs a step).
        """
        call = self._several = self._several or self._repeated(1, flushes=True)
        call.block[2] = times
        made(call, self._shared, times, flushes=True)
        return int(call.block[4])


_FUNCTION = f"""\
def f(arguments):
    nodes, count, times = int64s(arguments[0]), arguments[1], arguments[2]
    for side in range(3, 9, 3):
        address, places = int64s(arguments[side])[{HEAD}], int64s(arguments[side + 1])
        for i in range(0, 2 * arguments[side + 2], 2):
            int64s(places[i])[0] = address + places[i + 1]
    for done in range(times):
        for k in range(count):
            call(nodes[2 * k], nodes[2 * k + 1])
"""


class NativeFunction:
    """Native calls that compute the rows of `out` from as many of `x`, for the rows of other arrays of these dtypes.

    The addresses of both in the blocks of the calls are replaced, and move on after each time.

    Attributes:
        rows: the number of rows computed at a time. complete: whether the addresses of arrays can be read.
    """

    def __init__(self, calls: Sequence[NativeCall], x: np.ndarray, out: np.ndarray) -> None:
        self.rows, self._kind = len(x), (x.shape[1:], x.dtype)
        self.complete = x.flags.carray and out.flags.carray and HEAD_IS_KNOWN
        copies = [call.copy() for call in calls]
        single = [part for call in copies for part in (call.parts if isinstance(call, Shared) else (call,))]
        advances, sides = list[NativeCall](), list[np.ndarray]()
        for array in (x, out):
            found = [place for call in single for place in _places(call, array)]
            steps = (np.array([array.nbytes, place], np.int64) for place, _ in found)
            advances += [NativeCall(address_of(ADVANCE), step) for step in steps]
            sides.append(np.array(found, np.int64).reshape(-1, 2))
        nodes = np.array([(c.address, c.place) for c in (*copies, *advances)], np.int64)
        numbers = [location(nodes), len(nodes), 1]
        for side in sides:
            numbers += [0, location(side), len(side)]
        self._block = np.array(numbers, np.int64)
        self._call = NativeCall(address_of(_FUNCTION), self._block, [*copies, *advances, nodes, *sides])
        self._shared = [call for call in copies if isinstance(call, Shared)]

    def fits(self, x: Any) -> bool:
        """Whether these can be the rows of `x` as they are in memory."""
        return type(x) is np.ndarray and (x.shape[1:], x.dtype) == self._kind and x.flags.num & PLAIN == PLAIN

    def of(self, x: np.ndarray, out: np.ndarray) -> None:
        """Compute the rows of `out`, a multiple of `rows`, from those of an `x` that fits."""
        block = self._block
        block[2], block[3], block[6] = len(out) // self.rows, id(x), id(out)
        made(self._call, self._shared, len(out) // self.rows)


def _places(call: NativeCall, array: np.ndarray) -> list[tuple[int, int]]:
    """The places of addresses in a call's block that lie in an array, and by how many bytes."""
    arrays = (a for a in call.keep if isinstance(a, np.ndarray) and np.may_share_memory(a, array))
    starts = {location(a): location(a) - location(array) for a in arrays}
    return [(call.place + 8 * i, starts[n]) for i, n in enumerate(call.block.tolist()) if n in starts]
