"""The costs by their definitions, in 60-digit decimals, and as PyTorch has them: what the tests measure against."""

import decimal
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

CONTEXT = decimal.Context(prec=60, Emax=10**12, Emin=-(10**12))


def draw(name: str, n: int = 4, classes: int = 3, spread: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (or outputs) and targets: soft ones, and a row of exact zeros and ones."""
    rng = np.random.default_rng(7)
    z, y = rng.normal(0, spread, (n, classes)), rng.uniform(0, 1, (n, classes))
    y[0] = np.eye(classes)[1]
    if name == "poisson":
        return z, 9 * y
    return z, y / y.sum(axis=1, keepdims=True) if name == "softmax_cross_entropy" else y


def sample_terms(name: str, logits: np.ndarray, y: np.ndarray) -> list[float]:
    """What each output contributes to one sample's cost, by its definition.

    For cross-entropy by the limit of the definition, where sigmoids differ from 0 and 1 by less than 10⁻³⁴⁷.
    """
    if name == "cross_entropy" and (np.abs(logits) > 800).all():
        return [float(b * max(-a, 0) + (1 - b) * max(a, 0)) for a, b in zip(logits, y, strict=True)]
    with decimal.localcontext(CONTEXT):
        z, t = [Decimal(float(v)) for v in logits], [Decimal(float(v)) for v in y]
        if name == "softmax_cross_entropy":
            total = sum(v.exp() for v in z)
            return [float(-b * (a.exp() / total).ln()) for a, b in zip(z, t, strict=True)]
        return [float(TERMS[name](a, b)) for a, b in zip(z, t, strict=True)]


def sample_cost(name: str, logits: np.ndarray, y: np.ndarray) -> float:
    return math.fsum(sample_terms(name, logits, y))


def binary(z: Decimal, y: Decimal) -> Decimal:
    o = 1 / (1 + (-z).exp())
    return -(y * o.ln() + (1 - y) * (1 - o).ln())


def huber(r: Decimal, delta: Decimal) -> Decimal:
    return r**2 / 2 if r <= delta else delta * (r - delta / 2)


TERMS: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "quadratic": lambda h, y: (y - h) ** 2 / 2,
    "mean_absolute": lambda h, y: abs(y - h),
    "huber": lambda h, y: huber(abs(y - h), Decimal(1)),
    "log_cosh": lambda h, y: (((h - y).exp() + (y - h).exp()) / 2).ln(),
    "quantile": lambda h, y: abs(y - h) / 2,
    "gamma": lambda z, y: y / z.exp() + z,
    "tweedie": lambda z, y: 2 * (z / 2).exp() + 2 * y / (z / 2).exp(),
    "poisson": lambda z, y: z.exp() - y * z.exp().ln(),
    "cross_entropy": binary,
    "hinge": lambda h, y: max(Decimal(0), 1 - (2 * y - 1) * h),
}


def torch_cost(torch: Any, name: str, z: Any, y: Any) -> Any:
    """PyTorch's own loss, where it has one, summed over the outputs and the samples."""
    F = torch.nn.functional
    if name == "quadratic":
        return F.mse_loss(z, y, reduction="sum") / 2
    if name == "log_cosh":
        return torch.log(torch.cosh(z - y)).sum()
    if name == "hinge":
        return torch.clamp(1 - (2 * y - 1) * z, min=0).sum()
    if name == "quantile":
        return (z - y).abs().sum() / 2
    if name == "gamma":
        return (y * torch.exp(-z) + z).sum()
    if name == "tweedie":
        return (2 * torch.exp(z / 2) + 2 * y * torch.exp(-z / 2)).sum()
    own = {
        "mean_absolute": F.l1_loss,
        "huber": F.huber_loss,
        "poisson": F.poisson_nll_loss,  # from the logits
        "cross_entropy": F.binary_cross_entropy_with_logits,
        "softmax_cross_entropy": F.cross_entropy,
    }
    return own[name](z, y, reduction="sum")
