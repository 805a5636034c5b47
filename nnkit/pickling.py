"""Copies of networks, also from one process to another: what `copy` and `pickle` take; files hold no pickle."""

import functools
from typing import Any

from nnkit.kernels.costs import get_cost
from nnkit.layers import Dense, Layer
from nnkit.model import Model
from nnkit.state_arrays import restore_arrays, saved_arrays


def state_of(network: Model) -> dict[str, Any]:
    """A network as plain values and NumPy arrays, and what a subclass has added as it is.

    Its cost and activations go by name, which must be known where it arrives.
    """
    to_numpy, p, state = network.backend.to_numpy, network.parameters, network.current_state
    layers: list[Layer] = [
        Dense(layer.inputs, layer.units, layer.activation) if isinstance(layer, Dense) else layer
        for layer in network.layers
    ]
    return {
        "arguments": {
            "layers": layers,
            "seed": network.seed,
            "dtype": network.dtype,
            "backend": network.backend.name,
            "preprocessing": network.preprocessing,
            "classes": network.classes,
            "features": network.features,
        },
        "cost": network.cost.describe(),
        "epochs_trained": network.epochs_trained,
        "vector_targets": network.vector_targets,
        "values": [(to_numpy(W), to_numpy(b)) for W, b in zip(p.W, p.b, strict=True)],
        "optimizer": network.optimizer,
        "has_state": state is not None,
        "state": saved_arrays(network.placement, state),
        "added": _added(network),
    }


def set_state(network: Model, parts: dict[str, Any]) -> None:
    """Make a bare network, of whichever class, the one of which these are the parts; raises what `Network` does."""
    Model.__init__(network, cost=get_cost(**parts["cost"]), **parts["arguments"])
    network.epochs_trained, network.optimizer = parts["epochs_trained"], parts["optimizer"]
    network.vector_targets = parts.get("vector_targets", False)  # pickles of earlier versions lack it
    network.parameters.assign(parts["values"])
    state = network.optimizer_state() if parts["has_state"] else None
    restore_arrays(network.placement, state, parts["state"])
    for name, value in parts["added"].items():
        object.__setattr__(network, name, value)


def _added(network: Model) -> dict[str, Any]:
    """The attributes, also in slots, that a subclass or a user has given to a network."""
    state: Any = object.__getstate__(network)
    attributes: dict[str, Any] = state[0] | state[1] if isinstance(state, tuple) else state
    return {name: value for name, value in attributes.items() if name not in _own_attributes()}


@functools.cache
def _own_attributes() -> frozenset[str]:
    """What every network has."""
    return frozenset(vars(Model([1, 1], seed=0, backend="numpy")))
