"""The floor: the matrix products of a step alone, into arrays that are there."""

import numpy as np

from bench.contenders.base import Contender
from bench.problem import Problem


class Floor(Contender):
    """X Wᵀ of each layer (eq. 2), and backwards Δᵀ X (eq. 10) and, but for the first layer, Δ W (eq. 8).

    Nothing else: no bias, activation, cost or update. It is not the least that is possible (a step may be arranged
    otherwise), but what a step of this arrangement cannot go below.
    """

    label = "floor"
    distributions = ("numpy",)

    def __init__(self, problem: Problem) -> None:
        X, Y = problem.batch()
        outputs = [np.empty((len(X), width), X.dtype) for width in problem.size.widths[1:]]
        inputs, deltas = [X, *outputs[:-1]], [np.full_like(h, 0.1) for h in outputs]
        deltas[-1][...] = Y
        W = [pair[0] for pair in problem.parameters()]
        self.products = [(x, w.T, h) for x, w, h in zip(inputs, W, outputs, strict=True)]
        for i in reversed(range(len(W))):
            self.products.append((deltas[i].T, inputs[i], np.empty_like(W[i])))
            if i:
                self.products.append((deltas[i], W[i], deltas[i - 1]))

    def step(self) -> None:
        dot = np.dot
        for a, b, out in self.products:
            dot(a, b, out)

    def parameters(self) -> None:
        return None
