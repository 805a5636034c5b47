"""How many threads the products of a training use: one, where more were measured to be slower.

By size and not by a stopwatch: the number of threads decides the last bits, which a seed must decide alone. A step of
gradient descent with one and with two threads on two cores (float32, µs):

    784-30-10, batch 10       0.7 million products      25    26
    300-64-64-64-2, 48        4.0                       88    96
    784-100-10, 32            7.6                      137   147
    784-30-10, 128            9.1                      209   149
    784-100-10, 64             15                      250   224
    784-100-10, 128            31                      481   315
    784-512-512-10, 256       514                     8647  5007
"""

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnkit.backends.cpu.products import blas_function, loaded_blas, thread_counts
from nnkit.layers import trainable_layers
from nnkit.model import Model

SMALL = 8_000_000  # multiplications of numbers in a step


class _Use:
    """A training in a thread that needs the limit; forgotten also if Ctrl-C keeps it from saying that it has ended."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class _OneThread:
    """The limit of one thread, which several trainings in threads of their own may share: the last one lifts it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # also held by whoever forks
        self._uses: weakref.WeakSet[_Use] = weakref.WeakSet()
        self._limits: list[Any] = []
        self.several = False  # whether there were more before

    def enter(self, use: _Use) -> None:
        """Set the limit, where it is not there: a BLAS that was loaded since the first one came has none."""
        with self._lock:
            blas = loaded_blas()  # None as in a bare checkout: the BLAS keeps its threads
            self._uses.add(use)
            if blas is not None and any(count > 1 for count in thread_counts(blas)):
                self._limits.append(blas.limit(limits=1))
            self.several = bool(self._limits)

    def leave(self, use: _Use) -> None:
        """Lift the limit, if nobody else needs it."""
        with self._lock:
            self._uses.discard(use)
            self._lift()

    def before_fork(self) -> None:
        """Let no thread be in the middle of this when a process is forked."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Go on, in the process that forked."""
        self._lock.release()

    def forked(self) -> None:
        """In the child process, which has only the thread that forked, lift the limit that others needed."""
        for use in list(self._uses):
            if use.thread != threading.get_ident():
                self._uses.discard(use)
        self._lift()
        self._lock.release()

    def _lift(self) -> None:
        while not self._uses and self._limits:
            self._limits.pop().restore_original_limits()


_one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_thread.before_fork, after_in_parent=_one_thread.after_fork, after_in_child=_one_thread.forked
    )


@contextmanager
def threads_for(model: Model, batch_size: int) -> Iterator[None]:
    """Compute with one BLAS thread inside, if this network's steps are small; afterwards with as many as before."""
    products = 3 * batch_size * sum(layer.inputs * layer.units for layer in trainable_layers(model.layers))
    if model.backend.name != "numpy" or products > SMALL:
        yield
        return
    if model.state is not None and model.state.is_descent:
        blas_function("gemm", model.dtype)  # SciPy's BLAS, if it is to be used, must be there to be limited
    use = _Use()
    try:
        _one_thread.enter(use)
        yield
    finally:
        _one_thread.leave(use)
        if _one_thread.several:
            model.recorded.clear()  # recorded for one thread; see nnkit.backends.cpu.products
