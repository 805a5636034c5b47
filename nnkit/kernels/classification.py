"""Classification costs: the term of each output h with target y, and its derivative Δ by h (eq. 18, 19).

The formulas take h, or the logits z of the paired activation, y in [0, 1] and `scale`, the weight of each sample in the
mean; the cost is the sum of the terms over outputs and samples. The functions `cross_entropy`, `cross_entropy_delta`
and so on are for custom training loops, with arguments as in `nnkit.kernels.cost.mean_cost`. PyTorch and Keras take the
mean over outputs: their values are these divided by d_out, except for softmax_cross_entropy.
"""

from typing import Any

from nnkit.backends.base import Array
from nnkit.backends.formula import formula
from nnkit.kernels.cost import Cost, mean_cost, mean_delta


@formula
def cross_entropy_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """−[y ln h + (1 − y) ln(1 − h)] · scale (eq. 18), with 0 · ln 0 = 0."""
    first = xp.where(y == 0, 0.0, y * xp.log(h))
    second = xp.where(y == 1, 0.0, (1 - y) * xp.log1p(-h))
    return -(first + second) * scale


@formula
def cross_entropy_delta_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = [(1 − y)/(1 − h) − y/h] · scale, the derivative of eq. 18 by h."""
    return (xp.where(y == 1, 0.0, (1 - y) / (1 - h)) - xp.where(y == 0, 0.0, y / h)) * scale


@formula
def cross_entropy_terms(xp: Any, z: Any, y: Any, scale: Any) -> Any:
    """(max(z, 0) − zy + ln(1 + e^−|z|)) · scale: eq. 18 for o = σ(z), finite for any logit."""
    return (xp.maximum(z, 0.0) - z * y + xp.log1p(xp.exp(-xp.abs(z)))) * scale


@formula
def cross_entropy_delta_terms(xp: Any, z: Any, y: Any, scale: Any) -> Any:
    """δh̄ = (σ(z) − y) · scale (eq. 19)."""
    return (1 / (1 + xp.exp(-z)) - y) * scale


CROSS_ENTROPY = Cost(
    "cross_entropy", cross_entropy_of_outputs, cross_entropy_delta_of_outputs, "sigmoid", True, "unit",
    from_logits=(cross_entropy_terms, cross_entropy_delta_terms),
)  # fmt: skip


def cross_entropy(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of −Σₖ [y ln o + (1 − y) ln(1 − o)] with o = σ(logits) (eq. 18); y in [0, 1].

    >>> float(nnkit.cross_entropy(np.array([[1e4, -1e4]]), np.array([[1.0, 1.0]])))
    10000.0
    """
    return mean_cost(CROSS_ENTROPY, logits, y, scale)


def cross_entropy_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (σ(logits) − y)/n (eq. 19), without a factor f′.

    >>> nnkit.cross_entropy_delta(np.array([[0.0, 1e4]]), np.array([[1.0, 1.0]]))
    array([[-0.5,  0. ]])
    """
    return mean_delta(CROSS_ENTROPY, logits, y, scale)


@formula
def categorical_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """−y ln h · scale, with 0 · ln 0 = 0."""
    return -xp.where(y == 0, 0.0, y * xp.log(h)) * scale


@formula
def categorical_delta_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = −y/h · scale."""
    return -xp.where(y == 0, 0.0, y / h) * scale


SOFTMAX_CROSS_ENTROPY = Cost(  # `nnkit.kernels.cost` has it from logits, as softmax couples the outputs
    "softmax_cross_entropy", categorical_of_outputs, categorical_delta_of_outputs, "softmax", True, "distribution"
)


def softmax_cross_entropy(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of −Σₖ y ln p with p = softmax(logits); each row of y sums to 1.

    >>> round(float(nnkit.softmax_cross_entropy(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))), 6)
    0.693147
    """
    return mean_cost(SOFTMAX_CROSS_ENTROPY, logits, y, scale)


def softmax_cross_entropy_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (p − y)/n (eq. 19 for softmax); each row of y sums to 1.

    >>> nnkit.softmax_cross_entropy_delta(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[-0.5,  0.5]])
    """
    return mean_delta(SOFTMAX_CROSS_ENTROPY, logits, y, scale)


@formula
def hinge_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """max(0, 1 − th) · scale with t = 2y − 1, which is ±1 for targets 1 and 0 (Cortes and Vapnik 1995)."""
    return xp.maximum(1 - (2 * y - 1) * h, 0.0) * scale


@formula
def hinge_delta_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = −t · scale where th < 1, else 0; at the kink th = 1 the left derivative by h, −1 for t = 1."""
    t = 2 * y - 1
    missing = 1 - t * h
    # The sign propagates NaN, a comparison does not.
    return xp.where(missing == 0, xp.minimum(-t, 0.0), -t * xp.maximum(xp.sign(missing), 0.0)) * scale


HINGE = Cost("hinge", hinge_terms, hinge_delta_terms, "identity", True, "unit", threshold=0.0)


def hinge(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ max(0, 1 − th) with t = 2y − 1, of outputs h; y in [0, 1].

    With one-hot targets, each class has a margin against the rest.

    >>> float(nnkit.hinge(np.array([[0.5, 3.0]]), np.array([[1.0, 0.0]])))
    4.5
    """
    return mean_cost(HINGE, h, y, scale)


def hinge_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = −t/n where th < 1, else 0, of outputs h; the left derivative at th = 1.

    >>> nnkit.hinge_delta(np.array([[0.5, 3.0]]), np.array([[1.0, 0.0]]))
    array([[-1.,  1.]])
    """
    return mean_delta(HINGE, h, y, scale)


COSTS = (CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, HINGE)
