"""Layers: what a network is made of, before it has parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

from nnkit.initializers import Initializer
from nnkit.kernels.activations import get_activation
from nnkit.kernels.costs import Cost


@dataclass(frozen=True, slots=True)
class Dense:
    """A dense layer h = f(Wx + b) (eq. 2) with `inputs` inputs and `units` units.

    `activation` None is the identity; at the end of a network it is the activation that the cost is paired with.
    `init` draws its parameters; None takes the network's. Raises ValueError for sizes below 1 and unknown names.

    >>> nnkit.Dense(784, 100, "relu")
    Dense(inputs=784, units=100, activation='relu', init=None)
    """

    inputs: int
    units: int
    activation: str | None = None
    init: str | Initializer | None = None

    def __post_init__(self) -> None:
        for name, size in (("inputs", self.inputs), ("units", self.units)):
            if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
                raise ValueError(f"Dense: {name} is {size!r}; expected a whole number of at least 1")
            object.__setattr__(self, name, int(size))  # a NumPy integer could not be written to a file's description
        if self.activation not in (None, "softmax"):
            get_activation(self.activation)


def build_layers(
    sizes: Sequence[int | Dense], activation: str, output_activation: str | None, cost: Cost
) -> list[Dense]:
    """Dense layers from a list of sizes or of layers, each with its activation filled in.

    Raises ValueError where there is no layer, widths do not meet, or softmax stands before the end.
    """
    items = list(sizes)
    if items and all(isinstance(item, Dense) for item in items):
        layers = [item for item in items if isinstance(item, Dense)]
    elif any(isinstance(item, Dense) for item in items):
        raise TypeError("layers: sizes and Dense layers do not mix; give all of one kind")
    else:
        if len(items) < 2:
            raise ValueError(f"layers: {items!r}; expected at least two sizes, of the input and the output")
        hidden = [Dense(a, b, activation) for a, b in pairwise(items[:-1])]  # type: ignore[arg-type]
        layers = [*hidden, Dense(items[-2], items[-1])]  # type: ignore[arg-type]
    for before, after in pairwise(layers):
        if before.units != after.inputs:
            raise ValueError(f"layers: {before} gives {before.units} values, but {after} takes {after.inputs}")
        if before.activation == "softmax":
            raise ValueError("layers: softmax couples the units of a layer and is for the output only")
    last = layers[-1].activation or output_activation or cost.output
    if last == "softmax" and layers[-1].units == 1:
        raise ValueError("layers: softmax of a single output is always 1; give two, or cost='cross_entropy'")
    names = [layer.activation or "identity" for layer in layers[:-1]] + [last]
    return [Dense(d.inputs, d.units, name, d.init) for d, name in zip(layers, names, strict=True)]
