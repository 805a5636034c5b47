"""The epochs of an ensemble: those of all members in one pass, each with what its own `fit` would do with it."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from nnkit.checks import is_of_nnkit
from nnkit.ensembles.passes import Part
from nnkit.ensembles.stack import Stack, stack_sizes
from nnkit.ensembles.updates import common
from nnkit.history import History
from nnkit.layers import layer_description
from nnkit.metrics import Metric
from nnkit.model import ROWS
from nnkit.network import Network
from nnkit.optimizers import Optimizer, chosen_optimizer
from nnkit.schedules import Schedule
from nnkit.training.best import Best
from nnkit.training.checkpoints import Plan
from nnkit.training.divergence import DivergenceError
from nnkit.training.epochs import Epochs, order_of
from nnkit.training.loop import called
from nnkit.training.meter import Meter
from nnkit.training.progress import Progress
from nnkit.training.sources import ArraySource, Source
from nnkit.training.stopping import EarlyStopping, Interrupt

Numbers = dict[str, float]


class EnsembleHistory(History):
    """The means over the members of their numbers, epoch by epoch; those of a member that has stopped are left out.

    Attributes:
        members: the history of each member, with what ended its training in `stopped`.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.members = [History() for _ in range(count)]


def optimizers_of(members: Sequence[Network], given: Any) -> list[Optimizer]:
    """The optimizer of each member; raises like `chosen_optimizer`, and ValueError for a list of another length."""
    if not isinstance(given, list | tuple):
        if given is None:
            return [member.optimizer for member in members]
        if not isinstance(given, str):
            return [chosen_optimizer(given, members[0].optimizer)] * len(members)
        given = [given] * len(members)
    if len(given) != len(members):
        raise ValueError(f"optimizer is a list of {len(given)}; expected one for each of {len(members)} members")
    return [chosen_optimizer(one, member.optimizer) for one, member in zip(given, members, strict=True)]


TRAINED = ("layers", "cost", "dtype", "preprocessing", "target_scaling")  # what a pass has once for all members
NAMES = ("features", "classes", "target_names")
OUTPUTS = ("cost", "target_scaling", "output_activation", "classes")  # what the mean of outputs has once


def check_alike(members: Sequence[Any], names: Sequence[str]) -> None:
    """Raise ValueError for a member that differs from the first in one of these; unknown `NAMES` do not differ."""
    for name in names:
        first, *others = (_value(member, name) for member in members)
        for k, own in enumerate(others, 1):
            if own != first and not (name in NAMES and None in (own, first)):
                what = f"members[{k}].{name} is {own!r}, and that of members[0] {first!r}"
                raise ValueError(f"{what}; expected the same for all, or use the members alone")


def _value(member: Any, name: str) -> Any:
    if name == "output_activation":
        return member.dense[-1].activation
    value = getattr(member, name)
    if name == "layers":
        return [layer_description(layer) for layer in value]
    return value.describe() if name == "cost" else value.tolist() if isinstance(value, np.ndarray) else value


def _put(history: History, epochs: int, numbers: Numbers) -> None:
    """Add the numbers of an epoch after so many."""
    for name, number in numbers.items():
        history.setdefault(name, [])[epochs:] = [number]


class Training:
    """The epochs of the members; one that diverges or stops early keeps its state, and the others go on."""

    def __init__(
        self,
        members: Sequence[Network],
        own_orders: bool,
        source: ArraySource,
        validation: Source | None,
        metrics: Sequence[Metric],
        plan: Plan,
        schedule: Schedule | None,
        epochs: int,
        rule: EarlyStopping | None,
        history: EnsembleHistory,
        averaged: bool,
    ) -> None:
        self.members, self.single, self.validation, self.metrics = members, source, validation, metrics
        self.plan, self.epochs, self.history = plan, epochs, history
        self.averaged = averaged
        self.own_orders = own_orders and plan.shuffle
        self.trained = [member.epochs_trained for member in members]
        self.bests = [Best(member, rule) for member in members]
        self.active = list(range(len(members)))
        self.errors: list[DivergenceError] = []
        # A user's schedule may read the history, and remember something: each member has one of its own.
        custom = schedule is not None and not is_of_nnkit(type(schedule))
        self.schedules = [schedule, *(deepcopy(schedule) if custom else schedule for _ in members[1:])]
        self.follows = custom or (schedule is not None and schedule.monitor is not None)
        self._prepare(own_rates=self.follows)

    def _prepare(self, own_rates: bool = False) -> None:
        """Create the stacks, from the members' current state, and what depends on their arrays."""
        check_alike(self.members, TRAINED)
        self.own_rates = own_rates or len({member.optimizer.learning_rate for member in self.members}) > 1
        self.states = [member.optimizer_state() for member in self.members]
        common([state.optimizer for state in self.states])  # before anything changes
        self.parts: list[Part] = []
        start = 0
        for size in stack_sizes(self.members[0], len(self.members), not self.own_orders):
            numbers = range(start, start := start + size)
            members, states = [self.members[k] for k in numbers], [self.states[k] for k in numbers]
            stack = Stack(members, states, not self.own_orders, self.own_rates, self.plan.batch_size)
            self.parts.append(Part(numbers, stack, self.single, self.metrics, self.plan.batch_size))

    def run(self, ensemble: Any, callbacks: Sequence[Any], bar: Progress, interrupt: Interrupt) -> None:
        """Train until all members have stopped, and restore the best parameters of each."""
        history, members = self.history, self.history.members
        try:
            for number in range(self.epochs):
                try:
                    for member in self.members:
                        member.turn.in_epoch = True
                    numbers = self._epoch(number, bar, interrupt)
                finally:
                    for member in self.members:
                        member.turn.in_epoch = False
                if not self.active and all(one.stopped == "diverged" for one in members):
                    raise self.errors[0]
                for k in [k for k in self.active if self.bests[k].stops(members[k])]:
                    self._end([k], "early stopping")
                clocks = self._clocks() if callbacks else []
                with interrupt.at_once:
                    stops = called(callbacks, ensemble, history)
                if stops:
                    self._end(self.active, "callback")
                bar.epoch(history.epochs, numbers)
                if not self.active:
                    break
                if callbacks:
                    self._read_again(clocks)
                interrupt.check()
            self._end(self.active, "epochs")
        except KeyboardInterrupt:
            self._end(self.active, "interrupted")
        finally:
            interrupt.hold()
            for k, best in enumerate(self.bests):
                averages = self.states[k].averaged if self.averaged and members[k].stopped is not None else None
                if averages is not None:
                    self.members[k].backend.copy(averages.flat, self.members[k].parameters.flat)
                best.restore()
            reasons = [one.stopped for one in members]
            order = ("interrupted", "callback", "epochs", "early stopping", "diverged")
            history.stopped = next((reason for reason in order if reason in reasons), None)

    def _end(self, members: Sequence[int], reason: str) -> None:
        for k in list(members):
            self.history.members[k].stopped = reason
            self.active.remove(k)

    def _clocks(self) -> list[tuple[float, int]]:
        """How many steps the optimizer of each active member has counted, if it does, and the member's seed."""
        counted = [self.states[k].numbers.get("t") for k in self.active]
        seeds = [self.members[k].seed for k in self.active]
        return [(0.0 if t is None else float(t), seed) for t, seed in zip(counted, seeds, strict=True)]

    def _read_again(self, clocks: list[tuple[float, int]]) -> None:
        """Take over what callbacks may have changed in the members, whose clocks and seeds were these before."""
        backend = self.parts[0].stack.backend
        for k in self.active:
            if self.members[k].backend is not backend:
                moved = f"a callback has moved member {k} to {self.members[k].backend.name}"
                raise RuntimeError(f"{moved}; fit runs on {backend.name}")
        others = any(self.members[k].optimizer_state() is not self.states[k] for k in self.active)
        if others or self._clocks() != clocks:  # by `train_step` or `seed` in a callback
            self._prepare(self.own_rates)
        for part, place, _ in self._each():
            part.stack.read(place)

    def _each(self) -> list[tuple[Part, int, int]]:
        """The part of each active member, its place there, and its number."""
        return [(part, i, k) for part in self.parts for i, k in enumerate(part.numbers) if k in self.active]

    def _epoch(self, number: int, bar: Progress, interrupt: Interrupt) -> Numbers:
        """Run an epoch of the active members, all of it or nothing; returns the means of their numbers."""
        started = time.perf_counter()
        factors = self._factors(number, interrupt)
        orders, shown = self._orders(number), 0
        measured: dict[int, Numbers] = {}
        finite: dict[int, bool] = {}

        def after_steps(count: int) -> None:
            nonlocal shown  # a step of the bar is one of all parts
            shown += count
            if shown >= len(self.parts):
                bar.add(shown // len(self.parts))
                shown %= len(self.parts)
            interrupt.check()

        try:
            parts = [part for part in self.parts if any(k in self.active for k in part.numbers)]
            for part in parts:
                part.start(orders)
                part.way.run(lambda steps: factors, after_steps)
        except KeyboardInterrupt:
            self._keep_finite()
            raise
        with interrupt.at_once:
            for part in parts:
                read = zip(part.meter.read_each(), part.stack.finite(), strict=True)
                for k, (numbers, right) in zip(part.numbers, read, strict=True):
                    measured[k], finite[k] = numbers, bool(right)
        found: dict[int, Numbers] = {}
        for k in list(self.active):
            own: Numbers | None = measured[k]
            if not (finite[k] and math.isfinite(measured[k]["cost"])):
                own = self._alone(k, number, interrupt)
            if own is not None:
                found[k] = own
        if self.validation is not None:
            with interrupt.at_once:
                for k, numbers in self._validated(self.validation).items():
                    found[k] |= {f"validation_{name}": value for name, value in numbers.items()}
        seconds, histories = time.perf_counter() - started, self.history.members
        for k in self.active:
            found[k] |= {"learning_rate": self._last_rates[k], "seconds": seconds}
        before = self.history.epochs, {k: (self.members[k].epochs_trained, histories[k].epochs) for k in self.active}
        try:
            return self._kept(found, *before)
        except BaseException:  # from the handler of a signal, at any place: all members, or none
            interrupt.hold()
            self._kept(found, *before)
            raise

    def _kept(self, found: Mapping[int, Numbers], epochs: int, before: Mapping[int, tuple[int, int]]) -> Numbers:
        """Keep the epoch of the active members, of which there were so many before; returns the means of their numbers.

        It can be done twice.
        """
        for part, place, k in self._each():
            part.stack.write(place)
            own, (trained, count) = self.history.members[k], before[k]
            _put(own, count, found[k])
            self.members[k].epochs_trained = trained + 1
            averages, parameters = self.states[k].averaged, self.members[k].parameters
            of_epoch = (averages, None) if self.averaged and averages is not None else (parameters, averages)
            self.bests[k].note(own, *of_epoch)
        lasts = [found[k] for k in self.active]
        means = {name: float(np.mean([last[name] for last in lasts])) for name in (lasts[0] if lasts else ())}
        _put(self.history, epochs, means)
        return means

    def _factors(self, number: int, interrupt: Interrupt) -> list[float]:
        """The learning rates of the steps, or their factors if members have their own rates, which are set."""
        steps = -(-self.single.samples // self.plan.batch_size)
        schedules, histories = self.schedules, self.history.members
        rates = [member.optimizer.learning_rate for member in self.members]
        factors = {k: [1.0] * steps for k in self.active}
        if schedules[0] is not None:
            places = [number + step / steps for step in range(steps)]
            which = self.active if self.follows else self.active[:1]
            with interrupt.at_once:
                found = {
                    k: [schedules[k].factor(place, self.epochs, histories[k]) for place in places]  # type: ignore[union-attr]
                    for k in which
                }
            factors = {k: found.get(k, found[which[0]]) for k in self.active}
        self._last_rates = {k: rates[k] * factors[k][-1] for k in self.active}
        if len({rates[k] for k in self.active}) > 1 and not self.own_rates:
            self._prepare(own_rates=True)
        shared = factors[self.active[0]]
        if not self.own_rates:
            return [rates[self.active[0]] * factor for factor in shared]
        if all(factors[k] == shared for k in self.active):
            self._set_rates(rates)
            return shared
        if any(min(factors[k]) != max(factors[k]) for k in self.active):
            raise ValueError("schedule: the factors of members differ, and change within an epoch; train them alone")
        self._set_rates([rate * factors.get(k, [1.0])[0] for k, rate in enumerate(rates)])
        return [1.0] * steps

    def _set_rates(self, rates: Sequence[float]) -> None:
        for part in self.parts:
            part.stack.updates.set_rates([rates[k] for k in part.numbers])

    def _keep_finite(self) -> None:
        """After Ctrl-C, keep what the steps so far have made of the members, unless it is not finite."""
        for part in self.parts:
            finite = part.stack.finite()
            for place, k in enumerate(part.numbers):
                if k in self.active and finite[place]:
                    part.stack.write(place)

    def _orders(self, number: int) -> list[np.ndarray] | None:
        """The order of each member, or the one of all; None without shuffling."""
        if not self.plan.shuffle:
            return None
        which = range(len(self.members)) if self.own_orders else [0]
        return [order_of(self.members[k].seed, self.trained[k] + number, self.single.samples) for k in which]

    def _alone(self, k: int, number: int, interrupt: Interrupt) -> Numbers | None:
        """Repeat the epoch of a member by itself; None if it diverges, as of the step before which it stays."""
        member, seed = self.members[k], k if self.own_orders else 0
        alone = member.snapshot()
        alone.seed, alone.epochs_trained = self.members[seed].seed, self.trained[seed] + number
        passes = Epochs(alone, self.single, self.metrics, self.plan, self.schedules[k], self.epochs, interrupt)
        try:
            numbers = passes.run(number, self.history.members[k], Progress.unseen())
        except DivergenceError as error:
            error.best = self.bests[k].epoch
            self.errors.append(error)
            self._end([k], "diverged")
            warnings.warn(f"member {k}, seed {member.seed}, has diverged: {error}", RuntimeWarning, stacklevel=6)
            return None
        (part,) = (part for part in self.parts if k in part.numbers)
        part.stack.read(k - part.numbers[0])
        return numbers

    def _validated(self, source: Source) -> Mapping[int, Numbers]:
        """The numbers of each active member on other samples; where sums of costs overflow, in a second pass."""
        found = self._measured(source, careful=not source.repeatable)
        overflow = any(math.isinf(numbers["cost"]) for numbers in found.values())
        return self._measured(source, careful=True) if overflow and source.repeatable else found

    def _measured(self, source: Source, careful: bool) -> Mapping[int, Numbers]:
        known, start = source.samples or ROWS, source.start(None)
        meters = {k: Meter(self.members[k], known, min(known, ROWS), self.metrics) for k in self.active}
        for meter in meters.values():
            meter.start(start, careful)
        width = self.members[0].d_out
        for batch in source.batches(ROWS):
            x = batch.inputs()
            for part in self.parts:
                stack = part.stack
                z = stack.propagate(x, stack.updates.average)
                for place, k in enumerate(part.numbers):
                    if k in meters:
                        meters[k].add(z[:, place * width : (place + 1) * width], batch)
        return {k: meter.read() for k, meter in meters.items()}
