"""Gradient accumulation: one update from several minibatches, for batches larger than memory."""

from nnkit.backends.base import Array
from nnkit.kernels.descent import scaled_sum
from nnkit.kernels.softmax import product
from nnkit.model import Model
from nnkit.optimizers import OptimizerState
from nnkit.training.minibatches import Minibatch


class Accumulation:
    """The sum of minibatches' gradients, each a sum over its samples, and the update by their mean.

    `share` is what each sample counts in a minibatch's gradient: 1, 0-d.
    """

    def __init__(self, model: Model, state: OptimizerState) -> None:
        self.model, self.state, backend = model, state, model.backend
        self.share = backend.asarray(1.0, model.dtype)
        self.samples = self.count = 0
        self._sum = backend.zeros(model.gradient.flat.shape, model.dtype)
        self._zero, self._mean_share = backend.asarray(0.0, model.dtype), backend.asarray(1.0, model.dtype)
        gradient = model.gradient.flat
        with backend.recording() as self._adding:
            backend.elementwise(scaled_sum, (self._sum, gradient, self.share), out=self._sum)
        with backend.recording() as self._updating:
            backend.elementwise(product, (self._sum, self._mean_share), out=gradient)
            state.record(model.parameters, model.gradient)
            backend.copy(self._zero, self._sum)

    def add(self, batch: Minibatch) -> None:
        """Add the gradient that a step has left for this minibatch."""
        self._adding.replay()
        self.samples += batch.samples
        self.count += 1

    def update(self, rate: float) -> None:
        """Move the parameters by the mean gradient of all samples that were added; then there are none."""
        mean: Array = self.model.backend.asarray(1 / self.samples, self.model.dtype)
        self.model.backend.copy(mean, self._mean_share)
        self.state.set_rate(rate)
        self._updating.replay()
        self.samples = self.count = 0
