"""PyTorch as one writes it: modules, autograd, an optimizer of torch.optim."""

import os
from typing import Any

import numpy as np

from bench.contenders.base import Contender, peer
from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem


def torch_on_threads() -> Any:
    """The module torch, with as many threads as the other contenders have."""
    torch = peer("torch", "torch")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return torch


class Eager(Contender):
    """zero_grad, backward, step; the batch is tensors already."""

    label = "PyTorch"
    distributions = ("torch",)

    def __init__(self, problem: Problem) -> None:
        torch = torch_on_threads()
        self.X, self.Y = (torch.from_numpy(a) for a in problem.batch())
        self.cost = torch.nn.functional.binary_cross_entropy_with_logits
        layers = []
        for W, b in problem.parameters():
            linear = torch.nn.Linear(W.shape[1], W.shape[0], dtype=self.X.dtype)
            linear.weight.data, linear.bias.data = torch.from_numpy(W), torch.from_numpy(b)
            layers += [linear, torch.nn.ReLU() if problem.activation == "relu" else torch.nn.Sigmoid()]
        self.net = torch.nn.Sequential(*layers[:-1])
        if problem.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(self.net.parameters(), problem.learning_rate)
        else:
            self.optimizer = torch.optim.Adam(self.net.parameters(), problem.learning_rate, (BETA1, BETA2), EPSILON)

    def step(self) -> None:
        self.optimizer.zero_grad()
        cost = self.cost(self.net(self.X), self.Y, reduction="sum") / len(self.X)
        cost.backward()
        self.optimizer.step()

    def parameters(self) -> Parameters:
        found = [np.array(p.detach()) for p in self.net.parameters()]
        return list(zip(found[::2], found[1::2], strict=True))
