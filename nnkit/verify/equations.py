"""Every equation of the lecture, with the function that implements it and its error, measured on a backend."""

import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nnkit.backends import Backend, get_backend
from nnkit.checks import whole
from nnkit.kernels import classification, regression
from nnkit.kernels.activations import activation_names
from nnkit.verify import measurements as measure
from nnkit.verify.measurements import Problem

BOUND = 1e-13

# The lecture has equations for the derivatives of these two.
_NUMBERED = {"sigmoid": "8, 13", "relu": "8, 14"}

# Eq. 4 for costs that are not in the lecture.
_DELTAS = {
    "mean_absolute": "Δ = sign(h − y)",
    "huber": "Δ = min(max(h − y, −δ), δ)",
    "log_cosh": "Δ = tanh(h − y)",
    "hinge": "Δ = −t where th < 1, else 0, t = 2y − 1",
}


@dataclass(frozen=True, slots=True)
class Equation:
    """One row: the lecture's number, the equation, the function that implements it, and how to measure its error."""

    number: str
    statement: str
    function: str
    error: Callable[[Problem], float]


def equations() -> Iterator[Equation]:
    """The rows in the lecture's order, one for each activation and each cost."""
    yield Equation("1", "h = f(wᵀx + b), one perceptron", "dense_forward", measure.perceptron)
    yield Equation("2, 7, 9", "h = f(Wx + b), a dense layer", "dense_forward", measure.dense_layer)
    yield Equation("3", "C = ½ Σ (y − h)²", "quadratic", measure.quadratic_cost)
    yield Equation("4", "Δ = h − y", "quadratic_delta", _delta_error("quadratic"))
    for name, statement in _DELTAS.items():
        yield Equation("4", statement, f"{name}_delta", _delta_error(name))
    yield Equation("5, 10", "δW = δh̄ xᵀ", "dense_backward", measure.dense_gradient(1))
    yield Equation("5, 12", "δb = 1 ⊙ δh̄", "dense_backward", measure.dense_gradient(2))
    yield Equation("6", "δx = Wᵀ δh̄", "dense_backward", measure.dense_gradient(0))
    yield Equation("6, 8", "∂h/∂x = Wᵀ (f′(h̄) ⊙ ∂h/∂h), all layers", "Network.jacobian", measure.jacobian)
    for name in activation_names():
        statement = {"sigmoid": "σ′ = σ(1 − σ)", "relu": "ReLU′ = H(x)"}.get(name, f"δh̄ = f′(h̄) ⊙ Δ, f = {name}")
        yield Equation(_NUMBERED.get(name, "8"), statement, f"{name}_grad", measure.activation_gradient(name))
    yield Equation("8", "δh̄ = p ⊙ (Δ − Σ p Δ), f = softmax", "softmax_grad", measure.softmax_gradient)
    yield Equation("15, 16", "y = W_y σ(Wx + b), δW of the denoiser", "dense_backward", measure.denoiser)
    yield Equation("17", "W ← W − ε δW", "gradient_descent", measure.descent)
    yield Equation("17", "W ← (1 − ελ) W − ε δW", "gradient_descent_l2", measure.descent_l2)
    yield Equation("18", "C = −Σ [y ln o + (1 − y) ln(1 − o)]", "cross_entropy", measure.cross_entropy_cost)
    yield Equation("18", "C = −Σ y ln p, p = softmax", "softmax_cross_entropy", measure.softmax_cost)
    yield Equation("19", "δh̄ = σ(z) − y", "cross_entropy_delta", _delta_error("cross_entropy"))
    softmax_error = _delta_error("softmax_cross_entropy", "one_hot")
    yield Equation("19", "δh̄ = p − y", "softmax_cross_entropy_delta", softmax_error)
    yield Equation("19", "δh̄ = eᶻ − y", "poisson_delta", _delta_error("poisson"))
    yield Equation("20", "X_n = (X − μ)/σ", "data.Normalization", measure.normalization)
    yield Equation("21, 22", "X_w = (X − μ) U S^(−½), C = U S Uᵀ", "data.Whitening", measure.whitening)


def _delta_error(name: str, targets: str = "targets") -> Callable[[Problem], float]:
    """The error of a cost's Δ, compared with the derivative of the cost."""
    costs = regression if hasattr(regression, name) else classification
    return measure.cost_gradient(getattr(costs, f"{name}_delta"), getattr(costs, name), targets)


@dataclass(frozen=True, slots=True)
class Row:
    """An equation with its measured error: the largest difference, relative to the largest entry of the reference."""

    equation: str
    statement: str
    function: str
    error: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound; False for NaN."""
        return self.error <= BOUND


def verify(backend: str | Backend | None = None, seed: int = 0) -> list[Row]:
    """Measure the error of every equation on a backend, in float64, with random numbers from this seed.

    Raises BackendUnavailableError if the backend is not available.

    >>> all(row.passed for row in nnkit.verify.verify("numpy"))
    True
    """
    problem = Problem(get_backend(backend), whole("verify", "seed", seed, 0))
    return [Row(e.number, e.statement, e.function, e.error(problem)) for e in equations()]


def as_text(rows: Sequence[Row]) -> str:
    """The rows as a table for a terminal."""
    lines = [("equation", "what it says", "function", "error", "")]
    lines += [(r.equation, r.statement, r.function, f"{r.error:.1e}", "" if r.passed else "FAILED") for r in rows]
    widths = [max(_width(line[column]) for line in lines) for column in range(4)]
    padded = ([cell + " " * (w - _width(cell)) for cell, w in zip(line, widths, strict=False)] for line in lines)
    return "\n".join("  ".join([*cells, line[4]]).rstrip() for cells, line in zip(padded, lines, strict=True))


def _width(text: str) -> int:
    """The width of a text in terminal columns; combining characters such as the bar of h̄ take none."""
    return sum(not unicodedata.combining(character) for character in text)


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| equation | what it says | function | error |", "|---|---|---|---|"]
    for r in rows:
        statement = r.statement.replace("|", "\\|")
        lines.append(
            f"| {r.equation} | {statement} | `{r.function}` | {r.error:.1e}{'' if r.passed else ' **failed**'} |"
        )
    return "\n".join(lines)


def as_json(rows: Sequence[Row], backend: str) -> str:
    """The rows as JSON: backend, bound, passed, and a list of equations; errors that are not finite become null."""
    found = [
        {
            "equation": r.equation,
            "statement": r.statement,
            "function": r.function,
            "error": r.error if math.isfinite(r.error) else None,
            "passed": r.passed,
        }
        for r in rows
    ]
    passed = all(r.passed for r in rows)
    content = {"backend": backend, "bound": BOUND, "passed": passed, "equations": found}
    return json.dumps(content, indent=2, ensure_ascii=False)
