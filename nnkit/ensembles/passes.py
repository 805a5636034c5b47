"""The samples of a stack in an epoch, and the costs and metrics of its members."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from nnkit.backends.base import Array
from nnkit.ensembles.clusters import clusters_for
from nnkit.ensembles.stack import Stack
from nnkit.inputs import all_right, as_labels, predicted_labels
from nnkit.metrics import Metric
from nnkit.step import Step
from nnkit.training.meter import Kept, Meter, RecordedCost, by_metrics
from nnkit.training.on_device import Replays, Way
from nnkit.training.sources import ArraySource, BytesSource, Known


class OwnOrders(ArraySource):
    """A source for a stack whose members each take the samples in their own order; of one member's targets."""

    def __init__(self, stack: Stack, X: Array, given: Known) -> None:
        super().__init__(stack, X, given)
        self._count = stack.count
        self._first, self._zero = (stack.backend.asarray(np.array(0, np.int64)) for _ in range(2))

    @property
    def weight_columns(self) -> int:
        return self._count * super().weight_columns

    def start_each(self, orders: Sequence[np.ndarray]) -> Known:
        """Begin a pass in these orders, one for each member."""
        backend, indices = self.backend, self.backend.asarray(np.stack(orders, axis=1).reshape(-1))
        if self.order is None:
            self.order = backend.empty(indices.shape, indices.dtype)
            shapes = [None if a is None else (a.shape[0], self._count * a.shape[1]) for a in self.given[:3]]
            arrays = [None if shape is None else backend.empty(shape, self.model.dtype) for shape in shapes]
            self.in_order = self.given._replace(y=arrays[0], weights=arrays[1], metric_weights=arrays[2])
        backend.copy(indices, self.order)
        backend.copy(self._zero, self._first)
        for array, out in zip(self.given, self.in_order[:3], strict=False):
            if out is not None:
                backend.take(array, self.order, out=backend.xp.reshape(out, (indices.shape[0], array.shape[1])))
        return self.in_order

    def gather_inputs(self, start: Array, step: Step) -> None:
        rows = step.x.shape[0] * self._count
        samples = self.backend.xp.reshape(step.x, (rows, self.X.shape[1]))
        self.backend.take_at(self.X, self._first, samples, self.order)
        self.backend.advance(self._first, rows)


def source_for(stack: Stack, source: ArraySource) -> ArraySource:
    """The source of a stack from that of one member, with targets and weights for each member."""
    if not stack.same_batches:
        X = stack.preprocessed(source.X) if isinstance(source, BytesSource) else source.X
        return OwnOrders(stack, X, source.given)
    y, weights, others = (None if a is None else stack.backend.xp.tile(a, (1, stack.count)) for a in source.given[:3])
    return type(source)(stack, source.X, source.given._replace(y=y, weights=weights, metric_weights=others))


class Part:
    """Some members, trained in one pass, with what depends on the arrays of their stack.

    Attributes:
        numbers: of these members. way: runs an epoch.
    """

    def __init__(
        self, numbers: Sequence[int], stack: Stack, source: ArraySource, metrics: Sequence[Metric], batch_size: int
    ) -> None:
        self.numbers, self.stack, self.source = numbers, stack, source_for(stack, source)
        self.meter = StackMeter(stack, self.source.samples, batch_size, metrics)
        launched = clusters_for(stack, self.source, self.meter, batch_size, isinstance(self.source, OwnOrders))
        self.way: Way = launched or Replays(stack, self.source, self.meter, stack.updates, batch_size)

    def start(self, orders: Sequence[np.ndarray] | None) -> None:
        """Begin an epoch: in the order of each member of the ensemble, in the one of all, or in that of the samples."""
        if orders is not None and isinstance(self.source, OwnOrders):
            orders = [orders[k] for k in self.numbers]
            self.meter.start_each(self.source.start_each(orders), orders)
        else:
            self.meter.start_each(self.source.start(None if orders is None else orders[0]), orders)


class StackMeter(Meter):
    """The meter of a stack: `read_each` returns the numbers of each member."""

    def __init__(self, stack: Stack, samples: int, largest_batch: int, metrics: Sequence[Metric]) -> None:
        super().__init__(stack, samples, largest_batch, metrics)
        self._member, self.pair, self.count = stack.members[0], stack.members[0].output, stack.count

    def start_each(self, known: Known, orders: Sequence[np.ndarray] | None) -> None:
        """Reset the meter for samples of which a source knows this; `orders` are those of the members."""
        self.start(known)
        self._orders = orders
        self._totals: dict[str, list[Array]] = {"cost": [], "right": [], "weight": []}
        self._of_members: list[list[Kept]] = []

    def read_each(self) -> list[dict[str, float]]:
        """Mean cost, accuracy for classification, and metrics of each member, as `Meter.read`."""
        self._measure()
        host, samples = self.backend.to_numpy, self._samples
        sums = {name: np.sum([host(a) for a in parts], axis=0) for name, parts in self._totals.items() if parts}
        found = [{"cost": float(cost) / samples} for cost in sums["cost"]]
        for k, numbers in enumerate(found):
            if "right" in sums:
                total = sums["weight"][k] if "weight" in sums else samples
                right = sums["right"][k] / total if total else np.nan
                numbers["accuracy"] = float("nan") if np.isnan(numbers["cost"]) else float(right)
            if self.metrics:
                numbers |= by_metrics(
                    self.metrics, self._member, [kept[k] for kept in self._of_members], numbers["cost"]
                )
        return found

    def _measure(self) -> None:
        n, one_class = self._filled, self._known.one_class is not False
        if n == 0:
            return
        backend, xp, count = self.backend, self.backend.xp, self.count
        part = slice(self._samples, self._samples + n)
        z = xp.reshape(self.logits[:n, :], (n * count, -1))
        y, weights, shares = (None if a is None else xp.reshape(a[part, :], (n * count, -1)) for a in self._known[:3])
        key, place = (z.shape, None if weights is None else weights.shape), self.model.placement
        recorded: Any = place.take("cost", key, partial(RecordedCost, self._member, z, weights, axis=1), at_once=True)
        self._add("cost", recorded.it.of(z, y, weights))
        place.leave(recorded)
        if self.model.classifies and one_class and shares is None and self._member.d_out > 1 and self.pair.by_logits:
            self._totals["right"].append(backend.same_largest(z, y, count))
        elif self.model.classifies:
            if one_class:
                right = predicted_labels(backend, self.pair, z) == as_labels(backend, y)
            else:
                right = all_right(backend, self.pair, z, y)
            one = xp.ones(right.shape, dtype=xp.float64) if shares is None else xp.astype(shares[:, 0], xp.float64)
            self._add("right", xp.where(right, one, xp.zeros_like(one)))
            if shares is not None:
                self._add("weight", one)
        if self.metrics:
            outputs = self.pair.outputs(backend, z)
            self._keep(part, y, outputs, z if self.pair.by_logits else outputs)
        self._samples += n
        self._filled = 0

    def _add(self, name: str, values: Array) -> None:
        """Add numbers (n · count,) for each member."""
        xp = self.backend.xp
        self._totals[name].append(xp.sum(xp.reshape(xp.astype(values, xp.float64), (-1, self.count)), axis=0))

    def _keep(self, part: slice, *of_members: Array) -> None:
        """Copy targets, outputs and scores (n · count, ...) of all members to the host, and keep those of each."""
        y, h, scores = (
            np.array(self.backend.to_numpy(a)).reshape(-1, self.count, a.shape[1]).swapaxes(0, 1) for a in of_members
        )
        orders = [slice(None)] if self._orders is None else self._orders
        given = [self._known.exact.rows(orders[k % len(orders)]).rows(part) for k in range(self.count)]
        targets = self.model.cost.sharpened(y) if given[0].y is None else [each.y for each in given]
        self._of_members.append([Kept(targets[k], h[k], given[k].weights, scores[k]) for k in range(self.count)])
