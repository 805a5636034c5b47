"""Libraries and machine code are loaded by one thread at a time, and completely: Ctrl-C waits until it is done."""

import _signal  # type: ignore[import-not-found]
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# `_signal` is `signal` without its conversions to enumerations, which take 10 µs a call if not in the CPU's cache.

# Held during a fork, too: a child process would wait forever for import and loader locks of a thread it does not have.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@contextmanager
def loading() -> Iterator[None]:
    """Load or search libraries in this block, in which no other thread does.

    A signal that asks for an interrupt is handled after the block. A package whose import is interrupted stays broken:
    numba's could not be imported again in the process, and LLVM would free what is still in use.
    """
    with _lock, undisturbed():
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Handle Ctrl-C after this block, which must be short."""
    handler: Any = _signal.getsignal(_signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():  # it gets the signals
        yield
        return
    seen: list[tuple[Any, ...]] = []
    _signal.signal(_signal.SIGINT, lambda *given: seen.append(given))
    try:
        yield
    finally:
        _signal.signal(_signal.SIGINT, handler)
        for given in seen:
            handler(*given)
