"""Layers: descriptions of the parts of a network, without parameters."""

from __future__ import annotations  # numpy.random is imported on first use, not with nnkit

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np

from nnkit.backends.base import Array, Backend
from nnkit.checks import check_new_name, in_range, named, whole
from nnkit.initializers import Initializer, get_initializer
from nnkit.kernels.activations import get_activation
from nnkit.kernels.arithmetic import product
from nnkit.kernels.dense import layer_backward, layer_forward
from nnkit.kernels.dropout import dropout_grad

Arrays = Mapping[str, Array]  # the parameters of a layer by name, or their gradients


class Layer(ABC):
    """A layer of a network: `Dense`, `Dropout`, or a custom layer.

    A custom layer is a frozen dataclass with the fields `inputs` and `units`, further numbers and strings, and these
    methods. They compute only with formulas and methods of the backend, so that a step can be recorded, and each sample
    alone: outputs and metrics of many samples are computed in chunks. Register the class with `nnkit.register_layer` to
    load it from files. The last layer of a network is a `Dense`. A network tests its layers once: ValueError if a
    replay differs from a call, x is overwritten or a gradient is not written.

    >>> from dataclasses import dataclass
    >>> @nnkit.formula
    ... def shifted(xp, x, s):
    ...     return x + s
    >>> @dataclass(frozen=True)
    ... class Shift(nnkit.Layer):
    ...     inputs: int
    ...     units: int
    ...     @property
    ...     def shapes(self):
    ...         return {"s": (self.units,)}
    ...     def start(self, rng):
    ...         return {"s": np.zeros(self.units)}
    ...     def forward(self, backend, x, parameters):
    ...         return shifted(x, parameters["s"]), None
    ...     def backward(self, backend, delta, saved, parameters, gradient, need_dx):
    ...         backend.sum(delta, axis=0, out=gradient["s"])
    ...         return delta
    >>> net = nnkit.Network([Shift(2, 2), nnkit.Dense(2, 3)], seed=0)
    >>> nnkit.check_gradients(net, [[0.0, 1.0], [1.0, 0.5]], [0, 2]).max_error < 1e-13
    True
    """

    __slots__ = ()

    inputs: int
    units: int

    @property
    def label(self) -> str:
        """The layer's name in the repr of a network."""
        return f"{self.units} {type(self).__name__}"

    @property
    @abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each parameter by name; penalties and weight decay apply to those with two or more axes."""

    @property
    def rates(self) -> Mapping[str, float]:
        """The factor of the learning rate for each parameter by name, at least 0; 1 for those that are missing."""
        return {}

    @abstractmethod
    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        """The initial value of each parameter."""

    @abstractmethod
    def forward(self, backend: Backend, x: Array, parameters: Arrays) -> tuple[Array, Any]:
        """The outputs (n, units) for inputs x (n, inputs), and the values saved for `backward`.

        `nnkit.check_gradients` calls it with complex arrays on NumPy.
        """

    def outputs(self, backend: Backend, x: Array, parameters: Arrays) -> Array:
        """Only the outputs, for predictions."""
        return self.forward(backend, x, parameters)[0]

    @abstractmethod
    def backward(
        self, backend: Backend, delta: Array, saved: Any, parameters: Arrays, gradient: Arrays, need_dx: bool
    ) -> Array:
        """Write the gradient of each parameter into `gradient`; return δx (n, inputs) if `need_dx`.

        `delta`, (n, units), is the gradient of the mean cost by the outputs. It may be overwritten and returned.
        """


@dataclass(frozen=True, slots=True, repr=False)
class Dense(Layer):
    """A dense layer h = f(Wx + b) (eq. 2) with `inputs` inputs and `units` units.

    `activation` None means the identity; for the last layer, the activation paired with the cost. `init` None means
    the network's initializer. `rate` and `bias_rate`, at least 0, multiply the learning rate for W and for b, as in the
    parameter groups of PyTorch, also in weight decay: 0 freezes them. `bias_rate` None means `rate`. They are in files,
    and `Network.set_rate` changes them. Raises ValueError for sizes below 1, rates below 0 and unknown names.

    >>> nnkit.Dense(784, 100, "relu", bias_rate=0.1)
    Dense(inputs=784, units=100, activation='relu', init=None, bias_rate=0.1)
    """

    inputs: int
    units: int
    activation: str | None = None
    init: str | Initializer | None = None
    rate: float = 1.0
    bias_rate: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", in_range("Dense", "rate", self.rate))
        if self.bias_rate is not None:
            object.__setattr__(self, "bias_rate", in_range("Dense", "bias_rate", self.bias_rate))
        for name, size in (("inputs", self.inputs), ("units", self.units)):
            # A NumPy integer could not be written to a file's description.
            object.__setattr__(self, name, whole("Dense", name, size, 1))
        if self.activation is not None and not (isinstance(self.activation, str) and self.activation == "softmax"):
            get_activation(self.activation)
        get_initializer(self.init)

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in ("inputs", "units", "activation", "init")} | self.given_rates
        return f"Dense({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def given_rates(self) -> dict[str, float]:
        """The rates that are not the default."""
        given = {} if self.rate == 1 else {"rate": self.rate}
        return given if self.bias_rate is None else given | {"bias_rate": self.bias_rate}

    @property
    def rates(self) -> Mapping[str, float]:
        return {"W": self.rate, "b": self.rate if self.bias_rate is None else self.bias_rate}

    @property
    def label(self) -> str:
        return f"{self.units} {self.activation}"

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"W": (self.units, self.inputs), "b": (self.units,)}

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        W, b = get_initializer(self.init, str(self.activation))(rng, self.units, self.inputs)
        return {"W": W, "b": b}

    def forward(self, backend: Backend, x: Array, parameters: Arrays) -> tuple[Array, Any]:
        z, f = None, get_activation(str(self.activation))
        if f.gradient_from == "preactivation":
            z = backend.empty((x.shape[0], self.units), x.dtype)
        h = layer_forward(backend, f, x, parameters["W"], parameters["b"], z=z)
        return h, (x, h if z is None else z)

    def outputs(self, backend: Backend, x: Array, parameters: Arrays) -> Array:
        return layer_forward(backend, get_activation(str(self.activation)), x, parameters["W"], parameters["b"])

    def backward(
        self, backend: Backend, delta: Array, saved: Any, parameters: Arrays, gradient: Arrays, need_dx: bool
    ) -> Array:
        (x, kept), f = saved, get_activation(str(self.activation))
        outs = (None, gradient["W"], gradient["b"])
        return layer_backward(backend, f, delta, x, parameters["W"], kept, outs, need_dx, overwrite_delta=True)[0]


@dataclass(frozen=True, slots=True)
class Scaling(Layer):
    """A factor for each of the inputs, h = s ⊙ x, to learn their importance; s is 1 at first.

    `rate` multiplies the learning rate, as that of `Dense`. Raises ValueError for sizes below 1 and a rate below 0.

    >>> nnkit.Network([nnkit.Scaling(4, rate=6.0), nnkit.Dense(4, 3)], seed=0)
    Network(4 → scaling → 3 softmax, softmax_cross_entropy, 19 parameters in float32 on numpy, seed 0)
    """

    inputs: int
    rate: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", whole("Scaling", "inputs", self.inputs, 1))
        object.__setattr__(self, "rate", in_range("Scaling", "rate", self.rate))

    @property
    def units(self) -> int:  # type: ignore[override]
        """As many as inputs."""
        return self.inputs

    @property
    def label(self) -> str:
        return "scaling"

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"s": (self.inputs,)}

    @property
    def rates(self) -> Mapping[str, float]:
        return {"s": self.rate}

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"s": np.ones(self.inputs)}

    def forward(self, backend: Backend, x: Array, parameters: Arrays) -> tuple[Array, Any]:
        return backend.elementwise(product, (x, parameters["s"])), x

    def backward(
        self, backend: Backend, delta: Array, saved: Any, parameters: Arrays, gradient: Arrays, need_dx: bool
    ) -> Array:
        backend.sum(backend.elementwise(product, (delta, saved)), axis=0, out=gradient["s"])
        return backend.elementwise(product, (delta, parameters["s"])) if need_dx else delta


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """Set a fraction `rate` of the previous layer's outputs to 0 during training (Srivastava et al., JMLR 2014).

    The others are multiplied by 1/(1 − rate), so `forward` and `predict` need no change. Each step draws a new mask
    from the network's seed and a counter, the same on every backend (`nnkit.kernels.dropout`). As the first layer it
    drops inputs. Raises ValueError for a rate outside [0, 1), TypeError if it is not a number.

    >>> nnkit.Network([nnkit.Dense(4, 8, "relu"), nnkit.Dropout(0.2), nnkit.Dense(8, 3)], seed=0)
    Network(4 → 8 relu → dropout 0.2 → 3 softmax, softmax_cross_entropy, 67 parameters in float32 on numpy, seed 0)
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", in_range("Dropout", "rate", self.rate, 1.0))

    @property
    def label(self) -> str:
        return f"dropout {self.rate:g}"

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {}

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        return {}

    def forward(self, backend: Backend, x: Array, parameters: Arrays) -> tuple[Array, Any]:
        return x, None  # as in a prediction; in training the network draws the mask (`DropoutState`)

    def backward(
        self, backend: Backend, delta: Array, saved: Any, parameters: Arrays, gradient: Arrays, need_dx: bool
    ) -> Array:
        return backend.elementwise(dropout_grad, (delta, saved))


def dense_layers(layers: Sequence[Layer]) -> list[Dense]:
    """The dense layers, which include the last layer of a network."""
    return [layer for layer in layers if isinstance(layer, Dense)]


def chain(layers: Sequence[Layer]) -> str:
    """Layers as text, such as 4 → 5 relu → 3 softmax."""
    return " → ".join([str(trainable_layers(layers)[0].inputs), *(layer.label for layer in layers)])


def trainable_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The layers that can have parameters: all but Dropout."""
    return [layer for layer in layers if not isinstance(layer, Dropout)]


def rates_of(layers: Sequence[Layer]) -> list[dict[str, float]] | None:
    """The factor of the learning rate for each parameter of trainable layers; None if all are 1.

    Raises ValueError for a custom layer with a factor below 0 or for a parameter that it does not have.
    """
    found = []
    for layer in layers:
        kind = type(layer).__name__
        if unknown := layer.rates.keys() - layer.shapes.keys():
            raise ValueError(f"{kind}.rates contains {', '.join(unknown)}; expected {', '.join(layer.shapes)}")
        found.append({name: in_range(f"{kind}.rates", name, layer.rates.get(name, 1.0)) for name in layer.shapes})
    return found if any(rate != 1 for rates in found for rate in rates.values()) else None


def outputs(layers: Sequence[Layer], backend: Backend, parameters: Iterable[Arrays], x: Array) -> Array:
    """The outputs of layers with these parameters for samples x (n, d_in), without dropout."""
    for layer, own in zip(trainable_layers(layers), parameters, strict=True):
        x = layer.outputs(backend, x, own)
    return x


_registered: dict[str, type[Layer]] = {"Scaling": Scaling}


def register_layer(kind: type[Layer]) -> type[Layer]:
    """Register a layer class by its name, so that networks with it can be loaded; returns it, for use as a decorator.

    Raises TypeError if it is not a dataclass derived from `nnkit.Layer`, and ValueError if the name is taken.
    """
    if not (isinstance(kind, type) and issubclass(kind, Layer) and is_dataclass(kind)):
        raise TypeError(f"kind is {kind!r}; expected a dataclass derived from nnkit.Layer")
    check_new_name("layer", kind.__name__, [*_registered, "Dense", "Dropout"])
    _registered[kind.__name__] = kind
    return kind


def unregister_layer(name: str) -> None:
    """Remove a registered layer class; KeyError if there is none of this name."""
    del _registered[name]


def layer_description(layer: Layer) -> dict[str, Any]:
    """The JSON description of a layer, without its initializer; TypeError for one that a file cannot contain."""
    if isinstance(layer, Dense):
        return {"inputs": layer.inputs, "units": layer.units, "activation": layer.activation} | layer.given_rates
    if isinstance(layer, Dropout):
        return {"dropout": layer.rate}
    if not is_dataclass(layer):
        raise TypeError(f"layers contains {layer!r}, which is not a dataclass; only those can be written to a file")
    name = type(layer).__name__
    if (
        name in ("Dense", "Dropout")
        or _registered.get(name, type(layer)).__module__ == __name__ != type(layer).__module__
    ):
        raise TypeError(f"layers contains a custom {name}; only one with another name can be written to a file")
    fields = {field: v.item() if isinstance(v, np.generic) else v for field, v in asdict(layer).items()}
    for field, value in fields.items():
        if not isinstance(value, bool | int | float | str | list | tuple | dict | None):
            what = f"whose {field} is a {type(value).__name__}"
            raise TypeError(f"layers contains {layer!r}, {what}; a file can contain numbers and strings")
    return {"layer": name} | fields


def layer_of(description: Mapping[str, Any]) -> Layer:
    """The layer of a description. Raises UnknownNameError, with the kind "layer", for an unregistered name."""
    if "dropout" in description:
        return Dropout(description["dropout"])
    if "layer" not in description:
        rates = {name: description[name] for name in ("rate", "bias_rate") if name in description}
        return Dense(description["inputs"], description["units"], description["activation"], **rates)
    fields = dict(description)
    return named("layer", fields.pop("layer"), _registered)(**fields)
