"""Checks of a network's gradients against the complex step: f'(x) = Im f(x + ih)/h, exact to rounding.

The gradients are computed in float64 on the network's backend. The reference is the cost of the forward pass with
complex parameters, on NumPy: it shares no code with backpropagation.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import get_backend
from nnkit.checks import whole
from nnkit.layers import outputs
from nnkit.network import Network
from nnkit.state import arguments, parameters, restore
from nnkit.verify.derivatives import complex_steps


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """Differences between gradients and the complex step.

    `errors` has, for each layer's "W" and "b", the largest difference relative to the largest entry of the reference;
    `entries` is the number of compared entries.
    """

    errors: dict[str, float]
    entries: int

    @property
    def max_error(self) -> float:
        """The largest error; NaN if one is NaN."""
        return float(np.max(list(self.errors.values())))  # Python's max may ignore NaN


def relative_error(found: Any, exact: Any) -> float:
    """The largest difference, relative to the largest entry of `exact` (or absolute if that is 0)."""
    found, exact = np.asarray(found), np.asarray(exact)
    scale = float(np.max(np.abs(exact), initial=0.0)) or 1.0
    return float(np.max(np.abs(found - exact), initial=0.0)) / scale


def check_gradients(network: Network, x: Any, y: Any, *, entries: int = 200, seed: int = 0) -> GradientCheck:
    """Compare a network's gradients for samples x and targets y with the complex step, in float64.

    Args:
        network: the network; unchanged, as its parameters are copied to float64.
        x: samples (n, d_in).
        y: labels (n,) or targets (n, d_out).
        entries: the number of entries compared in each W and b, at least 1, drawn with `seed`; all if there are fewer.

    Dropout is off. Correct gradients have an error of about 1e-13. If a logit is exactly at a kink (0 for ReLU), there
    is no derivative, and the two may differ.

    >>> net = nnkit.Network([4, 5, 3], activation="gelu", cost="softmax_cross_entropy", seed=0)
    >>> rng = np.random.default_rng(0)
    >>> nnkit.check_gradients(net, rng.normal(size=(6, 4)), [0, 1, 2, 0, 1, 2]).max_error < 1e-13
    True
    """
    if not isinstance(network, Network):
        raise TypeError(f"network is {network!r}; expected an nnkit.Network")
    whole("check_gradients", "entries", entries, 1)
    whole("check_gradients", "seed", seed, 0)
    twin = Network(**arguments(network) | {"dtype": "float64"}, backend=network.backend)
    restore(twin.placement, parameters(network), training=False)
    _, gradients = twin.gradients(x, y)
    to_numpy = twin.backend.to_numpy
    inputs = twin.samples(x)
    targets = twin.cost.smoothed(twin.backend, twin.targets(y, inputs.shape[0]))
    host_x, host_y = to_numpy(inputs), to_numpy(targets)
    layers = [{name: to_numpy(a).astype(complex) for name, a in own.items()} for own in twin.parameters.layers]
    rng = np.random.default_rng(seed)
    errors, compared = {}, 0
    for i, found in enumerate(gradients):
        for (name, parameter), gradient in zip(layers[i].items(), found, strict=True):
            chosen = rng.permutation(parameter.size)[:entries]
            cost = partial(_cost_with, twin, layers, host_x, host_y, i, name)
            exact = list(complex_steps(cost, parameter, chosen.tolist()))
            errors[f"layers.{i}.{name}"] = relative_error(to_numpy(gradient).ravel()[chosen], exact)
            compared += len(chosen)
    return GradientCheck(errors, compared)


def _cost_with(
    network: Network, layers: list[dict[str, NDArray[Any]]], x: Any, y: Any, layer: int, name: str, point: NDArray[Any]
) -> Any:
    """The mean cost, on NumPy, with the complex `point` in place of a layer's parameter."""
    numpy = get_backend("numpy")
    replaced = [own | {name: point} if i == layer else own for i, own in enumerate(layers)]
    z = outputs(network.to_logits, numpy, replaced, x)
    return numpy.sum(network.output.terms(numpy, z, y.astype(complex), np.asarray(1 / len(y), complex)))
