"""The epochs of a training, with validation, callbacks and checkpoints after each."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnkit.history import History, lists_of
from nnkit.metrics import Metric
from nnkit.model import Model
from nnkit.placement import Placement
from nnkit.training.best import Best
from nnkit.training.checkpoints import Keeper
from nnkit.training.divergence import DivergenceError
from nnkit.training.epochs import Epochs
from nnkit.training.meter import evaluate
from nnkit.training.progress import Progress
from nnkit.training.sources import Source
from nnkit.training.start import check_alike, checksum
from nnkit.training.stopping import Interrupt


@dataclass
class Training:
    """The epochs of a training, with validation, callbacks and checkpoints after each."""

    model: Model
    history: History
    passes: Epochs
    validation: Source | None
    metrics: Sequence[Metric]
    best: Best
    keeper: Keeper
    callbacks: Sequence[Callable[[Any, History], object]]
    averaged: bool
    _averages: Placement | None = None

    def run(self, bar: Progress, interrupt: Interrupt) -> None:
        """Train until a stopping condition, which the history records; restores the best parameters."""
        history = self.history
        try:
            history.stopped = self._ended()
            while history.stopped is None:
                numbers = self._epoch(bar, interrupt)
                self._finish(interrupt)
                bar.epoch(history.epochs, numbers)
                interrupt.check()
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        except DivergenceError as error:
            history.stopped, error.best = "diverged", self.best.epoch
            raise
        finally:
            interrupt.hold()
            state = self.model.current_state or self.passes.state  # a callback may have called set_rate
            averages = state.averaged if self.averaged and history.stopped is not None else None
            if averages is not None:
                self.model.backend.copy(averages.flat, self.model.parameters.flat)
            self.best.restore()

    def _ended(self) -> str | None:
        """Why the training has ended; None if it has not."""
        if self.keeper.stopped:
            return "callback"
        if self.best.stops(self.history):
            return "early stopping"
        return "epochs" if self.history.epochs >= self.passes.epochs else None

    def _epoch(self, bar: Progress, interrupt: Interrupt) -> dict[str, float]:
        """Run an epoch, all of it or nothing; returns its cost and metrics."""
        model, history, passes, started = self.model, self.history, self.passes, time.perf_counter()
        trained, lengths = model.epochs_trained, {name: len(values) for name, values in lists_of(history).items()}
        names = set(history)
        try:
            numbers = passes.run(history.epochs, history, bar)
            if self.validation is not None:
                found = evaluate(self._validated(), self.validation, self.metrics, passes.team, interrupt.at_once)
                numbers |= {f"validation_{name}": number for name, number in found.items()}
            seconds = interrupt.slowest(time.perf_counter() - started)
            with passes.team.communicator.agreed():
                history.add(**numbers, learning_rate=passes.rate, seconds=seconds)
                model.epochs_trained += 1
                best = (self._validated() if self.averaged else model).parameters
                self.best.note(history, best, None if self.averaged else passes.state.averaged)
            passes.undo.close()
        except BaseException as error:
            interrupt.hold()
            if passes.undo.open:
                passes.undo.take_back(error)
                model.epochs_trained = trained
                for name, values in lists_of(history).items():
                    del values[lengths.get(name, 0) :]
                for name in history.keys() - names:
                    del history[name]
            raise
        return numbers

    def _validated(self) -> Model:
        """The network with the parameters to validate: averages, if the optimizer computes them."""
        averages = self.passes.state.average
        if averages is None:
            return self.model
        if self._averages is None or self._averages.parameters is not averages:
            self._averages = self.model.placement.with_parameters(averages)
        return self.model.snapshot(self._averages)

    def _finish(self, interrupt: Interrupt) -> None:
        """Call the callbacks, and write a checkpoint if it is due."""
        communicator = self.passes.team.communicator
        with communicator.agreed(), interrupt.at_once:
            callbacks = [c for c in self.callbacks if communicator.rank == 0 or not getattr(c, "is_logger", False)]
            stops = called(callbacks, self.model, self.history)
        found = communicator.everyone((stops, checksum(self.model) if communicator.size > 1 else 0))
        self.keeper.stopped = any(stop for stop, _ in found)
        with communicator.agreed():
            self.passes.check_place()
            check_alike([number for _, number in found], self.history.epochs)
        self.history.stopped = self._ended()
        with communicator.agreed(), interrupt.at_once:
            self.keeper.keep(self.history, self.passes.steps, last=self.history.stopped is not None)


_OF_SAMPLES = ("preprocessing", "classes", "features")  # arrays were prepared with these before the first epoch


def called(callbacks: Sequence[Callable[[Any, History], object]], owner: Any, history: History) -> bool:
    """Call the callbacks with a network or an ensemble after an epoch; returns whether one of them stops the training.

    Loggers see what later callbacks add. Raises RuntimeError if one sets what has prepared the samples, and ValueError
    if it changes a number of the epoch, by which the best parameters were chosen.
    """
    epochs, networks = history.epochs, list(getattr(owner, "members", [owner]))
    measured = [(each, _last_of(each)) for each in (history, *getattr(history, "members", ()))]
    before = [[getattr(network, name) for name in _OF_SAMPLES] for network in networks]
    answers = []
    for callback in callbacks:
        answers.append(callback(owner, history))
        if history.epochs != epochs:  # by which the epochs that are left are counted
            change = f"from {epochs} to {history.epochs} numbers; expected an entry of its own in the history"
            raise ValueError(f"a callback changed history['cost'] {change}")
    for network, values in zip(networks, before, strict=True):
        for name, value in zip(_OF_SAMPLES, values, strict=True):
            if getattr(network, name) is not value:
                raise RuntimeError(f"a callback has set {name}; set it before fit, or between two fits")
    for each, numbers in measured:
        for name, number in numbers.items():
            there, last = each.get(name), each.epochs - 1
            if isinstance(there, list) and len(there) > last and there[last] is not number and there[last] != number:
                change, there[last] = f"history[{name!r}][-1] from {number} to {there[last]!r}", number
                raise ValueError(f"a callback changed {change}; expected an entry of its own in the history")
    for callback in callbacks:
        if getattr(callback, "is_logger", False):
            callback.catch_up(history)  # type: ignore[attr-defined]
    return any(isinstance(answer, bool | np.bool_) and answer for answer in answers)


def _last_of(history: History) -> dict[str, float]:
    """The numbers of the last epoch, which is not that of the others for a member that has stopped."""
    epochs = history.epochs
    return {name: numbers[-1] for name, numbers in lists_of(history).items() if numbers and len(numbers) == epochs}


@contextmanager
def carrying(history: History) -> Iterator[None]:
    """Add the history to an exception that ends the training."""
    try:
        yield
    except BaseException as error:
        vars(error)["history"] = history
        raise
