"""What a recorded step consists of, as a table: formulas and operations, their arrays, and the bytes they move."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nnkit.backends.dtypes import dtype_name, numpy_dtype
from nnkit.backends.recording import Node
from nnkit.checks import whole
from nnkit.model import Model
from nnkit.optimizers import Optimizer, chosen_optimizer
from nnkit.step import Step

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NodeExplanation:
    """A node of a recorded step: one kernel, product or other call.

    Attributes:
        name: of its formula, as `nnkit formulas` lists them, joined where one kernel computes several; or of the
            operation, such as "matmul". "?" for Python code that runs at each step.
        read, written: the shapes of its arrays; None where they are not known.
        bytes_read, bytes_written: the sizes of these arrays.
    """

    name: str
    read: tuple[Shape, ...] | None
    written: tuple[Shape, ...] | None
    bytes_read: int
    bytes_written: int

    @classmethod
    def of(cls, node: Node) -> "NodeExplanation":
        """What a recording says of a node."""
        if node.read is None or node.written is None:
            return cls(node.name or "?", None, None, 0, 0)
        read, written = (tuple(tuple(array.shape) for array in arrays) for arrays in (node.read, node.written))
        return cls(node.name, read, written, _bytes(node.read), _bytes(node.written))


@dataclass(frozen=True, repr=False)
class StepExplanation:
    """The nodes of a recorded step in their order; printed, it is a table.

    Attributes:
        title: the network, the number of samples and the optimizer.
        nodes: what the step does. bytes_read, bytes_written: the sums over them.
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
    """Record a step of a model on so many samples, and say what it consists of; the model stays as it is."""
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
    """Shapes with how often they come; numbers, which are 0-d arrays, are not shown."""
    if shapes is None:
        return "?"
    counts = Counter(shape for shape in shapes if shape)
    return ", ".join(f"{shape}" if count == 1 else f"{count} × {shape}" for shape, count in counts.items())


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    number, *texts = row
    cells = [number.rjust(widths[0]), *(text.ljust(width) for text, width in zip(texts[:3], widths[1:], strict=False))]
    return "  ".join([*cells, *(text.rjust(width) for text, width in zip(texts[3:], widths[4:], strict=True))])
