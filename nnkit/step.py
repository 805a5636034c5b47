"""One training step for one batch size: buffers are allocated once, calls are recorded once and replayed.

The calls are those of the kernels: forward (eq. 2), the output error (eq. 19 or 8), backward (eq. 5, 6, 8), and the
optimizer's update (eq. 17). The cost is recorded separately, as training does not need it. `explain_step` lists them.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nnkit.backends.base import Array
from nnkit.backends.dtypes import dtype_name, numpy_dtype
from nnkit.backends.recording import Node, Nodes, Tape, discard
from nnkit.checks import whole
from nnkit.layers import Dense, Dropout, Layer
from nnkit.model import Model
from nnkit.optimizers import Optimizer, OptimizerState, chosen_optimizer
from nnkit.parallel.division import Part
from nnkit.placement import settings


class Step:
    """The recorded step of a network for `samples` samples; without an optimizer's state it stops at the gradients.

    If they are a `part` of a minibatch, so are the gradients, and dropout does not advance.

    Attributes:
        x: the batch's inputs, (samples, d_in). y: its targets, (samples, d_out). Write these, then call `run`.
        share: the factor of a sample of weight 1 in the gradient, 0-d: 1/samples, or 1 with `sums`.
        scale: the factor of each sample: `share`, or with `weight_columns` an array (samples, 1 or d_out) to write.
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
        part: Part | None = None,
    ) -> None:
        backend, dtype = model.backend, model.dtype
        self.backend, self.dtype, self.state = backend, dtype, state  # not the model: a reference cycle
        self.x = backend.zeros((samples, model.d_in), dtype)
        self.y = backend.zeros((samples, model.d_out), dtype)
        self.share = backend.asarray(1.0 if sums else 1 / (samples if part is None else part.whole), dtype)
        self.scale = backend.zeros((samples, weight_columns), dtype) if weight_columns else self.share
        self._dropout = model.dropout if drops else None
        self._part = part
        with backend.recording() as self._tape:
            self.logits = self._record(model, state)
        self._tape.trains = True
        self._output = model.output

    def run(self, rate: float | None = None) -> None:
        """Run the step on `x` and `y`, with the given learning rate or the optimizer's."""
        if self.state is not None:
            self.state.set_rate(rate)
        self._tape.replay()

    def replay(self, times: int = 1) -> None:
        """Run the step `times` in a row, with the state's learning rate; can be recorded on another tape."""
        self._tape.replay(times)

    @property
    def nodes(self) -> Nodes:
        """The nodes of the step, without its cost."""
        return self._tape.nodes

    @cached_property
    def measured(self) -> tuple[Tape, Array]:
        """The recorded cost; its arrays are allocated on first use."""
        with self.backend.recording() as tape:
            cost = self.backend.sum(self._output.terms(self.backend, self.logits, self.y, self.scale))
        return tape, cost

    def cost(self, out: Array | None = None) -> Array:
        """The batch's mean cost before the update, a 0-d array: `out`, or a new one."""
        tape, cost = self.measured
        tape.replay()
        return self.backend.copy(cost, self.backend.empty((), self.dtype) if out is None else out)

    def _record(self, model: Model, state: OptimizerState | None) -> Array:
        """Record the calls of a step; returns the logits, since the last activation belongs to the cost."""
        backend, parameters, gradient = self.backend, model.parameters, model.gradient
        h, i = self.x, -1
        passes: list[tuple[Layer, Any, int]] = []  # with what is saved for the way back, and the place of parameters
        for number, layer in enumerate(model.to_logits):
            if not isinstance(layer, Dropout):
                i += 1
                h, saved = layer.forward(backend, h, parameters.layers[i])
            elif self._dropout is None:
                continue
            else:
                h, saved = self._dropout.apply(h, layer.rate, number, 0 if self._part is None else self._part.first)
            passes.append((layer, saved, i))
        delta = model.output.delta(backend, h, self.y, self.scale)
        inner = [saved[0] for layer, saved, i in passes[1:] if type(layer) is Dense]  # their inputs
        for layer, saved, i in reversed(passes):
            if i < 0:
                break  # dropout of the inputs, whose gradient is not needed
            if type(layer) is Dense:
                inner.append(delta)
            own_gradient = {} if isinstance(layer, Dropout) else gradient.layers[i]
            delta = layer.backward(backend, delta, saved, parameters.layers[i], own_gradient, need_dx=i > 0)
        if all(type(layer) in (Dense, Dropout) for layer, *_ in passes):  # others may keep their arrays
            discard(*inner)
        if state is not None:
            state.samples = h.shape[0]
            state.record(parameters, gradient)
        if self._dropout is not None and self._part is None:
            self._dropout.advance()
        return h


_KEPT = 6  # recorded steps of a model: usually for the batch, the last batch, single samples, and gradients only
_KEPT_PARTS = 64  # of parts of minibatches: each shard has its own


def step_for(
    model: Model,
    samples: int,
    state: OptimizerState | None,
    weight_columns: int = 0,
    drops: bool = False,
    sums: bool = False,
    part: Part | None = None,
) -> Step:
    """The model's recorded step for a number of samples, from a cache of recent ones."""
    asked = (samples, state, weight_columns, drops, sums, part)
    key = (*asked, settings())
    recorded = model.recorded
    step: Step = recorded.pop(key, None) or Step(model, *asked)
    recorded[key] = step  # the latest is last; the oldest goes
    while len(recorded) > (_KEPT if part is None else _KEPT_PARTS):
        del recorded[next(iter(recorded))]
    return step


Shape = tuple[int, ...]


@dataclass(frozen=True)
class NodeExplanation:
    """A node of a recorded step: one kernel, product or other call.

    Attributes:
        name: the name of its formula, as listed by `nnkit formulas`, joined if one kernel computes several; or of the
            operation, such as "matmul". "?" for Python code that runs at each step.
        read, written: the shapes of its arrays; None if unknown.
        bytes_read, bytes_written: the sizes of these arrays.
    """

    name: str
    read: tuple[Shape, ...] | None
    written: tuple[Shape, ...] | None
    bytes_read: int
    bytes_written: int

    @classmethod
    def of(cls, node: Node) -> "NodeExplanation":
        """The explanation of a recorded node."""
        if node.read is None or node.written is None:
            return cls(node.name or "?", None, None, 0, 0)
        read, written = (tuple(tuple(array.shape) for array in arrays) for arrays in (node.read, node.written))
        return cls(node.name, read, written, _bytes(node.read), _bytes(node.written))


@dataclass(frozen=True, repr=False)
class StepExplanation:
    """The nodes of a recorded step in order; its repr is a table.

    Attributes:
        title: the network, the number of samples and the optimizer.
        nodes: the nodes of the step. bytes_read, bytes_written: the sums over them.
    """

    title: str
    nodes: tuple[NodeExplanation, ...]

    @property
    def bytes_read(self) -> int:
        return sum(node.bytes_read for node in self.nodes)

    @property
    def bytes_written(self) -> int:
        return sum(node.bytes_written for node in self.nodes)

    def __repr__(self) -> str:
        head = ("", "node", "reads", "writes", "bytes read", "written")
        rows = [
            (str(number), node.name, _shapes(node.read), _shapes(node.written), *_sizes(node))
            for number, node in enumerate(self.nodes, 1)
        ]
        total = ("", "total", "", "", f"{self.bytes_read:,}", f"{self.bytes_written:,}")
        widths = [max(map(len, column)) for column in zip(head, *rows, total, strict=True)]
        return "\n".join([self.title, *(_line(row, widths) for row in (head, *rows, total))])


def explain_step(model: Model, batch_size: int, optimizer: Optimizer | str | None = None) -> StepExplanation:
    """Record a step of a model on `batch_size` samples, and list its nodes; the model does not change."""
    samples = whole("explain_step", "batch_size", batch_size, 1)
    chosen, state = chosen_optimizer(optimizer, model.optimizer), model.state
    if state is None or state.optimizer is not chosen:
        state = chosen.start(model.parameters)
    step = Step(model, samples, state, drops=True)
    title = f"{model!r}: a step on {samples} samples with {chosen!r}"
    return StepExplanation(title, tuple(map(NodeExplanation.of, step.nodes)))


def _bytes(arrays: Iterable[Any]) -> int:
    return sum(math.prod(array.shape) * numpy_dtype(dtype_name(array.dtype)).itemsize for array in arrays)


def _sizes(node: NodeExplanation) -> tuple[str, str]:
    return ("?", "?") if node.read is None else (f"{node.bytes_read:,}", f"{node.bytes_written:,}")


def _shapes(shapes: tuple[Shape, ...] | None) -> str:
    """Shapes with their counts; scalars, which are 0-d arrays, are not shown."""
    if shapes is None:
        return "?"
    counts = Counter(shape for shape in shapes if shape)
    return ", ".join(f"{shape}" if count == 1 else f"{count} × {shape}" for shape, count in counts.items())


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    number, *texts = row
    cells = [number.rjust(widths[0]), *(text.ljust(width) for text, width in zip(texts[:3], widths[1:], strict=False))]
    return "  ".join([*cells, *(text.rjust(width) for text, width in zip(texts[3:], widths[4:], strict=True))])
