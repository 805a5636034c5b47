"""One training step for one batch size: buffers allocated once, calls recorded once, replayed.

The calls are those of the kernels: forward (eq. 2), the output error (eq. 19 or 8), backward (eq. 5, 6, 8), and the
optimizer's update (eq. 17). The cost comes from the same logits by calls of its own, as training does not need it.
"""

from typing import TYPE_CHECKING

from nnkit.backends.base import Array
from nnkit.kernels.activations import get_activation
from nnkit.kernels.dense import dense_backward, dense_forward
from nnkit.optimizers import OptimizerState
from nnkit.parameters import Parameters

if TYPE_CHECKING:
    from nnkit.network import Network


class Step:
    """The recorded step of a network for `samples` samples; without an optimizer's state it stops at the gradients.

    Attributes:
        x: the batch's inputs, (samples, d_in). y: its targets, (samples, d_out). Write there, then `run`.
        scale: the share of each sample in the mean, 0-d.
        logits: h̄ of the last layer, (samples, d_out), from before the update.
    """

    def __init__(self, network: "Network", samples: int, state: OptimizerState | None = None) -> None:
        backend, dtype = network.backend, network.dtype
        self.backend, self.network, self.state = backend, network, state
        self.x = backend.zeros((samples, network.layers[0].inputs), dtype)
        self.y = backend.zeros((samples, network.layers[-1].units), dtype)
        self.scale = backend.asarray(1 / samples, dtype)
        with backend.recording() as self._tape:
            self.logits = self._record(network.parameters, network.gradient, state)
        with backend.recording() as self._cost_tape:
            terms = network.output.terms(backend, self.logits, self.y, self.scale)
            self._cost = backend.sum(terms)

    def run(self) -> None:
        """Do the step on what `x` and `y` hold."""
        if self.state is not None:
            self.state.refresh()
        self._tape.replay()

    def cost(self) -> Array:
        """The batch's mean cost before the update, a new 0-d array."""
        self._cost_tape.replay()
        return self.backend.copy(self._cost, self.backend.empty((), self.network.dtype))

    def _record(self, parameters: Parameters, gradient: Parameters, state: OptimizerState | None) -> Array:
        """Make the calls of a step; returns the logits."""
        layers, inputs, h, saved = self.network.layers, [], self.x, []
        for i, layer in enumerate(layers):
            inputs.append(h)
            z = self._preactivation(i)
            # The output activation belongs to the cost: the last layer stops at its logits.
            activation = "identity" if i == len(layers) - 1 else str(layer.activation)
            h = dense_forward(h, parameters.W[i], parameters.b[i], activation, z=z)
            saved.append(z)
        delta = self.network.output.delta(self.backend, h, self.y, self.scale)
        logits, outputs = h, [*inputs[1:], h]
        for i in reversed(range(len(layers))):
            activation = "identity" if i == len(layers) - 1 else str(layers[i].activation)
            delta, _, _ = dense_backward(
                delta, inputs[i], parameters.W[i], outputs[i], activation,
                z=saved[i], out=(None, gradient.W[i], gradient.b[i]), need_dx=i > 0,
            )  # fmt: skip
        if state is not None:
            state.update(parameters, gradient)
        return logits

    def _preactivation(self, i: int) -> Array | None:
        """A buffer for h̄ of layer i, where its gradient needs it."""
        layer = self.network.layers[i]
        if i == len(self.network.layers) - 1 or get_activation(str(layer.activation)).gradient_from == "output":
            return None
        return self.backend.empty((self.x.shape[0], layer.units), self.network.dtype)
