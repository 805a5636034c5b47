"""One training step for one batch size: buffers allocated once, calls recorded once, replayed.

The calls are those of the kernels: forward (eq. 2), the output error (eq. 19 or 8), backward (eq. 5, 6, 8), and the
optimizer's update (eq. 17). The cost comes from the same logits by calls of its own, as training does not need it.
"""

from typing import NamedTuple

from nnkit.backends.base import Array
from nnkit.kernels.activations import get_activation
from nnkit.kernels.dense import dense_backward, dense_forward
from nnkit.kernels.descent import dense_descent
from nnkit.model import Model
from nnkit.optimizers import DescentState, OptimizerState


class Step:
    """The recorded step of a network for `samples` samples; without an optimizer's state it stops at the gradients.

    Attributes:
        x: the batch's inputs, (samples, d_in). y: its targets, (samples, d_out). Write there, then `run`.
        scale: the share of each sample in the mean, 0-d.
        logits: h̄ of the last layer, (samples, d_out), from before the update.
    """

    def __init__(self, model: Model, samples: int, state: OptimizerState | None = None) -> None:
        backend, dtype = model.backend, model.dtype
        self.backend, self.model, self.state = backend, model, state
        self.x = backend.zeros((samples, model.layers[0].inputs), dtype)
        self.y = backend.zeros((samples, model.layers[-1].units), dtype)
        self.scale = backend.asarray(1 / samples, dtype)
        with backend.recording() as self._tape:
            self.logits = self._record(state)
        with backend.recording() as self._cost_tape:
            terms = model.output.terms(backend, self.logits, self.y, self.scale)
            self._cost = backend.sum(terms)

    def run(self) -> None:
        """Do the step on what `x` and `y` hold."""
        if self.state is not None:
            self.state.refresh()
        self._tape.replay()

    def cost(self) -> Array:
        """The batch's mean cost before the update, a new 0-d array."""
        self._cost_tape.replay()
        return self.backend.copy(self._cost, self.backend.empty((), self.model.dtype))

    def _record(self, state: OptimizerState | None) -> Array:
        """Make the calls of a step; returns the logits."""
        logits = self._forward()
        delta = self.model.output.delta(self.backend, logits, self.y, self.scale)
        parameters, gradient = self.model.parameters, self.model.gradient
        if isinstance(state, DescentState) and state.pure and self.backend.adds_products(parameters.W[0]):
            self._descend(delta, state)
            return logits
        for i, layer in reversed(list(enumerate(self._layers))):
            out = (None, gradient.W[i], gradient.b[i])
            delta, _, _ = dense_backward(
                delta, layer.x, parameters.W[i], layer.h, layer.activation, z=layer.z, out=out, need_dx=i > 0
            )
        if state is not None:
            state.update(parameters, gradient)
        return logits

    def _forward(self) -> Array:
        """The forward pass (eq. 2); the last layer stops at its logits, as its activation belongs to the cost."""
        parameters, h = self.model.parameters, self.x
        self._layers: list[_Pass] = []
        names = [str(layer.activation) for layer in self.model.layers[:-1]] + ["identity"]
        for W, b, name in zip(parameters.W, parameters.b, names, strict=True):
            z = None
            if get_activation(name).gradient_from == "preactivation":
                z = self.backend.empty((self.x.shape[0], W.shape[0]), self.model.dtype)
            x, h = h, dense_forward(h, W, b, name, z=z)
            self._layers.append(_Pass(x, z, h, name))
        return h

    def _descend(self, delta: Array, state: DescentState) -> None:
        """The backward pass of plain gradient descent, with the update inside the gradient's products."""
        for i, layer in reversed(list(enumerate(self._layers))):
            delta = dense_descent(
                delta, layer.x, self.model.parameters.W[i], self.model.parameters.b[i], layer.h, layer.activation,
                z=layer.z, minus_rate=state.minus_rate, need_dx=i > 0,
            )  # fmt: skip


class _Pass(NamedTuple):
    """What the forward pass of a layer leaves for the backward pass."""

    x: Array
    z: Array | None
    h: Array
    activation: str


_KEPT = 4  # of a model's recorded steps: usually for the batch, the last batch, single samples, and gradients alone


def step_for(model: Model, samples: int, state: OptimizerState | None) -> Step:
    """The model's recorded step for a number of samples; recorded at the first call, replayed afterwards."""
    key = (samples, state)
    step: Step = model.recorded.pop(key, None) or Step(model, samples, state)
    model.recorded[key] = step  # the latest is last; the oldest goes
    while len(model.recorded) > _KEPT:
        del model.recorded[next(iter(model.recorded))]
    return step
