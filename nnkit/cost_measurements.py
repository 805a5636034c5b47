"""How far the costs and their Δ are from their definitions; as in `nnkit.measurements`."""

import math
from collections.abc import Callable
from typing import Any

from nnkit.gradient_check import relative_error
from nnkit.kernels import cost_functions as costs
from nnkit.measurements import Problem, complex_step, logistic


def quadratic_cost(p: Problem) -> float:
    """Eq. 3."""
    return _cost(p, costs.quadratic, lambda h, y: (y - h) ** 2 / 2)


def cross_entropy_cost(p: Problem) -> float:
    """Eq. 18."""
    return _cost(p, costs.cross_entropy, lambda z, y: -y * math.log(logistic(z)) - (1 - y) * math.log(logistic(-z)))


def _cost(p: Problem, function: Callable[..., Any], by_hand: Callable[[float, float], float]) -> float:
    terms = [by_hand(z, y) for z, y in zip(p.delta.ravel(), p.targets.ravel(), strict=True)]
    return relative_error(p.run(function, p.delta, p.targets), math.fsum(terms) / len(p.targets))


def cost_gradient(
    delta: Callable[..., Any], cost: Callable[..., Any], y: str = "targets"
) -> Callable[[Problem], float]:
    """Eq. 4 and 19: a Δ against the complex step of its cost."""

    def error(p: Problem) -> float:
        targets = getattr(p, y)
        exact = complex_step(lambda z: cost(z, targets.astype(complex)), p.delta)
        return relative_error(p.run(delta, p.delta, targets), exact)

    return error


def softmax_cost(p: Problem) -> float:
    """The categorical cross-entropy of softmax."""
    exact = [math.log(math.fsum(map(math.exp, z))) - z[y.argmax()] for z, y in zip(p.delta, p.one_hot, strict=True)]
    return relative_error(p.run(costs.softmax_cross_entropy, p.delta, p.one_hot), math.fsum(exact) / len(exact))
