"""Native nodes: the address of a compiled function and its arguments; alone, or in runs that are one call."""

import ctypes
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

import numpy as np

from nnkit.backends.cpu.blocks import HEAD, HEAD_IS_KNOWN, location, locations
from nnkit.backends.cpu.native.compiler import Address, address_of, tried

_function = lru_cache(maxsize=1024)(ctypes.CFUNCTYPE(None, ctypes.c_void_p))  # by address; its call releases the GIL

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


class NativeCall(partial[None]):
    """The call of the C function `void f(int64_t *arguments)` at `address` with the arguments in `block`.

    `block` is an int64 array of sizes, strides and addresses; what changes between calls is read through addresses.
    `keep` are the arrays and functions that must live as long as the call; `place` is the address of the block.
    """

    address: Address
    block: np.ndarray
    keep: tuple[Any, ...]
    place: int

    def __new__(cls, address: Address, block: np.ndarray, keep: Sequence[Any] = ()) -> "NativeCall":
        place = location(block)
        self = super().__new__(cls, _function(int(address)), ctypes.c_void_p(place))
        self.address, self.block, self.keep, self.place = address, block, tuple(keep), place
        return self


def node(text: str, numbers: Sequence[int], arrays: Sequence[np.ndarray], keep: Sequence[Any] = ()) -> NativeCall:
    """The call of a text whose arguments are numbers and then the addresses of arrays."""
    block = np.array([*numbers, *locations(arrays)], np.int64)
    return NativeCall(address_of(text), block, (*arrays, *keep))


class _Prepared(threading.local):
    """The calls of a thread outside recordings, by what they compute and the layout of their arrays."""

    def __init__(self) -> None:
        self.calls: dict[Any, tuple[NativeCall, list[tuple[int, int]]] | None] = {}


_prepared = _Prepared()
PREPARED = 64  # calls that a thread keeps
layout = attrgetter("shape", "strides", "dtype", "flags.num")  # what native code for an array depends on


def run_prepared(key: Hashable, make: Callable[[], NativeCall | None], arrays: Sequence[np.ndarray]) -> bool:
    """Make the call that `make` returns for these arrays, which serves all with this key; False if it is None."""
    calls, at = _prepared.calls, locations(arrays)
    if len({*at}) < len(at):  # as in a product of a matrix with itself: it is not known which is where
        key = key, *map(at.index, at)
    try:
        found = calls[key]
    except KeyError:
        call = tried(make)
        while len(calls) >= PREPARED:
            del calls[next(iter(calls))]
        block = [] if call is None else call.block.tolist()
        places = [(n, at.index(address)) for n, address in enumerate(block) if address in at]
        found = calls[key] = None if call is None else (_without(call, arrays), places)
    if found is None:
        return False
    made, places = found
    for number, i in places:
        made.block[number] = at[i]
    made()
    return True


def _without(call: NativeCall, arrays: Sequence[np.ndarray]) -> NativeCall:
    """The call, which does not keep these arrays alive."""
    own = (a for a in call.keep if not (isinstance(a, np.ndarray) and any(np.may_share_memory(a, b) for b in arrays)))
    return NativeCall(call.address, call.block, [*own])


class NativeRun:
    """Native calls in order, as one call of compiled code.

    Attributes:
        stop: an int64 array of one entry; unless it is 0, no repetition starts. Another thread or a node may set it.
    """

    def __init__(self, calls: Sequence[NativeCall], stop: np.ndarray | None = None) -> None:
        self.calls = tuple(calls)
        self.stop = np.zeros(1, np.int64) if stop is None else stop
        self._nodes = np.array([(c.address, c.place) for c in calls], np.int64).reshape(-1, 2)
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
        self._once()

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
        call()
        return int(call.block[4])


PLAIN = 0x101  # of ndarray.flags.num: C-contiguous and aligned
ADVANCE = "def f(arguments):\n    int64s(arguments[1])[0] += arguments[0]\n"
_FUNCTION = f"""\
def f(arguments):
    nodes, count, times = int64s(arguments[0]), arguments[1], arguments[2]
    for side in range(3, 9, 3):
        address, places = int64s(arguments[side])[{HEAD}], int64s(arguments[side + 1])
        for i in range(arguments[side + 2]):
            int64s(places[i])[0] = address
    for done in range(times):
        for k in range(count):
            call(nodes[2 * k], nodes[2 * k + 1])
"""


class NativeFunction:
    """Native calls that compute the rows of `out` from as many of `x`, for the rows of other arrays of these dtypes.

    The addresses of both in the blocks of the calls are replaced, and move on after each time.

    Attributes:
        rows: the number of rows computed at a time. complete: whether the calls read no part of `x` otherwise.
    """

    def __init__(self, calls: Sequence[NativeCall], x: np.ndarray, out: np.ndarray) -> None:
        self.rows, self._kind = len(x), (x.shape[1:], x.dtype)
        self.complete = x.flags.carray and out.flags.carray and HEAD_IS_KNOWN
        made = [NativeCall(call.address, call.block.copy(), call.keep) for call in calls]
        sides: list[np.ndarray] = []
        for array in (x, out):
            arrays = [
                a for call in calls for a in call.keep if isinstance(a, np.ndarray) and np.may_share_memory(a, array)
            ]
            self.complete &= all(location(a) == location(array) for a in arrays)
            found = [c.place + 8 * i for c in made[: len(calls)] for i in np.flatnonzero(c.block == location(array))]
            made += [NativeCall(address_of(ADVANCE), np.array([array.nbytes, place], np.int64)) for place in found]
            sides.append(np.array(found, np.int64))
        nodes = np.array([(c.address, c.place) for c in made], np.int64)
        numbers = [location(nodes), len(made), 1]
        for side in sides:
            numbers += [0, location(side), len(side)]
        self._block = np.array(numbers, np.int64)
        self._call = NativeCall(address_of(_FUNCTION), self._block, [*made, nodes, *sides])

    def fits(self, x: Any) -> bool:
        """Whether these can be the rows of `x` as they are in memory."""
        return type(x) is np.ndarray and (x.shape[1:], x.dtype) == self._kind and x.flags.num & PLAIN == PLAIN

    def of(self, x: np.ndarray, out: np.ndarray) -> None:
        """Compute the rows of `out`, a multiple of `rows`, from those of an `x` that fits."""
        block = self._block
        block[2], block[3], block[6] = len(out) // self.rows, id(x), id(out)
        self._call()
