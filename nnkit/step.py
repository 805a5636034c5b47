"""One training step for one batch size: buffers allocated once, calls recorded once, replayed.

The calls are those of the kernels: forward (eq. 2), the output error (eq. 19 or 8), backward (eq. 5, 6, 8), and the
optimizer's update (eq. 17). The cost comes from the same logits by calls of its own, as training does not need it.
"""

from typing import Any

from nnkit.backends.base import Array
from nnkit.backends.precision import get_matmul_precision
from nnkit.backends.recording import Nodes
from nnkit.layers import Dropout, Layer
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
        self.x = backend.zeros((samples, model.d_in), dtype)
        self.y = backend.zeros((samples, model.d_out), dtype)
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
        backend, parameters, gradient = self.backend, model.parameters, model.gradient
        logits, passes = self._forward(model)
        delta = model.output.delta(backend, logits, self.y, self.scale)
        for layer, saved, i in reversed(passes):
            if i < 0:
                break  # dropout of the inputs, which have no gradient
            own_gradient = {} if isinstance(layer, Dropout) else gradient.layers[i]
            delta = layer.backward(backend, delta, saved, parameters.layers[i], own_gradient, need_dx=i > 0)
        if state is not None:
            state.record(parameters, gradient)
        if self._dropout is not None:
            self._dropout.advance()
        return logits

    def _forward(self, model: Model) -> "tuple[Array, list[tuple[Layer, Any, int]]]":
        """The logits, and for each layer what its backward pass needs, with the number of the latest with parameters.

        The last layer stops at its logits, as its activation belongs to the cost.
        """
        h, passes, i = self.x, list[tuple[Layer, Any, int]](), -1
        for number, layer in enumerate(model.to_logits):
            if not isinstance(layer, Dropout):
                i += 1
                h, saved = layer.forward(self.backend, h, model.parameters.layers[i])
            elif self._dropout is None:
                continue
            else:
                h, saved = self._dropout.apply(h, layer.rate, number)
            passes.append((layer, saved, i))
        return h, passes


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
