"""A minibatch and a source of them: what an epoch asks of data, wherever they are."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from nnkit.backends.base import Array
from nnkit.kernels.softmax import product
from nnkit.step import Step


class Minibatch(ABC):
    """Some samples.

    Attributes:
        samples: how many. y: their targets, (samples, d_out).
        weights: in the cost: None, or (samples, 1) a sample or (samples, d_out) an output, of mean 1 over all samples.
        metric_weights: in accuracy and metrics: None, or (samples, 1); classes have no weight there.
        one_class: whether each sample is of one class, so that the largest output is the answer.
    """

    samples: int
    y: Array
    weights: Array | None
    metric_weights: Array | None = None
    one_class: bool = True

    @abstractmethod
    def inputs(self, out: Array = None) -> Array:
        """The samples as the first layer gets them, (samples, d_in); in `out` if it is given."""

    @property
    def weight_columns(self) -> int:
        """How many weights a sample has."""
        return 0 if self.weights is None else int(self.weights.shape[1])

    def write(self, step: Step, share: Array | None) -> None:
        """Give a step these samples; weights, if they have any, times `share`, what a weight of 1 counts, 0-d."""
        backend = step.backend
        self.inputs(step.x)
        backend.copy(self.y, step.y)
        if self.weights is not None:
            backend.elementwise(product, (self.weights, share), out=step.scale)


class Known(NamedTuple):
    """What is known of all samples when a pass begins, as a `Minibatch` has it; None for what comes with these."""

    y: Array = None
    weights: Array | None = None
    metric_weights: Array | None = None
    one_class: bool | None = None


class Source(ABC):
    """Samples with their targets and weights, checked, for one network.

    Attributes:
        samples: how many there are; None if that shows only at the end of a pass.
        repeatable: whether a pass can be made again.
        prints: fingerprints of samples, targets and weights, by name, where they were asked for.
    """

    samples: int | None = None
    repeatable = True
    prints: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def start(self, order: np.ndarray | None) -> Known:
        """Begin a pass, in an order of the samples or None for their own; all targets and weights so, where known."""

    @abstractmethod
    def batches(self, size: int) -> Iterator[Minibatch]:
        """The minibatches of the pass."""
