"""Native nodes: the address of a compiled function and its arguments."""

import ctypes
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

import numpy as np

from nnkit.backends.cpu.blocks import location, locations
from nnkit.backends.cpu.native.compiler import Address, address_of, tried

_function = lru_cache(maxsize=1024)(ctypes.CFUNCTYPE(None, ctypes.c_void_p))  # by address; its call releases the GIL

ADVANCE = "def f(arguments):\n    int64s(arguments[1])[0] += arguments[0]\n"
PLAIN = 0x101  # of ndarray.flags.num: C-contiguous and aligned


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

    def copy(self) -> "NativeCall":
        """The same call with a block of its own."""
        return NativeCall(self.address, self.block.copy(), self.keep)


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
