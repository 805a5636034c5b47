"""Compiled PyTorch: the whole step, with gradient and update, as one function under torch.compile."""

from typing import Any

import numpy as np

from bench.contenders.pytorch import PyTorch
from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem


class Compiled(PyTorch):
    """One compiled call of the step, by far faster than compiling the cost, or the cost and the optimizer."""

    label = "PyTorch compiled"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.torch.compiler.reset()  # as the number of compilations of a function is limited
        self.weights = [self.tensor(a) for pair in problem.parameters() for a in pair]
        self.t = self.torch.zeros((), dtype=self.X.dtype, device=problem.device)
        self.means = [[self.torch.zeros_like(p) for p in self.weights] for _ in range(2)]
        self._step = self.torch.compile(_step(self, problem), fullgraph=True, dynamic=False)

    def step(self) -> None:
        with self.torch.no_grad():
            self._step(self.weights, self.t, *self.means, self.X, self.Y)

    def parameters(self) -> Parameters:
        found = [p.cpu().numpy().copy() for p in self.weights]
        return list(zip(found[::2], found[1::2], strict=True))


def _step(made: Compiled, problem: Problem) -> Any:
    """The function to compile; it updates the parameters and the optimizer's state in place."""
    torch, rate = made.torch, problem.learning_rate
    functional, device, bfloat16 = torch.nn.functional, problem.device, problem.precision == "bf16"
    activation = torch.relu if problem.activation == "relu" else torch.sigmoid

    def cost(weights: Any, X: Any, Y: Any) -> Any:
        h = X
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16, cache_enabled=False):
            for i in range(0, len(weights), 2):
                h = functional.linear(activation(h) if i else h, weights[i], weights[i + 1])
        return functional.binary_cross_entropy_with_logits(h.to(Y.dtype), Y, reduction="sum") / len(X)

    def step(weights: Any, t: Any, means: Any, squares: Any, X: Any, Y: Any) -> None:
        gradient = torch.func.grad(cost)(weights, X, Y)
        t += 1
        for p, m, v, g in zip(weights, means, squares, gradient, strict=True):
            if problem.optimizer == "sgd":
                p.sub_(g, alpha=rate)
                continue
            m.mul_(BETA1).add_(g, alpha=1 - BETA1)
            v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            first, second = (-torch.expm1(t * float(np.log(beta))) for beta in (BETA1, BETA2))  # 1 − βᵗ
            p.sub_(rate * (m / first) / ((v / second).sqrt() + EPSILON))

    return step
