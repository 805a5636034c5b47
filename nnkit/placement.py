"""Placement: a network's arrays on one backend, replaced together, the lock for changing them, and recordings."""

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.precision import get_matmul_precision
from nnkit.backends.recording import Tape
from nnkit.kernels import dropout as kernels
from nnkit.kernels.activations import registrations
from nnkit.layers import Dropout, Layer, rates_of, trainable_layers
from nnkit.optimizer_state import OptimizerState
from nnkit.parameters import Parameters
from nnkit.preprocessing import Preprocessing, applied, is_custom, precision

_BUSY = (
    "another thread is training or moving this network: only one thread at a time may call fit, partial_fit, "
    "train_step or to; any number of threads may call predict, evaluate and gradients meanwhile"
)

_turns: "weakref.WeakSet[Turn]" = weakref.WeakSet()


class Turn:
    """The right to change a network, as a context manager: RuntimeError at once if another thread has it.

    It is reentrant, so that a callback of `fit` can call `train_step`.

    Attributes:
        queue: a lock for calls that wait for each other before they take their turn.
        in_epoch: whether an epoch runs, whose steps keep the arrays with which it began. A `finally` in the function
            that sets it ends it: the end of a context manager in Python could be interrupted.
    """

    __slots__ = ("__exit__", "__weakref__", "_lock", "in_epoch", "queue")

    # Ctrl-C can arrive after any function call and before the first line of a function. So `__exit__` is the lock's
    # own, which is compiled: a Python method could be interrupted before it has released the lock.
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
        self._lock, self.queue, self.in_epoch = threading.RLock(), threading.RLock(), False
        self.__exit__ = self._lock.__exit__

    def check_between_epochs(self, name: str) -> None:
        """RuntimeError that begins with the name in an epoch: in the data or the schedule of `fit`."""
        if self.in_epoch:
            raise RuntimeError(f"{name}: an epoch of fit is running, with what it began with; wait for its end")

    def forked(self) -> None:
        """In a child process, which has only the forking thread, release the locks of other threads."""
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


TAIL = 16  # words behind a gradient: all vectors begin at a multiple of 64 bytes
_IDLE = 8  # recordings kept per key, for concurrent threads
_KINDS = 8  # keys with kept recordings
_RECENT = 3  # keys of a kind that may alternate, such as the numbers of samples in training and validation


def settings() -> tuple[str, int]:
    """What recordings depend on besides their arrays: the precision of products, and what activations' names mean."""
    return get_matmul_precision(), registrations()


class Placement:
    """A network's arrays on a backend, and the recordings that use them.

    A network that moves or resumes a training fills a new placement and then assigns it: reading the network's
    `placement` once gives consistent arrays.

    Attributes:
        backend, dtype: of the arrays.
        parameters, gradient: of the layers. dropout: the state of the dropout masks, or None.
        state: of the optimizer, or None.
        recorded: recorded steps by their key; see `nnkit.step`.
    """

    def __init__(
        self, backend: Backend, layers: Sequence[Layer], dtype: str, seed: int, by_columns: bool | None = None
    ) -> None:
        self.backend, self.dtype = backend, dtype
        shapes = [layer.shapes for layer in trainable_layers(layers)]
        self.parameters = Parameters(backend, shapes, dtype, rates_of(trainable_layers(layers)), by_columns=by_columns)
        self.gradient = self.parameters.like(TAIL)
        drops = any(isinstance(layer, Dropout) for layer in layers)
        self.dropout = DropoutState(backend, dtype, seed) if drops else None
        self.state: OptimizerState | None = None
        self.recorded: dict[Any, Any] = {}
        self._latest: dict[str, tuple[Hashable, ...]] = {}
        self._idle: dict[Hashable, list[Lent[Any]]] = {}

    # A list's pop and append are atomic: threads take an unused object and return it when they are done, without a
    # lock. An object lost by an interrupted thread is created again. Buffers stay on the stream of their first use,
    # which completes the work of one thread before that of the next.

    def take(
        self, kind: str, key: Hashable, record: Callable[..., T], *arguments: Any, at_once: bool = False
    ) -> "Lent[T] | None":
        """The recording for a key, if one of the last keys of this kind was the same; return it with `leave`.

        The first request gets None unless `at_once`: recording, `record(*arguments)`, pays off from the second use on.
        """
        asked, latest = (key, settings()), self._latest.get(kind, ())
        if asked not in latest and not at_once:
            self._latest[kind] = (asked, *latest[: _RECENT - 1])
            return None
        return self._lent((kind, asked, self.backend.stream()), record, *arguments)

    def take_beside(self) -> "Lent[Placement]":
        """The same parameters with a separate gradient and recorded steps; return it with `leave`."""
        return self._lent(("beside", self.backend.stream()), self.beside)

    def with_parameters(self, parameters: Parameters) -> "Placement":
        """Other parameters of this layout, with their own recordings."""
        made = self.beside()
        made.parameters = parameters
        return made

    def carried_to(self, parameters: Parameters) -> "Placement":
        """The dropout and the optimizer's state of this placement with other parameters of its layout."""
        made = self.with_parameters(parameters)
        if self.state is not None:
            made.state = self.state.optimizer.start(parameters)
            arrays = self.state.kept
            copies = {name: self.backend.empty(a.shape, dtype_name(a.dtype)) for name, a in arrays.items()}
            made.state.fill({name: self.backend.copy(arrays[name], copy) for name, copy in copies.items()})
        return made

    def leave(self, done: "Lent[Any]") -> None:
        """Return a taken object for the next request."""
        idle = self._idle.get(done.key)
        if idle is None:
            idle = self._idle.setdefault(done.key, [])
        if len(idle) < _IDLE:
            idle.append(done)
        if len(self._idle) > _KINDS:
            for oldest in list(self._idle)[:-_KINDS]:
                self._idle.pop(oldest, None)

    def _lent(self, key: Hashable, make: Callable[..., T], *arguments: Any) -> "Lent[T]":
        try:
            found: Lent[T] = self._idle[key].pop()
        except (IndexError, KeyError):
            return Lent(key, make(*arguments))
        return found

    def beside(self) -> "Placement":
        """The same parameters with a new gradient, for recorded steps of its own."""
        made = object.__new__(Placement)
        vars(made).update(vars(self))
        made.gradient = self.parameters.like(TAIL)
        made.state, made.recorded = None, {}
        made._latest, made._idle = {}, {}  # not this one's: a reference cycle
        return made


class Lent(NamedTuple, Generic[T]):
    """An object that a thread has taken from a placement, and its key there."""

    key: Hashable
    it: T


class DropoutState:
    """The key and the counter of a network's dropout masks, as 0-d arrays of 16 bits each.

    The key is derived from the network's seed; the counter is the number of training steps.
    """

    def __init__(self, backend: Backend, dtype: str, seed: int) -> None:
        self.backend, self.dtype = backend, dtype
        self.key = (self._number(0), self._number(0))
        self.take_seed(seed)
        self.step = (self._number(0), self._number(0))

    @property
    def arrays(self) -> dict[str, Array]:
        """The state that a resumed training needs."""
        return {"step_high": self.step[0], "step_low": self.step[1]}

    def apply(self, h: Array, rate: float, layer: int, first: int = 0) -> tuple[Array, Array]:
        """The values h (n, d) with dropout, and the factor of each for the backward pass.

        `first` is the place of the first row in its minibatch.
        """
        n, d = h.shape
        row = self.backend.asarray(np.arange(first, first + n).reshape(n, 1), self.dtype)
        column = self.backend.asarray(np.arange(d), self.dtype)
        operands = (h, row, column, *self.key, *self.step)
        dropped, scale = self.backend.elementwise(
            kernels.dropout, operands, constants={"rate": rate, "layer": float(layer)}
        )
        return dropped, scale

    def take_seed(self, seed: int) -> None:
        """Derive the key from another seed, also for recorded steps, which read it."""
        key = int(np.random.default_rng([seed, 2]).integers(2**32))
        for half, array in zip((key >> 16, key & 0xFFFF), self.key, strict=True):
            self.backend.copy(self._number(half), array)

    def advance(self) -> None:
        """Count a step; recorded as part of it."""
        self.backend.elementwise(kernels.dropout_clock, self.step, out=self.step)

    def _number(self, value: int) -> Array:
        return self.backend.asarray(float(value), self.dtype)


class ForwardPass:
    """A recorded forward pass for a number of samples; its buffers are for one thread at a time."""

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        shape: tuple[int, int],
        propagate: Callable[[Array], Array],
        activate: Callable[[Array], Array],
    ) -> None:
        self.backend, self._samples, self._dtype = backend, shape[0], dtype
        self._preprocessing: Preprocessing | None = None
        self._before: dict[str, tuple[Tape, Array]] = {}  # recorded preprocessing by dtype
        self._x, self._activate = backend.zeros(shape, dtype), activate  # not `propagate`: a reference cycle
        self._made: dict[bool, tuple[Tape, Array, Any]] = {}  # by whether it ends with the last activation
        with backend.recording() as self._tape:
            self._logits = propagate(self._x)

    def of(self, x: Any, preprocessing: Preprocessing | None = None, activated: bool = False) -> Array:
        """H̄ of the last layer, or `activated` the outputs, for checked samples x of any dtype: a new array.

        x is (samples, width), or (samples, d_in) without preprocessing.
        """
        made = self._made.get(activated)
        tape, values, function = self._recorded(activated) if made is None else made
        if function is not None and (preprocessing is not None or not function.fits(x)):
            self._take(x, preprocessing)
            x = self._x
        out = self.backend.empty(values.shape, values.dtype)
        if function is not None:
            function.of(x, out)
            return out
        self._take(x, preprocessing)
        tape.replay()
        return self.backend.copy(values, out)

    def function(self, activated: bool) -> Any:
        """The pass as a function of many samples, if compiled code can compute it (`Tape.function`); else None."""
        return self._recorded(activated)[2]

    def _recorded(self, activated: bool) -> tuple[Tape, Array, Any]:
        if activated not in self._made:
            tape, values = self._tape, self._logits
            if activated:
                with self.backend.recording() as tape:
                    self._tape.replay()
                    values = self._activate(values)
            self._made[activated] = tape, values, tape.function(self._x, values)
        return self._made[activated]

    def _take(self, x: Any, preprocessing: Preprocessing | None) -> None:
        """Write samples of any dtype to the first layer's input, after recorded preprocessing."""
        if preprocessing is None:
            self.backend.copy(self.backend.asarray(x, self._dtype), self._x)
            return
        if preprocessing is not self._preprocessing:  # the network's may have been set
            self._preprocessing, self._before = preprocessing, {}
        wide = precision(preprocessing, dtype_name(x.dtype), self._dtype)
        if is_custom(preprocessing):  # a recording may not contain all that it computes
            applied(self.backend, preprocessing, self.backend.asarray(x, wide), self._x)
            return
        if wide not in self._before:
            given = self.backend.zeros((self._samples, preprocessing.inputs), wide)
            with self.backend.recording() as tape:
                preprocessing.apply(self.backend, given, self._x)
            self._before[wide] = tape, given
        tape, given = self._before[wide]
        self.backend.copy(self.backend.asarray(x, wide), given)
        tape.replay()
