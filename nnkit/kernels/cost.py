"""Costs: the formulas of a cost, its pairs with output activations, and its mean over samples.

For identity with the quadratic cost, sigmoid with cross-entropy, softmax with its cross-entropy and the exponential
with the Poisson cost, the output error is δh̄ = a − y (eq. 19), computed from the logits, without logarithms of 0 or a
vanishing f′. All other pairs use δh̄ = f′(h̄) ⊙ Δ (eq. 8).
"""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import backend_of
from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import HALF, dtype_name, promote, promoted
from nnkit.backends.formula import Formula, formula
from nnkit.backends.recording import discard
from nnkit.checks import in_range, unknown_name
from nnkit.kernels.activations import Activation, get_activation
from nnkit.kernels.arithmetic import normalized, product, rounded, scaled_sum, widened
from nnkit.kernels.softmax import (
    exponentials,
    softmax,
    softmax_delta,
    softmax_grad,
    softmax_terms,
    softmax_weighted_delta,
)

_SMOOTHED = ("cross_entropy", "softmax_cross_entropy")  # whose targets are probabilities


@formula
def smoothed_targets(xp: Any, y: Any, kept: float = 1.0, added: float = 0.0) -> Any:
    """y · kept + added (label smoothing; Szegedy et al., CVPR 2016, section 7)."""
    return y * kept + added


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost, the sum of `terms(h, y, scale)`, with its derivative by h, `delta(h, y, scale)`.

    Both take arrays that broadcast; `scale` is the weight of each sample in the mean (1/n by default): a number,
    (n, 1), or (n, d_out) with weights per output. Both include it, so that cost and gradient are consistent.

    Attributes:
        output: the paired activation (eq. 19), the default of the output layer.
        classifies: whether targets are classes, so that accuracy is defined.
        domain: the allowed targets: "any" number, in [0, 1] ("unit"), in [0, 1] with sum 1 in each sample
            ("distribution"), at least 0 ("nonnegative") or above 0 ("positive").
        constants: the constants of the formulas that differ from the defaults, by name, such as Huber's δ.
        label_smoothing: the fraction s of each target that is spread over the classes; see `smoothed`.
        from_logits: terms(z, y, scale) and delta(z, y, scale) as formulas of the logits, for the paired activation; if
            None, they are computed from its output.
        threshold: a single output above it is class 1: ½ for probabilities, 0 for margins.
        ranges: name, lower and upper end of constants that are not only positive; both ends are excluded.
    """

    name: str
    terms: Formula
    delta: Formula
    output: str
    classifies: bool
    domain: Literal["any", "unit", "distribution", "nonnegative", "positive"] = "any"
    constants: tuple[tuple[str, float], ...] = ()
    label_smoothing: float = 0.0
    from_logits: tuple[Formula, Formula] | None = None
    threshold: float = 0.5
    ranges: tuple[tuple[str, float, float], ...] = ()

    def with_options(self, label_smoothing: float | None = None, **constants: float) -> "Cost":
        """This cost with other constants or label smoothing; raises like `get_cost`."""
        defaults, smoothing = self.terms.defaults, self.label_smoothing
        given = dict(self.constants) | constants
        for option, value in given.items():
            if option not in defaults:
                raise unknown_name(f"option of {self.name}", option, [*defaults, "label_smoothing"])
            low, high = {name: ends for name, *ends in self.ranges}.get(option, (0.0, math.inf))
            if in_range(self.name, option, value, high, above=True) <= low:
                raise ValueError(
                    f"{self.name}: {option} is {value!r}; expected a number above {low:g} and below {high:g}"
                )
        own = tuple(sorted((option, float(value)) for option, value in given.items() if value != defaults[option]))
        if label_smoothing is not None:
            smoothing = in_range(self.name, "label_smoothing", label_smoothing, 1.0)
        if smoothing and self.name not in _SMOOTHED:
            raise ValueError(f"{self.name} has no label smoothing; it is for {' and '.join(_SMOOTHED)}")
        return replace(self, constants=own, label_smoothing=smoothing)

    def smoothed(self, backend: Backend, y: Array) -> Array:
        """The smoothed targets: y (1 − s) + s/k with k classes (Szegedy et al., CVPR 2016, section 7).

        y: (..., k) for softmax_cross_entropy; for cross_entropy, whose outputs each have two classes, k is 2.

        >>> cost = nnkit.get_cost("softmax_cross_entropy", label_smoothing=0.1)
        >>> cost.smoothed(nnkit.get_backend("numpy"), np.array([[1.0, 0.0]]))
        array([[0.95, 0.05]])
        """
        if self.label_smoothing == 0:
            return y
        constants = {"kept": 1 - self.label_smoothing, "added": self._added(y)}
        return backend.elementwise(smoothed_targets, (y,), constants=constants)

    def sharpened(self, y: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `smoothed` on the host: exact for 0 and 1, up to rounding for others."""
        if self.label_smoothing == 0:
            return y
        found = (y - self._added(y)) / (1 - self.label_smoothing)
        whole = np.rint(found)
        return np.where(np.abs(found - whole) * (1 - self.label_smoothing) <= 2 * np.finfo(y.dtype).eps, whole, found)

    def _added(self, y: Any) -> float:
        k: int = y.shape[-1] if self.domain == "distribution" else 2
        return self.label_smoothing / k

    def describe(self) -> dict[str, Any]:
        """The name, and the constants and label smoothing that are not the default, for JSON.

        >>> nnkit.get_cost("huber", delta=2).describe()
        {'name': 'huber', 'delta': 2.0}
        >>> nnkit.get_cost(**nnkit.get_cost("huber", delta=2).describe()) == nnkit.get_cost("huber", delta=2)
        True
        """
        smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        return {"name": self.name, **dict(self.constants), **smoothing}


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
    def backward(self, backend: Backend, z: Array, h: Array, delta: Array) -> Array:
        """δh̄ of the activation, from Δ by its outputs h = f(z) (eq. 8)."""

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

    def backward(self, backend: Backend, z: Array, h: Array, delta: Array) -> Array:
        if self.activation.name == "identity":
            return delta
        saved = h if self.activation.gradient_from == "output" else z
        return backend.elementwise(self.activation.gradient, (saved, delta))

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return backend.elementwise(self.cost.terms, (self.outputs(backend, z), y, scale), constants=self.constants)

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        h = self.outputs(backend, z)
        delta = backend.elementwise(self.cost.delta, (h, y, scale), constants=self.constants)
        return self.backward(backend, z, h, delta)


class _FromLogits(_Elementwise):
    """A cost with its paired activation, by formulas of the logits."""

    def __init__(self, cost: Cost, activation: Activation, terms: Formula, delta: Formula) -> None:
        super().__init__(cost, activation)
        self._terms, self._delta = terms, delta

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return backend.elementwise(self._terms, (z, y, scale), constants=self.constants)

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return backend.elementwise(self._delta, (z, y, scale), constants=self.constants)


class _Softmax(OutputPair):
    """Any cost with softmax, whose Jacobian is not diagonal."""

    def outputs(self, backend: Backend, z: Array) -> Array:
        return softmax(z)

    def backward(self, backend: Backend, z: Array, h: Array, delta: Array) -> Array:
        return softmax_grad(h, delta)

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return backend.elementwise(self.cost.terms, (softmax(z), y, scale), constants=self.constants)

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        p = softmax(z)
        delta = backend.elementwise(self.cost.delta, (p, y, scale), constants=self.constants)
        return self.backward(backend, z, p, delta)


class _SoftmaxCrossEntropy(_Softmax):
    """Softmax with its cross-entropy, from the logits; the targets of each sample sum to 1."""

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        largest, _, total = exponentials(backend, z)
        return backend.elementwise(softmax_terms, (z, largest, total, y, scale))

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        largest, exponential, total = exponentials(backend, z)
        discard(largest, exponential, total)
        if scale.ndim == 0 or scale.shape[-1] == 1:
            return backend.elementwise(softmax_delta, (exponential, total, y, scale))
        shares = backend.elementwise(product, (y, scale))
        return backend.elementwise(
            softmax_weighted_delta, (exponential, total, shares, backend.sum(shares, axis=-1, keepdims=True))
        )


class ScaledTargets(_Elementwise):
    """A regression whose outputs are h = μ + σ z, with the cost of z and (y − μ)/σ; μ and σ are (d_out,)."""

    def __init__(self, pair: OutputPair, mean: np.ndarray, deviation: np.ndarray) -> None:
        super().__init__(pair.cost, get_activation("identity"))
        self._pair, self.mean, self.deviation = pair, mean, deviation
        self._placed: dict[tuple[Backend, str], tuple[Array, Array]] = {}

    def outputs(self, backend: Backend, z: Array) -> Array:
        mean, deviation = self._constants(backend, z)
        return backend.elementwise(scaled_sum, (mean, z, deviation))

    def backward(self, backend: Backend, z: Array, h: Array, delta: Array) -> Array:
        return backend.elementwise(product, (delta, self._constants(backend, z)[1]))

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return self._pair.terms(backend, z, self._scaled(backend, z, y), scale)

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return self._pair.delta(backend, z, self._scaled(backend, z, y), scale)

    def _scaled(self, backend: Backend, z: Array, y: Array) -> Array:
        return backend.elementwise(normalized, (y, *self._constants(backend, z)))

    def _constants(self, backend: Backend, z: Array) -> tuple[Array, Array]:
        dtype = "float32" if dtype_name(z.dtype) == "float32" else "float64"
        if (backend, dtype) not in self._placed:
            mean, deviation = (backend.asarray(a, dtype) for a in (self.mean, self.deviation))
            self._placed[backend, dtype] = mean, deviation
        return self._placed[backend, dtype]


def output_pair(cost: Cost, activation: str | Activation | None = None) -> OutputPair:
    """The pair of a cost and an output activation, by default the one paired with the cost.

    >>> type(output_pair(nnkit.get_cost("quadratic"), "tanh")).__name__
    '_Elementwise'
    """
    name = cost.output if activation is None else activation
    # Cached by objects, not names: a name may be unregistered and given to another activation.
    return _pair(cost, None if name == "softmax" else get_activation(name))


def check_pair(cost: Cost, name: str) -> None:
    """Raise ValueError for an output activation without meaning for a cost, apart from the paired one.

    Its outputs must be probabilities for softmax_cross_entropy, have a cost, and lie on both sides of the threshold.

    >>> check_pair(nnkit.get_cost("poisson"), "tanh")
    Traceback (most recent call last):
    ValueError: output_activation is 'tanh', but poisson is not defined for its output -0.9993; expected 'exponential'
    """
    if name == cost.output:
        return
    problem = "is for probabilities that sum to 1" if cost.domain == "distribution" else ""
    h = np.linspace(0.01, 0.99) if name == "softmax" else get_activation(name).forward(np.linspace(-4, 4))
    for y in (1.0, 0.0) if cost.classifies or cost.domain == "nonnegative" else (1.0,):
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


def mean_cost(cost: Cost, z: Array, y: Array, scale: Any = None) -> Array:
    """The mean over samples of a cost of logits z, or of outputs if its output is the identity; 0-d.

    z and y have the same shape (..., n, d_out), or (d_out,) for the class probabilities of one sample, and the same
    floating dtype. `scale` is the weight of each sample in the mean: a number, (..., n, 1), or (..., n, d_out) with
    weights per output; 1/n by default. Raises ValueError for mismatched shapes and no samples, TypeError for other
    dtypes, and BackendMismatchError. Half precision is computed in float32, and the result rounded.
    """
    pair = output_pair(cost)
    backend, z, y, scale, dtype = _prepared(pair, z, y, scale)
    total = backend.sum(pair.terms(backend, z, y, scale))
    return total if dtype is None else rounded(backend, total, dtype)


def mean_delta(cost: Cost, z: Array, y: Array, scale: Any = None) -> Array:
    """The derivative of `mean_cost` by z, in its shape."""
    pair = output_pair(cost)
    backend, z, y, scale, dtype = _prepared(pair, z, y, scale)
    delta = pair.delta(backend, z, y, scale)
    return delta if dtype is None else rounded(backend, delta, dtype)


def _prepared(pair: OutputPair, z: Array, y: Array, scale: Any) -> tuple[Backend, Array, Array, Array, str | None]:
    """The checked arrays, of half precision in float32, and the dtype to which the result is rounded, if any."""
    name, what = pair.cost.name, "h" if pair.cost.output == "identity" else "logits"
    backend = backend_of(**{what: z, "y": y, "scale": scale})
    try:
        z, y = backend.operands((what, "y"), (z, y))
    except TypeError as error:
        raise TypeError(f"{name}: {error}{_hint(z, y)}") from None
    if z.shape != y.shape or z.ndim == 0 or math.prod(z.shape) == 0:
        expected = f"expected one shape (..., n, d_out){_hint(z, y)}"
        raise ValueError(f"{name}: outputs have shape {z.shape} and y {y.shape}; {expected}")
    if z.ndim == 1 and pair.cost.domain != "distribution":  # one sample in the lecture, many in scikit-learn
        n = z.shape[0]
        expected = f"expected ({n}, 1) for samples with one output, (1, {n}) for one sample"
        raise ValueError(f"{name}: outputs and y have shape {z.shape}; {expected}")
    dtype = None
    if dtype_name(z.dtype) in HALF or dtype_name(y.dtype) in HALF:
        dtype, z, y = promote({what: z, "y": y}), widened(backend, z), widened(backend, y)
    if scale is None:
        return backend, z, y, backend.asarray(1 / math.prod(z.shape[:-1]), dtype_name(z.dtype)), dtype
    _, share = backend.operands((what, "scale"), (z, scale))
    # A vector (d_out,) would broadcast as weights of outputs.
    if share.ndim not in (0, z.ndim) or any(s not in (1, d) for s, d in zip(share.shape, z.shape, strict=False)):
        expected = f"a number, {(*z.shape[:-1], 1)} or {tuple(z.shape)}"
        raise ValueError(f"{name}: scale has shape {tuple(share.shape)}; expected {expected}")
    if dtype is not None and share is scale:  # an array, whose dtype counts
        dtype = promoted((what, "scale"), (dtype, dtype_name(share.dtype)))
    return backend, z, y, share, dtype


def _hint(z: Any, y: Any) -> str:
    """A hint for labels (..., n) given as targets (..., n, d_out)."""
    outputs, given = (tuple(getattr(array, "shape", ())) for array in (z, y))
    return f"; for labels use nnkit.data.one_hot(y, {outputs[-1]})" if outputs and given == outputs[:-1] else ""
