"""Changes before an update: of the learning rate by parameter, clipping, L1, L2, decoupled weight decay.

Gradients g and parameters p have one shape and dtype; scalars are 0-d arrays. L1, L2 and decay apply only to weights
(Nielsen, chapter 3). `treated` fuses them with an update's formula into one pass over memory.
"""

import functools
from collections.abc import Sequence
from typing import Any

from nnkit.backends.formula import Formula, formula


@formula
def scaled_rate(xp: Any, learning_rate: Any, rate_factor: Any) -> Any:
    """The learning rate of each parameter, ε times its factor; rate_factor has the shape of p, ε is 0-d.

    >>> nnkit.kernels.regularization.scaled_rate(0.5, np.array([1.0, 0.0]))
    array([0.5, 0. ])
    """
    return learning_rate * rate_factor


@formula
def partly(xp: Any, p: Any, before: Any, rate_factor: Any) -> Any:
    """The parameters after a share of a step from `before` to p, for updates without a formula.

    >>> nnkit.kernels.regularization.partly(np.array([2.0, 2.0]), np.array([1.0, 1.0]), np.array([0.5, 0.0]))
    array([1.5, 1. ])
    """
    return before + rate_factor * (p - before)


@formula
def clip_by_value(xp: Any, g: Any, clip_value: Any) -> Any:
    """Clip each entry of g to [−c, c]; c = clip_value, positive. NaN stays NaN.

    >>> nnkit.kernels.regularization.clip_by_value(np.array([-3.0, 0.5]), 1.0)
    array([-1. ,  0.5])
    """
    return xp.minimum(xp.maximum(g, -clip_value), clip_value)


@formula
def squared(xp: Any, g: Any) -> Any:
    """The squares g², whose sum over all gradients is ‖g‖²."""
    return g**2


@formula
def clip_scale(xp: Any, norm_square: Any, clip_norm: Any) -> Any:
    """The factor min(1, c/‖g‖) for all gradients (Pascanu et al., ICML 2013); norm_square: ‖g‖², 0-d, c = clip_norm.

    NaN if ‖g‖² is NaN or infinite: a gradient that has overflowed must not pass for a small one.

    >>> nnkit.kernels.regularization.clip_scale(np.array([0.0, 4.0, np.inf]), 1.0)
    array([1. , 0.5, nan])
    """
    return xp.minimum(clip_norm / xp.sqrt(norm_square), 1.0) + 0 * norm_square


@formula
def clip_by_norm(xp: Any, g: Any, scale: Any) -> Any:
    """Multiply all gradients g by the factor from `clip_scale`."""
    return g * scale


@formula
def l1_gradient(xp: Any, g: Any, p: Any, l1: Any) -> Any:
    """The gradient g + λ sign(p) of the cost with λ Σ |p| added, sign(0) = 0 (Nielsen, eq. 96, where λ is λ/n).

    >>> nnkit.kernels.regularization.l1_gradient(np.array([1.0, 1.0]), np.array([-2.0, 0.0]), 0.5)
    array([0.5, 1. ])
    """
    return g + l1 * xp.sign(p)


@formula
def l2_gradient(xp: Any, g: Any, p: Any, l2: Any) -> Any:
    """The gradient g + λp of the cost with ½ λ Σ p² added (Nielsen, eq. 88, where λ is λ/n).

    >>> nnkit.kernels.regularization.l2_gradient(np.array([1.0]), np.array([2.0]), 0.1)
    array([1.2])
    """
    return g + l2 * p


@formula
def decayed(xp: Any, p: Any, learning_rate: Any, weight_decay: Any) -> Any:
    """Decay p − ε λ p, decoupled from the gradient (Loshchilov and Hutter, ICLR 2019).

    >>> nnkit.kernels.regularization.decayed(np.array([2.0]), 0.5, 0.25)
    array([1.75])
    """
    return p - learning_rate * weight_decay * p


# By option, in the order of application; each replaces its first operand.
TREATMENTS: dict[str, Formula] = {
    "rate_factor": scaled_rate,
    "clip_value": clip_by_value,
    "clip_norm": clip_by_norm,
    "l1": l1_gradient,
    "l2": l2_gradient,
    "weight_decay": decayed,
}


@functools.lru_cache(maxsize=64)  # bounded, as a custom optimizer may keep creating formulas
def treated(update: Formula, *options: str) -> Formula:
    """An update's formula preceded by these `TREATMENTS`, whose operands follow those of the update.

    >>> formula = treated(nnkit.kernels.updates.gradient_descent, "l2", "weight_decay")
    >>> formula.operands
    ('p', 'g', 'learning_rate', 'l2', 'weight_decay')
    >>> formula(np.array([1.0]), np.array([2.0]), 0.5, 0.2, 0.4)
    array([-0.3])
    """
    if not options:
        return update
    steps = [step for option, step in TREATMENTS.items() if option in options]
    operands = _united([update, *steps])

    def fused(xp: Any, *arrays: Any, **constants: float) -> Any:
        values = dict(zip(operands, arrays, strict=True))
        for step in steps:
            values[step.operands[0]] = step.function(xp, *(values[o] for o in step.operands))
        return update.function(xp, *(values[o] for o in update.operands), **constants)

    return Formula(fused, "_".join([*options, update.name]), operands, update.defaults)


def _united(formulas: Sequence[Formula]) -> list[str]:
    """The operands of all formulas, without duplicates."""
    return list(dict.fromkeys(operand for made in formulas for operand in made.operands))
