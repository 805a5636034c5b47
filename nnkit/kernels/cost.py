"""`Cost`: the formulas of its terms and their derivative, and the domain of its targets."""

from dataclasses import dataclass
from typing import Any, Literal

from nnkit.backends.base import Array, Backend
from nnkit.backends.formula import Formula, formula


@formula
def smoothed_targets(xp: Any, y: Any, kept: float = 1.0, added: float = 0.0) -> Any:
    """y · kept + added (label smoothing; Szegedy et al., CVPR 2016, section 7)."""
    return y * kept + added


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost, the sum of `terms(h, y, scale)`, with its derivative by h, `delta(h, y, scale)`.

    Both take arrays that broadcast; `scale` is the weight of each sample in the mean (1/n by default): a number,
    (n, 1), or (n, d_out) with weights per output. Both include it, so that cost and gradient are consistent.

    Attributes:
        output: the paired activation (eq. 19), the default of the output layer.
        classifies: whether targets are classes, so that accuracy is defined.
        domain: the allowed targets: "any" number, in [0, 1] ("unit"), in [0, 1] with sum 1 in each sample
            ("distribution"), or at least 0 ("nonnegative").
        constants: the constants of the formulas that differ from the defaults, by name, such as Huber's δ.
        label_smoothing: the fraction s of each target that is spread over the classes; see `smoothed`.
        from_logits: terms(z, y, scale) and delta(z, y, scale) as formulas of the logits, for the paired activation; if
            None, they are computed from its output.
        threshold: a single output above it is class 1: ½ for probabilities, 0 for margins.
    """

    name: str
    terms: Formula
    delta: Formula
    output: str
    classifies: bool
    domain: Literal["any", "unit", "distribution", "nonnegative"] = "any"
    constants: tuple[tuple[str, float], ...] = ()
    label_smoothing: float = 0.0
    from_logits: tuple[Formula, Formula] | None = None
    threshold: float = 0.5

    def smoothed(self, backend: Backend, y: Array) -> Array:
        """The smoothed targets: y (1 − s) + s/k with k classes (Szegedy et al., CVPR 2016, section 7).

        y: (..., k) for softmax_cross_entropy; for cross_entropy, whose outputs each have two classes, k is 2.

        >>> cost = nnkit.get_cost("softmax_cross_entropy", label_smoothing=0.1)
        >>> cost.smoothed(nnkit.get_backend("numpy"), np.array([[1.0, 0.0]]))
        array([[0.95, 0.05]])
        """
        if self.label_smoothing == 0:
            return y
        constants = {"kept": 1 - self.label_smoothing, "added": self._added(y)}
        return backend.elementwise(smoothed_targets, (y,), constants=constants)

    def sharpened(self, y: Any) -> Any:
        """The inverse of `smoothed`, up to rounding."""
        return y if self.label_smoothing == 0 else (y - self._added(y)) / (1 - self.label_smoothing)

    def _added(self, y: Any) -> float:
        k: int = y.shape[-1] if self.domain == "distribution" else 2
        return self.label_smoothing / k

    def describe(self) -> dict[str, Any]:
        """The name, and the constants and label smoothing that are not the default, for JSON.

        >>> nnkit.get_cost("huber", delta=2).describe()
        {'name': 'huber', 'delta': 2.0}
        >>> nnkit.get_cost(**nnkit.get_cost("huber", delta=2).describe()) == nnkit.get_cost("huber", delta=2)
        True
        """
        smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        return {"name": self.name, **dict(self.constants), **smoothing}
