"""Layers: what a network is made of, before it has parameters."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real

from nnkit.checks import in_range, whole
from nnkit.initializers import Initializer, get_initializer
from nnkit.kernels.activations import get_activation
from nnkit.kernels.costs import Cost, default_cost, get_cost

_COUPLES = "layers: softmax couples the units of a layer and is for the output only"


class Layer(ABC):
    """A part of a network: `Dense` or `Dropout`."""

    __slots__ = ()

    @property
    @abstractmethod
    def label(self) -> str:
        """The layer in the description of a network."""


@dataclass(frozen=True, slots=True)
class Dense(Layer):
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
            # A NumPy integer could not be written to a file's description.
            object.__setattr__(self, name, whole("Dense", name, size, 1))
        if self.activation not in (None, "softmax"):
            get_activation(self.activation)
        get_initializer(self.init)

    @property
    def label(self) -> str:
        return f"{self.units} {self.activation}"


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """Set a share `rate` of the values of the layer before it to 0 while training (Srivastava et al., JMLR 2014).

    The others are multiplied by 1/(1 − rate), so that nothing changes in `forward` and `predict`. The choice is made
    again in each step, from the network's seed and a counter: the same on every backend (`nnkit.kernels.dropout`). At
    the start of a network it drops inputs. Raises ValueError for a rate outside [0, 1), TypeError for no number.

    >>> nnkit.Network([nnkit.Dense(4, 8, "relu"), nnkit.Dropout(0.2), nnkit.Dense(8, 3)], seed=0)
    Network(4 → 8 relu → dropout 0.2 → 3 softmax, softmax_cross_entropy, 67 parameters in float32 on numpy, seed 0)
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", in_range("Dropout", "rate", self.rate, 1.0))

    @property
    def label(self) -> str:
        return f"dropout {self.rate:g}"


def build_layers(
    sizes: Sequence[int | Layer], activation: str | None, output_activation: str | None, cost: str | Cost | None
) -> tuple[list[Layer], Cost]:
    """Layers from a list of sizes or of layers, each dense one with its activation filled in; and the cost.

    Raises ValueError where there is no dense layer, widths do not meet, softmax stands before the end or dropout at it,
    and TypeError for an activation where the layers have their own.
    """
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise TypeError(f"layers is {sizes!r}; expected a list of sizes or of layers, such as [4, 8, 3]")
    layers = _layers_of(list(sizes), activation)
    dense = dense_layers(layers)
    if not dense or layers[-1] is not dense[-1]:
        raise ValueError(f"layers: the last layer is {layers[-1]}; expected a Dense layer")
    for before, after in pairwise(dense):
        if before.units != after.inputs:
            raise ValueError(f"layers: {before} gives {before.units} values, but {after} takes {after.inputs}")
        if before.activation == "softmax":
            raise ValueError(_COUPLES)
    last = dense[-1]
    if last.activation is not None and output_activation is not None:
        raise TypeError(
            f"output_activation is {output_activation!r}, which has no effect: the last layer has its own, "
            f"{last.activation!r}; leave one of them out"
        )
    output = last.activation if output_activation is None else output_activation
    chosen = default_cost(last.units, output) if cost is None else get_cost(cost)
    output = chosen.output if output is None else output
    if output == "softmax" and last.units == 1:
        raise ValueError("layers: softmax of a single output is always 1; give two, or cost='cross_entropy'")
    hidden = [_named(layer, "identity") for layer in layers[:-1]]
    return [*hidden, Dense(last.inputs, last.units, output, last.init)], chosen


def _layers_of(items: list[int | Layer], activation: str | None) -> list[Layer]:
    """Layers as they are, or those of sizes, without an output activation."""
    for item in items:
        if not isinstance(item, Real) and type(item) not in (Dense, Dropout):
            raise TypeError(_not_a_layer(item))
    layers = [item for item in items if isinstance(item, Layer)]
    if not layers:
        if len(items) < 2:
            raise ValueError(f"layers: {items!r}; expected at least two sizes, of the input and the output")
        activation = "sigmoid" if activation is None else activation
        if activation == "softmax":
            raise ValueError(_COUPLES)
        get_activation(activation)  # an unknown name is an error without a hidden layer, too
        hidden = [Dense(a, b, activation) for a, b in pairwise(items[:-1])]  # type: ignore[arg-type]
        return [*hidden, Dense(items[-2], items[-1])]  # type: ignore[arg-type]
    if len(layers) < len(items):
        raise TypeError("layers: sizes and layers do not mix; give all of one kind")
    if activation is not None:
        raise TypeError(
            f"activation is {activation!r}, which has no effect beside layers; give each layer its own, "
            "such as Dense(4, 8, 'relu')"
        )
    return layers


def _not_a_layer(item: object) -> str:
    own = type(item)
    if isinstance(item, type) and issubclass(item, Layer):
        return f"layers hold the class {item.__name__}; expected a layer, such as Dense(4, 8, 'relu') or Dropout(0.2)"
    if not isinstance(item, Layer):
        return f"layers hold {item!r}; expected whole numbers, or Dense and Dropout layers"
    return (
        f"layers hold a {own.__name__}, whose own code would not run: a network computes Dense and Dropout only. For a "
        "function of your own use nnkit.register_activation and Dense(..., activation); for another kind of layer "
        "write the loop with nnkit.dense_forward and nnkit.dense_backward"
    )


def initializers_of(dense: Sequence[Dense], init: str | Initializer | None) -> list[Initializer]:
    """What draws the parameters of each dense layer; `init` is the network's, for those that have none.

    Raises ValueError for an unknown name, and TypeError where all layers have their own.
    """
    if init is not None and all(layer.init is not None for layer in dense):
        raise TypeError(f"init is {init!r}, which has no effect: each layer has its own; leave it out")
    return [get_initializer(init if layer.init is None else layer.init, str(layer.activation)) for layer in dense]


def dense_layers(layers: Sequence[Layer]) -> list[Dense]:
    """Those that have parameters."""
    return [layer for layer in layers if isinstance(layer, Dense)]


def _named(layer: Layer, activation: str) -> Layer:
    if isinstance(layer, Dense) and layer.activation is None:
        return Dense(layer.inputs, layer.units, activation, layer.init)
    return layer
