"""A network as plain values: the arguments that create an equal one, and its arrays on the host.

Copies, pickles, files, checkpoints and moves between backends use these. The arrays have the names and the layout of
files (`nnkit.checkpoint`): `layers.0.W` in row-major order, `optimizer.velocity`, `dropout.step_low`.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nnkit.backends.base import Array
from nnkit.backends.dtypes import dtype_name
from nnkit.kernels.cost import Cost
from nnkit.kernels.costs import get_cost
from nnkit.layers import Dense, Layer
from nnkit.model import Model
from nnkit.optimizer_state import OptimizerState
from nnkit.placement import Placement

Arrays = dict[str, np.ndarray]


def arguments(model: Model) -> dict[str, Any]:
    """The arguments of `Network` that create one like this, without its backend and its training."""
    layers: list[Layer] = [  # without their initializers: the parameters are known
        replace(layer, init=None) if isinstance(layer, Dense) else layer for layer in model.layers
    ]
    names = ("cost", "seed", "dtype", "preprocessing", "target_scaling", "classes", "features")
    return {"layers": layers} | {name: getattr(model, name) for name in names}


def arrays(model: Model) -> Arrays:
    """The parameters and the training state of a network, on the host."""
    return parameters(model) | training_state(model)


def parameters(model: Model) -> Arrays:
    """The arrays of each layer, on the host."""
    to_numpy, layers = model.backend.to_numpy, enumerate(model.parameters.layers)
    return {f"layers.{i}.{name}": to_numpy(array) for i, layer in layers for name, array in layer.items()}


def training_state(model: Model) -> Arrays:
    """The training state, on the host."""
    place = model.placement
    to_numpy, vector = place.backend.to_numpy, place.parameters.flat.shape
    return {
        name: place.parameters.saved(array) if array.shape == vector else np.array(to_numpy(array))
        for name, array in training_arrays(place, model.current_state).items()
    }


OPTIMIZER = "optimizer."  # before the names of its arrays


def training_arrays(place: Placement, state: OptimizerState | None) -> dict[str, Array]:
    """The training state on its backend: the optimizer's state and dropout's counter."""
    kept = {} if state is None else state.kept
    found = {f"{OPTIMIZER}{name}": array for name, array in kept.items()}
    if place.dropout is not None:
        found |= {f"dropout.{name}": array for name, array in place.dropout.arrays.items()}
    return found


def restore(place: Placement, saved: Mapping[str, np.ndarray], training: bool = True) -> None:
    """Copy saved arrays to a placement: the parameters, and with `training` also its training state.

    Raises KeyError for a missing array, ValueError for a wrong shape.
    """
    layers = enumerate(place.parameters.shapes)
    place.parameters.assign([[saved[f"layers.{i}.{name}"] for name in shapes] for i, shapes in layers])
    if training:
        fill(place, place.state, saved)
        for name, array in training_arrays(place, None).items():
            place.backend.copy(place.backend.asarray(saved[name], dtype_name(array.dtype)), array)


def fill(place: Placement, state: OptimizerState | None, saved: Mapping[str, np.ndarray]) -> None:
    """Set the arrays of an optimizer's state to saved ones; raises like `restore`, also for those of dropout."""
    own = training_arrays(place, state)
    custom = state is not None and state.is_custom  # its shapes and dtypes may change
    fixed = {name: array for name, array in own.items() if not (custom and name.startswith(OPTIMIZER))}
    for name, array in fixed.items():
        if tuple(saved[name].shape) != tuple(array.shape):
            raise ValueError(f"{name} has shape {saved[name].shape}; expected {tuple(array.shape)}")
    if state is None:
        return
    values = {}
    for name in saved.keys() if custom else own:
        if name.startswith(OPTIMIZER):
            found = saved[name]
            dtype, vector = dtype_name(fixed.get(name, found).dtype), found.shape == place.parameters.flat.shape
            value = place.parameters.restored(found, dtype) if vector else place.backend.asarray(found, dtype)
            values[name.removeprefix(OPTIMIZER)] = value
    state.fill(values)


# --- pickles, also between processes; files contain none --------------------------------------------------------------


def pickled(network: Model) -> dict[str, Any]:
    """The state of a network for `copy` and `pickle`: plain values, arrays, and attributes added by a subclass.

    Cost and activations are stored by name, which must be registered where the pickle is loaded.
    """
    return {
        "arguments": arguments(network) | {"backend": network.backend.name, "cost": network.cost.describe()},
        "epochs_trained": network.epochs_trained,
        "vector_targets": network.vector_targets,
        "target_names": network.target_names,
        "seed_is_drawn": network.seed_is_drawn,
        "init": network.init,
        "arrays": arrays(network),
        "optimizer": network.optimizer,
        "has_state": network.current_state is not None,
        "added": _added(network),
    }


def unpickle(network: Model, parts: dict[str, Any]) -> None:
    """Initialize a network, of any subclass, from its pickled state; raises like `Network`."""
    given, saved = parts["arguments"], parts.get("arrays")
    cost = parts.get("cost") or given["cost"]
    if saved is None:  # a pickle of an earlier version
        pairs = enumerate(parts["values"])
        saved = {f"layers.{i}.{name}": array for i, pair in pairs for name, array in zip("Wb", pair, strict=True)}
        saved |= parts["state"]
    Model.__init__(network, **given | {"cost": cost if isinstance(cost, Cost) else get_cost(**cost)})
    network.epochs_trained, network.optimizer = parts["epochs_trained"], parts["optimizer"]
    for name in ("vector_targets", "seed_is_drawn", "target_names", "init"):
        setattr(network, name, parts.get(name, getattr(network, name)))  # missing in earlier versions
    if parts["has_state"]:
        network.optimizer_state()
    restore(network.placement, saved)
    for name, value in parts["added"].items():
        object.__setattr__(network, name, value)


def _added(network: Model) -> dict[str, Any]:
    """The attributes, also in slots, that a subclass or a user has added to a network."""
    state: Any = object.__getstate__(network)
    attributes: dict[str, Any] = state[0] | state[1] if isinstance(state, tuple) else state
    return {name: value for name, value in attributes.items() if name not in _own_attributes()}


@functools.cache
def _own_attributes() -> frozenset[str]:
    """The attributes of every network."""
    return frozenset(vars(Model([1, 1], seed=0, backend="numpy")))
