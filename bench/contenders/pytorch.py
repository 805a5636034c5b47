"""Idiomatic PyTorch: modules, autograd, an optimizer of torch.optim."""

import os
from contextlib import nullcontext
from typing import Any

import numpy as np

from bench.contenders.base import Contender, peer
from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem


def torch_for(problem: Problem) -> Any:
    """The module torch, set to the threads of the other contenders and the precision of a problem."""
    torch = peer("torch", "torch")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if problem.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"PyTorch {torch.__version__} sees no GPU")
    # "high" is tf32 on a GPU; for bfloat16 products there is autocast.
    torch.set_float32_matmul_precision("highest" if problem.precision == "float32" else "high")
    return torch


class PyTorch(Contender):
    """The base class of PyTorch's contenders; `X` and `Y` are the tensors of the batch."""

    distributions = ("torch",)

    def __init__(self, problem: Problem) -> None:
        self.problem, self.torch = problem, torch_for(problem)
        self.X, self.Y = map(self.tensor, problem.batch())

    def tensor(self, array: np.ndarray) -> Any:
        """Convert an array to a tensor on the device."""
        return self.torch.from_numpy(array).to(self.problem.device)

    def autocast(self) -> Any:
        """A context for products in the problem's precision, without a cache, as each weight is used once."""
        if self.problem.precision != "bf16":
            return nullcontext()
        return self.torch.autocast(self.problem.device, dtype=self.torch.bfloat16, cache_enabled=False)

    def wait(self) -> None:
        if self.problem.device == "cuda":
            self.torch.cuda.synchronize()


class Eager(PyTorch):
    """zero_grad, backward, step on a batch of tensors."""

    label = "PyTorch"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        torch = self.torch
        self.cost = torch.nn.functional.binary_cross_entropy_with_logits
        layers = []
        for W, b in problem.parameters():
            linear = torch.nn.Linear(W.shape[1], W.shape[0], device=problem.device, dtype=self.X.dtype)
            linear.weight.data, linear.bias.data = self.tensor(W), self.tensor(b)
            layers += [linear, torch.nn.ReLU() if problem.activation == "relu" else torch.nn.Sigmoid()]
        self.net = torch.nn.Sequential(*layers[:-1])
        if problem.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(self.net.parameters(), problem.learning_rate)
        else:
            self.optimizer = torch.optim.Adam(self.net.parameters(), problem.learning_rate, (BETA1, BETA2), EPSILON)

    def step(self) -> None:
        self.optimizer.zero_grad()
        with self.autocast():
            z = self.net(self.X)
        cost = self.cost(z.to(self.Y.dtype), self.Y, reduction="sum") / len(self.X)
        cost.backward()
        self.optimizer.step()

    def parameters(self) -> Parameters:
        found = [p.detach().cpu().numpy().copy() for p in self.net.parameters()]
        return list(zip(found[::2], found[1::2], strict=True))
