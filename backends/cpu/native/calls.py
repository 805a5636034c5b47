"""Native nodes: the address of a compiled function and its arguments; alone, or in runs that are one call."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from nnkit.backends.cpu.native.compiler import address_of

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
    `keep` are the arrays that must live as long as the call.
    """

    address: int
    block: np.ndarray
    keep: tuple[Any, ...]

    def __new__(cls, address: int, block: np.ndarray, keep: Sequence[Any] = ()) -> "NativeCall":
        self = super().__new__(cls, _function(address), ctypes.c_void_p(block.__array_interface__["data"][0]))
        self.address, self.block, self.keep = address, block, tuple(keep)
        return self


class NativeRun:
    """Native calls in order, as one call of compiled code.

    Attributes:
        stop: an int64 array of one entry; unless it is 0, no repetition starts. Another thread or a node may set it.
    """

    def __init__(self, calls: Sequence[NativeCall], stop: np.ndarray | None = None) -> None:
        self.calls = tuple(calls)
        self.stop = np.zeros(1, np.int64) if stop is None else stop
        self._nodes = np.array([(c.address, c.block.ctypes.data) for c in calls], np.int64).reshape(-1, 2)
        self._once = self._repeated(1, flushes=False)

    def _repeated(self, times: int, flushes: bool) -> NativeCall:
        kept = np.zeros(1, np.int64)  # the mode of the CPU
        flush = kept.ctypes.data if flushes else 0
        block = np.array([self._nodes.ctypes.data, len(self.calls), times, self.stop.ctypes.data, 0, flush], np.int64)
        return NativeCall(address_of(_RUN), block, [kept])

    def __call__(self) -> None:
        self._once()

    def repeat(self, times: int) -> int:
        """Make all calls, in order, up to `times` times; returns how often, less than `times` if `stop` was set.

        Subnormal numbers are 0 here, as in JAX: means of gradients that stay 0, such as those of a ReLU that is always
        0, decay to such numbers, with which an Intel CPU is many times slower (784-100-10, Adam: 470 → 180 µs a step).
        """
        call = self._repeated(times, flushes=True)
        call()
        return int(call.block[4])
