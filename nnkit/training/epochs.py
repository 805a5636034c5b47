"""Epochs: all samples once, in minibatches, one step each."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from nnkit.backends.cpu.native.shuffle import shuffled
from nnkit.kernels.arithmetic import product, scaled_sum
from nnkit.metrics import Metric
from nnkit.model import Model
from nnkit.optimizers import OptimizerState
from nnkit.parallel.division import ONE, Team
from nnkit.schedules import Schedule
from nnkit.step import step_for
from nnkit.training.checkpoints import Plan
from nnkit.training.divergence import DivergenceError, Undo, parameters_are_finite, what_is_not_finite
from nnkit.training.meter import Meter, combined
from nnkit.training.on_device import Rates, Way, way_on_device
from nnkit.training.progress import Progress
from nnkit.training.sources import ArraySource, Minibatch, Source
from nnkit.training.stopping import Interrupt
from nnkit.training.together import Look, OneByOneTogether, ReplaysTogether, Shares


class Epochs:
    """Passes over the training data that update a network's parameters.

    An epoch begun by `run` stays open, so that `undo` can undo it, until it is closed.

    Attributes:
        steps: number of steps per epoch; for an iterable None until the first pass, of this training or before resume.
        rate: the learning rate of the last step.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        metrics: Sequence[Metric],
        plan: Plan,
        schedule: Schedule | None,
        epochs: int,
        interrupt: Interrupt,
        steps: int | None = None,
        team: Team = ONE,
    ) -> None:
        self.model, self.source, self.plan, self.team = model, source, plan, team
        self.schedule, self.epochs, self.interrupt = schedule, epochs, interrupt
        self.steps = steps if source.samples is None else -(-source.samples // plan.batch_size)
        self.shares = Shares.of(model, source, plan, metrics, team)
        self._prepare()
        self.rate = self.state.optimizer.learning_rate

    def run(self, number: int, history: Mapping[str, Sequence[float]], progress: Progress) -> dict[str, float]:
        """Run epoch `number`, from 0; returns cost and metrics.

        Raises DivergenceError, after restoring the parameters, if a step produces NaN or infinities. The host finds out
        only at the end of an epoch, which is then repeated step by step, up to the step that failed. Data that cannot
        be read twice are checked after each step.
        """
        self.check_place()
        if self.model.optimizer_state() is not self.state:
            self._prepare()  # a callback has replaced the network's optimizer, or its arrays and state
        careful, turn = not self.source.repeatable, self.model.turn
        nested = turn.in_epoch  # a fit of the same network in its data or schedule
        self.undo.begin()
        try:
            turn.in_epoch = True
            measured = self._pass(number, history, progress, careful)
            if not careful and not (math.isfinite(measured["cost"]) and measured["finite"]):
                self.undo.back(whole=True)
                measured = self._pass(number, history, Progress.unseen(), careful=True)
        finally:
            turn.in_epoch = nested
        if not math.isfinite(measured["cost"]):  # though that of each step was
            self.undo.back()
            raise DivergenceError(number + 1, self.steps or 1, f"the cost is {measured['cost']}", self.rate)
        del measured["finite"]
        return measured

    def check_place(self) -> None:
        """RuntimeError if a callback has moved the network to another backend, where the data are not."""
        backend = self.shares.meters[0].backend
        if self.model.backend is not backend:
            there, here = self.model.backend.name, backend.name
            raise RuntimeError(f"a callback has moved the network to {there}; fit runs on {here}")

    def _prepare(self) -> None:
        """Create the objects that depend on the network's arrays."""
        model, plan, (team, (source, *_), (meter, *_)) = self.model, self.plan, self.shares
        model.parameters.clear_padding()
        self.state: OptimizerState = model.optimizer_state()
        self.undo = Undo(model, self.state)
        self._on_device: Way | None = None
        updates_each = plan.gradient_accumulation_steps == 1
        if not team.alone:
            together = OneByOneTogether(model, self.shares, self.state, plan, self.undo, self.interrupt)
            self._one_by_one: OneByOne | OneByOneTogether = together
            if updates_each and isinstance(source, ArraySource) and source.on_device:
                self._on_device = ReplaysTogether(model, self.shares, self.state, plan)
            return
        self._one_by_one = OneByOne(model, source, meter, self.state, plan, self.undo, self.interrupt)
        if updates_each:
            self._on_device = way_on_device(model, source, meter, self.state, plan.batch_size)

    def _pass(
        self, number: int, history: Mapping[str, Sequence[float]], progress: Progress, careful: bool
    ) -> dict[str, float]:
        """Run the steps of an epoch; if `careful`, check each one, and undo only that step."""
        undo, interrupt, rates = self.undo, self.interrupt, partial(self._rates, number, history)
        on_device = None if careful else self._on_device

        def after_steps(count: int) -> None:
            undo.moving = False
            progress.add(count)
            interrupt.check()
            undo.moving = on_device is not None

        communicator, (_, sources, meters) = self.team.communicator, self.shares
        with communicator.agreed():
            order = self._order()
            known = [source.start(order) for source in sources]
            for meter, own in zip(meters, known * (len(meters) // len(known)), strict=True):
                meter.start(own, careful)
        if on_device is not None:
            undo.moving = True
            on_device.run(rates, after_steps)
        else:
            self._one_by_one.run(rates, after_steps, partial(self._look, number + 1) if careful else None)
            if self.steps is None:
                self.steps = self._one_by_one.done  # an iterable's number of steps, for schedules
        undo.moving = False
        with communicator.agreed(), interrupt.at_once:
            found = [meter.measured(finite=parameters_are_finite(self.model)) for meter in meters]
        found = [each for of_rank in communicator.everyone(found) for each in of_rank]
        with communicator.agreed(), interrupt.at_once:
            return combined(self.model, meters[0].metrics, found)

    def _rates(self, number: int, history: Mapping[str, Sequence[float]], steps: range) -> list[float]:
        """The learning rates of these steps of epoch `number`; the schedule may be slow, so it is interruptible."""
        with self.interrupt.at_once:
            rates = [self.state.optimizer.learning_rate] * len(steps)
            if self.schedule is not None:
                places = [number + (step / self.steps if self.steps else 0) for step in steps]
                rates = [rates[0] * self.schedule.factor(place, self.epochs, history) for place in places]
        self.rate = rates[-1]
        return rates

    def _look(self, number: int, step: int, cost: float) -> None:
        """Undo the step and raise DivergenceError if the cost or the parameters are not finite."""
        found = what_is_not_finite(self.model, cost)
        if found is not None:
            self.undo.back()
            raise DivergenceError(number, step, found, self.rate)

    def _order(self) -> np.ndarray | None:
        """The sample order of an epoch, drawn on the host from the network's seed and epoch count."""
        if not self.plan.shuffle or self.source.samples is None:
            return None
        return order_of(self.model.seed, self.model.epochs_trained, self.source.samples)


def order_of(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The order of the samples in an epoch of a network with this seed that has trained `epoch` others."""
    return shuffled([seed, 1, epoch], samples)


class OneByOne(Way):
    """Steps on minibatches from the host, with an update after one or several of them.

    Attributes:
        done: number of minibatches so far in the last epoch.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        meter: Meter,
        state: OptimizerState,
        plan: Plan,
        undo: Undo,
        interrupt: Interrupt,
    ) -> None:
        self.model, self.source, self.meter, self.state = model, source, meter, state
        self.plan, self.undo, self.interrupt = plan, undo, interrupt
        self._sum = Accumulation(model, state) if plan.gradient_accumulation_steps > 1 else None

    def run(self, rates: Rates, after_steps: Callable[[int], None], look: Look | None = None) -> None:
        """Like `Way.run`; `look` is called with the number of each step, from 1, and its cost."""
        batches, rate, self.done = self.source.batches(self.plan.batch_size), 0.0, 0
        while True:
            with self.interrupt.at_once:
                batch = next(batches, None)
            if batch is None:
                break
            if self._sum is None or self._sum.count == 0:  # an update's rate is that of its first minibatch
                (rate,) = rates(range(self.done, self.done + 1))
            self.done += 1
            self._step(batch, rate, look)
            after_steps(1)
        if self._sum is not None and self._sum.count:  # an update with the rest
            self.undo.moving = True
            self._sum.update(rate)
            if look is not None:
                look(self.done, 0.0)

    def _step(self, batch: Minibatch, rate: float, look: Look | None) -> None:
        added = self._sum
        state = self.state if added is None else None
        step = step_for(self.model, batch.samples, state, batch.weight_columns, True, added is not None)
        with self.interrupt.at_once:  # reading rows from disk may be slow
            batch.write(step)
        if look is not None and (added is None or added.count == 0):
            self.undo.mark()
        self.undo.moving = True
        step.run(rate)
        if added is not None:
            added.add(batch.samples)
            if added.count == self.plan.gradient_accumulation_steps:
                added.update(rate)
        if look is not None:
            look(self.done, float(step.cost()))
        self.undo.moving = False
        self.meter.add(step.logits, batch)


class Accumulation:
    """The sum of the gradients of minibatches, each a sum over its samples, and the update with their mean.

    Attributes:
        samples: number of samples in the sum. count: number of minibatches.
    """

    def __init__(self, model: Model, state: OptimizerState) -> None:
        self.model, self.state, backend = model, state, model.backend
        self.samples = self.count = 0
        self._sum = backend.zeros(model.gradient.flat.shape, model.dtype)
        self._zero, self._share = backend.asarray(0.0, model.dtype), backend.asarray(1.0, model.dtype)
        gradient = model.gradient.flat
        with backend.recording() as self._adding:
            backend.elementwise(scaled_sum, (self._sum, gradient, 1.0), out=self._sum)
        with backend.recording() as self._updating:
            backend.elementwise(product, (self._sum, self._share), out=gradient)
            state.record(model.parameters, model.gradient)
            backend.copy(self._zero, self._sum)
        self._adding.trains = self._updating.trains = True

    def add(self, samples: int) -> None:
        """Add the gradient of the last step, which had `samples` samples."""
        self._adding.replay()
        self.samples += samples
        self.count += 1

    def update(self, rate: float) -> None:
        """Update the parameters with the mean gradient of all added samples, and reset the sum."""
        backend = self.model.backend
        backend.copy(backend.asarray(1 / self.samples, self.model.dtype), self._share)
        self.state.set_rate(rate)
        self._updating.replay()
        self.samples = self.count = 0
