"""Every equation of the lecture, with the function that implements it and how its error is measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nnkit import cost_measurements as measure_cost
from nnkit import measurements as measure
from nnkit.kernels import cost_functions as costs
from nnkit.kernels.activations import activation_names
from nnkit.measurements import Problem

# The lecture gives the derivatives of these two by name.
_NUMBERED = {"sigmoid": "8, 13", "relu": "8, 14"}

# What eq. 4 is for costs of outputs that the lecture does not have.
_DELTAS = {
    "mean_absolute": "Δ = sign(h − y)",
    "huber": "Δ = min(max(h − y, −δ), δ)",
    "log_cosh": "Δ = tanh(h − y)",
    "hinge": "Δ = −t where th < 1, else 0, t = 2y − 1",
}


@dataclass(frozen=True, slots=True)
class Equation:
    """One row: the lecture's number, what the equation says, the function that implements it, and its error."""

    number: str
    statement: str
    function: str
    error: Callable[[Problem], float]


def equations() -> Iterator[Equation]:
    """The rows, in the lecture's order; each activation and each cost has its own."""
    yield Equation("1", "h = f(wᵀx + b), one perceptron", "dense_forward", measure.perceptron)
    yield Equation("2, 7, 9", "h = f(Wx + b), a dense layer", "dense_forward", measure.dense_layer)
    yield Equation("3", "C = ½ Σ (y − h)²", "quadratic", measure_cost.quadratic_cost)
    yield Equation("4", "Δ = h − y", "quadratic_delta", _delta_error("quadratic"))
    for name, statement in _DELTAS.items():
        yield Equation("4", statement, f"{name}_delta", _delta_error(name))
    yield Equation("5, 10", "δW = δh̄ xᵀ", "dense_backward", measure.dense_gradient(1))
    yield Equation("5, 12", "δb = 1 ⊙ δh̄", "dense_backward", measure.dense_gradient(2))
    yield Equation("6", "δx = Wᵀ δh̄", "dense_backward", measure.dense_gradient(0))
    for name in activation_names():
        statement = {"sigmoid": "σ′ = σ(1 − σ)", "relu": "ReLU′ = H(x)"}.get(name, f"δh̄ = f′(h̄) ⊙ Δ, f = {name}")
        yield Equation(_NUMBERED.get(name, "8"), statement, f"{name}_grad", measure.activation_gradient(name))
    yield Equation("8", "δh̄ = p ⊙ (Δ − Σ p Δ), f = softmax", "softmax_grad", measure.softmax_gradient)
    yield Equation("15, 16", "y = W_y σ(Wx + b), δW of the denoiser", "dense_backward", measure.denoiser)
    yield Equation("17", "W ← W − ε δW", "gradient_descent", measure.descent)
    yield Equation("17", "W ← (1 − ελ) W − ε δW", "gradient_descent_l2", measure.descent_l2)
    yield Equation("18", "C = −Σ [y ln o + (1 − y) ln(1 − o)]", "cross_entropy", measure_cost.cross_entropy_cost)
    yield Equation("18", "C = −Σ y ln p, p = softmax", "softmax_cross_entropy", measure_cost.softmax_cost)
    yield Equation("19", "δh̄ = σ(z) − y", "cross_entropy_delta", _delta_error("cross_entropy"))
    softmax_error = _delta_error("softmax_cross_entropy", "one_hot")
    yield Equation("19", "δh̄ = p − y", "softmax_cross_entropy_delta", softmax_error)
    yield Equation("19", "δh̄ = eᶻ − y", "poisson_delta", _delta_error("poisson"))
    yield Equation("20", "X_n = (X − μ)/σ", "data.Normalization", measure.normalization)
    yield Equation("21, 22", "X_w = (X − μ) U S^(−½), C = U S Uᵀ", "data.Whitening", measure.whitening)


def _delta_error(name: str, targets: str = "targets") -> Callable[[Problem], float]:
    """How far the Δ of a cost is from the derivative of this cost."""
    return measure_cost.cost_gradient(getattr(costs, f"{name}_delta"), getattr(costs, name), targets)
