"""Scratch arrays for intermediate values: allocated once, used again by every later program."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """Numbered byte buffers that grow when they must; an array handed out before stays valid."""

    def __init__(self) -> None:
        self._buffers: dict[int, NDArray[np.uint8]] = {}
        self._parts: dict[int, Scratch] = {}

    def array(self, number: int, shape: tuple[int, ...], dtype: np.dtype) -> NDArray[Any]:
        """An uninitialised C-contiguous array in buffer `number`."""
        size = dtype.itemsize
        for length in shape:
            size *= length
        buffer = self._buffers.get(number)
        if buffer is None or buffer.nbytes < size:
            buffer = self._buffers[number] = np.empty(size, np.uint8)
        return buffer[:size].view(dtype).reshape(shape)

    def part(self, number: int) -> "Scratch":
        """Another scratch, for calls that run beside those that use this one."""
        return self._parts.setdefault(number, Scratch())


class _ThreadScratch(threading.local):
    def __init__(self) -> None:
        self.scratch = Scratch()


_threads = _ThreadScratch()


def thread_scratch() -> Scratch:
    """The calling thread's own scratch, for calls outside a recording."""
    return _threads.scratch
