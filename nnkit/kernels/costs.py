"""The costs by name: what each output contributes, and its derivative Δ (eq. 3, 4, 18).

Each is a pair of formulas over the outputs h, the targets y and `scale`, the share of each sample in the mean (1/n, or
one number a sample). The mean is in both, so that the cost and its gradient have one scale.
"""

from dataclasses import dataclass
from typing import Any

from nnkit.backends.formula import Formula, formula
from nnkit.kernels.names import unknown_name


@formula
def quadratic_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """½ (y − h)² · scale (eq. 3)."""
    return 0.5 * (y - h) ** 2 * scale


@formula
def quadratic_delta_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = (h − y) · scale (eq. 4)."""
    return (h - y) * scale


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
def categorical_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """−y ln h · scale, with 0 · ln 0 = 0."""
    return -xp.where(y == 0, 0.0, y * xp.log(h)) * scale


@formula
def categorical_delta_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = −y/h · scale."""
    return -xp.where(y == 0, 0.0, y / h) * scale


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost: `terms(h, y, scale)` sum to it, `delta(h, y, scale)` is its derivative by h.

    `output` names the activation that the cost is paired with (eq. 19), which the output layer has by default;
    `classifies` says whether targets are classes, so that accuracy means something.
    """

    name: str
    terms: Formula
    delta: Formula
    output: str
    classifies: bool


_costs: dict[str, Cost] = {
    cost.name: cost
    for cost in (
        Cost("quadratic", quadratic_terms, quadratic_delta_terms, "identity", False),
        Cost("cross_entropy", cross_entropy_of_outputs, cross_entropy_delta_of_outputs, "sigmoid", True),
        Cost("softmax_cross_entropy", categorical_of_outputs, categorical_delta_of_outputs, "softmax", True),
    )
}


def cost_names() -> list[str]:
    """The names that `cost=` takes."""
    return list(_costs)


def get_cost(name: str | Cost) -> Cost:
    """The cost of a name; ValueError with the nearest name if there is none.

    >>> get_cost("cross_entropy").output
    'sigmoid'
    """
    if isinstance(name, Cost):
        return name
    if name not in _costs:
        raise unknown_name("cost", name, _costs)
    return _costs[name]
