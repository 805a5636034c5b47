"""Plain NumPy, as a student would write it: expressions that allocate new arrays."""

import numpy as np

from bench.contenders.base import Contender
from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem


class PlainNumPy(Contender):
    """The weights are (d_in, d_out), for x @ W + b."""

    label = "plain NumPy"
    distributions = ("numpy",)

    def __init__(self, problem: Problem) -> None:
        self.x, self.y = problem.batch()
        self.relu, self.rate, self.adam = (
            problem.activation == "relu",
            problem.learning_rate,
            problem.optimizer == "adam",
        )
        self.W = [np.ascontiguousarray(W.T) for W, _ in problem.parameters()]
        self.b = [b for _, b in problem.parameters()]
        self.t = 0
        self.mean = [np.zeros_like(p) for p in self.W + self.b]
        self.square = [np.zeros_like(p) for p in self.W + self.b]

    def step(self) -> None:
        hs = [self.x]
        for i, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            z = hs[-1] @ W + b
            hidden = i < len(self.W) - 1
            hs.append(np.maximum(z, 0) if hidden and self.relu else 1 / (1 + np.exp(-z)))
        delta = (hs[-1] - self.y) / len(self.x)
        dW: list[np.ndarray] = []
        db: list[np.ndarray] = []
        for i in reversed(range(len(self.W))):
            h = hs[i]
            dW.insert(0, h.T @ delta)
            db.insert(0, delta.sum(axis=0))
            if i > 0:
                delta = delta @ self.W[i].T * ((h > 0) if self.relu else h * (1 - h))
        self._update(dW + db)

    def _update(self, gradients: list[np.ndarray]) -> None:
        self.t += 1
        for i, (p, g) in enumerate(zip(self.W + self.b, gradients, strict=True)):
            if self.adam:
                self.mean[i] = BETA1 * self.mean[i] + (1 - BETA1) * g
                self.square[i] = BETA2 * self.square[i] + (1 - BETA2) * g**2
                mean, square = self.mean[i] / (1 - BETA1**self.t), self.square[i] / (1 - BETA2**self.t)
                g = mean / (np.sqrt(square) + EPSILON)
            p -= self.rate * g

    def parameters(self) -> Parameters:
        return [(W.T.copy(), b.copy()) for W, b in zip(self.W, self.b, strict=True)]
