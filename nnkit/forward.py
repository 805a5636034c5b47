"""Recorded forward passes for a few samples: a prediction replays a handful of calls, with little Python overhead."""

from collections.abc import Callable
from typing import Any

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.recording import Tape
from nnkit.preprocessing import Preprocessing, precision


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
        self._x, self._activate = backend.zeros(shape, dtype), activate
        with backend.recording() as self._tape:
            self._logits = propagate(self._x)
        self._activating: tuple[Tape, Array] | None = None

    def logits(self, x: Any, preprocessing: Preprocessing | None = None) -> Array:
        """H̄ of the last layer, (samples, d_out), for checked samples x of any dtype; the next run overwrites it.

        x is (samples, width), or (samples, d_in) without preprocessing.
        """
        self._take(x, preprocessing)
        self._tape.replay()
        return self._logits

    def outputs(self, x: Any, preprocessing: Preprocessing | None = None) -> Array:
        """The same after the last layer's activation, which is recorded on first use."""
        if self._activating is None:
            with self.backend.recording() as tape:
                outputs = self._activate(self._logits)
            self._activating = tape, outputs
        tape, outputs = self._activating
        self.logits(x, preprocessing)
        tape.replay()
        return outputs

    def _take(self, x: Any, preprocessing: Preprocessing | None) -> None:
        """Write samples of any dtype to the first layer's input, after recorded preprocessing."""
        if preprocessing is None:
            self.backend.copy(self.backend.asarray(x, self._dtype), self._x)
            return
        if preprocessing is not self._preprocessing:  # the network's may have been set
            self._preprocessing, self._before = preprocessing, {}
        wide = precision(preprocessing, dtype_name(x.dtype), self._dtype)
        if wide not in self._before:
            given = self.backend.zeros((self._samples, preprocessing.inputs), wide)
            with self.backend.recording() as tape:
                preprocessing.apply(self.backend, given, self._x)
            self._before[wide] = tape, given
        tape, given = self._before[wide]
        self.backend.copy(self.backend.asarray(x, wide), given)
        tape.replay()
