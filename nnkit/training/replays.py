"""An epoch of samples that are on the device: one tape for each number of samples, replayed for each minibatch.

A tape gathers the samples where a counter on the device says, does a step, keeps its logits and moves the counter on.
So nothing that the host decides changes from one minibatch to the next: on a GPU the whole tape is one graph.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nnkit.backends.precision import get_matmul_precision
from nnkit.backends.recording import Tape
from nnkit.model import Model
from nnkit.optimizers import OptimizerState
from nnkit.step import step_for
from nnkit.training.meter import Meter
from nnkit.training.sources import ArraySource


class Replays:
    """The recorded minibatches of a source for one network; with `steps` the learning rate changes in each of them."""

    def __init__(
        self, model: Model, source: ArraySource, meter: Meter, state: OptimizerState, batch_size: int, steps: int | None
    ) -> None:
        self.model, self.source, self.meter, self.state = model, source, meter, state
        self.batch_size, backend = batch_size, model.backend
        self._tapes: dict[tuple[int, str], Tape] = {}
        self._zero, self._start = (backend.asarray(np.array(0, np.int64)) for _ in range(2))
        self._number = backend.asarray(np.array(0, np.int64))  # of the step
        self._rates = None if steps is None else backend.zeros((steps, 2), model.dtype)

    def run(self, rates: Sequence[float], after_step: Callable[[], None]) -> None:
        """Do an epoch that the source and the meter have started; `rates` has the learning rate of each step."""
        backend = self.model.backend
        for counter in (self._start, self._number):
            backend.copy(self._zero, counter)
        if self._rates is None:
            self.state.set_rate(rates[0])  # all are the same
        else:
            pairs = np.outer(rates, [1, -1])
            backend.copy(backend.asarray(pairs, self.model.dtype), self._rates)
        for samples, times in self._runs():
            key = (samples, get_matmul_precision())
            tape = self._tapes.get(key)
            if tape is None:
                tape = self._tapes[key] = self._record(samples)
            tape.replay(times, after_step)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """How many samples, and how often in a row: as often as the meter has room for their logits."""
        for size, count in ((self.batch_size, self.source.samples // self.batch_size), (self._rest, 1)):
            while size and count:
                times = min(count, self.meter.room_for(size) // size)
                yield size, times
                self.meter.stored(size * times)
                count -= times

    @property
    def _rest(self) -> int:
        return self.source.samples % self.batch_size

    def _record(self, samples: int) -> Tape:
        backend, state = self.model.backend, self.state
        step = step_for(self.model, samples, state, self.source.weight_columns, True)
        with backend.recording() as tape:
            if self._rates is not None:
                state.follow(self._rates, self._number)
                backend.advance(self._number, 1)
            self.source.gather(self._start, step)
            step.replay()
            self.meter.store(step.logits, self._start)
            backend.advance(self._start, samples)
        return tape
