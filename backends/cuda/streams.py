"""Streams in order: what belongs together may be asked for on any stream of a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def current_stream(array: Any) -> Any:
    """The stream that is current on the device of a CuPy array; None for an array of the host."""
    if isinstance(array, np.ndarray):
        return None
    import cupy

    return cupy.cuda.get_current_stream(array.device.id)


@contextmanager
def in_order(home: Any, stream: Any) -> Iterator[None]:
    """In the `with` block: work on `stream` comes after what `home` was given before, and before what it gets later.

    Both are streams of the current device. So the buffers of one owner, whose stream `home` is, are never used twice at
    a time, nor given to others too early. The host waits for nothing.
    """
    if stream == home:
        yield
        return
    from cupy.cuda import Event

    stream.wait_event(home.record(Event(disable_timing=True)))
    try:
        yield
    finally:
        home.wait_event(stream.record(Event(disable_timing=True)))
