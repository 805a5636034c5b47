"""The number of BLAS threads in a training: one, where more were measured to be slower.

It depends on sizes, not on timings, because it affects the last bits, which only the seed may determine. A step of
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

from nnkit.backends.cpu.blocks import thread_count
from nnkit.backends.cpu.native.compiler import enabled
from nnkit.backends.cpu.native.team import team_of
from nnkit.backends.cpu.native.tiling import alike_in_team, has_tiles
from nnkit.backends.cpu.products import after_loading, loaded_blas, thread_counts
from nnkit.layers import trainable_layers
from nnkit.model import Model

SMALL = 8_000_000  # multiplications of numbers in a step, up to which BLAS has one thread
# Above which native code divides nodes among threads itself, where it has products of its own: with one thread and with
# two of a Zen 5, 784-100-10 batch 32 with Adam took 164 and 107 µs in float64, batch 128 550 and 350.
TEAM = 1_000_000


class _Use:
    """A training in a thread that needs the limit; garbage-collected even if Ctrl-C prevents `leave`."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class _OneThread:
    """The limit of one BLAS thread, shared by concurrent trainings: the last one lifts it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # also held during a fork, so that no thread changes the limit
        self._uses: weakref.WeakSet[_Use] = weakref.WeakSet()
        self._limits: list[Any] = []
        self.several = False  # whether there were several threads before

    def enter(self, use: _Use) -> None:
        """Set the limit where it is missing, such as for a BLAS loaded after the first training began."""
        with self.lock:
            blas = loaded_blas()  # None without threadpoolctl: the BLAS keeps its threads
            self._uses.add(use)
            if blas is not None and any(count > 1 for count in thread_counts(blas)):
                _take_control(blas)
                self._limits.append(blas.limit(limits=1))
            self.several = bool(self._limits)

    def used(self) -> bool:
        """Whether a training has the limit."""
        with self.lock:
            return bool(self._uses)

    def include_loaded(self) -> None:
        """Limit a BLAS that has been loaded during a training, too: which calls are recorded depends on it."""
        with self.lock:
            for use in list(self._uses)[:1]:
                self.enter(use)

    def leave(self, use: _Use) -> None:
        """Lift the limit, if no other training needs it."""
        with self.lock:
            self._uses.discard(use)
            self._lift()

    def forked(self) -> None:
        """In the child process, which has only the forking thread, lift the limit of other threads."""
        for use in list(self._uses):
            if use.thread != threading.get_ident():
                self._uses.discard(use)
        self._lift()
        self.lock.release()

    def _lift(self) -> None:
        blas = loaded_blas() if self._limits and not self._uses else None
        while blas is not None and self._limits:
            _take_control(blas)
            self._limits.pop().restore_original_limits()
            _take_control(blas)


def _take_control(blas: Any) -> None:
    """Let this thread set OpenBLAS's number of threads: since threadpoolctl 3.8 only the first thread can that did."""
    for library in blas.lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


_one_thread = _OneThread()
after_loading.append(_one_thread.include_loaded)
if hasattr(os, "register_at_fork"):
    lock = _one_thread.lock
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=_one_thread.forked)


def _team_size(products: int, dtype: str) -> int:
    """The number of threads for nodes of native code; 1 where BLAS should have them, or another training runs."""
    enough = products > (TEAM if alike_in_team(dtype) else SMALL)
    blas = loaded_blas() if enough and enabled() and has_tiles() else None
    if blas is None or _one_thread.used():
        return 1
    return min(thread_count(), max(thread_counts(blas), default=1))


@contextmanager
def threads_for(model: Model, batch_size: int, cores: int | None = None) -> Iterator[None]:
    """Use one BLAS thread in this context, if the network's steps are small; restore the number afterwards.

    Of several ranks on a machine, each uses as many threads as it has `cores`.
    """
    products = 3 * batch_size * sum(layer.inputs * layer.units for layer in trainable_layers(model.layers))
    team = _team_size(products, model.dtype) if model.backend.name == "numpy" and cores is None else 1
    if model.backend.name != "numpy" or (products > SMALL and cores != 1 and team == 1):
        blas = loaded_blas() if cores is not None and model.backend.name == "numpy" else None
        if blas is None or cores is None or max(thread_counts(blas), default=1) <= cores:
            yield
        else:
            with blas.limit(limits=cores):
                yield
        return
    use = _Use()
    try:
        _one_thread.enter(use)
        with team_of(team):
            yield
    finally:
        _one_thread.leave(use)
        if _one_thread.several:
            model.recorded.clear()  # recorded for one thread; see nnkit.backends.cpu.products
