"""Optimizers: what turns gradients into updates, as calls of the update kernels over the flat parameter vector.

An optimizer holds numbers only; its state for one network, vectors like the velocity, is made by `start`. L2 adds λp to
the gradient of the weights and leaves the biases alone, as in Nielsen, whose λ/n is `l2` here.
"""

import math
from abc import ABC, abstractmethod

from nnkit.backends.base import Array, Backend
from nnkit.kernels import updates
from nnkit.parameters import Parameters


class Optimizer(ABC):
    """Base of the optimizers. `learning_rate` may be changed at any time; the next step uses the new value."""

    learning_rate: float
    l2: float

    @abstractmethod
    def start(self, parameters: Parameters) -> "OptimizerState":
        """The state before the first step on these parameters."""

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({numbers})"


class OptimizerState(ABC):
    """An optimizer's arrays for one network: its vectors, and its learning rate where recorded steps can read it."""

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        self.optimizer = optimizer
        self.backend: Backend = parameters.backend
        self.dtype = parameters.dtype
        self.learning_rate = self.number(optimizer.learning_rate)
        self._written = optimizer.learning_rate

    @abstractmethod
    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        """Write new parameters over the old ones; recorded as part of a step."""

    @property
    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """The arrays that a continued training needs."""

    def refresh(self) -> None:
        """Hand a changed learning rate to the device; called before each step."""
        if self.optimizer.learning_rate != self._written:
            self._written = self.optimizer.learning_rate
            self.write_rate(self._written)

    def write_rate(self, rate: float) -> None:
        """Write a new learning rate where recorded steps read it."""
        self.set(self.learning_rate, rate)

    def number(self, value: float) -> Array:
        """A number as a 0-d array on the device."""
        return self.backend.asarray(value, self.dtype)

    def set(self, array: Array, value: float) -> None:
        """Give a 0-d array another value, on its device."""
        self.backend.copy(self.number(value), array)

    def vector(self, parameters: Parameters) -> Array:
        """Zeros for each parameter."""
        return self.backend.zeros(parameters.flat.shape, self.dtype)


class SGD(Optimizer):
    """Gradient descent W ← W − ε δW (eq. 17), with momentum v ← μv + g and L2.

    Args:
        learning_rate: ε, positive.
        momentum: μ in [0, 1).
        l2: λ ≥ 0; the weights' gradient becomes g + λW. Nielsen's λ/n.

    Raises ValueError for a number out of its range.

    >>> nnkit.SGD(0.5, l2=1e-4)
    SGD(learning_rate=0.5, momentum=0.0, l2=0.0001)
    """

    def __init__(self, learning_rate: float = 0.1, momentum: float = 0.0, l2: float = 0.0) -> None:
        self.learning_rate = _in_range("SGD", "learning_rate", learning_rate, math.inf, strict=True)
        self.momentum = _in_range("SGD", "momentum", momentum, 1.0)
        self.l2 = _in_range("SGD", "l2", l2, math.inf)

    def start(self, parameters: Parameters) -> OptimizerState:
        """Zero velocity."""
        return _MomentumState(self, parameters) if self.momentum else DescentState(self, parameters)


class Adam(Optimizer):
    """Adam (Kingma and Ba, ICLR 2015), with L2 in the gradient.

    Args:
        learning_rate: ε, positive. beta1, beta2: in [0, 1). epsilon: positive. l2: λ ≥ 0.

    Raises ValueError for a number out of its range.

    >>> nnkit.Adam().learning_rate
    0.001
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        l2: float = 0.0,
    ) -> None:
        self.learning_rate = _in_range("Adam", "learning_rate", learning_rate, math.inf, strict=True)
        self.beta1 = _in_range("Adam", "beta1", beta1, 1.0)
        self.beta2 = _in_range("Adam", "beta2", beta2, 1.0)
        self.epsilon = _in_range("Adam", "epsilon", epsilon, math.inf, strict=True)
        self.l2 = _in_range("Adam", "l2", l2, math.inf)

    def start(self, parameters: Parameters) -> OptimizerState:
        """Zero moments."""
        return _AdamState(self, parameters)


class DescentState(OptimizerState):
    """Plain gradient descent; without L2 (`pure`) it can be part of the gradient's own product, with −ε at hand."""

    def __init__(self, optimizer: SGD, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self.pure = optimizer.l2 == 0
        self.l2, self.minus_rate = self.number(optimizer.l2), self.number(-optimizer.learning_rate)

    @property
    def arrays(self) -> dict[str, Array]:
        return {}

    def write_rate(self, rate: float) -> None:
        super().write_rate(rate)
        self.set(self.minus_rate, -rate)

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        p, g, rate = parameters, gradients, self.learning_rate
        if self.pure:
            self.backend.elementwise(updates.gradient_descent, (p.flat, g.flat, rate), out=p.flat)
            return
        self.backend.elementwise(updates.gradient_descent_l2, (p.weights, g.weights, rate, self.l2), out=p.weights)
        self.backend.elementwise(updates.gradient_descent, (p.biases, g.biases, rate), out=p.biases)


class _MomentumState(OptimizerState):
    def __init__(self, optimizer: SGD, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self.momentum, self.l2 = self.number(optimizer.momentum), self.number(optimizer.l2)
        self.velocity = self.vector(parameters)

    @property
    def arrays(self) -> dict[str, Array]:
        return {"velocity": self.velocity}

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        _add_l2(self, parameters, gradients, self.l2)
        operands = (parameters.flat, gradients.flat, self.velocity, self.learning_rate, self.momentum)
        self.backend.elementwise(updates.momentum_descent, operands, out=(parameters.flat, self.velocity))


class _AdamState(OptimizerState):
    def __init__(self, optimizer: Adam, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self.l2 = self.number(optimizer.l2)
        self.mean, self.square = self.vector(parameters), self.vector(parameters)
        self.t, self.correction1, self.correction2 = self.number(0.0), self.number(1.0), self.number(1.0)
        # log 0 = −∞ is no number to compute with; e^−1000 is 0 in every type.
        self.log_betas = [self.number(math.log(b) if b else -1000.0) for b in (optimizer.beta1, optimizer.beta2)]
        self.constants = {name: getattr(optimizer, name) for name in ("beta1", "beta2", "epsilon")}

    @property
    def arrays(self) -> dict[str, Array]:
        return {"mean": self.mean, "square": self.square, "t": self.t}

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        _add_l2(self, parameters, gradients, self.l2)
        clock = (self.t, self.correction1, self.correction2)
        self.backend.elementwise(updates.adam_clock, (self.t, *self.log_betas), out=clock)
        moments = (parameters.flat, gradients.flat, self.mean, self.square)
        rates = (self.learning_rate, self.correction1, self.correction2)
        self.backend.elementwise(
            updates.adam,
            moments + rates,
            out=(parameters.flat, self.mean, self.square),
            constants=self.constants,
        )


def _add_l2(state: OptimizerState, parameters: Parameters, gradients: Parameters, l2: Array) -> None:
    """Make the gradient that of the cost with ½ λ Σ W² added."""
    if state.optimizer.l2:
        operands = (gradients.weights, parameters.weights, l2)
        state.backend.elementwise(updates.decayed_gradient, operands, out=gradients.weights)


def _in_range(owner: str, name: str, value: float, end: float, strict: bool = False) -> float:
    """The value, if it is in [0, end), or in (0, end) where `strict`."""
    number = float(value)
    if not (0 < number < end if strict else 0 <= number < end):
        bounds = f"{'above' if strict else 'at least'} 0" + (f" and below {end:g}" if end < math.inf else "")
        raise ValueError(f"{owner}: {name} is {value!r}; expected a finite number {bounds}")
    return number
