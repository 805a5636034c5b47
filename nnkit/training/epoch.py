"""One epoch: every sample once, in minibatches, each a step."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nnkit.backends.base import Array
from nnkit.model import Model
from nnkit.optimizers import OptimizerState
from nnkit.schedules import Schedule
from nnkit.step import step_for
from nnkit.training.accumulation import Accumulation
from nnkit.training.divergence import DivergenceError, Snapshot, parameters_are_finite, what_is_not_finite
from nnkit.training.interrupt import Interrupt
from nnkit.training.keeping import Plan
from nnkit.training.launches import Launches, launches_for
from nnkit.training.meter import Meter
from nnkit.training.minibatches import Minibatch, Source
from nnkit.training.progress import Progress
from nnkit.training.replays import Replays
from nnkit.training.sources import ArraySource


class Epochs:
    """Passes over the training data that move a network's parameters."""

    def __init__(
        self, model: Model, source: Source, meter: Meter, plan: Plan, schedule: Schedule | None, epochs: int
    ) -> None:
        self.model, self.source, self.meter = model, source, meter
        self.plan, self.schedule, self.epochs = plan, schedule, epochs
        self.steps = None if source.samples is None else -(-source.samples // plan.batch_size)
        self._shares: dict[int, Array] = {}
        self._prepare()
        self.rate = self.state.optimizer.learning_rate  # of the latest step

    def run(
        self, number: int, history: Mapping[str, Sequence[float]], progress: Progress, interrupt: Interrupt
    ) -> dict[str, float]:
        """Do epoch `number`, from 0; the cost and metrics come back.

        Raises DivergenceError, with the parameters put back, where a step leaves numbers that are not finite. The host
        learns of that only when an epoch is read: it is then done again, step by step, up to the step that failed. What
        cannot be read twice is looked at after each step.
        """
        if self.model.parameters is not self._prepared_for:
            self._prepare()
        careful = not self.source.repeatable
        self._snapshot.take()
        measured = self._pass(number, history, progress, interrupt, careful)
        if not careful and not (math.isfinite(measured["cost"]) and measured["finite"]):
            self._snapshot.restore()
            measured = self._pass(number, history, Progress.unseen(), interrupt, careful=True)
        del measured["finite"]
        return measured

    def _prepare(self) -> None:
        """Make what works on the network's arrays; again where a callback has given it others.

        Raises RuntimeError if they are on another backend, where the data are not.
        """
        model, plan, source, meter = self.model, self.plan, self.source, self.meter
        if model.backend is not meter.backend:
            raise RuntimeError(
                f"a callback has moved the network to {model.backend.name}; fit is on {meter.backend.name}"
            )
        self._prepared_for = model.parameters
        self.state: OptimizerState = model.optimizer_state()
        self._accumulation = None if plan.accumulate == 1 else Accumulation(model, self.state)
        self._snapshot = Snapshot(model, self.state)
        self._on_device: Replays | Launches | None = None
        if self._accumulation is None and isinstance(source, ArraySource) and source.on_device:
            steps = None if self.schedule is None else self.steps
            self._on_device = launches_for(model, source, meter, self.state, plan.batch_size) or Replays(
                model, source, meter, self.state, plan.batch_size, steps
            )

    def undo(self) -> None:
        """Put everything back as it was before the latest epoch; of what cannot be read twice, before the last step."""
        self._snapshot.restore()

    def _pass(
        self,
        number: int,
        history: Mapping[str, Sequence[float]],
        progress: Progress,
        interrupt: Interrupt,
        careful: bool,
    ) -> dict[str, float]:
        self.meter.start(*self.source.start(self._order()))
        if self._on_device is not None and self.steps is not None and not careful:
            rates = self._rates(number, history, self.steps)
            self._on_device.run(rates, after_step=lambda: _after_step(progress, interrupt))
            return self.meter.read(finite=parameters_are_finite(self.model))
        factor, done = 1.0, 0
        for done, batch in enumerate(self.source.batches(self.plan.batch_size)):
            if self.schedule is not None:
                position = number + (done / self.steps if self.steps else 0)
                factor = self.schedule.factor(position, self.epochs, history)
            self.rate = self.state.optimizer.learning_rate * factor
            self._step(batch, factor, (number + 1, done + 1) if careful else None)
            _after_step(progress, interrupt)
        if self.steps is None:
            self.steps = done + 1  # an iterable has shown how many; schedules need it from now on
        if self._accumulation is not None and self._accumulation.samples:
            self._accumulation.update(factor)
            if careful:
                self._look((number + 1, done + 1), 0.0)
        return self.meter.read(finite=parameters_are_finite(self.model))

    def _rates(self, number: int, history: Mapping[str, Sequence[float]], steps: int) -> list[float]:
        """The learning rate of each step of epoch `number`."""
        rate = self.rate = self.state.optimizer.learning_rate
        if self.schedule is None:
            return [rate] * steps
        rates = [rate * self.schedule.factor(number + done / steps, self.epochs, history) for done in range(steps)]
        self.rate = rates[-1]
        return rates

    def _order(self) -> np.ndarray | None:
        """The order of an epoch, drawn on the host from the network's seed and its count of epochs."""
        if not self.plan.shuffle or self.source.samples is None:
            return None
        order = np.arange(self.source.samples)
        np.random.default_rng([self.model.seed, 1, self.model.epochs_trained]).shuffle(order)
        return order

    def _step(self, batch: Minibatch, factor: float, where: tuple[int, int] | None) -> None:
        """A step on a minibatch; with `where`, its epoch and number, look whether it left finite numbers."""
        accumulation = self._accumulation
        if where is not None and (accumulation is None or accumulation.samples == 0):
            self._snapshot.take()
        state = self.state if accumulation is None else None
        step = step_for(self.model, batch.samples, state, batch.weight_columns, True, accumulation is not None)
        batch.write(step, self._share(batch))
        step.run(factor)
        if accumulation is not None:
            accumulation.add(batch)
            if accumulation.count == self.plan.accumulate:
                accumulation.update(factor)
        if where is not None:
            self._look(where, float(step.cost()))
        self.meter.add(step.logits, batch)

    def _look(self, where: tuple[int, int], cost: float) -> None:
        """Put everything back and raise DivergenceError, if the cost or the parameters are not finite."""
        found = what_is_not_finite(self.model, cost)
        if found is not None:
            self._snapshot.restore()
            raise DivergenceError(*where, found, self.rate)

    def _share(self, batch: Minibatch) -> Array | None:
        """What a sample of weight 1 counts in the gradient: 1/n, or 1 where gradients are added up first."""
        if batch.weights is None:
            return None
        if self._accumulation is not None:
            return self._accumulation.share
        if batch.samples not in self._shares:
            self._shares[batch.samples] = self.model.backend.asarray(1 / batch.samples, self.model.dtype)
        return self._shares[batch.samples]


def _after_step(progress: Progress, interrupt: Interrupt) -> None:
    progress.step()
    interrupt.check()
