"""Where a network is: all arrays that it computes with on one backend, which change hands together."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from nnkit.backends import Backend
from nnkit.backends.precision import get_matmul_precision
from nnkit.dropout import DropoutState
from nnkit.layers import Dropout, Layer, dense_layers
from nnkit.optimizer_state import OptimizerState
from nnkit.parameters import Parameters

T = TypeVar("T")

_IDLE = 8  # what is kept of each kind for threads that ask at the same time


class Placement:
    """A network's arrays on a backend, and what is recorded on them.

    A network that moves, or that gets the state of a training, fills a new one and then takes it: who reads the
    network's `placement` once has arrays that belong together.

    Attributes:
        backend, dtype: where they are, and of what type.
        parameters, gradient: of the dense layers. dropout: the state of its random numbers, if there is dropout.
        state: of the optimizer, once there is one.
        recorded: steps, by what they are recorded for; see `nnkit.step`.
    """

    def __init__(self, backend: Backend, layers: Sequence[Layer], dtype: str, seed: int) -> None:
        self.backend, self.dtype = backend, dtype
        shapes = [(d.units, d.inputs) for d in dense_layers(layers)]
        self.parameters, self.gradient = (Parameters(backend, shapes, dtype) for _ in range(2))
        drops = any(isinstance(layer, Dropout) for layer in layers)
        self.dropout = DropoutState(backend, dtype, seed) if drops else None
        self.state: OptimizerState | None = None
        self.recorded: dict[Any, Any] = {}
        self._latest: dict[str, Hashable] = {}
        self._idle: dict[str, list[tuple[Hashable, Any]]] = {}

    # A list's pop and append are atomic: threads take what nobody is using, and leave it again when they are done,
    # without a lock. What a thread holds when it is interrupted is made anew. Buffers stay on the stream that they were
    # first used on: there what one thread has asked for is done before what the next one asks for.

    def take(self, kind: str, key: Hashable, record: Callable[[], T]) -> T | None:
        """What is recorded under a key, if the last request of this kind was for the same; `leave` it when it is done.

        The first request gets None: recording pays from the second use on.
        """
        key = (key, get_matmul_precision(), self.backend.stream())
        if self._latest.get(kind) != key:
            self._latest[kind] = key
            return None
        return self._taken(kind, key, record)

    def leave(self, kind: str, key: Hashable, done: object) -> None:
        """Leave what is recorded under a key to whoever asks next."""
        self._left(kind, (key, get_matmul_precision(), self.backend.stream()), done)

    def take_beside(self) -> "Placement":
        """The same parameters with a gradient and recorded steps of its own; `leave_beside` when it is done."""
        return self._taken("beside", self.backend.stream(), self._beside)

    def leave_beside(self, done: "Placement") -> None:
        """Leave it to whoever asks next."""
        self._left("beside", self.backend.stream(), done)

    def _taken(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        try:
            found_key, found = self._idle[kind].pop()
        except (IndexError, KeyError):
            return make()
        return found if found_key == key else make()

    def _left(self, kind: str, key: Hashable, done: object) -> None:
        idle = self._idle.setdefault(kind, [])
        if len(idle) < _IDLE:
            idle.append((key, done))

    def _beside(self) -> "Placement":
        made = object.__new__(Placement)
        vars(made).update(vars(self))
        made.gradient = Parameters(self.backend, self.parameters.shapes, self.dtype)
        made.state, made.recorded = None, {}
        made._latest, made._idle = {}, {}  # not this one's: it would hold itself
        return made
