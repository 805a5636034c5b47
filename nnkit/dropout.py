"""Dropout while training: the state of its random numbers, which recorded steps advance by themselves."""

import numpy as np

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.kernels import dropout as kernels


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
