"""The same networks in PyTorch, in float64 and differentiated by autograd."""

from typing import Any

import numpy as np

import nnkit
from nnkit.kernels.costs import Cost

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
    if name == "exponential":
        return torch.exp(z)
    return z * 1 if name == "identity" else getattr(functional, name)(z)


def cost(torch: Any, cost: Cost, output: str, z: Any, y: Any) -> Any:
    """The mean cost over the samples of logits z, from PyTorch's own losses where it has them."""
    functional, n, name, s = torch.nn.functional, len(y), cost.name, cost.label_smoothing
    if (name, output) == ("softmax_cross_entropy", "softmax"):
        return functional.cross_entropy(z, y, label_smoothing=s)
    if name in ("cross_entropy", "softmax_cross_entropy"):
        y = y * (1 - s) + s / (2 if name == "cross_entropy" else y.shape[1])
    if (name, output) == ("cross_entropy", "sigmoid"):
        return functional.binary_cross_entropy_with_logits(z, y, reduction="sum") / n
    if (name, output) == ("poisson", "exponential"):
        return functional.poisson_nll_loss(z, y, reduction="sum") / n
    h = activation(torch, output, z)
    losses = {
        "quadratic": lambda: functional.mse_loss(h, y, reduction="sum") / 2,
        "mean_absolute": lambda: functional.l1_loss(h, y, reduction="sum"),
        "huber": lambda: functional.huber_loss(h, y, reduction="sum", delta=dict(cost.constants).get("delta", 1.0)),
        "log_cosh": lambda: torch.log(torch.cosh(h - y)).sum(),
        "quantile": lambda: (h - y).abs().sum() / 2,
        "gamma": lambda: (y / h + h.log()).sum(),
        "tweedie": lambda: (2 * h.sqrt() + 2 * y / h.sqrt()).sum(),
        "poisson": lambda: functional.poisson_nll_loss(h, y, log_input=False, eps=0.0, reduction="sum"),
        "cross_entropy": lambda: functional.binary_cross_entropy(h, y, reduction="sum"),
        "softmax_cross_entropy": lambda: -(y * h.log()).sum(),
        "hinge": lambda: torch.clamp(1 - (2 * y - 1) * h, min=0).sum(),
    }
    return losses[name]() / n


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
        for i, (layer, (W, b)) in enumerate(zip(self.network.dense, self.tensors, strict=True)):
            h = h @ W.T + b
            if i < len(self.tensors) - 1:
                h = activation(self.torch, str(layer.activation), h)
        output = str(self.network.dense[-1].activation)
        value = cost(self.torch, self.network.cost, output, h, self.torch.tensor(np.asarray(y, np.float64)))
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
