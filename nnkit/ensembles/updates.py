"""The optimizer's state of a stack: that of one wide network, with numbers that differ between members as vectors."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from nnkit.backends.accumulate import Accumulate
from nnkit.backends.base import Array
from nnkit.backends.formula import compose
from nnkit.backends.recording import perform
from nnkit.ensembles.blocks import by_member
from nnkit.kernels import regularization, updates
from nnkit.kernels.arithmetic import product, scaled_sum
from nnkit.optimizers import Optimizer, OptimizerState
from nnkit.parameters import Parameters

Pairs = list[tuple[Array, Array]]


def common(optimizers: Sequence[Optimizer]) -> Optimizer:
    """The optimizer of a stack: the members', with the largest of each number that differs.

    Raises TypeError if they differ in more than numbers of the update, such as learning rates, penalties and momentum,
    or one has an update of its own that is not a formula.
    """
    first = optimizers[0]
    if any(type(optimizer) is not type(first) for optimizer in optimizers):
        kinds = sorted({type(optimizer).__name__ for optimizer in optimizers})
        raise TypeError(f"optimizer: {' and '.join(kinds)} cannot be mixed; expected one kind for all members")
    formula, changed = first.formula, {}
    for name in (f.name for f in fields(first)):
        values = [vars(optimizer).get(name) for optimizer in optimizers]
        if all(value == values[0] for value in values):
            continue
        numbers = [value for value in values if isinstance(value, float)]
        if len(numbers) < len(values) or formula is None or name in ("ema", *formula.defaults):
            raise TypeError(f"optimizer: {name} is {values}; expected the same for all members")
        changed[name] = max(numbers)
    return replace(first, **changed) if changed else first


class StackState(OptimizerState):
    """The state for the parameters of a stack, whose members have `states` of their own.

    A number in which members differ is a vector here, with an entry for each parameter. If learning rates differ, or
    are to, `rate` is the schedule's factor, and `set_rates` sets them. Each member's gradients are clipped by their own
    norm.
    """

    def __init__(self, states: Sequence[OptimizerState], parameters: Parameters, own_rates: bool) -> None:
        optimizers, self._count = [state.optimizer for state in states], len(states)
        if any(type(state) is not OptimizerState for state in states):
            kind = type(states[0]).__name__
            raise TypeError(f"optimizer: {optimizers[0]!r} has its own update, by {kind}; an ensemble needs a formula")
        super().__init__(common(optimizers), parameters)
        self._places, self._split = parameters, parameters.starts[1]  # behind the first layer's weights
        differ = [name for name in self.numbers if len({vars(o).get(name) for o in optimizers}) > 1]
        self.own_rates = own_rates
        self._each: dict[str, Array] = {}  # by name, (count,): numbers of the members that a step computes, or needs so
        self._wide: dict[str, Array] = {}  # by name: vectors of numbers
        for name in differ:
            self._each[name] = self._numbers([vars(o)[name] for o in optimizers])
        if len({float(self.backend.to_numpy(state.share)) for state in states if state.average is not None}) > 1:
            raise ValueError("optimizer: some members have averages (ema), others none; train the members alone first")
        counts = [float(self.backend.to_numpy(state.numbers["t"])) for state in states if "t" in state.numbers]
        if len(set(counts)) > 1:
            self._each |= {name: self._numbers(counts) for name in ("t", "correction1", "correction2")}
        if "clip_norm" in self.options:
            self._each |= {name: self._numbers([1.0] * self._count) for name in ("norm_square", "scale")}
            self._squared = parameters.like()
        if self.own_rates:
            self._rates, self._wide["learning_rate"] = (
                self.backend.zeros(parameters.flat.shape, self.dtype) for _ in "12"
            )
            self.set_rates([o.learning_rate for o in optimizers])
        for name in differ:
            if name != "learning_rate":
                self._wide[name] = self._spread([vars(o)[name] for o in optimizers])
        self._changing = [name for name in ("correction1", "correction2", "scale") if name in self._each]
        if self._changing:
            self._wide |= {name: self.backend.zeros(parameters.flat.shape, self.dtype) for name in self._changing}
            self._owner = self.backend.xp.astype(self._spread(range(self._count)), self.backend.xp.int64)

    @property
    def alike(self) -> bool:
        """Whether all members have the same numbers, and no averages."""
        return not self._wide and self.average is None

    def set_rates(self, rates: Sequence[float]) -> None:
        """Set the learning rate of each member, before a schedule's factor."""
        self.backend.copy(self._spread(rates), self._rates)

    def count_of(self, k: int) -> Array:
        """Member k's step count, 0-d."""
        return self._each["t"][k, ...] if "t" in self._each else self.numbers["t"]

    def _record_update(self, parameters: Parameters, gradients: Parameters) -> None:
        # Plain descent of the first layer's weights may move into their gradient's product.
        if self._wide or self.options or self.optimizer.formula is not updates.gradient_descent:
            self.update(parameters, gradients)
            return
        first, rest = slice(self._split), slice(self._split, None)
        layers = list(zip(parameters.layers, gradients.layers, strict=True))
        self._descend(parameters.flat, gradients.flat, first, [(layers[0][0]["W"], layers[0][1]["W"])])
        others = [(own[n], g[n]) for i, (own, g) in enumerate(layers) for n in own if i or n != "W"]
        stacks = [(by_member(self.backend, a, self._count) if a.ndim > 1 else a for a in pair) for pair in others]
        self._descend(parameters.flat, gradients.flat, rest, [(own, g) for own, g in stacks])

    def _descend(self, p: Array, g: Array, part: slice, pairs: Sequence[tuple[Array, Array]]) -> None:
        p, g = p[part], g[part]

        def descend() -> None:
            self.backend.elementwise(updates.gradient_descent, (p, g, self.numbers["learning_rate"]), out=p)

        perform(Accumulate(descend, pairs, self.rate[1, ...]), (p, g, self.rate), (p, g), "gradient_descent")

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        if not self._wide:
            super().update(parameters, gradients)
            return
        backend, numbers = self.backend, self.numbers | self._each
        if "clip_norm" in self.options:
            self._measure(gradients.flat)
        if "t" in numbers:
            clock = tuple(numbers[name] for name in ("t", "correction1", "correction2"))
            operands = [numbers[name] for name in updates.adam_clock.operands]
            backend.elementwise(updates.adam_clock, operands, out=clock)
        if self.own_rates:
            backend.elementwise(product, (self._rates, self.rate[0, ...]), out=self._wide["learning_rate"])
        for name in self._changing:
            backend.take(self._each[name], self._owner, out=self._wide[name])
        everything = {"p": parameters, "g": gradients} | self.vectors
        everything |= {} if self.factors is None else {"rate_factor": self.factors}
        split = parameters.weights.shape[0]
        places = {"flat": slice(None), "weights": slice(split), "biases": slice(split, None)}
        for part, formula in self._parts.items():
            wide = {name: vector[places[part]] for name, vector in self._wide.items()}
            named = numbers | wide | {name: getattr(vector, part) for name, vector in everything.items()}
            out = (named["p"], *(named[name] for name in self.vectors))
            backend.elementwise(formula, [named[o] for o in formula.operands], out=out, constants=self._constants)

    def _measure(self, g: Array) -> None:
        """The norm of each member's gradients, after `clip_value`, and the resulting scale, (count,)."""
        backend, n = self.backend, self.numbers | self._each
        formula = regularization.squared
        if "clip_value" in self.options:
            formula = compose(formula, regularization.clip_by_value)
        operands = [({"g": g} | n | self._wide)[name] for name in formula.operands]
        backend.elementwise(formula, operands, out=self._squared.flat)
        sums = []
        for layer in self._squared.layers:
            for array in layer.values():
                total = by_member(backend, array, self._count)
                while total.ndim > 1:
                    total = backend.sum(total, axis=-1)
                sums.append(total)
        backend.copy(sums[0], n["norm_square"])
        for total in sums[1:]:
            backend.elementwise(scaled_sum, (n["norm_square"], total, 1.0), out=n["norm_square"])
        backend.elementwise(regularization.clip_scale, (n["norm_square"], n["clip_norm"]), out=n["scale"])

    def _numbers(self, values: Sequence[float]) -> Array:
        return self.backend.asarray(np.array(values, np.float64), self.dtype)

    def _spread(self, values: Sequence[float]) -> Array:
        """A vector like `parameters.flat` with one of (count,) values for all parameters of a member."""
        made = self._places.like()
        for layer in made.layers:
            for array in layer.values():
                stacked = by_member(self.backend, array, self._count)
                for k, value in enumerate(values):
                    stacked[k, ...] = float(value)
        return made.flat
