"""Epochs of a stack in one launch on a GPU: a cluster of blocks for each member, with the bits that it has alone."""

from collections.abc import Callable

import numpy as np

from nnkit.backends.base import Array
from nnkit.ensembles.blocks import by_member
from nnkit.ensembles.stack import Stack
from nnkit.one_launch import EpochKernel, epoch_kernel_for
from nnkit.parameters import Parameters
from nnkit.training.meter import Meter
from nnkit.training.on_device import Rates, Way
from nnkit.training.sources import ArraySource


class Clusters(Way):
    """Launches of a kernel for all members; the arrays of each lie in a row then, in the layout of its own."""

    def __init__(
        self, stack: Stack, source: ArraySource, meter: Meter, kernel: EpochKernel, batch_size: int, own_orders: bool
    ) -> None:
        self.stack, self.source, self.meter, self._kernel = stack, source, meter, kernel
        self.batch_size, self._own_orders = batch_size, own_orders
        backend, state, first = stack.backend, stack.updates, stack.members[0].parameters
        here = [stack.parameters, *(state.vectors[name] for name in kernel.vectors)]
        self._rows = [backend.zeros((stack.count, first.flat.shape[0]), stack.dtype) for _ in here]
        self._pairs = [
            pair for vector, rows in zip(here, self._rows, strict=True) for pair in self._of(vector, rows, first)
        ]
        self._counts = backend.zeros((stack.count,), stack.dtype) if "t" in state.numbers else None

    def run(self, rates: Rates, after_steps: Callable[[int], None]) -> None:
        backend, count, source, batch = self.stack.backend, self.stack.count, self.source, self.batch_size
        t = self.stack.updates.numbers.get("t")
        for array, row in self._pairs:
            backend.copy(array, row)
        members = list(self._rows)
        if self._counts is not None:
            backend.copy(backend.xp.broadcast_to(t, (count,)), self._counts)
            members.append(self._counts)
        on_device = backend.asarray(np.array(rates(range(-(-source.samples // batch)))), self.stack.dtype)
        start = 0
        while start < source.samples:
            place = self.meter.next(source.samples - start, batch)
            stop = start + place.stop - place.start
            steps = slice(start // batch, -(-stop // batch))
            X, order = self._samples(start, stop)
            y = self._by_member(backend.xp.reshape(source.in_order.y[start:stop, :], (stop - start, count, -1)))
            logits = backend.empty(y.shape, self.stack.dtype)
            self._kernel.run(X, y, order, on_device[steps], logits, members)
            rows = backend.xp.reshape(self.meter.logits[place, ...], (stop - start, count, -1))
            backend.copy(backend.xp.moveaxis(logits, 0, 1), rows)
            start = stop
            after_steps(steps.stop - steps.start)
        for array, row in self._pairs:
            backend.copy(row, array)
        if self._counts is not None:
            backend.copy(self._counts[0, ...], t)

    def _samples(self, start: int, stop: int) -> tuple[Array, Array | None]:
        """X and the order of these samples for each member, (count, n), or the samples themselves."""
        source, xp, count = self.source, self.stack.backend.xp, self.stack.count
        if source.order is None:
            return source.X[start:stop, :], None
        if self._own_orders:
            return source.X, self._by_member(xp.reshape(source.order, (-1, count))[start:stop, :])
        return source.X, xp.tile(source.order[start:stop], (count, 1))

    def _by_member(self, a: Array) -> Array:
        """An array (n, count, ...) as a new one (count, n, ...)."""
        backend, moved = self.stack.backend, self.stack.backend.xp.moveaxis(a, 1, 0)
        return backend.copy(moved, backend.empty(moved.shape, a.dtype))

    def _of(self, here: Parameters, rows: Array, own: Parameters) -> list[tuple[Array, Array]]:
        """The arrays of a stack's vector, (count, entries), and their places in the members' vectors."""
        pairs, count = [], self.stack.count
        for start, (i, name, _) in zip(own.starts, own.arranged(), strict=True):
            flat = self.stack.backend.xp.reshape(
                by_member(self.stack.backend, here.layers[i][name], count), (count, -1)
            )
            pairs.append((flat, rows[:, start : start + flat.shape[1]]))
        return pairs


def clusters_for(stack: Stack, source: ArraySource, meter: Meter, batch_size: int, own_orders: bool) -> Clusters | None:
    """The way of one launch; None where a network alone would not be trained so, or if members differ in numbers."""
    state = stack.updates
    if source.weight_columns or not state.alike or (type(source) is not ArraySource and not own_orders):
        return None
    kernel, arrays = epoch_kernel_for(stack.members[0], stack.states[0], batch_size), (source.X, source.given.y)
    if kernel is None or not all(a.flags.c_contiguous for a in arrays) or not kernel.works(source.X):
        return None
    return Clusters(stack, source, meter, kernel, batch_size, own_orders)
