"""The forward pass of a few samples, recorded: a prediction is then a handful of calls, without Python's decisions."""

import threading
from collections.abc import Callable

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.backends.precision import get_matmul_precision


class ForwardPass:
    """A recorded forward pass for a number of samples.

    Its buffers serve one thread at a time: take `lock` for as long as the logits are needed.

    Attributes:
        logits: h̄ of the last layer, (samples, d_out), of the latest run.
        precision: of its products, from when it was recorded.
    """

    def __init__(
        self, backend: Backend, dtype: str, shape: tuple[int, int], propagate: Callable[[Array], Array]
    ) -> None:
        self.backend, self.lock = backend, threading.Lock()
        self.precision = get_matmul_precision()
        self._x = backend.zeros(shape, dtype)
        with backend.recording() as self._tape:
            self.logits = propagate(self._x)

    def run(self, x: Array) -> Array:
        """The logits of samples x (samples, d_in), which the next run overwrites."""
        self.backend.copy(x, self._x)
        self._tape.replay()
        return self.logits
