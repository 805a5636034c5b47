"""Pairs of a cost and an output activation, as functions of the last layer's logits z.

For identity with the quadratic cost, sigmoid with cross-entropy, softmax with its cross-entropy and the exponential
with the Poisson cost, the output error is δh̄ = a − y (eq. 19), computed from the logits, without logarithms of 0 or a
vanishing f′. All other pairs use δh̄ = f′(h̄) ⊙ Δ (eq. 8).
"""

import functools
from abc import ABC, abstractmethod

from nnkit.backends.base import Array, Backend
from nnkit.backends.formula import Formula
from nnkit.kernels.activations import Activation, get_activation
from nnkit.kernels.arithmetic import product
from nnkit.kernels.costs import Cost, get_cost
from nnkit.kernels.softmax import (
    exponentials,
    softmax,
    softmax_delta,
    softmax_grad,
    softmax_terms,
    softmax_weighted_delta,
)


class OutputPair(ABC):
    """A cost and the activation of the output layer, as functions of the logits z, (n, d_out).

    y are the targets, with the shape of z; scale is the weight of each sample in the mean: a 0-d array, (n, 1), or
    (n, d_out) with weights per output. `paired` is whether the activation is the one paired with the cost, so that the
    logits determine the class.
    """

    def __init__(self, cost: Cost, activation: Activation | None) -> None:
        self.cost = cost
        self.activation = activation
        self.constants = dict(cost.constants)
        self.paired = cost.output == ("softmax" if activation is None else activation.name)

    @abstractmethod
    def outputs(self, backend: Backend, z: Array) -> Array:
        """h = f(z)."""

    @abstractmethod
    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        """The term of each output; their sum is the cost."""

    @abstractmethod
    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        """δh̄ = ∂C/∂z."""


class _Elementwise(OutputPair):
    """Any cost with any elementwise activation (eq. 8)."""

    activation: Activation

    def outputs(self, backend: Backend, z: Array) -> Array:
        return z if self.activation.name == "identity" else backend.elementwise(self.activation.forward, (z,))

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return backend.elementwise(self.cost.terms, (self.outputs(backend, z), y, scale), constants=self.constants)

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        h = self.outputs(backend, z)
        delta = backend.elementwise(self.cost.delta, (h, y, scale), constants=self.constants)
        if self.activation.name == "identity":
            return delta
        saved = h if self.activation.gradient_from == "output" else z
        return backend.elementwise(self.activation.gradient, (saved, delta))


class _FromLogits(_Elementwise):
    """A cost with its paired activation, by formulas of the logits."""

    def __init__(self, cost: Cost, activation: Activation, terms: Formula, delta: Formula) -> None:
        super().__init__(cost, activation)
        self._terms, self._delta = terms, delta

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return backend.elementwise(self._terms, (z, y, scale))

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return backend.elementwise(self._delta, (z, y, scale))


class _Softmax(OutputPair):
    """Any cost with softmax, whose Jacobian is not diagonal."""

    def outputs(self, backend: Backend, z: Array) -> Array:
        return softmax(z)

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return backend.elementwise(self.cost.terms, (softmax(z), y, scale), constants=self.constants)

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        p = softmax(z)
        return softmax_grad(p, backend.elementwise(self.cost.delta, (p, y, scale), constants=self.constants))


class _SoftmaxCrossEntropy(_Softmax):
    """Softmax with its cross-entropy, from the logits; the targets of each sample sum to 1."""

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        largest, _, total = exponentials(backend, z)
        return backend.elementwise(softmax_terms, (z, largest, total, y, scale))

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        _, exponential, total = exponentials(backend, z)
        if scale.ndim == 0 or scale.shape[-1] == 1:
            return backend.elementwise(softmax_delta, (exponential, total, y, scale))
        shares = backend.elementwise(product, (y, scale))
        return backend.elementwise(
            softmax_weighted_delta, (exponential, total, shares, backend.sum(shares, axis=-1, keepdims=True))
        )


def output_pair(cost: str | Cost, activation: str | Activation | None = None) -> OutputPair:
    """The pair of a cost and an output activation, by default the one paired with the cost.

    >>> type(output_pair("cross_entropy")).__name__, type(output_pair("quadratic", "tanh")).__name__
    ('_FromLogits', '_Elementwise')
    """
    cost = get_cost(cost)
    name = cost.output if activation is None else activation
    # Cached by objects, not names: a name may be unregistered and given to another activation.
    return _pair(cost, None if name == "softmax" else get_activation(name))


@functools.lru_cache(maxsize=64)  # bounded, as constants can have any value
def _pair(cost: Cost, activation: Activation | None) -> OutputPair:
    if activation is None:
        return (_SoftmaxCrossEntropy if cost.name == "softmax_cross_entropy" else _Softmax)(cost, None)
    if cost.from_logits is None or activation.name != cost.output:
        return _Elementwise(cost, activation)
    return _FromLogits(cost, activation, *cost.from_logits)
