"""Classification costs: the term of each output h with target y, and its derivative Δ by h (eq. 18).

The formulas take h, or the logits z of the paired activation, y in [0, 1] and `scale`, the weight of each sample in the
mean; the cost is the sum of the terms over outputs and samples.
"""

from typing import Any

from nnkit.backends.formula import formula
from nnkit.kernels.cost import Cost


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


cross_entropy = Cost(
    "cross_entropy", cross_entropy_of_outputs, cross_entropy_delta_of_outputs, "sigmoid", True, "unit",
    from_logits=(cross_entropy_terms, cross_entropy_delta_terms),
)  # fmt: skip


@formula
def categorical_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """−y ln h · scale, with 0 · ln 0 = 0."""
    return -xp.where(y == 0, 0.0, y * xp.log(h)) * scale


@formula
def categorical_delta_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = −y/h · scale."""
    return -xp.where(y == 0, 0.0, y / h) * scale


softmax_cross_entropy = Cost(  # `nnkit.kernels.output` has it from logits, as softmax couples the outputs
    "softmax_cross_entropy", categorical_of_outputs, categorical_delta_of_outputs, "softmax", True, "distribution"
)


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


hinge = Cost("hinge", hinge_terms, hinge_delta_terms, "identity", True, "unit", threshold=0.0)
