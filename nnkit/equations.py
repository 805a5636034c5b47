"""Every equation of the lecture, with the function that implements it and how its error is measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nnkit import measurements as measure
from nnkit.kernels import cost_functions as costs
from nnkit.kernels.activations import activation_names
from nnkit.measurements import Problem

# The lecture gives the derivatives of these two by name.
_NUMBERED = {"sigmoid": "8, 13", "relu": "8, 14"}


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
    yield Equation("3", "C = ½ Σ (y − h)²", "quadratic", measure.quadratic_cost)
    yield Equation("4", "Δ = h − y", "quadratic_delta", measure.cost_gradient(costs.quadratic_delta, costs.quadratic))
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
    yield Equation("18", "C = −Σ [y ln o + (1 − y) ln(1 − o)]", "cross_entropy", measure.cross_entropy_cost)
    yield Equation("18", "C = −Σ y ln p, p = softmax", "softmax_cross_entropy", measure.softmax_cost)
    delta, cost = costs.cross_entropy_delta, costs.cross_entropy
    yield Equation("19", "δh̄ = σ(z) − y", "cross_entropy_delta", measure.cost_gradient(delta, cost))
    delta, cost = costs.softmax_cross_entropy_delta, costs.softmax_cross_entropy
    yield Equation("19", "δh̄ = p − y", "softmax_cross_entropy_delta", measure.cost_gradient(delta, cost, "one_hot"))
    yield Equation("20", "X_n = (X − μ)/σ", "data.Normalization", measure.normalization)
    yield Equation("21, 22", "X_w = (X − μ) U S^(−½), C = U S Uᵀ", "data.Whitening", measure.whitening)
