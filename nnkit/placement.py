"""Where a network is: all arrays that it computes with on one backend, which change hands together."""

from collections.abc import Callable, Sequence
from typing import Any

from nnkit.backends import Backend
from nnkit.backends.precision import get_matmul_precision
from nnkit.dropout import DropoutState
from nnkit.forward import ForwardPass
from nnkit.layers import Dropout, Layer, dense_layers
from nnkit.optimizer_state import OptimizerState
from nnkit.parameters import Parameters

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
        self._asked = 0  # how many samples a question was last about
        self._passes: list[ForwardPass] = []
        self._beside: list[Placement] = []

    # A list's pop and append are atomic: threads take what nobody is using, and leave it again when they are done,
    # without a lock. What a thread holds when it is interrupted is made anew.

    def take_pass(self, n: int, record: Callable[["Placement", int], ForwardPass]) -> ForwardPass | None:
        """A recorded pass for n samples, if the last question was about as many; `leave_pass` when it is done."""
        if n != self._asked:
            self._asked = n
            return None
        try:
            found = self._passes.pop()
        except IndexError:
            return record(self, n)
        return found if found.samples == n and found.precision == get_matmul_precision() else record(self, n)

    def leave_pass(self, done: ForwardPass) -> None:
        """Leave a recorded pass to whoever asks next."""
        if len(self._passes) < _IDLE:
            self._passes.append(done)

    def take_beside(self) -> "Placement":
        """The same parameters with a gradient and recorded steps of its own; `leave_beside` when it is done."""
        try:
            return self._beside.pop()
        except IndexError:
            made = object.__new__(Placement)
            vars(made).update(vars(self))
            made.gradient = Parameters(self.backend, self.parameters.shapes, self.dtype)
            made.state, made.recorded = None, {}
            made._passes, made._beside = [], []  # not this one's: it would hold itself
            return made

    def leave_beside(self, done: "Placement") -> None:
        """Leave it to whoever asks next."""
        if len(self._beside) < _IDLE:
            self._beside.append(done)
