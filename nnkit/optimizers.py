"""Optimizers update parameters from gradients. An optimizer has only numbers; `start` creates its state for a network.

The order of a step is PyTorch's: `clip_value`, then `clip_norm`, of the raw gradients; L1 and L2 added to the weights'
gradients; weight decay; the update. Biases are neither penalized nor decayed.
"""

from dataclasses import dataclass, fields
from typing import Any

from nnkit.backends.formula import Formula
from nnkit.checks import named, unknown_name
from nnkit.kernels import updates
from nnkit.optimizer_state import Optimizer, OptimizerState, number

__all__ = [
    "SGD", "Adagrad", "Adam", "AdamW", "Lion", "Optimizer", "OptimizerState", "RMSprop",
    "get_optimizer", "optimizer_names",
]  # fmt: skip


@dataclass(repr=False)
class SGD(Optimizer):
    """Gradient descent W ← W − ε g (eq. 17), with momentum v ← μv + g instead of g, or Nesterov's g + μv.

    Args:
        learning_rate: ε, positive.
        momentum: μ in [0, 1).
        nesterov: use Nesterov's; needs a momentum.

    The other arguments, and the errors, are those of `nnkit.optimizers.Optimizer`.

    >>> nnkit.SGD(0.5, l2=1e-4)
    SGD(learning_rate=0.5, l2=0.0001)
    """

    learning_rate: float = 0.1
    momentum: float = number(0.0, below=1.0)
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0, such as 0.9")

    @property
    def formula(self) -> Formula:
        if self.nesterov:
            return updates.nesterov_descent
        return updates.momentum_descent if self.momentum else updates.gradient_descent


@dataclass(repr=False)
class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012): W ← W − ε g/(√v + 10⁻⁸) with v ← αv + (1 − α)g², and momentum if given.

    Args:
        learning_rate: ε, positive.
        alpha: α in [0, 1).
        epsilon: replaces 10⁻⁸, positive.
        momentum: in [0, 1).

    The other arguments, and the errors, are those of `nnkit.optimizers.Optimizer`.

    >>> nnkit.optimizers.RMSprop(1e-3, momentum=0.9)
    RMSprop(learning_rate=0.001, momentum=0.9)
    """

    learning_rate: float = 0.01
    alpha: float = number(0.99, below=1.0)
    epsilon: float = number(1e-8, above=True)
    momentum: float = number(0.0, below=1.0)

    @property
    def formula(self) -> Formula:
        return updates.rmsprop_momentum if self.momentum else updates.rmsprop


@dataclass(repr=False)
class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer, JMLR 2011): W ← W − ε g/(√s + 10⁻¹⁰) with s the sum of all g².

    Args:
        learning_rate: ε, positive.
        epsilon: replaces 10⁻¹⁰, positive.

    The other arguments, and the errors, are those of `nnkit.optimizers.Optimizer`.

    >>> nnkit.optimizers.Adagrad(clip_norm=1.0)
    Adagrad(learning_rate=0.01, clip_norm=1.0)
    """

    learning_rate: float = 0.01
    epsilon: float = number(1e-10, above=True)

    formula = updates.adagrad


@dataclass(repr=False)
class Adam(Optimizer):
    """Adam (Kingma and Ba, ICLR 2015); `l2` is added to the gradient, while `AdamW` decays the weights.

    Args:
        learning_rate: ε, positive.
        beta1, beta2: in [0, 1).
        epsilon: positive.

    The other arguments, and the errors, are those of `nnkit.optimizers.Optimizer`.

    >>> nnkit.Adam().learning_rate
    0.001
    """

    learning_rate: float = 1e-3
    beta1: float = number(0.9, below=1.0)
    beta2: float = number(0.999, below=1.0)
    epsilon: float = number(1e-8, above=True)

    formula = updates.adam


@dataclass(repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019): W ← W − ε λ W before Adam's update.

    The arguments are Adam's; `weight_decay`, λ, is 0.01 by default.

    >>> nnkit.optimizers.AdamW(weight_decay=0.1)
    AdamW(learning_rate=0.001, weight_decay=0.1)
    """

    weight_decay: float = number(0.01, kw_only=True)


@dataclass(repr=False)
class Lion(Optimizer):
    """Lion (Chen et al., arXiv:2302.06675): W ← W − ε sign(β₁m + (1 − β₁)g), then m ← β₂m + (1 − β₂)g.

    Each entry moves by ε: use learning rates 3 to 10 times smaller than Adam's, and decays larger by that factor.

    Args:
        learning_rate: ε, positive.
        beta1, beta2: in [0, 1).

    The other arguments, and the errors, are those of `nnkit.optimizers.Optimizer`.

    >>> nnkit.optimizers.Lion(weight_decay=0.1)
    Lion(learning_rate=0.0001, weight_decay=0.1)
    """

    learning_rate: float = 1e-4
    beta1: float = number(0.9, below=1.0)
    beta2: float = number(0.99, below=1.0)

    formula = updates.lion


_named: dict[str, type[Optimizer]] = {
    kind.__name__.lower(): kind for kind in (SGD, RMSprop, Adagrad, Adam, AdamW, Lion)
}


def optimizer_names() -> list[str]:
    """The valid names for `get_optimizer`.

    >>> nnkit.optimizers.optimizer_names()
    ['sgd', 'rmsprop', 'adagrad', 'adam', 'adamw', 'lion']
    """
    return list(_named)


def get_optimizer(name: str | Optimizer, **numbers: Any) -> Optimizer:
    """The optimizer with this name and these numbers, by default its own; an optimizer is returned unchanged.

    Raises ValueError for an unknown name, with the closest one, and for numbers out of range; TypeError for an unknown
    number, and for numbers given with an optimizer.

    >>> nnkit.optimizers.get_optimizer("adam", learning_rate=0.01)
    Adam(learning_rate=0.01)
    """
    if isinstance(name, Optimizer):
        if numbers:
            raise TypeError(f"{name!r} has its numbers; {', '.join(numbers)} can only be given with a name")
        return name
    kind = named("optimizer", name, _named)
    known = [f.name for f in fields(kind)]
    for option in numbers:
        if option not in known:
            raise TypeError(f"{kind.__name__}: {unknown_name('number', option, known)}")
    return kind(**numbers)


def chosen_optimizer(wanted: Any, current: Optimizer) -> Optimizer:
    """The optimizer to continue with: the current one for None, another one by itself or by its name.

    A name means its default numbers; if the current optimizer has these, it is kept with its state. Raises ValueError
    for an unknown name, and TypeError for anything else.
    """
    if wanted is None:
        return current
    if isinstance(wanted, str):
        made = get_optimizer(wanted)
        return current if current == made else made
    if isinstance(wanted, type) and issubclass(wanted, Optimizer):
        raise TypeError(f"optimizer is the class {wanted.__name__}; expected an optimizer: {wanted.__name__}()")
    if not isinstance(wanted, Optimizer):
        raise TypeError(f"optimizer is {wanted!r}; expected a name or an optimizer, such as nnkit.SGD(0.1)")
    return wanted


def __dir__() -> list[str]:
    return sorted(__all__)
