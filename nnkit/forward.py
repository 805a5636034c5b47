"""The forward pass of a few samples, recorded: a prediction is then a handful of calls, without Python's decisions."""

from collections.abc import Callable

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.backends.tape import Tape


class ForwardPass:
    """A recorded forward pass for a number of samples; its buffers serve one thread at a time."""

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        shape: tuple[int, int],
        propagate: Callable[[Array], Array],
        activate: Callable[[Array], Array],
    ) -> None:
        self.backend = backend
        self._x, self._activate = backend.zeros(shape, dtype), activate
        with backend.recording() as self._tape:
            self._logits = propagate(self._x)
        self._activating: tuple[Tape, Array] | None = None

    def logits(self, x: Array) -> Array:
        """H̄ of the last layer, (samples, d_out), for samples x (samples, d_in); the next run overwrites it."""
        self.backend.copy(x, self._x)
        self._tape.replay()
        return self._logits

    def outputs(self, x: Array) -> Array:
        """The same after the last layer's activation, which is recorded when it is first asked for."""
        if self._activating is None:
            with self.backend.recording() as tape:
                outputs = self._activate(self._logits)
            self._activating = tape, outputs
        tape, outputs = self._activating
        self.logits(x)
        tape.replay()
        return outputs
