"""Copies of networks, also from one process to another: what `copy` and `pickle` take; files hold no pickle."""

from typing import Any, TypeVar

from nnkit.kernels.costs import get_cost
from nnkit.layers import Dense, Layer
from nnkit.model import Model
from nnkit.state_arrays import restore_arrays, saved_arrays

M = TypeVar("M", bound=Model)


def reduced(network: Model) -> dict[str, Any]:
    """A network as plain values and NumPy arrays; its cost and activations go by name, which must be known there."""
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
        "values": [(to_numpy(W), to_numpy(b)) for W, b in zip(p.W, p.b, strict=True)],
        "optimizer": network.optimizer,
        "has_state": state is not None,
        "state": saved_arrays(network, state),
    }


def rebuilt(kind: type[M], parts: dict[str, Any]) -> M:
    """The network of a class of which these are the parts; raises what that does."""
    network = kind(cost=get_cost(**parts["cost"]), **parts["arguments"])
    network.epochs_trained, network.optimizer = parts["epochs_trained"], parts["optimizer"]
    network.parameters.assign(parts["values"])
    state = network.optimizer_state() if parts["has_state"] else None
    restore_arrays(network, state, parts["state"])
    return network
