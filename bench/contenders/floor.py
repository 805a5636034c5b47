"""The floor: only the matrix products of a step, with preallocated results."""

from typing import Any

import numpy as np

from bench.contenders.base import Contender
from bench.problem import Problem


def products(X: Any, W: list[Any], outputs: list[Any], deltas: list[Any], gradients: list[Any]) -> list[Any]:
    """The operands (a, b, out) of each product of a step, in order."""
    inputs = [X, *outputs[:-1]]
    found = [(x, w.T, h) for x, w, h in zip(inputs, W, outputs, strict=True)]
    for i in reversed(range(len(W))):
        found.append((deltas[i].T, inputs[i], gradients[i]))
        if i:
            found.append((deltas[i], W[i], deltas[i - 1]))
    return found


class Floor(Contender):
    """X Wᵀ of each layer (eq. 2), and backward Δᵀ X (eq. 10) and, except for the first layer, Δ W (eq. 8).

    There is no bias, activation, cost or update. It is a lower bound for steps with these products; a step may arrange
    its products differently.
    """

    label = "floor"
    distributions = ("numpy",)

    def __init__(self, problem: Problem) -> None:
        X, Y = problem.batch()
        shapes = [(len(X), width) for width in problem.size.widths[1:]]
        deltas = [*(np.full(shape, 0.1, X.dtype) for shape in shapes[:-1]), Y]
        W = [pair[0] for pair in problem.parameters()]
        self.products = products(
            X, W, [np.empty(shape, X.dtype) for shape in shapes], deltas, list(map(np.empty_like, W))
        )

    def step(self) -> None:
        dot = np.dot
        for a, b, out in self.products:
            dot(a, b, out)

    def parameters(self) -> None:
        return None
