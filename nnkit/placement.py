"""Where a network is: its arrays on one backend, which change hands together, and the right to change them."""

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.backends.precision import get_matmul_precision
from nnkit.kernels import dropout as kernels
from nnkit.layers import Dropout, Layer, trainable_layers
from nnkit.optimizer_state import OptimizerState
from nnkit.parameters import Parameters

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


T = TypeVar("T")

_IDLE = 8  # what is kept for threads that ask the same at the same time
_KINDS = 8  # of questions that it is kept for


class Placement:
    """A network's arrays on a backend, and what is recorded on them.

    A network that moves, or that gets the state of a training, fills a new one and then takes it: who reads the
    network's `placement` once has arrays that belong together.

    Attributes:
        backend, dtype: where they are, and of what type.
        parameters, gradient: of the layers. dropout: the state of its random numbers, if there is dropout.
        state: of the optimizer, once there is one.
        recorded: steps, by what they are recorded for; see `nnkit.step`.
    """

    def __init__(self, backend: Backend, layers: Sequence[Layer], dtype: str, seed: int) -> None:
        self.backend, self.dtype = backend, dtype
        shapes = [layer.shapes for layer in trainable_layers(layers)]
        self.parameters, self.gradient = (Parameters(backend, shapes, dtype) for _ in range(2))
        drops = any(isinstance(layer, Dropout) for layer in layers)
        self.dropout = DropoutState(backend, dtype, seed) if drops else None
        self.state: OptimizerState | None = None
        self.recorded: dict[Any, Any] = {}
        self._latest: dict[str, Hashable] = {}
        self._idle: dict[Hashable, list[Lent[Any]]] = {}

    # A list's pop and append are atomic: threads take what nobody is using, and leave it again when they are done,
    # without a lock. What a thread holds when it is interrupted is made anew. Buffers stay on the stream that they were
    # first used on: there what one thread has asked for is done before what the next one asks for.

    def take(self, kind: str, key: Hashable, record: Callable[[], T]) -> "Lent[T] | None":
        """What is recorded under a key, if the last request of this kind was for the same; `leave` it when it is done.

        The first request gets None: recording pays from the second use on.
        """
        asked = (key, get_matmul_precision())
        if self._latest.get(kind) != asked:
            self._latest[kind] = asked
            return None
        return self._lent((kind, *asked, self.backend.stream()), record)

    def take_beside(self) -> "Lent[Placement]":
        """The same parameters with a gradient and recorded steps of its own; `leave` it when it is done."""
        return self._lent(("beside", self.backend.stream()), self._beside)

    def leave(self, done: "Lent[Any]") -> None:
        """Leave what was taken to whoever asks next."""
        idle = self._idle.setdefault(done.key, [])
        if len(idle) < _IDLE:
            idle.append(done)
        for oldest in list(self._idle)[:-_KINDS]:
            self._idle.pop(oldest, None)

    def _lent(self, key: Hashable, make: Callable[[], T]) -> "Lent[T]":
        try:
            found: Lent[T] = self._idle[key].pop()
        except (IndexError, KeyError):
            return Lent(key, make())
        return found

    def _beside(self) -> "Placement":
        made = object.__new__(Placement)
        vars(made).update(vars(self))
        made.gradient = Parameters(self.backend, self.parameters.shapes, self.dtype)
        made.state, made.recorded = None, {}
        made._latest, made._idle = {}, {}  # not this one's: it would hold itself
        return made


class Lent(NamedTuple, Generic[T]):
    """What a thread has taken from a placement, and what it is kept under there."""

    key: Hashable
    it: T


class DropoutState:
    """The key and the counter of a network's dropout masks, as 0-d arrays of 16 bits each.

    The key comes from the network's seed; the counter is the number of steps that were trained.
    """

    def __init__(self, backend: Backend, dtype: str, seed: int) -> None:
        self.backend, self.dtype = backend, dtype
        key = int(np.random.default_rng([seed, 2]).integers(2**32))
        self._key = (self._number(key >> 16), self._number(key & 0xFFFF))
        self._step = (self._number(0), self._number(0))

    @property
    def arrays(self) -> dict[str, Array]:
        """What a continued training needs."""
        return {"step_high": self._step[0], "step_low": self._step[1]}

    def apply(self, h: Array, rate: float, layer: int) -> tuple[Array, Array]:
        """The values h (n, d) with some dropped, and the factor of each for the backward pass."""
        n, d = h.shape
        row = self.backend.asarray(np.arange(n).reshape(n, 1), self.dtype)
        column = self.backend.asarray(np.arange(d), self.dtype)
        operands = (h, row, column, *self._key, *self._step)
        dropped, scale = self.backend.elementwise(
            kernels.dropout, operands, constants={"rate": rate, "layer": float(layer)}
        )
        return dropped, scale

    def advance(self) -> None:
        """Count a step; recorded as part of it."""
        self.backend.elementwise(kernels.dropout_clock, self._step, out=self._step)

    def _number(self, value: int) -> Array:
        return self.backend.asarray(float(value), self.dtype)
