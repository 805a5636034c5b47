"""The same networks in PyTorch, in float64 and differentiated by autograd."""

from typing import Any

import numpy as np

import nnkit

Layers = list[tuple[np.ndarray, np.ndarray]]


def activation(torch: Any, name: str, z: Any) -> Any:
    """The activation of this name, and softmax."""
    functional = torch.nn.functional
    if name == "softmax":
        return torch.softmax(z, dim=-1)
    if name == "gelu_tanh":
        return functional.gelu(z, approximate="tanh")
    if name == "softplus":
        return functional.softplus(z, threshold=1000)  # by default PyTorch makes it z above 20
    if name == "hard_sigmoid":
        return functional.relu6(z + 3) / 6  # PyTorch's hardsigmoid has its 1/6 in float32
    return z * 1 if name == "identity" else getattr(functional, name)(z)


def cost(torch: Any, name: str, output: str, z: Any, y: Any) -> Any:
    """The mean cost over the samples of logits z, from PyTorch's own losses where it has them."""
    functional, n = torch.nn.functional, len(y)
    if (name, output) == ("cross_entropy", "sigmoid"):
        return functional.binary_cross_entropy_with_logits(z, y, reduction="sum") / n
    if (name, output) == ("softmax_cross_entropy", "softmax"):
        return functional.cross_entropy(z, y)
    h = activation(torch, output, z)
    if name == "quadratic":
        return ((y - h) ** 2).sum() / 2 / n
    if name == "cross_entropy":
        return functional.binary_cross_entropy(h, y, reduction="sum") / n
    return -(y * h.log()).sum() / n


class Twin:
    """A network's parameters as float64 tensors."""

    def __init__(self, torch: Any, network: nnkit.Network) -> None:
        torch.set_num_threads(1)  # a second pool of threads beside BLAS's is slow on a busy machine
        self.torch, self.network = torch, network
        self.tensors = [
            tuple(torch.tensor(np.array(network.backend.to_numpy(a), np.float64), requires_grad=True) for a in pair)
            for pair in zip(network.parameters.W, network.parameters.b, strict=True)
        ]

    def gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, Layers]:
        """The mean cost and its derivatives by W and b of each layer, for samples x and targets y (n, d_out)."""
        h = self.torch.tensor(np.asarray(x, np.float64))
        for i, (layer, (W, b)) in enumerate(zip(self.network.layers, self.tensors, strict=True)):
            h = h @ W.T + b
            if i < len(self.tensors) - 1:
                h = activation(self.torch, str(layer.activation), h)
        output = str(self.network.layers[-1].activation)
        value = cost(self.torch, self.network.cost.name, output, h, self.torch.tensor(np.asarray(y, np.float64)))
        found = self.torch.autograd.grad(value, [a for pair in self.tensors for a in pair])
        arrays = [a.numpy() for a in found]
        return value.item(), list(zip(arrays[::2], arrays[1::2], strict=True))

    def descend(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        """One step of gradient descent; returns the cost before it."""
        value, gradients = self.gradients(x, y)
        with self.torch.no_grad():
            for pair, pair_of_gradients in zip(self.tensors, gradients, strict=True):
                for tensor, gradient in zip(pair, pair_of_gradients, strict=True):
                    tensor -= rate * self.torch.tensor(gradient)
        return value

    def parameters(self) -> Layers:
        """(W, b) of each layer."""
        return [(W.detach().numpy(), b.detach().numpy()) for W, b in self.tensors]
