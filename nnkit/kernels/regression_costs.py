"""Regression costs: the term of each output h with target y, and its derivative Δ by h (eq. 3, 4).

The formulas take h, or the logits z of the paired activation, y and `scale`, the weight of each sample in the mean; the
cost is the sum of the terms over outputs and samples.
"""

import math
from typing import Any

from nnkit.backends.formula import formula
from nnkit.kernels.cost import Cost

_LN2 = math.log(2)


@formula
def quadratic_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """½ (y − h)² · scale (eq. 3)."""
    return 0.5 * (y - h) ** 2 * scale


@formula
def quadratic_delta_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = (h − y) · scale (eq. 4)."""
    return (h - y) * scale


quadratic = Cost("quadratic", quadratic_terms, quadratic_delta_terms, "identity", False)


@formula
def mean_absolute_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """|y − h| · scale."""
    return xp.abs(h - y) * scale


@formula
def mean_absolute_delta_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = sign(h − y) · scale; 0 where h = y, so that an exact output is not changed."""
    return xp.sign(h - y) * scale


mean_absolute = Cost("mean_absolute", mean_absolute_terms, mean_absolute_delta_terms, "identity", False)


@formula
def huber_terms(xp: Any, h: Any, y: Any, scale: Any, delta: float = 1.0) -> Any:
    """½ r² · scale where r = |y − h| ≤ δ, else δ (r − ½δ) · scale (Huber 1964): both are c (r − ½c), c = min(r, δ)."""
    r = xp.abs(h - y)
    c = xp.minimum(r, delta)
    return c * (r - 0.5 * c) * scale


@formula
def huber_delta_terms(xp: Any, h: Any, y: Any, scale: Any, delta: float = 1.0) -> Any:
    """Δ = min(max(h − y, −δ), δ) · scale."""
    return xp.minimum(xp.maximum(h - y, -delta), delta) * scale


huber = Cost("huber", huber_terms, huber_delta_terms, "identity", False)


@formula
def log_cosh_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """ln cosh(h − y) · scale, finite for any argument and accurate to rounding near 0.

    With r = |h − y| and e = e⁻ʳ − 1, cosh r = 1 + ½e²/(1 + e), without cancellation, = eʳ (1 + (1 + e)²)/2, without
    overflow.
    """
    r = xp.abs(h - y)
    e = xp.expm1(-r)
    return xp.where(r < 1, xp.log1p(0.5 * e**2 / (1 + e)), r + xp.log1p((1 + e) ** 2) - _LN2) * scale


@formula
def log_cosh_delta_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = tanh(h − y) · scale."""
    return xp.tanh(h - y) * scale


log_cosh = Cost("log_cosh", log_cosh_terms, log_cosh_delta_terms, "identity", False)


@formula
def poisson_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """(h − y ln h) · scale, with 0 · ln 0 = 0: −ln of the Poisson distribution with mean h at y, minus ln y!."""
    return (h - xp.where(y == 0, 0.0, y * xp.log(h))) * scale


@formula
def poisson_delta_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = (1 − y/h) · scale."""
    return (1 - xp.where(y == 0, 0.0, y / h)) * scale


@formula
def poisson_terms(xp: Any, z: Any, y: Any, scale: Any) -> Any:
    """(eᶻ − yz) · scale, the Poisson cost of h = eᶻ."""
    return (xp.exp(z) - y * z) * scale


@formula
def poisson_delta_terms(xp: Any, z: Any, y: Any, scale: Any) -> Any:
    """δh̄ = (eᶻ − y) · scale, of the form of eq. 19."""
    return (xp.exp(z) - y) * scale


poisson = Cost(
    "poisson", poisson_of_outputs, poisson_delta_of_outputs, "exponential", False, "nonnegative",
    from_logits=(poisson_terms, poisson_delta_terms),
)  # fmt: skip
