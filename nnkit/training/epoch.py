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
    """Passes over the training data that move a network's parameters.

    An epoch that `run` has begun stays open until it is closed: until then it can be taken back. `steps` says how many
    steps an iterable gives, if an earlier part of this training has shown it.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        meter: Meter,
        plan: Plan,
        schedule: Schedule | None,
        epochs: int,
        steps: int | None = None,
    ) -> None:
        self.model, self.source, self.meter = model, source, meter
        self.plan, self.schedule, self.epochs = plan, schedule, epochs
        self.steps = steps if source.samples is None else -(-source.samples // plan.batch_size)
        self.open = False
        self._moving = False  # whether parameters may be those of half a step
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
        self.check_place()
        if self.model.parameters is not self._prepared_for or self.model.optimizer_state() is not self.state:
            self._prepare()  # a callback has given the network other arrays or another optimizer
        careful = not self.source.repeatable
        self._before.take()
        self._latest, self.open = self._before, True
        measured = self._pass(number, history, progress, interrupt, careful)
        if not careful and not (math.isfinite(measured["cost"]) and measured["finite"]):
            self._go_back(self._before)
            measured = self._pass(number, history, Progress.unseen(), interrupt, careful=True)
        if not math.isfinite(measured["cost"]):  # though that of each step was
            self._go_back(self._latest)
            raise DivergenceError(number + 1, self.steps or 1, f"the cost is {measured['cost']}", self.rate)
        del measured["finite"]
        return measured

    def check_place(self) -> None:
        """RuntimeError if a callback has moved the network to another backend, where the data are not."""
        if self.model.backend is not self.meter.backend:
            there, here = self.model.backend.name, self.meter.backend.name
            raise RuntimeError(f"a callback has moved the network to {there}; fit is on {here}")

    def close(self) -> None:
        """The epoch counts: it cannot be taken back any more."""
        self.open = False

    def take_back(self, error: BaseException) -> None:
        """Undo what an open epoch that ended by this error has changed.

        After Ctrl-C only a step that is half done, and after a divergence no more than has been put back.
        """
        if not isinstance(error, KeyboardInterrupt | DivergenceError):
            self._go_back(self._before)
        elif self._moving:
            self._go_back(self._latest)
        elif not bool(parameters_are_finite(self.model)):  # an epoch diverges, which its end would have shown
            self._go_back(self._before)
        self.open = False

    def _prepare(self) -> None:
        """Make what works on the network's arrays."""
        model, plan, source, meter = self.model, self.plan, self.source, self.meter
        self._prepared_for = model.parameters
        model.parameters.clear_padding()
        self.state: OptimizerState = model.optimizer_state()
        self._accumulation = None if plan.gradient_accumulation_steps == 1 else Accumulation(model, self.state)
        self._before = Snapshot(model, self.state)
        self._before_step: Snapshot | None = None
        self._on_device: Replays | Launches | None = None
        if self._accumulation is None and isinstance(source, ArraySource) and source.on_device:
            steps = None if self.schedule is None else self.steps
            self._on_device = launches_for(model, source, meter, self.state, plan.batch_size) or Replays(
                model, source, meter, self.state, plan.batch_size, steps
            )

    def _go_back(self, snapshot: Snapshot) -> None:
        self._moving = True
        snapshot.restore()
        self._moving = False

    def _pass(
        self,
        number: int,
        history: Mapping[str, Sequence[float]],
        progress: Progress,
        interrupt: Interrupt,
        careful: bool,
    ) -> dict[str, float]:
        self.meter.start(*self.source.start(self._order()), careful=careful)
        if self._on_device is not None and self.steps is not None and not careful:
            with interrupt.at_once:
                rates = self._rates(number, history, self.steps)
            self._moving = True
            self._on_device.run(rates, after_step=lambda: self._between_steps(progress, interrupt))
            self._moving = False
        else:
            self._read(number, history, progress, interrupt, careful)
        with interrupt.at_once:
            return self.meter.read(finite=parameters_are_finite(self.model))

    def _read(
        self,
        number: int,
        history: Mapping[str, Sequence[float]],
        progress: Progress,
        interrupt: Interrupt,
        careful: bool,
    ) -> None:
        """Do the steps of a pass whose minibatches the host brings, and the update by what is left of the gradients."""
        batches, factor, done = self.source.batches(self.plan.batch_size), 1.0, 0
        while True:
            with interrupt.at_once:
                batch = next(batches, None)
                if batch is None:
                    break
                if self.schedule is not None:
                    position = number + (done / self.steps if self.steps else 0)
                    factor = self.schedule.factor(position, self.epochs, history)
            self.rate = self.state.optimizer.learning_rate * factor
            done += 1
            self._step(batch, (number + 1, done) if careful else None, interrupt)
            progress.step()
            interrupt.check()
        if self.steps is None:
            self.steps = done  # an iterable has shown how many; schedules need it from now on
        if self._accumulation is not None and self._accumulation.samples:
            self._moving = True
            self._accumulation.update(self.rate)
            if careful:
                self._look((number + 1, done), 0.0)
            self._moving = False

    def _between_steps(self, progress: Progress, interrupt: Interrupt) -> None:
        self._moving = False
        progress.step()
        interrupt.check()
        self._moving = True

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

    def _step(self, batch: Minibatch, where: tuple[int, int] | None, interrupt: Interrupt) -> None:
        """A step on a minibatch; with `where`, its epoch and number, look whether it left finite numbers."""
        accumulation = self._accumulation
        state = self.state if accumulation is None else None
        step = step_for(self.model, batch.samples, state, batch.weight_columns, True, accumulation is not None)
        with interrupt.at_once:  # rows on a disk may take their time
            batch.write(step, self._share(batch))
        if where is not None and (accumulation is None or accumulation.samples == 0):
            self._latest = self._kept_before_step()
        self._moving = True
        step.run(self.rate)
        if accumulation is not None:
            accumulation.add(batch)
            if accumulation.count == self.plan.gradient_accumulation_steps:
                accumulation.update(self.rate)
        if where is not None:
            self._look(where, float(step.cost()))
        self._moving = False
        self.meter.add(step.logits, batch)

    def _kept_before_step(self) -> Snapshot:
        """How everything is now: besides the snapshot from before the epoch one that goes along with the steps."""
        if self._before_step is None:
            self._before_step = Snapshot(self.model, self.state)
        self._before_step.take()
        return self._before_step

    def _look(self, where: tuple[int, int], cost: float) -> None:
        """Put everything back and raise DivergenceError, if the cost or the parameters are not finite."""
        found = what_is_not_finite(self.model, cost)
        if found is not None:
            self._go_back(self._latest)
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
