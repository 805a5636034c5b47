"""Scratch arrays for intermediate values, allocated once and reused by later programs."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """Numbered byte buffers that grow on demand; previously returned arrays stay valid."""

    def __init__(self) -> None:
        self._buffers: dict[int, NDArray[np.uint8]] = {}
        self._parts: dict[int, Scratch] = {}

    def array(self, number: int, shape: tuple[int, ...], dtype: np.dtype) -> NDArray[Any]:
        """An uninitialized C-contiguous array in buffer `number`."""
        size = dtype.itemsize
        for length in shape:
            size *= length
        buffer = self._buffers.get(number)
        if buffer is None or buffer.nbytes < size:
            buffer = self._buffers[number] = np.empty(size, np.uint8)
        return buffer[:size].view(dtype).reshape(shape)

    def part(self, number: int) -> "Scratch":
        """A separate scratch, for calls that run in parallel with those that use this one."""
        return self._parts.setdefault(number, Scratch())


class _ThreadScratch(threading.local):
    def __init__(self) -> None:
        self.scratch = Scratch()


_threads = _ThreadScratch()


def thread_scratch() -> Scratch:
    """The calling thread's own scratch, for calls outside a recording."""
    return _threads.scratch
