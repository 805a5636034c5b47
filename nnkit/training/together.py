"""Steps of a team: each rank runs its shares of a minibatch, all add their gradients, and each makes the same update.

A share has a source and a meter of its own, and as one of several fixed shards its own gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnkit.backends.base import Array
from nnkit.backends.recording import Repeated, Tape, discard, note
from nnkit.kernels.arithmetic import product, scaled_sum
from nnkit.metrics import Metric
from nnkit.model import Model
from nnkit.optimizers import OptimizerState
from nnkit.parallel.division import Part, Team, part
from nnkit.parallel.exchange import Exchange
from nnkit.parameters import Parameters
from nnkit.placement import TAIL, settings
from nnkit.step import Step, step_for
from nnkit.training.checkpoints import Plan
from nnkit.training.data import StreamSource, rounds
from nnkit.training.divergence import Undo
from nnkit.training.meter import Meter
from nnkit.training.on_device import Rates, Replays, Way
from nnkit.training.sources import ArraySource, Minibatch, Source
from nnkit.training.stopping import Interrupt

Look = Callable[[int, float], None]


class Shares(NamedTuple):
    """This rank's shares of a training: `sources` and `meters` in order; a stream is one source of all shares."""

    team: Team
    sources: Sequence[Source]
    meters: Sequence[Meter]

    @classmethod
    def of(cls, model: Model, source: Source, plan: Plan, metrics: Sequence[Metric], team: Team) -> "Shares":
        """The shares of a source."""
        largest = -(-plan.batch_size // team.divisor)  # as on every other rank: sums depend on how much a meter holds
        samples = largest if source.samples is None else -(-source.samples // plan.batch_size) * largest
        samples = min(samples, source.samples or samples)
        meters = [Meter(model, samples, largest, metrics) for _ in team.mine]
        sources = source.divided(plan.batch_size, team) if isinstance(source, ArraySource) else [source]
        return cls(team, sources, meters)


class Sum:
    """The update by the gradients of all shares, which this rank's steps have written or, for several, added up.

    Attributes:
        models: for each share a view of the network with the gradient to which its step writes.
    """

    def __init__(self, model: Model, state: OptimizerState, team: Team, steps: int = 1) -> None:
        self.model, self.state, self._accumulates, self._steps = model, state, steps > 1, steps
        backend = model.backend
        self._exchange = Exchange(backend, model.gradient, team, each=self._accumulates)
        self.models, shapes = [model for _ in team.mine], model.parameters.shapes
        if self._accumulates:
            self._sums = [Parameters(backend, shapes, model.dtype, tail=TAIL) for _ in team.mine]
        else:
            places = self._exchange.places
            views = [model, *(model.snapshot(model.placement.beside()) for _ in range(max(places)))]
            self.models, self._sums = [views[place] for place in places], [view.gradient for view in views]
        self._zero, self._share = (backend.asarray(number, model.dtype) for number in (0.0, 1.0))
        self.samples = self.count = 0
        self._updating: dict[int, Tape] = {}
        self._adding: list[Tape] = []
        for number in range(len(team.mine)):
            with backend.recording() as tape:
                self.record_share(number)
            self._adding.append(tape)
        with backend.recording() as self._counting:
            self.record_end()

    def without_samples(self, number: int) -> None:
        """Write the gradient of a share that has no samples; to be recorded or not."""
        self.model.backend.copy(self._zero, self.models[number].gradient.flat)

    def add(self, number: int) -> None:
        """Add the gradient of a share, which has been written."""
        self._adding[number].replay()

    def end(self, whole: int) -> bool:
        """Count a minibatch of `whole` samples, all shares of which are added; returns whether an update is due."""
        self._counting.replay()
        self.samples += whole
        self.count += 1
        return self.count == self._steps

    def update(self, rate: float) -> None:
        """Exchange, and update the parameters with the mean over all samples."""
        backend, samples = self.model.backend, 0 if self._accumulates else self.samples
        if samples not in self._updating:
            with backend.recording() as self._updating[samples]:
                self.record(samples)
        if self._accumulates:
            backend.copy(backend.asarray(1 / self.samples, self.model.dtype), self._share)
        self.state.set_rate(rate)
        self._updating[samples].replay()
        self.samples = self.count = 0

    def record(self, samples: int) -> None:
        """Record the exchange and the update."""
        backend, gradient = self.model.backend, self.model.gradient
        self._exchange.record(self._sums, gradient.flat)
        if self._accumulates:
            backend.elementwise(product, (gradient.flat, self._share), out=gradient.flat)
            for each in self._sums:
                backend.copy(self._zero, each.flat)
        else:
            self.state.samples = samples
        self.state.record(self.model.parameters, gradient)

    def record_share(self, number: int) -> None:
        """Record what follows the step of a share."""
        if self._accumulates:
            own, gradient = self._sums[number].flat, self.model.gradient.flat
            self.model.backend.elementwise(scaled_sum, (own, gradient, 1.0), out=own)
        else:
            self._exchange.add(number, self._sums)

    def record_end(self) -> None:
        """Record what follows all shares of a minibatch."""
        if self.model.dropout is not None:
            self.model.dropout.advance()


class ReplaysTogether(Replays):
    """Recorded minibatches with all shares of this rank in one tape."""

    def __init__(self, model: Model, shares: Shares, state: OptimizerState, plan: Plan) -> None:
        super().__init__(model, shares.sources[0], shares.meters[0], state, plan.batch_size)  # type: ignore[arg-type]
        self.shares, self._sum, self._samples = shares, Sum(model, state, shares.team), plan.samples or 0
        counters = [[model.backend.asarray(np.array(0, np.int64)) for _ in range(2)] for _ in shares.meters]
        self._starts, self._slots = (list(each) for each in zip(*counters, strict=True))

    def run(self, rates: Rates, after_steps: Callable[[int], None]) -> None:
        communicator, count = self.shares.team.communicator, self.shares.team.divisor
        full, rest = divmod(self._samples, self.batch_size)
        with communicator.agreed():  # what can fail: afterwards the ranks only wait for each other
            given = rates(range(full + (rest > 0)))
            changes = self._give(given)
            tapes = {size: self._tape(size, changes) for size in (self.batch_size, rest) if size}
        self._restart(*self._starts, self._step)
        for size, left in ((self.batch_size, full), (rest, int(rest > 0))):
            largest = -(-size // count)
            while left:
                room = self.shares.meters[0].logits.shape[0] // max(largest, 1)
                times = min(left, max(room, 1))
                for number, own, meter in self._parts(size):
                    if own.samples and meter.next(times * own.samples, own.samples).start == 0:
                        self._restart(self._slots[number])
                tapes[size].replay(times, after_steps)
                left -= times

    def _tape(self, size: int, changes: bool) -> Tape:
        key = (size, changes, settings())
        if key not in self._tapes:
            self._tapes[key] = self._record(size, changes)
        self._tapes[key].calls  # noqa: B018  makes them: compiles what is compiled
        return self._tapes[key]

    def _parts(self, size: int) -> list[tuple[int, Part, Meter]]:
        team = self.shares.team
        return [(i, part(size, n, team.divisor), self.shares.meters[i]) for i, n in enumerate(team.mine)]

    def _record(self, samples: int, rate_changes: bool) -> Tape:
        backend = self.model.backend
        with backend.recording() as tape:
            if rate_changes:
                self.state.follow(self._rates, self._step)
                backend.advance(self._step, 1)
            for number, own, meter in self._parts(samples):
                if own.samples:
                    self._record_share(number, own, meter)
                else:
                    self._sum.without_samples(number)
                self._sum.record_share(number)
            self._sum.record(samples)
            self._sum.record_end()
            note(Repeated())
        return tape

    def _record_share(self, number: int, own: Part, meter: Meter) -> None:
        source: Any = self.shares.sources[number]
        backend, model, start = self.model.backend, self._sum.models[number], self._starts[number]
        step = step_for(model, own.samples, None, source.weight_columns, True, part=own)
        source.gather(start, step)
        step.replay()
        backend.put_at(step.logits, self._slots[number], meter.logits)
        backend.advance(self._slots[number], own.samples)
        backend.advance(start, own.samples)
        discard(step.x, step.logits)


class OneByOneTogether(Way):
    """Steps on minibatches from the host, with an update after one or several of them.

    Attributes:
        done: number of minibatches so far in the last epoch.
    """

    def __init__(
        self, model: Model, shares: Shares, state: OptimizerState, plan: Plan, undo: Undo, interrupt: Interrupt
    ) -> None:
        self.model, self.shares, self.plan, self.undo, self.interrupt = model, shares, plan, undo, interrupt
        self._sum = Sum(model, state, shares.team, plan.gradient_accumulation_steps)
        self._sums = plan.gradient_accumulation_steps > 1  # instead of means
        self._streams = isinstance(shares.sources[0], StreamSource)

    def run(self, rates: Rates, after_steps: Callable[[int], None], look: Look | None = None) -> None:
        """Like `Way.run`; `look` is called with the number of each step, from 1, and its cost."""
        agreed, self.done, rate = self.shares.team.communicator.agreed, 0, 0.0
        waiting = rounds(self.shares.sources, self.shares.team, self.plan.batch_size)
        while True:
            with agreed(), self.interrupt.at_once:
                batches = next(waiting, None)
            batches = self._divided(batches) if self._streams else batches
            if batches is None:
                break
            with agreed():
                if self._sum.count == 0:  # an update's rate is that of its first minibatch
                    (rate,) = rates(range(self.done, self.done + 1))
                steps = [self._written(number, batch) for number, batch in enumerate(batches)]
            self.done += 1
            self._step(batches, steps, rate, look)
            after_steps(1)
        if self._sum.count:  # an update with the rest
            self.undo.moving = True
            self._sum.update(rate)
            if look is not None:
                look(self.done, 0.0)

    def _divided(self, batches: Sequence[Minibatch] | None) -> Sequence[Minibatch] | None:
        """The shares of a stream's minibatch with their parts; None if all ranks' streams have ended.

        A rank whose own stream has ended has a share without samples.
        """
        team, mine = self.shares.team, None if batches is None else sum(b.samples for b in batches)
        if not team.own_streams:
            whole = None if batches is None or batches[0].part is None else batches[0].part.whole
            found = team.communicator.everyone(whole)
            with team.communicator.agreed():
                if len({*found}) > 1:
                    numbers = ", ".join("none" if n is None else str(n) for n in found)
                    raise ValueError(
                        f"minibatch {self.done} of X has different numbers of samples on the ranks: {numbers}; if each "
                        "rank has minibatches of its own, give sharded=True"
                    )
            return batches
        counts = [count or 0 for count in team.communicator.everyone(mine)]
        if not any(counts):
            return None
        rank = team.communicator.rank
        batch: Minibatch = Nothing() if batches is None else batches[0]
        batch.part = Part(counts[rank], sum(counts[:rank]), sum(counts))
        return [batch]

    def _written(self, number: int, batch: Minibatch) -> Step | None:
        """The step of a share, with the samples; None without samples."""
        if not batch.samples:
            return None
        model, sums = self._sum.models[number], self._sums
        step = step_for(model, batch.samples, None, batch.weight_columns, True, sums, batch.part)
        with self.interrupt.at_once:  # reading rows from disk may be slow
            batch.write(step)
        return step

    def _step(self, batches: Sequence[Minibatch], steps: Sequence[Step | None], rate: float, look: Look | None) -> None:
        if look is not None and self._sum.count == 0:
            self.undo.mark()
        self.undo.moving = True
        cost = 0.0
        for number, step in enumerate(steps):
            if step is None:
                self._sum.without_samples(number)
            else:
                step.run()
                cost += 0.0 if look is None else float(step.cost())
            self._sum.add(number)
        whole = next(batch.part.whole for batch in batches if batch.part is not None)
        if self._sum.end(whole):
            self._sum.update(rate)
        if look is not None:
            look(self.done, float(self.shares.team.communicator.total([cost])[0]))
        self.undo.moving = False
        for meter, batch, step in zip(self.shares.meters, batches, steps, strict=True):
            if step is not None:
                meter.add(step.logits, batch)


class Nothing(Minibatch):
    """The share of a rank whose stream has ended."""

    samples = 0
    y = weights = None

    def inputs(self, out: Array = None) -> Array:
        return out
