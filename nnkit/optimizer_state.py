"""The base class of optimizers, and an optimizer's state for one network: vectors and numbers on the device.

The state is allocated when it is created, so that `update` can be recorded as part of a step: clipping
(`nnkit.kernels.regularization`), the step count for bias correction, and the optimizer's formula over all parameters.
"""

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np

from nnkit.attribute_state import Kept
from nnkit.backends.accumulate import Accumulate
from nnkit.backends.base import Array, Backend
from nnkit.backends.formula import Formula, compose
from nnkit.backends.recording import HostCall, perform
from nnkit.checks import in_range
from nnkit.kernels import regularization, updates
from nnkit.parameters import Parameters

_CLIPPING = ("clip_value", "clip_norm")
_PENALTIES = ("l1", "l2", "weight_decay")  # for weights only
_OF_ALL = (*_CLIPPING, "rate_factor")  # for weights and biases


def number(default: float | None, below: float = math.inf, *, above: bool = False, kw_only: bool = False) -> Any:
    """A field for a number in [0, below), or (0, below) with `above`; None is allowed if it is the default.

    >>> from dataclasses import dataclass
    >>> @dataclass(repr=False)
    ... class Sign(nnkit.SGD):
    ...     share: float = number(0.5, 1.0)
    >>> Sign(share=1.5)
    Traceback (most recent call last):
    ValueError: Sign: share is 1.5; expected a finite number of at least 0 and below 1
    """
    return field(default=default, kw_only=kw_only, metadata={"below": below, "above": above})


@lru_cache(maxsize=64)
def _declared(kind: Any) -> Mapping[str, Field[Any]]:
    return {f.name: f for f in fields(kind)}


_OWN = "nnkit.optimizers"
_first_of_name: "dict[str, type[Optimizer]]" = {}


@dataclass(kw_only=True, repr=False)
class Optimizer:
    """Base class of optimizers, with the keyword arguments that all of them take.

    Args:
        learning_rate: ε, positive. It can be changed at any time; the next step uses the new value, in `fit` on arrays
            those of the next epoch. The other numbers are read-only.
        l1: λ ≥ 0; the weights' gradient becomes g + λ sign(W).
        l2: λ ≥ 0; it becomes g + λW. Nielsen's λ/n.
        weight_decay: λ ≥ 0; W ← W − ε λ W before the update.
        clip_value: c, positive; each entry of the gradient is limited to ±c. None disables it.
        clip_norm: c, positive; the gradient is multiplied by min(1, c/‖g‖), with the norm over all W and b. None
            disables it. If ‖g‖² is NaN or overflows, all parameters become NaN.
        ema: β in (0, 1); the state averages the parameters after each step, a ← βa + (1 − β)W, from those after its
            first step on, like `use_ema` of Keras and `torch.optim.swa_utils`. `fit` validates the averages, and ends
            with them; `Network.averaged` is a copy with them. None disables it. They start anew from parameters that
            `load_state_dict` or `minimize` sets, but not from those that are assigned. Early stopping restores them
            with the parameters of the best epoch.

    Raises ValueError for a number out of range, TypeError if a value is not a number, and AttributeError if anything
    but the learning rate is set. A custom optimizer is a derived dataclass with a `formula`, or whose `start`
    returns a state with its own `update` (`OptimizerState`).
    """

    learning_rate: float
    l1: float = number(0.0, kw_only=True)
    l2: float = number(0.0, kw_only=True)
    weight_decay: float = number(0.0, kw_only=True)
    clip_value: float | None = number(None, above=True, kw_only=True)
    clip_norm: float | None = number(None, above=True, kw_only=True)
    ema: float | None = number(None, below=1.0, above=True, kw_only=True)

    @property
    def formula(self) -> Formula | None:
        """The update, like those of `nnkit.kernels.updates`; operands that are not its numbers are its state.

        None if the state has its own `update`.
        """
        return None

    def start(self, parameters: Parameters) -> "OptimizerState":
        """The initial state for these parameters: vectors of zeros."""
        return OptimizerState(self, parameters)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _first_of_name.setdefault(cls.__name__.lower(), cls)

    def describe(self) -> dict[str, Any]:
        """The name and all numbers, for JSON; `get_optimizer(**description)` returns an equal optimizer.

        >>> nnkit.optimizers.get_optimizer(**nnkit.SGD(0.5, l2=1e-4).describe())
        SGD(learning_rate=0.5, l2=0.0001)
        """
        kind, name = type(self), type(self).__name__.lower()
        if kind.__module__ != _OWN and _first_of_name.get(name, kind).__module__ == _OWN:
            name = f"{kind.__module__}.{name}"  # a custom one that is called like one of nnkit's
        about = {"name": name, **vars(self)}
        return about if self.ema is not None else {name: value for name, value in about.items() if name != "ema"}

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "learning_rate" and name in vars(self):
            raise AttributeError(f"{self!r}: only learning_rate can be changed; create a new optimizer")
        if type(self).__module__ == _OWN and name not in _declared(type(self)):  # type: ignore[arg-type]
            raise AttributeError(f"{type(self).__name__} has no number {name!r}; learning_rate can be changed")
        super().__setattr__(name, self._checked(name, value))

    def _checked(self, name: str, value: Any) -> Any:
        """The checked value of a number; fields that a subclass declares without `number` have no range."""
        owner, declared = type(self).__name__, _declared(type(self)).get(name)  # type: ignore[arg-type]
        if name == "learning_rate":
            return in_range(owner, name, value, above=True)
        if declared is not None and isinstance(declared.default, bool) and not isinstance(value, bool):
            raise TypeError(f"{owner}: {name} is {value!r}; expected True or False")
        if declared is None or "below" not in declared.metadata:
            return value if isinstance(value, bool) or not isinstance(value, Real) else float(value)
        if value is None and declared.default is None:
            return None
        return in_range(owner, name, value, declared.metadata["below"], above=declared.metadata["above"])

    def __repr__(self) -> str:
        """The call that creates it, without defaults."""
        shown = [f for f in fields(self) if f.name == "learning_rate" or getattr(self, f.name) != f.default]
        shown.sort(key=lambda f: bool(f.kw_only))
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"


class OptimizerState(Kept):
    """An optimizer's arrays for one network.

    They are the operands of its formula: `learning_rate` and other numbers of the optimizer are 0-d arrays,
    `correction1` and `correction2` depend on the step count, and all others are vectors, initially zeros. Without a
    formula, `numbers` has all numbers of the optimizer. `rate`, (2,), is ε and −ε as read by recorded steps, and
    `numbers["learning_rate"]`, including a schedule's factor, is a view of its first entry.

    `average` has the moving averages of the parameters, if the optimizer has an `ema`, else it is None.
    `factors` are the parameters' rate factors (`Dense.rate`), with the layout of the parameters; None if all are 1.

    A subclass can override `update`; the optimizer's `start` returns the subclass. The arrays and numbers in its
    attributes, also in lists and dicts there, go on in copies, pickles and resumed trainings. What is elsewhere needs
    an override of `arrays`, which returns it by name: the arrays themselves, or copies called like an attribute with
    the array or number. With an `ema`, the names `average` and `average_share` are taken. There are two kinds:

    - With `recordable = True`, `update` uses only formulas and methods of the backend, and writes to arrays of the
      state or the parameters. It is recorded and replayed with the step, on a GPU as part of its graph.
    - Otherwise it runs at every step, after the recorded gradients, in the arrays' own library, on a GPU without graph.

    `update` gets the raw gradients, and has to apply `l1`, `l2`, `weight_decay` and clipping from `numbers` itself.
    With rate factors, each parameter then goes only that share of its way.

    >>> class Signs(nnkit.optimizers.OptimizerState):
    ...     def update(self, parameters, gradients):
    ...         parameters.flat -= self.numbers["learning_rate"] * np.sign(gradients.flat)
    >>> class SignDescent(nnkit.SGD):
    ...     def start(self, parameters):
    ...         return Signs(self, parameters)
    >>> net = nnkit.Network([2, 2], init="zeros", seed=0)
    >>> costs = [float(net.train_step([[0.0, 1.0]], [0], SignDescent(0.25) if i == 0 else None)) for i in range(3)]
    >>> net.parameters.W[0].tolist()
    [[0.0, 0.75], [0.0, -0.75]]
    """

    recordable = False
    samples = 1  # of the minibatch whose step is recorded

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        self.optimizer = optimizer
        self.backend: Backend = parameters.backend
        self.dtype = parameters.dtype
        self.options = [name for name in (*_CLIPPING, *_PENALTIES) if getattr(optimizer, name)]
        formula, numbers = optimizer.formula, vars(optimizer)
        if formula is None and self.updates_by_formula:
            name = type(optimizer).__name__
            raise TypeError(f"{name} has no formula, and its state does not override update; expected one of them")
        operands = tuple(numbers) if formula is None else formula.operands
        used = [name for name in operands if isinstance(numbers.get(name), float) and name != "learning_rate"]
        self.rate = self._pair(optimizer.learning_rate)
        self._given: float | None = optimizer.learning_rate  # None if a recorded step may have written another rate
        self.numbers = {"learning_rate": self.rate[0, ...]} | {
            name: self.number(numbers[name]) for name in (*used, *self.options)
        }
        self.vectors: dict[str, Parameters] = {}
        self.factors = self._factors(parameters)
        self.average: Parameters | None = None
        if optimizer.ema is not None:
            self.average = parameters.like()
            self.share, self._later = self.number(1.0), self.number(1 - optimizer.ema)
        if formula is not None:
            self._prepare(formula, parameters)

    def _factors(self, parameters: Parameters) -> Parameters | None:
        """The rate factors as a vector; None if all are 1."""
        if parameters.rates is None:
            return None
        self.options.append("rate_factor")
        found = parameters.like()
        each = zip(parameters.shapes, parameters.rates, strict=True)
        found.assign([[np.full(shape, rates[name]) for name, shape in shapes.items()] for shapes, rates in each])
        return found

    def _prepare(self, formula: Formula, parameters: Parameters) -> None:
        """Allocate the arrays for the update by a formula."""
        operands, numbers = formula.operands, vars(self.optimizer)
        missing = [name for name in formula.defaults if name not in numbers]
        if missing:
            owner = type(self.optimizer).__name__
            raise TypeError(f"{owner} has no {missing[0]}, a constant of its formula {formula.name}")
        self._constants = {name: numbers[name] for name in formula.defaults}
        if "correction1" in operands:
            betas = {f"log_{name}": _log(numbers[name]) for name in ("beta1", "beta2")}
            clock = {"t": 0.0, "correction1": 1.0, "correction2": 1.0}
            self.numbers |= {name: self.number(value) for name, value in (betas | clock).items()}
        if "clip_norm" in self.options:
            self.numbers |= {"norm_square": self.number(0.0), "scale": self.number(1.0)}
            self._squares = self.backend.zeros(parameters.flat.shape, self.dtype)
        self.vectors = {name: parameters.like() for name in operands if name not in ("p", "g", *self.numbers)}
        of_all = [name for name in self.options if name in _OF_ALL]
        parts = {"flat": self.options} if of_all == self.options else {"weights": self.options, "biases": of_all}
        self._parts = {part: regularization.treated(formula, *todo) for part, todo in parts.items()}

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays needed to resume training."""
        clock = {"t": self.numbers["t"]} if "t" in self.numbers else {}
        return {name: vector.flat for name, vector in self.vectors.items()} | clock

    @property
    def averages(self) -> dict[str, Array]:
        """The arrays of the moving average, which a resumed training needs, too."""
        return {} if self.average is None else {"average": self.average.flat, "average_share": self.share}

    @property
    def averaged(self) -> Parameters | None:
        """The moving averages of the parameters; None without them, or before the first step."""
        return None if self.average is None or float(self.share) == 1 else self.average

    def set_rate(self, rate: float | None = None) -> None:
        """Set the learning rate of the next steps, by default the optimizer's; written only if it has changed."""
        rate = self.optimizer.learning_rate if rate is None else rate
        if rate != self._given:
            self.backend.copy(self._pair(rate), self.rate)
            self._given = None if self._given is None else rate

    def follow(self, rates: Array, number: Array) -> None:
        """Read the learning rate from row `number` of rates, (steps, 2) with ε and −ε; recorded before a step."""
        self._given = None
        self.backend.take_at(rates, number, self.rate)

    @property
    def is_descent(self) -> bool:
        """Whether the update is only W ← W − ε g, which can be part of the gradient's product."""
        return self.optimizer.formula is updates.gradient_descent and not self.options and self.updates_by_formula

    def record(self, parameters: Parameters, gradients: Parameters) -> None:
        """Record the update: its calls, or one call of an `update` that cannot be recorded.

        Plain descent may be moved into the products that compute the gradients, which are then not written.
        """
        self._record_update(parameters, gradients)
        if self.average is not None:
            a = self.average.flat
            self.backend.elementwise(updates.moving_average, (a, parameters.flat, self.share), out=a)
            self.backend.copy(self._later, self.share)

    def _record_update(self, parameters: Parameters, gradients: Parameters) -> None:
        if self.is_descent:
            layers = zip(parameters.layers, gradients.layers, strict=True)
            pairs = [(array, gradient[name]) for own, gradient in layers for name, array in own.items()]
            read, written = (parameters.flat, gradients.flat, self.rate), (parameters.flat, gradients.flat)
            descent = Accumulate(lambda: self.update(parameters, gradients), pairs, self.rate[1, ...])
            perform(descent, read, written, "gradient_descent")
        elif self.updates_by_formula:
            self.update(parameters, gradients)
        elif self.recordable:
            self._update_itself(parameters, gradients)
        else:
            perform(HostCall(lambda: self._update_itself(parameters, gradients)), name=f"{type(self).__name__}.update")

    def _update_itself(self, parameters: Parameters, gradients: Parameters) -> None:
        """Call an `update` without a formula; each parameter goes only its share of the way."""
        if self.factors is None:
            return self.update(parameters, gradients)
        p, backend = parameters.flat, self.backend
        before = backend.copy(p, backend.empty(p.shape, self.dtype))
        self.update(parameters, gradients)
        backend.elementwise(regularization.partly, (p, before, self.factors.flat), out=p)
        return None

    @property
    def updates_by_formula(self) -> bool:
        """Whether `update` is not overridden, and so can be recorded."""
        return getattr(self.update, "__func__", None) is OptimizerState.update

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        """Update the parameters in place. The gradients are unchanged."""
        if "clip_norm" in self.options:
            self._measure(gradients.flat)
        if "t" in self.numbers:
            clock = tuple(self.numbers[name] for name in ("t", "correction1", "correction2"))
            operands = [self.numbers[name] for name in updates.adam_clock.operands]
            self.backend.elementwise(updates.adam_clock, operands, out=clock)
        everything = {"p": parameters, "g": gradients} | self.vectors
        everything |= {} if self.factors is None else {"rate_factor": self.factors}
        for part, formula in self._parts.items():
            named = self.numbers | {name: getattr(vector, part) for name, vector in everything.items()}
            operands = [named[name] for name in formula.operands]
            out = (named["p"], *(named[name] for name in self.vectors))
            self.backend.elementwise(formula, operands, out=out, constants=self._constants)

    def number(self, value: float) -> Array:
        """A number as a 0-d array on the device."""
        return self.backend.asarray(value, self.dtype)

    def _pair(self, rate: float) -> Array:
        return self.backend.asarray(np.array([rate, -rate]), self.dtype)

    def _measure(self, g: Array) -> None:
        """Compute the norm of the gradients, after `clip_value`, and the resulting scale."""
        formula, n = regularization.squared, self.numbers
        if "clip_value" in self.options:
            formula = compose(formula, regularization.clip_by_value)
        operands = [{"g": g, **n}[name] for name in formula.operands]
        self.backend.elementwise(formula, operands, out=self._squares)
        self.backend.sum(self._squares, out=n["norm_square"])
        self.backend.elementwise(regularization.clip_scale, (n["norm_square"], n["clip_norm"]), out=n["scale"])


def _log(beta: float) -> float:
    # Avoids log 0 = −∞; e^−1000 is 0 in every type.
    return math.log(beta) if beta else -1000.0
