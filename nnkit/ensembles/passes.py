"""The samples of a stack in an epoch, and the costs and metrics of its members."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnkit.backends.base import Array
from nnkit.ensembles.stack import Stack
from nnkit.inputs import all_right, as_labels, predicted_labels
from nnkit.metrics import Metric
from nnkit.step import Step
from nnkit.training.meter import Meter
from nnkit.training.sources import ArraySource, BytesSource, Known


class OwnOrders(ArraySource):
    """A source for a stack whose members each take the samples in their own order."""

    def start_each(self, orders: Sequence[np.ndarray]) -> Known:
        """Begin a pass in these orders, one for each member."""
        backend, count, given = self.backend, len(orders), self.given
        if self.order is None:
            self.order = [backend.empty(order.shape, "int64") for order in orders]
            arrays = (None if a is None else backend.empty(a.shape, a.dtype) for a in given[:3])
            self.in_order = given._replace(**dict(zip(Known._fields, arrays, strict=False)))
        for k, order in enumerate(orders):
            backend.copy(backend.asarray(order), self.order[k])
            for array, out in zip(given[:3], self.in_order, strict=False):
                if array is not None:
                    width = array.shape[1] // count
                    part = slice(k * width, (k + 1) * width)
                    backend.copy(backend.take(array[:, part], self.order[k]), out[:, part])
        return self.in_order

    def gather_inputs(self, start: Array, step: Step) -> None:
        if self.order is None:
            raise ValueError("start_each begins a pass")
        width = self.X.shape[1]
        for k, order in enumerate(self.order):
            self.backend.take_at(self.X, start, step.x[:, k * width : (k + 1) * width], order)


def source_for(stack: Stack, source: ArraySource) -> ArraySource:
    """The source of a stack from that of one member, with targets and weights for each member."""
    tile, known = stack.backend.xp.tile, source.given
    y, weights, others = (None if a is None else tile(a, (1, stack.count)) for a in known[:3])
    given = known._replace(y=y, weights=weights, metric_weights=others)
    if stack.same_batches:
        return type(source)(stack, source.X, given)
    X = stack.preprocessed(source.X) if isinstance(source, BytesSource) else source.X
    return OwnOrders(stack, X, given)


class StackMeter(Meter):
    """The meter of a stack: `read_each` returns the numbers of each member."""

    def __init__(self, stack: Stack, samples: int, largest_batch: int, metrics: Sequence[Metric]) -> None:
        super().__init__(stack, samples, largest_batch, metrics)
        self.pair, self.count = stack.members[0].output, stack.count

    def start_each(self, known: Known, orders: Sequence[np.ndarray] | None) -> None:
        """Reset the meter for samples of which a source knows this; `orders` are those of the members."""
        self.start(known)
        self._orders = orders
        self._totals: dict[str, list[Array]] = {"cost": [], "right": [], "weight": []}
        self._kept_outputs: list[tuple[Any, ...]] = []

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
                y, h = (np.concatenate([parts[i][k] for parts in self._kept_outputs]) for i in (0, 1))
                shares = [parts[2][k] for parts in self._kept_outputs if parts[2] is not None]
                w = np.concatenate(shares) if shares else None
                numbers |= {metric.name: metric.measure(y, h, w) for metric in self.metrics}
        return found

    def _measure(self) -> None:
        if self._filled == 0:
            return
        backend, xp, n, count = self.backend, self.backend.xp, self._filled, self.count
        part = slice(self._samples, self._samples + n)
        y, weights, shares = (None if a is None else xp.reshape(a[part, :], (n * count, -1)) for a in self._known[:3])
        z = xp.reshape(self.logits[:n, :], (n * count, -1))

        def add(name: str, values: Array) -> None:  # (n · count,)
            self._totals[name].append(xp.sum(xp.reshape(xp.astype(values, xp.float64), (n, count)), axis=0))

        terms = self.pair.terms(backend, z, y, self._one if weights is None else weights)
        add("cost", backend.sum(terms, axis=1))
        if self.model.classifies:
            if self._known.one_class is not False:
                right = predicted_labels(backend, self.pair, z) == as_labels(backend, y)
            else:
                right = all_right(backend, self.pair, z, y)
            one = xp.ones((n * count,), dtype=xp.float64) if shares is None else xp.astype(shares[:, 0], xp.float64)
            add("right", xp.where(right, one, xp.zeros_like(one)))
            if shares is not None:
                add("weight", one)
        if self.metrics:
            self._keep(part, y, self.pair.outputs(backend, z), shares)
        self._samples += n
        self._filled = 0

    def _keep(self, part: slice, *arrays: Array) -> None:
        """Copy targets, outputs and weights (n · count, ...) to the host, (count, n, ...)."""
        kept: list[Any] = [
            None if a is None else np.array(self.backend.to_numpy(a)).reshape(-1, self.count, a.shape[1]).swapaxes(0, 1)
            for a in arrays
        ]
        exact = self._known.exact
        if exact is None:
            kept[0] = self.model.cost.sharpened(kept[0])
        else:
            orders = [slice(None)] if self._orders is None else self._orders
            kept[0] = [exact[orders[k % len(orders)]][part] for k in range(self.count)]
        self._kept_outputs.append(tuple(kept))
