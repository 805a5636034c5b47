"""The structure of a network: validated layers from a list of sizes or layers, and their initial values."""

from __future__ import annotations  # numpy.random is imported on first use, not with nnkit

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from nnkit.checks import whole
from nnkit.initializers import Initializer, checked_values, get_initializer, in_words
from nnkit.kernels.activations import get_activation
from nnkit.kernels.costs import Cost, default_cost, get_cost
from nnkit.kernels.output import check_pair
from nnkit.layers import Dense, Dropout, Layer, dense_layers, trainable_layers

_COUPLES = "layers: softmax couples the units of a layer and can only be the output activation"


def build_layers(
    sizes: Sequence[int | Layer], activation: str | None, output_activation: str | None, cost: str | Cost | None
) -> tuple[list[Layer], Cost]:
    """Layers from a list of sizes or layers, with the activations of dense layers filled in; and the cost.

    Raises ValueError if widths do not match, a hidden layer has softmax or the last layer is not a Dense, and TypeError
    for an activation if the layers have their own.
    """
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise TypeError(f"layers is {sizes!r}; expected a list of sizes or of layers, such as [4, 8, 3]")
    layers = _layers_of(list(sizes), activation)
    last = layers[-1]
    if not isinstance(last, Dense):
        raise ValueError(f"layers: the last layer is {last}; expected a Dense layer")
    for before, after in pairwise(trainable_layers(layers)):
        if before.units != after.inputs:
            raise ValueError(f"layers: {before} gives {before.units} values, but {after} takes {after.inputs}")
        if isinstance(before, Dense) and before.activation == "softmax":
            raise ValueError(_COUPLES)
    if last.activation is not None and output_activation is not None:
        raise TypeError(
            f"output_activation is {output_activation!r}, which has no effect: the last layer has its own activation, "
            f"{last.activation!r}; leave one of them out"
        )
    output = last.activation if output_activation is None else output_activation
    chosen = default_cost(last.units, output) if cost is None else get_cost(cost)
    output = chosen.output if output is None else output
    if output == "softmax" and last.units == 1:
        raise ValueError("layers: softmax of a single output is always 1; give two, or cost='cross_entropy'")
    check_pair(chosen, output)
    hidden = [_named(layer, "identity") for layer in layers[:-1]]
    return [*hidden, Dense(last.inputs, last.units, output, last.init)], chosen


def _layers_of(items: list[int | Layer], activation: str | None) -> list[Layer]:
    """The given layers, or those built from sizes, without an output activation."""
    for item in items:
        derived = isinstance(item, Dense | Dropout) and type(item) not in (Dense, Dropout)
        if derived or not isinstance(item, Real | Layer):
            raise TypeError(_not_a_layer(item))
        if not isinstance(item, Real | Dense | Dropout):
            for name in ("inputs", "units"):
                whole(type(item).__name__, name, getattr(item, name, None), 1)
    layers = [item for item in items if isinstance(item, Layer)]
    if not layers:
        if len(items) < 2:
            raise ValueError(f"layers is {items!r}; expected at least two sizes, of the input and the output")
        activation = "sigmoid" if activation is None else activation
        if activation == "softmax":
            raise ValueError(_COUPLES)
        get_activation(activation)  # an unknown name is an error without a hidden layer, too
        hidden = [Dense(a, b, activation) for a, b in pairwise(items[:-1])]  # type: ignore[arg-type]
        return [*hidden, Dense(items[-2], items[-1])]  # type: ignore[arg-type]
    if len(layers) < len(items):
        raise TypeError("layers: sizes and layers cannot be mixed; give all of one kind")
    if activation is not None:
        raise TypeError(
            f"activation is {activation!r}, which has no effect with layers; give each layer its own, "
            "such as Dense(4, 8, 'relu')"
        )
    return layers


def _not_a_layer(item: object) -> str:
    own = type(item)
    if isinstance(item, type) and issubclass(item, Layer):
        return f"layers contains the class {item.__name__}; expected an instance, such as Dense(4, 8, 'relu')"
    if not isinstance(item, Layer):
        return f"layers contains {item!r}; expected integers, or Dense and Dropout layers"
    return (
        f"layers contains a {own.__name__}, whose own code would not run: Dense and Dropout cannot be subclassed. For "
        "a custom activation use nnkit.register_activation and Dense(..., activation); for a custom layer derive from "
        "nnkit.Layer"
    )


def initialized(layers: Sequence[Layer], init: str | Initializer | None) -> list[Layer]:
    """The layers with parameters; `init` is the network's initializer, for dense layers without their own.

    Raises ValueError for an unknown name, and TypeError if no layer uses it.
    """
    if init is not None and all(layer.init is not None for layer in dense_layers(layers)):
        raise TypeError(f"init is {init!r}, which has no effect: each layer has its own; leave it out")
    return [
        replace(layer, init=init) if isinstance(layer, Dense) and layer.init is None else layer
        for layer in trainable_layers(layers)
    ]


def started(layer: Layer, rng: np.random.Generator, dtype: str, number: int) -> list[np.ndarray]:
    """The validated initial values of a layer's parameters, in the order of its shapes."""
    if isinstance(layer, Dense):
        init = get_initializer(layer.init, str(layer.activation))
        owner = f"init {getattr(init, '__name__', type(init).__name__)} of layer {number}:"
        found: Any = init(rng, layer.units, layer.inputs)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise TypeError(f"{owner} returned {in_words(found)}; expected (W, b)")
        values: Mapping[str, Any] = dict(zip("Wb", found, strict=True))
    else:
        owner, values = f"{type(layer).__name__}.start of layer {number}:", layer.start(rng)
        if {*values} != {*layer.shapes}:
            expected = ", ".join(layer.shapes)
            raise ValueError(f"{owner} returned {', '.join(values) or 'nothing'}; expected {expected}")
    return [checked_values(f"{owner} {name}", values[name], shape, dtype) for name, shape in layer.shapes.items()]


def _named(layer: Layer, activation: str) -> Layer:
    if isinstance(layer, Dense) and layer.activation is None:
        return Dense(layer.inputs, layer.units, activation, layer.init)
    return layer
