"""The meter of an epoch: mean cost and metrics from the logits that the steps leave behind.

Training needs Δ but not the cost. Logits are kept and measured together, a few thousand samples at a time: that costs
one pass over a small array instead of a dozen calls in every step.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from nnkit.backends.base import Array
from nnkit.backends.tape import active_tape
from nnkit.inputs import as_labels, predicted_labels
from nnkit.metrics import Metric
from nnkit.model import Model

_KEPT = 1 << 20  # numbers kept before they are measured
_FEW = 1 << 15  # numbers that are measured in less time than the decisions about it take


class Meter:
    """Adds up the cost and what the metrics need of samples as they come; reads them once, at the end.

    `samples` and `largest_batch` say what to make room for; metrics other than the accuracy are computed on the host
    from all outputs of an epoch.
    """

    def __init__(self, model: Model, samples: int, largest_batch: int, metrics: Sequence[Metric] = ()) -> None:
        self.model, self.backend, self.metrics = model, model.backend, metrics
        self._width = model.dense[-1].units
        self._logits = self._room(max(largest_batch, min(samples, _KEPT // self._width)))
        self._one = self.backend.asarray(1.0, model.dtype)
        self._zero, self._slot = (self.backend.asarray(np.array(0, np.int64)) for _ in range(2))

    def start(self, y: Array = None, weights: Array = None) -> None:
        """Forget what was measured; `y` and `weights` are those of all samples in the order of the logits, if known."""
        self._y, self._weights = y, weights
        self._pending: list[tuple[Array, Array]] = []  # targets and weights that came with the kept logits
        self._filled = 0
        self._samples = 0
        self._costs: list[Array] = []
        self._right: list[Array] = []
        self._outputs: list[tuple[Any, Any]] = []
        self.backend.copy(self._zero, self._slot)

    def add(self, logits: Array, y: Array = None, weights: Array = None) -> None:
        """Take the logits (n, d_out) of the next samples; their targets and weights, if `start` was not given them."""
        n = logits.shape[0]
        if self._filled + n > self._logits.shape[0]:
            self._measure()
            if n > self._logits.shape[0]:
                self._logits = self._room(n)
        self.backend.copy(logits, self._logits[self._filled : self._filled + n, ...])
        self._filled += n
        if self._y is None:  # copies: an iterable may fill one array again and again
            self._pending.append((self._kept(y), None if weights is None else self._kept(weights)))

    def store(self, logits: Array, place: Array) -> None:
        """Take logits as `add` does, of the samples from `place` on, 0-d int64, in the order of `start`; recorded.

        Before replays ask `room_for` how many there may be, and say with `stored` how many samples there were.
        """
        if self._logits.shape[0] >= self._y.shape[0]:  # there is room for all: one counter does for both
            self.backend.put_at(logits, place, self._logits)
            return
        self.backend.put_at(logits, self._slot, self._logits)
        self.backend.advance(self._slot, logits.shape[0])

    def room_for(self, n: int) -> int:
        """Logits of how many samples may be stored before the next question: n or more.

        n is at most the largest batch. What was stored is measured where there is no room.
        """
        capacity = self._logits.shape[0]
        if self._filled + n > capacity:
            self._measure()
            self.backend.copy(self._zero, self._slot)
        return int(capacity - self._filled)

    def rows_for(self, n: int) -> Array:
        """Where the logits of the next n samples go, (n, d_out), if there is room."""
        return self._logits[self._filled : self._filled + n, ...]

    def stored(self, n: int) -> None:
        """Logits of n samples have been stored."""
        self._filled += n

    def read(self, **others: Array) -> dict[str, float]:
        """The mean cost, the accuracy if the network classifies, and the other metrics; waits for the device.

        `others` are 0-d arrays that are read with them, in one transfer, by their names.
        """
        self._measure()
        xp, count = self.backend.xp, len(self._costs)
        waiting = [*self._costs, *self._right, *others.values()]
        numbers = self.backend.to_numpy(xp.stack([xp.astype(a, xp.float64) for a in waiting])).tolist()
        result = {"cost": sum(numbers[:count]) / self._samples}
        if self.model.classifies:
            result["accuracy"] = sum(numbers[count : 2 * count]) / self._samples
        result |= zip(others, numbers[len(waiting) - len(others) :], strict=True)
        if self.metrics:
            y, h = (np.concatenate(parts) for parts in zip(*self._outputs, strict=True))
            result |= {metric.name: float(metric.function(y, h)) for metric in self.metrics}
        return result

    def _kept(self, array: Array) -> Array:
        return self.backend.copy(array, self.backend.empty(array.shape, self.model.dtype))

    def _room(self, samples: int) -> Array:
        return self.backend.empty((samples, self._width), self.model.dtype)

    def _measure(self) -> None:
        if self._filled == 0:
            return
        backend, output = self.backend, self.model.output
        logits = self._logits[: self._filled, ...]
        y, weights = self._taken()
        self._costs.append(self._cost(logits, y, weights))
        if self.model.classifies:
            answers = predicted_labels(backend, output, logits) == as_labels(backend, y)
            self._right.append(backend.xp.sum(backend.xp.astype(answers, backend.xp.int64)))
        if self.metrics:
            outputs = output.outputs(backend, logits)
            targets = self.model.cost.sharpened(np.array(backend.to_numpy(y)))
            self._outputs.append((targets, np.array(backend.to_numpy(outputs))))
        self._samples += self._filled
        self._filled = 0

    def _cost(self, logits: Array, y: Array, weights: Array | None) -> Array:
        """The sum of the costs of some samples, 0-d; for few of them by recorded calls from the second time on."""
        model, place, key = self.model, self.model.placement, (logits.shape[0], weights is not None)
        few = logits.shape[0] * logits.shape[1] <= _FEW and active_tape() is None
        recorded = place.take("cost", key, lambda: _RecordedCost(model, logits, weights)) if few else None
        if recorded is None:
            terms = model.output.terms(self.backend, logits, y, self._one if weights is None else weights)
            return self.backend.sum(terms)
        cost = recorded.of(logits, y, weights)
        place.leave("cost", key, recorded)
        return cost

    def _taken(self) -> tuple[Array, Array]:
        """The targets and weights of the kept logits."""
        if self._y is not None:
            end = self._samples + self._filled
            weights = None if self._weights is None else self._weights[self._samples : end, ...]
            return self._y[self._samples : end, ...], weights
        targets, weights = zip(*self._pending, strict=True)
        self._pending = []
        concat = self.backend.xp.concat
        return concat(targets, axis=0), None if weights[0] is None else concat(weights, axis=0)


class _RecordedCost:
    """The sum of the costs of so many samples as logits are, recorded; it serves one thread at a time."""

    def __init__(self, model: Model, logits: Array, weights: Array | None) -> None:
        self._backend, self._dtype = model.backend, model.dtype
        zeros, one = partial(self._backend.zeros, dtype=model.dtype), self._backend.asarray(1.0, model.dtype)
        self._logits, self._y = zeros(logits.shape), zeros(logits.shape)
        self._weights = one if weights is None else zeros(weights.shape)
        with self._backend.recording() as self._tape:
            self._sum = self._backend.sum(model.output.terms(self._backend, self._logits, self._y, self._weights))

    def of(self, logits: Array, y: Array, weights: Array | None) -> Array:
        """The sum for these arrays, a new 0-d one."""
        copy = self._backend.copy
        copy(logits, self._logits)
        copy(y, self._y)
        if weights is not None:
            copy(weights, self._weights)
        self._tape.replay()
        return copy(self._sum, self._backend.empty((), self._dtype))
