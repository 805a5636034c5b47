"""The structure of a network: validated layers from sizes or layers, initial values, and checks of custom layers."""

from __future__ import annotations  # numpy.random is imported on first use, not with nnkit

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.checks import whole
from nnkit.initializers import Initializer, checked_values, get_initializer, in_words
from nnkit.kernels.activations import get_activation
from nnkit.kernels.cost import check_pair
from nnkit.kernels.costs import Cost, default_cost, get_cost
from nnkit.layers import Dense, Dropout, Layer, dense_layers, trainable_layers
from nnkit.optimizer_state import OptimizerState
from nnkit.parameters import Parameters
from nnkit.preprocessing import is_custom

_FAR = 1e6  # the distance of targets from 0, in standard deviations, at which float32 keeps about 16 values of each
_COUPLES = "layers: softmax couples the units of a layer and can only be the output activation"


def build_layers(
    sizes: Sequence[int | Layer], activation: str | None, output_activation: str | None, cost: str | Cost | None
) -> tuple[list[Layer], Cost]:
    """Layers from a list of sizes or layers, with the activations of dense layers filled in; and the cost.

    Raises ValueError if widths do not match, a hidden layer has softmax or the last layer is not a Dense, and TypeError
    for an activation if the layers have their own.
    """
    if isinstance(sizes, str | bytes | bytearray | Mapping | Set) or not isinstance(sizes, Iterable):
        raise TypeError(f"layers is {sizes!r}; expected a list of sizes or of layers, such as [4, 8, 3]")
    for name in (activation, output_activation):
        if name is not None and not isinstance(name, str):
            get_activation(name)
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
    return [*hidden, replace(last, activation=output)], chosen


def checked_target_scaling(scaling: Any, cost: Cost, last: Dense) -> Any:
    """Return the normalization of targets if it fits the cost and the last layer; raises TypeError or ValueError."""
    if scaling is None:
        return None
    if getattr(scaling, "kind", None) != "normalization" or isinstance(scaling, type):
        given = scaling.__name__ if isinstance(scaling, type) else f"a {type(scaling).__name__}"
        raise TypeError(f"target_scaling is {given}; expected a fitted nnkit.data.Normalization")
    if is_custom(scaling):
        own = type(scaling).__name__
        raise TypeError(
            f"target_scaling is a {own}, whose own code would not run; expected an nnkit.data.Normalization"
        )
    if cost.classifies or cost.domain != "any" or last.activation != "identity":
        raise ValueError(
            f"target_scaling is for a regression with linear outputs, such as cost='quadratic'; the cost is "
            f"{cost.name} and the output activation {last.activation}"
        )
    if scaling.inputs != last.units:
        raise ValueError(f"target_scaling has {scaling.inputs} columns, but the network has {last.units} outputs")
    return scaling


def warn_of_rounded_targets(scaling: Any) -> None:
    """Warn of targets whose deviations from the mean float32 rounds: they are in it before they are scaled."""
    mean, deviation = scaling.arrays.values()
    far = np.abs(mean) / deviation
    at = int(far.argmax())
    if far[at] > _FAR:
        warnings.warn(
            f"target_scaling: column {at} has mean {mean[at]:.3g} and standard deviation {deviation[at]:.3g}, which "
            'float32 rounds to a few values; give the network dtype="float64", or subtract the mean from the targets',
            stacklevel=4,
        )


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


def initializers_in_words(layers: Sequence[Dense], init: str | Initializer | None) -> str | None:
    """The names of the initializers of dense layers, or the one of all; None if all are the default."""
    given = [init if layer.init is None else layer.init for layer in layers]
    if all(each is None for each in given):
        return None
    names = ["default" if each is None else each if isinstance(each, str) else _name_of(each) for each in given]
    return names[0] if len({*names}) == 1 else ", ".join(names)


def _name_of(init: Initializer) -> str:
    return str(getattr(init, "__qualname__", type(init).__name__))


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
        return replace(layer, activation=activation)
    return layer


# --- checks of custom layers and updates -----------------------------------------------------------------------------

# A step is recorded once and replayed. Computation that bypasses the backend, such as `x * s` with NumPy's operator,
# would run only during recording: replays would silently reuse its numbers.


_SAMPLES = 3
_HINT = "compute only with formulas (nnkit.formula) and methods of the backend, so that a step can be recorded"


def check_own_layer(backend: Backend, layer: Layer, values: Sequence[np.ndarray], dtype: str, number: int) -> None:
    """ValueError if a replay of a layer differs from a call, for these values of its parameters.

    Also if its results have wrong shapes, or it overwrites x or does not write a gradient.
    """
    if isinstance(layer, Dense | Dropout):
        return
    owner, trial = f"{type(layer).__name__} of layer {number}", _Trial(backend, layer, values, dtype)
    trial.fill(1.0, unwritten=0.0)
    with backend.recording() as tape:
        found = trial.run()
    _check_shapes(owner, layer, found)
    trial.fill(-0.75, unwritten=7.0)
    tape.replay()
    replayed = trial.numbers(found)
    trial.fill(-0.75, unwritten=-3.0)
    called = trial.numbers(trial.run())
    if not np.array_equal(backend.to_numpy(trial.x), -0.75 * trial.given[0]):
        raise ValueError(f"{owner} overwrites x, which the layer before it needs; write into new arrays")
    for name in trial.gradient:
        if (replayed[name] == 7.0).any() and np.array_equal(replayed[name] == 7.0, called[name] == -3.0):
            raise ValueError(
                f"{owner}: backward does not write all of gradient[{name!r}]; write into that array, such as with out="
            )
    for name, array in called.items():
        size = np.abs(array[np.isfinite(array)]).max(initial=1e-30)
        if not np.allclose(replayed[name], array, rtol=1e-3, atol=1e-5 * size, equal_nan=True):
            raise ValueError(f"{owner}: {name} of a recorded step differs from that of a call; {_HINT}")


class _Trial:
    """Arrays for a forward and a backward pass of one layer."""

    def __init__(self, backend: Backend, layer: Layer, values: Sequence[np.ndarray], dtype: str) -> None:
        self.backend, self._layer, self._dtype = backend, layer, dtype
        rng, widths = np.random.default_rng(0), (layer.inputs, layer.units)
        # Eighths, and ¾ of them, are exact in each dtype.
        self.given = [(rng.integers(1, 9, (_SAMPLES, d)) * rng.choice([-1, 1], (_SAMPLES, d)) / 8) for d in widths]
        self._values = [np.asarray(value, np.float64) for value in values]
        self.x, self._delta = (backend.zeros(array.shape, dtype) for array in self.given)
        self._parameters = {name: backend.zeros(shape, dtype) for name, shape in layer.shapes.items()}
        self.gradient = {name: backend.zeros(shape, dtype) for name, shape in layer.shapes.items()}

    def fill(self, factor: float, unwritten: float) -> None:
        """Scale samples and Δ by `factor`, set parameters near their initial values and gradients to a number."""
        moved = [value + 0.0625 * (1 - factor) for value in self._values]
        gradients = [np.full(array.shape, unwritten) for array in self.gradient.values()]
        targets = [self.x, self._delta, *self._parameters.values(), *self.gradient.values()]
        for values, target in zip([*(factor * a for a in self.given), *moved, *gradients], targets, strict=True):
            self.backend.copy(self.backend.asarray(values, self._dtype), target)

    def run(self) -> dict[str, Array]:
        """The outputs as computed by a prediction and by a step, and δx."""
        # Copies of the dicts, in case the layer replaces an array in them.
        own = dict(self._parameters)
        outputs = self._layer.outputs(self.backend, self.x, own)
        h, saved = self._layer.forward(self.backend, self.x, own)
        kept = self.backend.copy(h, self.backend.empty(h.shape, h.dtype))  # it may be overwritten
        dx = self._layer.backward(self.backend, self._delta, saved, own, dict(self.gradient), True)
        return {"outputs": outputs, "forward": kept, "δx": dx}

    def numbers(self, found: dict[str, Array]) -> dict[str, Any]:
        """The current results and gradients, on the host."""
        return {name: np.array(self.backend.to_numpy(a)) for name, a in (found | self.gradient).items()}


def _check_shapes(owner: str, layer: Layer, found: dict[str, Any]) -> None:
    for name, width in (("outputs", layer.units), ("forward", layer.units), ("δx", layer.inputs)):
        shape = getattr(found[name], "shape", None)
        if shape is None or tuple(shape) != (_SAMPLES, width):
            given = repr(found[name]) if shape is None else f"shape {tuple(shape)}"
            raise ValueError(f"{owner}: {name} of {_SAMPLES} samples: {given}; expected ({_SAMPLES}, {width})")


def tried(state: OptimizerState, parameters: Parameters) -> OptimizerState:
    """The state; ValueError if a replay of a custom update that is declared recordable differs from a call."""
    state.check_kept()
    backend, found = state.backend, []
    for replays in (True, False) if state.recordable and not state.updates_by_formula else ():
        p, g = (Parameters(backend, parameters.shapes, state.dtype) for _ in range(2))
        step: Callable[..., object] = state.optimizer.start(p).update
        if replays:
            with backend.recording() as tape:
                step(p, g)
        for factor in (1.0, -0.25):
            backend.copy(backend.asarray(factor * np.linspace(1, -3, g.flat.shape[0]), state.dtype), g.flat)
            tape.replay() if replays else step(p, g)
        found.append(np.array(backend.to_numpy(p.flat)))
    if found and not np.allclose(found[0], found[1], rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(f"{type(state).__name__}.update: a replay differs from a call; {_HINT}, or omit recordable")
    return state
