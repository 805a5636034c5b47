"""One thread at a time changes a network; what a process inherits when it is forked starts afresh in it."""

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

_BUSY = (
    "another thread is training this network, or moving it: one thread at a time may do that, by fit, partial_fit, "
    "train_step or to; predict, evaluate and gradients any number of threads may ask meanwhile"
)

_turns: "weakref.WeakSet[Turn]" = weakref.WeakSet()


class Turn:
    """The right to change a network, as a context: RuntimeError at once where another thread has it.

    The thread that has it may take it again, as a callback of `fit` does that calls `train_step`.

    Attributes:
        queue: a lock for those that wait for each other before they take their turn.
    """

    __slots__ = ("__exit__", "__weakref__", "_lock", "queue")

    # Ctrl-C comes after any call of a function and before the first line of one. So the end of a block is the lock's
    # own, compiled one: a method written here could be left before it has released anything.
    __exit__: Callable[..., None]

    def __init__(self) -> None:
        self._begin()
        _turns.add(self)

    def __enter__(self) -> None:
        try:
            if self._lock.acquire(blocking=False):
                return
        except BaseException:  # Ctrl-C, after the lock was acquired or not
            with suppress(RuntimeError):
                self._lock.release()
            raise
        raise RuntimeError(_BUSY)

    def _begin(self) -> None:
        self._lock, self.queue = threading.RLock(), threading.RLock()
        self.__exit__ = self._lock.__exit__

    def forked(self) -> None:
        """In a child process, which has only the thread that forked: what others had is free."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            self.queue = threading.RLock()
        else:
            self._begin()


def _forked() -> None:
    for turn in list(_turns):
        turn.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
