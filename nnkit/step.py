"""One training step for one batch size: buffers allocated once, calls recorded once, replayed.

The calls are those of the kernels: forward (eq. 2), the output error (eq. 19 or 8), backward (eq. 5, 6, 8), and the
optimizer's update (eq. 17). The cost comes from the same logits by calls of its own, as training does not need it.
"""

from typing import NamedTuple

from nnkit.backends.base import Array
from nnkit.backends.precision import get_matmul_precision
from nnkit.backends.recording import Nodes
from nnkit.kernels.activations import get_activation
from nnkit.kernels.dense import dense_backward, dense_forward
from nnkit.kernels.descent import dense_descent
from nnkit.kernels.dropout import dropout_grad
from nnkit.layers import Dropout
from nnkit.model import Model
from nnkit.optimizers import OptimizerState


class Step:
    """The recorded step of a network for `samples` samples; without an optimizer's state it stops at the gradients.

    Attributes:
        x: the batch's inputs, (samples, d_in). y: its targets, (samples, d_out). Write there, then `run`.
        share: what a sample of weight 1 counts in the gradient: 1/samples, or 1 if it `sums`; 0-d. scale: what each
            sample counts: `share`, or with `weight_columns` (samples, 1) or (samples, d_out), to be written too.
        logits: h̄ of the last layer, (samples, d_out), from before the update.
    """

    def __init__(
        self,
        model: Model,
        samples: int,
        state: OptimizerState | None = None,
        weight_columns: int = 0,
        drops: bool = False,
        sums: bool = False,
    ) -> None:
        backend, dtype = model.backend, model.dtype
        self.backend, self.dtype, self.state = backend, dtype, state  # not the model: it holds its steps
        self.x = backend.zeros((samples, model.dense[0].inputs), dtype)
        self.y = backend.zeros((samples, model.dense[-1].units), dtype)
        self.share = backend.asarray(1.0 if sums else 1 / samples, dtype)
        self.scale = backend.zeros((samples, weight_columns), dtype) if weight_columns else self.share
        self._dropout = model.dropout if drops else None
        with backend.recording() as self._tape:
            self.logits = self._record(model, state)
        with backend.recording() as self._cost_tape:
            terms = model.output.terms(backend, self.logits, self.y, self.scale)
            self._cost = backend.sum(terms)

    def run(self, rate: float | None = None) -> None:
        """Do the step on what `x` and `y` hold, with a learning rate or with the optimizer's."""
        if self.state is not None:
            self.state.set_rate(rate)
        self._tape.replay()

    def replay(self, times: int = 1) -> None:
        """Do the step, `times` in a row, with the learning rate that the state has; may be recorded on another tape."""
        self._tape.replay(times)

    @property
    def nodes(self) -> Nodes:
        """What the step consists of, without its cost."""
        return self._tape.nodes

    def cost(self, out: Array | None = None) -> Array:
        """The batch's mean cost before the update, a 0-d array: `out`, or a new one."""
        self._cost_tape.replay()
        return self.backend.copy(self._cost, self.backend.empty((), self.dtype) if out is None else out)

    def _record(self, model: Model, state: OptimizerState | None) -> Array:
        """Make the calls of a step; returns the logits."""
        parameters, gradient = model.parameters, model.gradient
        minus_rate = None  # unless the update is inside the gradient's products
        if state is not None and state.is_descent and self.backend.adds_products(parameters.W[0], self.x.shape[0]):
            minus_rate = state.rate[1, ...]
        logits, passes = self._forward(model)
        delta = model.output.delta(self.backend, logits, self.y, self.scale)
        for i, layer in reversed(list(enumerate(passes))):
            W, b = parameters.W[i], parameters.b[i]
            if minus_rate is not None:
                delta = dense_descent(
                    delta, layer.x, W, b, layer.h, layer.activation,
                    z=layer.z, minus_rate=minus_rate, need_dx=i > 0, overwrite_delta=True,
                )  # fmt: skip
            else:
                out = (None, gradient.W[i], gradient.b[i])
                delta, _, _ = dense_backward(
                    delta,
                    layer.x,
                    W,
                    layer.h,
                    layer.activation,
                    z=layer.z,
                    out=out,
                    need_dx=i > 0,
                    overwrite_delta=True,
                )
            for mask in layer.masks if i > 0 else ():
                delta = self.backend.elementwise(dropout_grad, (delta, mask))
        if state is not None and minus_rate is None:
            state.record(parameters, gradient)
        if self._dropout is not None:
            self._dropout.advance()
        return logits

    def _forward(self, model: Model) -> "tuple[Array, list[_Pass]]":
        """The forward pass (eq. 2); the last layer stops at its logits, as its activation belongs to the cost."""
        parameters, h = model.parameters, self.x
        passes: list[_Pass] = []
        masks: list[Array] = []  # of the dropout that has come since the last dense layer
        for number, layer in enumerate(model.layers):
            if isinstance(layer, Dropout):
                if self._dropout is not None:
                    h, mask = self._dropout.apply(h, layer.rate, number)
                    masks.append(mask)
                continue
            i = len(passes)
            W, b, last = parameters.W[i], parameters.b[i], layer is model.layers[-1]
            name = "identity" if last else str(model.dense[i].activation)
            z = None
            if get_activation(name).gradient_from == "preactivation":
                z = self.backend.empty((self.x.shape[0], W.shape[0]), self.dtype)
            x, h = h, dense_forward(h, W, b, name, z=z)
            passes.append(_Pass(x, z, h, name, masks))
            masks = []
        return h, passes


class _Pass(NamedTuple):
    """What the forward pass of a dense layer leaves for the backward pass, and the dropout masks on its input."""

    x: Array
    z: Array | None
    h: Array
    activation: str
    masks: list[Array]


_KEPT = 6  # of a model's recorded steps: usually for the batch, the last batch, single samples, and gradients alone


def step_for(
    model: Model,
    samples: int,
    state: OptimizerState | None,
    weight_columns: int = 0,
    drops: bool = False,
    sums: bool = False,
) -> Step:
    """The model's recorded step for a number of samples; recorded at the first call, replayed afterwards."""
    asked = (samples, state, weight_columns, drops, sums)
    key = (*asked, get_matmul_precision())
    recorded = model.recorded
    step: Step = recorded.pop(key, None) or Step(model, *asked)
    recorded[key] = step  # the latest is last; the oldest goes
    while len(recorded) > _KEPT:
        del recorded[next(iter(recorded))]
    return step
