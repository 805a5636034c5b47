"""The network and the optimizer that the options of nnkit train ask for."""

import argparse
from typing import Any

from numpy.typing import NDArray

from nnkit import data
from nnkit.backends import Backend
from nnkit.commands.arguments import counted
from nnkit.commands.targets import Targets
from nnkit.kernels.costs import get_cost
from nnkit.layers import Dense, Dropout, Layer, dense_layers
from nnkit.network import Network
from nnkit.optimizers import Optimizer, get_optimizer, optimizer_names

NUMBERS = ("learning_rate", "momentum", "l2", "weight_decay", "clip_norm")
_MOST = 2**48  # parameters; of more NumPy cannot even be asked


def build_optimizer(options: argparse.Namespace, classifies: bool) -> Optimizer:
    """A new optimizer with the numbers that were given; without a name one that suits the cost."""
    # The gradients of regression costs have the targets' scale, to which Adam adapts; those of classes are bounded.
    suits = {"name": "sgd", "momentum": 0.9} if classifies else {"name": "adam", "learning_rate": 0.01}
    given = {name: getattr(options, name) for name in NUMBERS if getattr(options, name) is not None}
    numbers = ({"name": options.optimizer} if options.optimizer else suits) | given
    for name in given:
        having = [each for each in optimizer_names() if hasattr(get_optimizer(each), name)]
        if numbers["name"] not in having:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} has no effect with --optimizer {numbers['name']}; it is of {', '.join(having)}")
    return get_optimizer(**numbers)


def build_network(
    options: argparse.Namespace,
    targets: Targets,
    X: NDArray[Any],
    features: list[str] | None,
    preprocessing: str,
    backend: Backend,
    seed: int,
) -> Network:
    """A network for the training part X (n, width), to which its preprocessing, by name, is fitted."""
    fitted = _fitted(preprocessing, X)
    layers = _layers(options, X.shape[1] if fitted is None else fitted.outputs, targets.outputs)
    try:
        cost = get_cost(targets.cost, label_smoothing=options.label_smoothing or 0.0)
    except ValueError as error:
        raise ValueError(f"--label-smoothing: {error}") from None
    count = sum(layer.units * (layer.inputs + 1) for layer in dense_layers(layers))
    try:
        if count >= _MOST:
            raise MemoryError("no machine has so much memory")
        return Network(
            layers,
            cost=cost,
            init=options.init,
            seed=seed,
            dtype=options.dtype,
            backend=backend,
            preprocessing=fitted,
            classes=targets.classes,
            features=features,
        )
    except MemoryError as error:
        error.add_note(f"--hidden: {count} parameters")
        raise


def widths(network: Network) -> str:
    """The widths of a network's layers, such as 64-100-10."""
    return "-".join(map(str, [network.width, *(layer.units for layer in network.dense)]))


def _layers(options: argparse.Namespace, inputs: int, outputs: int) -> list[Layer]:
    hidden, activations = options.hidden, options.activation
    if len(activations) == 1:
        activations = activations * len(hidden)
    if len(activations) != len(hidden):
        sizes = counted(len(hidden), "size")
        raise ValueError(
            f"--activation has {len(activations)} names and --hidden {sizes}; expected one name, or as many"
        )
    layers: list[Layer] = []
    for units, activation in zip(hidden, activations, strict=True):
        layers.append(Dense(inputs, units, activation))
        if options.dropout:
            layers.append(Dropout(options.dropout))
        inputs = units
    return [*layers, Dense(inputs, outputs)]


def _fitted(preprocessing: str, X: NDArray[Any]) -> data.Normalization | data.Whitening | None:
    if preprocessing == "normalization":
        return data.Normalization.fit(X)
    if preprocessing == "whitening":
        return data.Whitening.fit(X)
    return data.Normalization.pixels(X.shape[1]) if preprocessing == "pixels" else None
