"""The meter of an epoch: mean cost and accuracy from the logits that the steps leave behind.

Training needs Δ but not the cost. Logits are kept and measured together, a few thousand samples at a time: that costs
one pass over a small array instead of a dozen calls in every step.
"""

from nnkit.backends.base import Array
from nnkit.inputs import as_labels, predicted_labels
from nnkit.model import Model

_KEPT = 1 << 20  # numbers kept before they are measured


class Meter:
    """Adds up the cost and the right answers of samples as they come; reads them once, at the end."""

    def __init__(self, model: Model, targets: Array, largest_batch: int) -> None:
        self.model, self.backend, self.targets = model, model.backend, targets
        width = targets.shape[1]
        self._capacity = max(largest_batch, min(targets.shape[0], _KEPT // width))
        self._logits = self.backend.empty((self._capacity, width), model.dtype)
        self._one = self.backend.asarray(1.0, model.dtype)

    def start(self, order: Array) -> None:
        """Forget what was measured; the logits that follow are of the samples in this order, indices (n,)."""
        self._order = order
        self._filled = 0
        self._samples = 0
        self._parts: list[tuple[Array, Array | None]] = []

    def add(self, logits: Array) -> None:
        """Take the logits (n, d_out) of the next samples."""
        n = logits.shape[0]
        if self._filled + n > self._capacity:
            self._measure()
        self.backend.copy(logits, self._logits[self._filled : self._filled + n, ...])
        self._filled += n

    def read(self) -> dict[str, float]:
        """The mean cost, and the accuracy if the network classifies."""
        self._measure()
        result = {"cost": sum(float(cost) for cost, _ in self._parts) / self._samples}
        if self.model.classifies:
            result["accuracy"] = sum(int(right) for _, right in self._parts if right is not None) / self._samples
        return result

    def _measure(self) -> None:
        if self._filled == 0:
            return
        logits = self._logits[: self._filled, ...]
        y = self.backend.take(self.targets, self._order[self._samples : self._samples + self._filled])
        terms = self.model.output.terms(self.backend, logits, y, self._one)
        right = None
        if self.model.classifies:
            answers = predicted_labels(self.backend, self.model.output, logits) == as_labels(self.backend, y)
            right = self.backend.xp.sum(self.backend.xp.astype(answers, self.backend.xp.int64))
        self._parts.append((self.backend.sum(terms), right))
        self._samples += self._filled
        self._filled = 0
