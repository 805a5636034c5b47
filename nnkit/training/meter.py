"""The meter of an epoch or an evaluation: mean cost and metrics, from the logits of steps or forward passes.

Training needs Δ but not the cost. Logits are buffered and measured together, a few thousand samples at a time: one pass
over a small array instead of a dozen calls in every step.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nnkit.backends.base import Array, quiet
from nnkit.backends.recording import active_tape
from nnkit.inputs import all_right, as_labels, predicted_labels, threshold_of
from nnkit.label_metrics import Scores
from nnkit.metrics import Metric
from nnkit.model import ROWS, Model
from nnkit.parallel.division import ONE, Team
from nnkit.training.data import rounds
from nnkit.training.exact import Exact, joined
from nnkit.training.sources import Known, Minibatch, Source

_KEPT = 1 << 20  # numbers buffered before they are measured
_FEW = 1 << 15  # numbers that take less time than the Python overhead of measuring them


class Meter:
    """Accumulates the cost and the inputs of the metrics; transfers them to the host once, at the end.

    `samples` and `largest_batch` set the buffer's size; metrics except accuracy use an epoch's outputs on the host.

    Attributes:
        logits: buffer for logits, written to the rows that `next` returns.
    """

    def __init__(self, model: Model, samples: int, largest_batch: int, metrics: Sequence[Metric] = ()) -> None:
        self.model, self.backend, self.metrics = model, model.backend, metrics
        self._width = model.d_out
        self.logits = self._room(max(largest_batch, min(samples, _KEPT // self._width)))
        self._one = self.backend.asarray(1.0, model.dtype)

    def start(self, known: Known, careful: bool = False) -> None:
        """Reset the meter for samples of which a source knows this, in the order of the logits.

        If `careful`, which synchronizes with the device, a sum of costs that overflows is computed in float64.
        """
        self._known, self._careful = known, careful
        self._one_class = known.one_class is not False  # so far
        self._pending: list[Known] = []  # with the buffered logits
        self._filled = 0
        self._samples = 0
        self._sums: dict[str, list[Array]] = {"cost": [], "share": [], "class": [], "all": [], "weight": []}
        self._kept_for_metrics: list[Kept] = []

    def add(self, logits: Array, batch: Minibatch) -> None:
        """Add the logits (n, d_out) of the next samples, and their targets and weights if `start` had none."""
        place = self.next(logits.shape[0])  # may enlarge the buffer
        self.backend.copy(logits, self.logits[place, ...])
        if self._known.y is None:  # copies: an iterable may reuse its arrays
            y, weights, metric_weights = map(self._kept, (batch.y, batch.weights, batch.metric_weights))
            exact = batch.exact.copy() if self.metrics else Exact()
            self._pending.append(Known(y, weights, metric_weights, exact=exact))
            self._one_class = self._one_class and batch.one_class

    def next(self, n: int, size: int | None = None) -> slice:
        """The rows of `logits` for the next n samples, to be written before the next call.

        If there is no room for n, the buffer is measured and emptied, and the rows are for as many minibatches of
        `size` samples (None means n) as fit.
        """
        size = n if size is None else size
        if self._filled + n > self.logits.shape[0]:
            self._measure()
            if size > self.logits.shape[0]:
                self.logits = self._room(size)
            if n > self.logits.shape[0]:
                n = self.logits.shape[0] // size * size
        start, self._filled = self._filled, self._filled + n
        return slice(start, self._filled)

    def read(self) -> dict[str, float]:
        """Mean cost, accuracy for classification, and the other metrics (`combined`); synchronizes with the device."""
        return combined(self.model, self.metrics, [self.measured()])

    def measured(self, **others: Array) -> "Measured":
        """What has been measured; synchronizes with the device. `others` are 0-d arrays read in the same transfer."""
        self._measure()
        waiting = [*(array for arrays in self._sums.values() for array in arrays), *others.values()]
        numbers = iter(self.backend.numbers(waiting))
        sums = {name: sum(next(numbers) for _ in arrays) if arrays else None for name, arrays in self._sums.items()}
        named = dict(zip(others, numbers, strict=True))
        return Measured(sums, self._samples, self._one_class, self._kept_for_metrics, named)

    def _kept(self, array: Array | None) -> Array | None:
        return None if array is None else self.backend.copy(array, self.backend.empty(array.shape, self.model.dtype))

    def _room(self, samples: int) -> Array:
        return self.backend.empty((samples, self._width), self.model.dtype)

    @quiet()  # weights of an iterable may overflow, which is then said
    def _measure(self) -> None:
        if self._filled == 0:
            return
        backend, output = self.backend, self.model.output
        logits = self.logits[: self._filled, ...]
        y, weights, metric_weights, one_class, exact, _ = self._taken()
        cost = self._cost(logits, y, weights)
        if self._careful and math.isinf(float(cost)):
            terms = output.terms(backend, logits, y, self._one if weights is None else weights)
            cost = backend.xp.sum(backend.xp.astype(terms, backend.xp.float64))
        self._sums["cost"].append(cost)
        shares = weights if weights is None or weights.shape[1] == 1 else metric_weights
        if self._known.y is None and shares is not None:  # weights that are known before have a mean of 1
            self._sums["share"].append(backend.xp.sum(backend.xp.astype(shares, backend.xp.float64)))
        if self.model.classifies:
            xp = backend.xp
            shares = None if metric_weights is None else xp.astype(metric_weights[:, 0], xp.float64)
            if one_class is not False and shares is None and self._width > 1 and output.by_logits:
                self._sums["class"].append(backend.same_largest(logits, y)[0, ...])
            elif one_class is not False:
                answers = predicted_labels(backend, output, logits) == as_labels(backend, y)
                self._sums["class"].append(self._counted(answers, shares))
            if not one_class and self._width > 1:
                self._sums["all"].append(self._counted(all_right(backend, output, logits, y), shares))
            if shares is not None:
                self._sums["weight"].append(xp.sum(shares))
        if self.metrics:
            outputs = np.array(backend.to_numpy(output.outputs(backend, logits)))
            targets = self.model.cost.sharpened(np.array(backend.to_numpy(y))) if exact.y is None else exact.y
            scores = np.array(backend.to_numpy(logits)) if output.by_logits else outputs
            self._kept_for_metrics.append(Kept(targets, outputs, exact.weights, scores))
        self._samples += self._filled
        self._filled = 0

    def _cost(self, logits: Array, y: Array, weights: Array | None) -> Array:
        """The sum of the costs of some samples, 0-d; for few samples, recorded at the second call and replayed."""
        model, place = self.model, self.model.placement
        key = (logits.shape[0], None if weights is None else weights.shape[1])
        few = logits.shape[0] * logits.shape[1] <= _FEW and active_tape() is None
        lent = place.take("cost", key, lambda: RecordedCost(model, logits, weights)) if few else None
        if lent is None:
            terms = model.output.terms(self.backend, logits, y, self._one if weights is None else weights)
            return self.backend.sum(terms)
        cost = lent.it.of(logits, y, weights)
        place.leave(lent)
        return cost

    def _counted(self, right: Array, weights: Array | None) -> Array:
        """The number of right samples, or their total weight."""
        xp = self.backend.xp
        if weights is None:
            return xp.sum(xp.astype(right, xp.int64))
        return xp.sum(xp.where(right, weights, xp.zeros_like(weights)))

    def _taken(self) -> Known:
        """The targets and weights of the buffered logits."""
        if self._known.y is not None:
            part, exact, order = slice(self._samples, self._samples + self._filled), *self._known[-2:]
            y, weights, metric_weights = (None if a is None else a[part, ...] for a in self._known[:3])
            if self.metrics:
                exact = exact.rows(part if order is None else order[part])
            return Known(y, weights, metric_weights, self._known.one_class, exact)
        *columns, _, exacts, _ = zip(*self._pending, strict=True)
        self._pending = []
        concat = self.backend.xp.concat
        y, weights, metric_weights = (None if a[0] is None else concat(a, axis=0) for a in columns)
        return Known(y, weights, metric_weights, exact=joined(exacts))


class Kept(NamedTuple):
    """What metrics need of some samples, on the host: targets, outputs, weights and scores (`nnkit.metrics.Scores`)."""

    y: Any
    h: Any
    weights: Any
    scores: Any


def by_metrics(metrics: Sequence[Metric], model: Model, parts: Sequence[Kept], cost: float) -> dict[str, float]:
    """The metrics of all samples of these parts; NaN if their cost is, as scikit-learn's functions refuse NaN."""
    if math.isnan(cost):
        return {metric.name: math.nan for metric in metrics}
    y, h, values = (np.concatenate(arrays) for arrays in ([each[i] for each in parts] for i in (0, 1, 3)))
    weights = None if parts[0].weights is None else np.concatenate([each.weights for each in parts])
    scores = Scores(values, threshold_of(model.output))
    return {metric.name: metric.measure(y, h, weights, model.classes, scores) for metric in metrics}


class Measured(NamedTuple):
    """What a meter has measured, on the host: to be combined with that of other meters.

    `sums` are by name, None where nothing was added; `outputs` are for metrics.
    """

    sums: dict[str, float | None]
    samples: int
    one_class: bool
    outputs: list[Kept]
    others: dict[str, float]


def combined(model: Model, metrics: Sequence[Metric], found: Sequence[Measured]) -> dict[str, float]:
    """Mean cost, accuracy for classification, the other metrics, and the least of each other number.

    The cost is Σ w C/Σ w, without a class weight of a single output of several in the denominator.
    The accuracy is Σ w [right]/Σ w: a sample of one class is right if its output is the largest, a multi-label
    sample if all outputs are on the side of their targets.
    """
    sums: dict[str, float] = {}
    for each in found:
        sums |= {name: sums.get(name, 0) + value for name, value in each.sums.items() if value is not None}
    samples = sum(each.samples for each in found)
    shares = sums.get("share", samples)
    if "share" in sums:
        _check_mean(shares / samples, model.dtype)
    result = {"cost": sums["cost"] / shares}
    if model.classifies:
        total, one_class = sums.get("weight", samples), all(each.one_class for each in found)
        result["accuracy"] = sums.get("class" if one_class else "all", 0) / total if total else math.nan
        if math.isnan(result["cost"]):  # some outputs are NaN, neither right nor wrong
            result["accuracy"] = math.nan
    result |= {name: min(each.others[name] for each in found) for name in found[0].others}
    if metrics:
        result |= by_metrics(metrics, model, [part for each in found for part in each.outputs], result["cost"])
    return result


def _check_mean(mean: float, dtype: str) -> None:
    """Raise ValueError for weights of minibatches, which are used as they are, if the dtype has no room for them."""
    if mean == 0:
        raise ValueError("sample_weight: all weights are 0; expected one above 0")
    limits = np.finfo("float32" if dtype == "bfloat16" else dtype)
    if not 64 * limits.smallest_normal <= mean <= limits.max / 64:  # room for smaller and larger ones, and for costs
        hint = "scale all weights of an iterable to a mean of about 1"
        raise ValueError(f"sample_weight: the mean of the weights is {mean:.3g}, which {dtype} rounds; {hint}")


class RecordedCost:
    """The recorded sum of the costs of as many samples as in `logits`, or of each row; for one thread at a time."""

    def __init__(self, model: Model, logits: Array, weights: Array | None, axis: int | None = None) -> None:
        self._backend, self._dtype = model.backend, model.dtype
        zeros, one = partial(self._backend.zeros, dtype=model.dtype), self._backend.asarray(1.0, model.dtype)
        self._logits, self._y = zeros(logits.shape), zeros(logits.shape)
        self._weights = one if weights is None else zeros(weights.shape)
        with self._backend.recording() as self._tape:
            terms = model.output.terms(self._backend, self._logits, self._y, self._weights)
            self._sum = self._backend.sum(terms, axis=axis)

    def of(self, logits: Array, y: Array, weights: Array | None) -> Array:
        """The sum for these arrays, a new array."""
        copy = self._backend.copy
        copy(logits, self._logits)
        copy(y, self._y)
        if weights is not None:
            copy(weights, self._weights)
        self._tape.replay()
        return copy(self._sum, self._backend.empty(self._sum.shape, self._dtype))


def evaluate(
    model: Model,
    source: Source,
    metrics: Sequence[Metric] = (),
    team: Team = ONE,
    waiting: AbstractContextManager[object] | None = None,
) -> dict[str, float]:
    """Mean cost on the source's samples, accuracy for classification, and metrics.

    A team divides the samples. Local work is done in the context `waiting`.
    """
    waiting = nullcontext() if waiting is None else waiting
    with team.communicator.agreed(), waiting:
        sources = source.evaluated_by(team)
        known = ROWS if source.samples is None else -(-source.samples // team.divisor)  # of the largest share
        meters = [Meter(model, known, min(known, ROWS), metrics) for _ in team.mine]
    measured = _measured(model, sources, meters, team, waiting, careful=not source.repeatable)
    if source.repeatable and math.isinf(measured["cost"]):
        measured = _measured(model, sources, meters, team, waiting, careful=True)
    return measured


def _measured(
    model: Model,
    sources: Sequence[Source],
    meters: Sequence[Meter],
    team: Team,
    waiting: AbstractContextManager[object],
    careful: bool,
) -> dict[str, float]:
    with team.communicator.agreed(), waiting:
        known = [source.start(None) for source in sources]
        for meter, own in zip(meters, known * (len(meters) // len(known)), strict=True):
            meter.start(own, careful)
        for number, batch in _batches(sources, team):
            meters[number].add(model.computed(model.placement, batch.inputs()), batch)
        found = [meter.measured() for meter in meters]
    found = [each for of_rank in team.communicator.everyone(found) for each in of_rank]
    with team.communicator.agreed(), waiting:
        return combined(model, meters[0].metrics, found)


def _batches(sources: Sequence[Source], team: Team) -> Iterator[tuple[int, Minibatch]]:
    """All minibatches of sources, or the shares of those of a stream, with the number of their meter."""
    if len(sources) == 1:
        for batches in rounds(sources, team, ROWS):
            yield from ((number, batch) for number, batch in enumerate(batches) if batch.samples)
    else:
        for number, source in enumerate(sources):
            yield from ((number, batch) for batch in source.batches(ROWS))
