"""Epochs of samples on the device, which selects the samples and stores the logits of each step itself.

A small network on a GPU is trained by one launch, if `nnkit.one_launch` has a kernel for it. For all others a tape
gathers the samples at a counter on the device, runs a step, stores its logits and advances the counter: the host's
calls are the same for each minibatch, and on a GPU the whole tape is one graph.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from nnkit.backends.base import Array
from nnkit.backends.recording import Repeated, Tape, discard, note
from nnkit.model import Model
from nnkit.one_launch import EpochKernel, epoch_kernel_for
from nnkit.optimizers import OptimizerState
from nnkit.placement import settings
from nnkit.step import step_for
from nnkit.training.meter import Meter
from nnkit.training.sources import ArraySource, Source

Rates = Callable[[range], Sequence[float]]


class Way(ABC):
    """A way to run the steps of an epoch."""

    @abstractmethod
    def run(self, rates: Rates, after_steps: Callable[[int], None]) -> None:
        """Run an epoch that the source and the meter have started.

        `rates` returns the learning rates of a range of its steps, counted from 0; `after_steps` is called with the
        number of steps that have been completed, or queued on the device, since its last call.
        """


class Replays(Way):
    """Recorded minibatches of a source for one network: one tape for each number of samples."""

    def __init__(self, model: Model, source: ArraySource, meter: Meter, state: OptimizerState, batch_size: int) -> None:
        self.model, self.source, self.meter, self.state, self.batch_size = model, source, meter, state, batch_size
        self._tapes: dict[tuple[Hashable, ...], Tape] = {}
        self._zero, self._start, self._step, slot = (model.backend.asarray(np.array(0, np.int64)) for _ in range(4))
        # If all logits fit, one counter is the place of both the samples and their logits.
        self._slot = self._start if meter.logits.shape[0] >= source.samples else slot
        self._rates: Array = None  # of the steps of an epoch, if they differ

    def run(self, rates: Rates, after_steps: Callable[[int], None]) -> None:
        self._restart(self._start, self._step)
        whole, rest = divmod(self.source.samples, self.batch_size)
        changes = self._give(rates(range(whole + (rest > 0))))
        for size, left in ((self.batch_size, whole * self.batch_size), (rest, rest)):
            while left:
                place = self.meter.next(left, size)
                if place.start == 0:
                    self._restart(self._slot)
                key, times = (size, changes, settings()), (place.stop - place.start) // size
                if key not in self._tapes:
                    self._tapes[key] = self._record(size, changes)
                self._tapes[key].replay(times, after_steps)
                left -= times * size

    def _give(self, rates: Sequence[float]) -> bool:
        """Copy the learning rates to the device; returns whether they change from step to step."""
        if min(rates) == max(rates):
            self.state.set_rate(rates[0])
            return False
        backend = self.model.backend
        if self._rates is None:  # recorded steps read this array
            self._rates = backend.empty((len(rates), 2), self.model.dtype)
        backend.copy(backend.asarray(np.outer(rates, [1, -1]), self.model.dtype), self._rates)
        return True

    def _restart(self, *counters: Array) -> None:
        for counter in counters:
            self.model.backend.copy(self._zero, counter)

    def _record(self, samples: int, rate_changes: bool) -> Tape:
        backend = self.model.backend
        step = step_for(self.model, samples, self.state, self.source.weight_columns, True)
        with backend.recording() as tape:
            if rate_changes:
                self.state.follow(self._rates, self._step)
            self.source.gather(self._start, step)
            step.replay()
            backend.put_at(step.logits, self._slot, self.meter.logits)
            if self._slot is not self._start:
                backend.advance(self._slot, samples)
            backend.advance(self._start, samples)
            if rate_changes:
                backend.advance(self._step, 1)
            discard(step.x, step.logits)  # until the next step on its own, which writes them
            note(Repeated())
        tape.trains = True
        return tape


class Launches(Way):
    """Epochs of a source with a kernel that runs all steps; one launch per filling of the meter's buffer."""

    def __init__(self, model: Model, source: ArraySource, meter: Meter, kernel: EpochKernel, batch_size: int) -> None:
        self.model, self.source, self.meter, self.batch_size, self._kernel = model, source, meter, batch_size, kernel

    def run(self, rates: Rates, after_steps: Callable[[int], None]) -> None:
        source, batch, start = self.source, self.batch_size, 0
        given = rates(range(-(-source.samples // batch)))
        # A new array on the current stream: an earlier launch may still be reading its own on another one.
        on_device = self.model.backend.asarray(np.array(given), self.model.dtype)
        while start < source.samples:
            place = self.meter.next(source.samples - start, batch)
            stop = start + place.stop - place.start
            part, steps = slice(start, stop), slice(start // batch, -(-stop // batch))
            X = source.X[part, ...] if source.order is None else source.X
            order = None if source.order is None else source.order[part]
            logits = self.meter.logits[place, ...]
            self._kernel.run(X, source.in_order.y[part, ...], order, on_device[steps], logits)
            start = stop
            after_steps(steps.stop - steps.start)


def way_on_device(model: Model, source: Source, meter: Meter, state: OptimizerState, batch_size: int) -> Way | None:
    """The way to run epochs of a source, one update per minibatch; None if the host must copy the minibatches."""
    if not isinstance(source, ArraySource) or not source.on_device:
        return None
    # The kernel supports neither weights nor bytes nor strides; recorded steps support all.
    if type(source) is ArraySource and not source.weight_columns:
        kernel, arrays = epoch_kernel_for(model, state, batch_size), (source.X, source.given.y)
        if kernel is not None and all(a.flags.c_contiguous for a in arrays) and kernel.works(source.X):
            return Launches(model, source, meter, kernel, batch_size)
    return Replays(model, source, meter, state, batch_size)
