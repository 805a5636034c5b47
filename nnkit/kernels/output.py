"""Pairs of a cost and an output activation, as functions of the last layer's logits z.

For identity with the quadratic cost, sigmoid with cross-entropy, softmax with its cross-entropy and the exponential
with the Poisson cost, the output error is δh̄ = a − y (eq. 19), computed from the logits, without logarithms of 0 or a
vanishing f′. All other pairs use δh̄ = f′(h̄) ⊙ Δ (eq. 8).
"""

import functools
from abc import ABC, abstractmethod

import numpy as np

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
    (n, d_out) with weights per output.

    Attributes:
        logit_threshold: a logit above it is an output above the cost's threshold; None if only the output is known.
        by_logits: whether logits determine the class: different outputs near 1 may round to the same number.
    """

    def __init__(self, cost: Cost, activation: Activation | None) -> None:
        self.cost = cost
        self.activation = activation
        self.constants = dict(cost.constants)
        name = "softmax" if activation is None else activation.name
        thresholds = {"identity": cost.threshold, "sigmoid": 0.0 if cost.threshold == 0.5 else None}
        self.logit_threshold = thresholds.get(name)
        self.by_logits = self.logit_threshold is not None or name == "softmax"

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


def check_pair(cost: Cost, name: str) -> None:
    """Raise ValueError for an output activation without meaning for a cost, apart from the paired one.

    Its outputs must be probabilities for softmax_cross_entropy, have a cost, and lie on both sides of the threshold.

    >>> check_pair(get_cost("poisson"), "tanh")
    Traceback (most recent call last):
    ValueError: output_activation is 'tanh', but poisson is not defined for its output -0.9993; expected 'exponential'
    """
    if name == cost.output:
        return
    problem = "is for probabilities that sum to 1" if cost.domain == "distribution" else ""
    h = np.linspace(0.01, 0.99) if name == "softmax" else get_activation(name).forward(np.linspace(-4, 4))
    for y in (1.0, 0.0) if cost.classifies else (1.0,):
        undefined = np.isnan(cost.terms(h, np.full_like(h, y), 1.0, **dict(cost.constants)))
        if undefined.any() and not problem:
            problem = f"is not defined for its output {h[undefined][0]:.4g}"
    if cost.classifies and (h > cost.threshold).all() and not problem:
        problem = f"predicts class 1 above {cost.threshold:g}, as all its outputs are"
    if problem:
        raise ValueError(f"output_activation is {name!r}, but {cost.name} {problem}; expected {cost.output!r}")


@functools.lru_cache(maxsize=64)  # bounded, as constants can have any value
def _pair(cost: Cost, activation: Activation | None) -> OutputPair:
    if activation is None:
        return (_SoftmaxCrossEntropy if cost.name == "softmax_cross_entropy" else _Softmax)(cost, None)
    if cost.from_logits is None or activation.name != cost.output:
        return _Elementwise(cost, activation)
    return _FromLogits(cost, activation, *cost.from_logits)
