"""Ordering of streams: related work may be launched on any stream of a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def current_stream(array: Any) -> Any:
    """The current stream of the device of a CuPy array; None for a NumPy array."""
    if isinstance(array, np.ndarray):
        return None
    import cupy

    return cupy.cuda.get_current_stream(array.device.id)


@contextmanager
def in_order(home: Any, stream: Any) -> Iterator[None]:
    """Order the work on `stream` inside the `with` block after earlier and before later work on `home`.

    Both are streams of the current device. With it, buffers owned by `home` are never in use on both streams at once,
    nor reused too early. The host does not wait.
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
