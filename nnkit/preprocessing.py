"""What a network may do to its samples first: normalization or whitening, or what else has their form."""

from typing import Protocol

import numpy as np

from nnkit.backends import Backend
from nnkit.backends.base import Array


class Preprocessing(Protocol):
    """What is done to samples before the first layer: `nnkit.data.Normalization` and `Whitening` (eq. 20 to 22)."""

    kind: str

    @property
    def inputs(self) -> int:
        """The width of samples as users have them."""

    @property
    def outputs(self) -> int:
        """The width of what the first layer gets."""

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What defines it, by name."""

    def apply(self, backend: Backend, x: Array) -> Array:
        """Samples (n, inputs) of a backend as the first layer gets them, (n, outputs)."""


def checked_preprocessing(preprocessing: Preprocessing | None, inputs: int) -> Preprocessing | None:
    """A preprocessing as it is, if a first layer with so many inputs takes what it gives; TypeError or ValueError."""
    if preprocessing is None:
        return None
    if not hasattr(preprocessing, "apply"):
        hint = "a fitted nnkit.data.Normalization or Whitening"
        raise TypeError(f"preprocessing is {preprocessing!r}; expected {hint}")
    if preprocessing.outputs != inputs:
        raise ValueError(f"preprocessing gives {preprocessing.outputs} features, but the first layer takes {inputs}")
    return preprocessing
