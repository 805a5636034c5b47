"""Every equation of the lecture, with the function that implements it and its error, measured on a backend.

The result of the function, in float64, is compared with a reference that shares no code with it: derivatives with the
complex step of the forward formula on NumPy, values with sums in plain Python.
"""

import json
import math
import statistics
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import Backend, get_backend
from nnkit.checks import whole
from nnkit.data.preprocessing import Normalization, Whitening
from nnkit.kernels import classification, regression
from nnkit.kernels.activations import activation_names, get_activation
from nnkit.kernels.dense import dense_backward, dense_forward
from nnkit.kernels.softmax import softmax, softmax_grad
from nnkit.kernels.updates import gradient_descent, gradient_descent_l2
from nnkit.layers import Dense
from nnkit.network import Network
from nnkit.verify.derivatives import STEP, complex_steps
from nnkit.verify.gradient_check import relative_error

BOUND = 1e-13

Real = NDArray[np.float64]

# The lecture has equations for the derivatives of these two.
_NUMBERED = {"sigmoid": "8, 13", "relu": "8, 14"}

# Eq. 4 for costs that are not in the lecture.
_DELTAS = {
    "mean_absolute": "Δ = sign(h − y)",
    "huber": "Δ = min(max(h − y, −δ), δ)",
    "log_cosh": "Δ = tanh(h − y)",
    "quantile": "Δ = −q where h < y, else 1 − q",
    "hinge": "Δ = −t where th < 1, else 0, t = 2y − 1",
}


# The derivatives of piecewise activations, which are not analytic.
_PIECEWISE: dict[str, Callable[[float], float]] = {
    "relu": lambda z: float(z > 0),
    "leaky_relu": lambda z: 1.0 if z > 0 else 0.01,
    "elu": lambda z: 1.0 if z > 0 else math.exp(z),
    "selu": lambda z: 1.0507009873554805 * (1.0 if z > 0 else 1.6732632423543772 * math.exp(z)),
    "softsign": lambda z: 1 / (1 + abs(z)) ** 2,
    "hard_sigmoid": lambda z: 1 / 6 if -3 < z < 3 else 0.0,
}


def _complex_step(function: Callable[[NDArray[Any]], Any], at: Real) -> Real:
    return np.array(list(complex_steps(function, at, range(at.size)))).reshape(at.shape)


def _layer(x: Real, W: Real, b: Real, f: Callable[[float], float]) -> Real:
    """f(Wx + b) for each sample, each sum exactly rounded."""
    return np.array([[f(math.fsum([*(row * sample), bias])) for row, bias in zip(W, b, strict=True)] for sample in x])


def _logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z))


# The costs of one output.
_COSTS: dict[str, Callable[[float, float], float]] = {
    "quadratic": lambda h, y: (y - h) ** 2 / 2,
    "cross_entropy": lambda z, y: -y * math.log(_logistic(z)) - (1 - y) * math.log(_logistic(-z)),
}


def _function(name: str) -> Callable[..., Any]:
    """The function of a cost or of its Δ."""
    return getattr(regression if hasattr(regression, name) else classification, name)  # type: ignore[no-any-return]


class Problem:
    """Small random NumPy arrays, and the errors of functions of them on a backend."""

    def __init__(self, backend: Backend, seed: int = 0) -> None:
        self.backend = backend
        rng = np.random.default_rng(seed)
        self.x, self.W, self.b = rng.normal(size=(7, 5)), rng.normal(size=(4, 5)), rng.normal(size=4)
        self.W2, self.b2 = rng.normal(size=(3, 4)), rng.normal(size=3)
        self.delta, self.targets = rng.normal(size=(7, 4)), rng.uniform(size=(7, 4))
        self.one_hot = np.eye(4)[rng.integers(0, 4, 7)]
        # Away from the kinks at 0 and ±3, where one-sided derivatives differ.
        self.z = np.concatenate([rng.normal(0, 3, 400), [-30.0, -10.0, 10.0, 30.0]])

    def run(self, function: Callable[..., Any], *arrays: Real, **options: Any) -> Any:
        """Call a function with arrays of the backend; returns NumPy arrays."""
        result = function(*(self.backend.asarray(a, "float64") for a in arrays), **options)
        if isinstance(result, tuple):
            return tuple(self.backend.to_numpy(r) for r in result)
        return self.backend.to_numpy(result)

    def perceptron(self) -> float:
        found = self.run(dense_forward, self.x[0], self.W[:1], self.b[:1], activation="sigmoid")
        return relative_error(found, _layer(self.x[:1], self.W[:1], self.b[:1], _logistic)[0])

    def dense_layer(self) -> float:
        found = self.run(dense_forward, self.x, self.W, self.b, activation="tanh")
        return relative_error(found, _layer(self.x, self.W, self.b, math.tanh))

    def dense_gradient(self, which: int) -> float:
        """One of δx, δW, δb against the complex step of Σ Δ ⊙ f(Wx + b)."""
        h = self.run(dense_forward, self.x, self.W, self.b, activation="sigmoid")
        found = self.run(dense_backward, self.delta, self.x, self.W, h, activation="sigmoid")[which]
        arguments: list[Any] = [self.x, self.W, self.b]

        def cost(point: NDArray[Any]) -> Any:
            x, W, b = (a.astype(complex) for a in [*arguments[:which], point, *arguments[which + 1 :]])
            return np.sum(self.delta * dense_forward(x, W, b, activation="sigmoid"))

        return relative_error(found, _complex_step(cost, arguments[which]))

    def jacobian(self) -> float:
        layers = [Dense(5, 4, "sigmoid"), Dense(4, 3, "sigmoid")]
        network = Network(layers, cost="quadratic", dtype="float64", backend=self.backend, seed=0)
        network.parameters.assign([(self.W, self.b), (self.W2, self.b2)])

        def output(x: NDArray[Any], k: int) -> Any:
            h = dense_forward(x, self.W.astype(complex), self.b.astype(complex), "sigmoid")
            return np.sum(dense_forward(h, self.W2.astype(complex), self.b2.astype(complex), "sigmoid")[:, k])

        exact = np.stack([_complex_step(partial(output, k=k), self.x) for k in range(3)], axis=1)
        return relative_error(self.backend.to_numpy(network.jacobian(self.x)), exact)

    def activation_gradient(self, name: str) -> float:
        """f′(h̄) ⊙ Δ against the complex step of the formula, or `_PIECEWISE` if it is not analytic."""
        f = get_activation(name)
        saved = self.run(f.forward, self.z) if f.gradient_from == "output" else self.z
        if name in _PIECEWISE:
            slope = np.array([_PIECEWISE[name](z) for z in self.z.tolist()])
        else:
            slope = f.forward(self.z + 1j * STEP).imag / STEP
        delta = 1 / np.maximum(1, np.abs(slope))  # a slope of e³⁰ would hide the errors at all other points
        return relative_error(self.run(f.gradient, saved, delta), slope * delta)

    def softmax_gradient(self) -> float:
        found = self.run(softmax_grad, self.run(softmax, self.delta), self.targets)
        return relative_error(found, _complex_step(lambda z: np.sum(self.targets * softmax(z)), self.delta))

    def denoiser(self) -> float:
        def cost(W: NDArray[Any]) -> Any:
            h = dense_forward(self.x.astype(complex), W, self.b.astype(complex), "sigmoid")
            return np.sum((y - dense_forward(h, self.W2.astype(complex), self.b2.astype(complex))) ** 2) / 2 / len(y)

        second, y = (self.W2, self.b2), self.targets[:, :3]
        h = self.run(dense_forward, self.x, self.W, self.b, activation="sigmoid")
        delta = self.run(regression.quadratic_delta, self.run(dense_forward, h, *second), y)
        delta = self.run(dense_backward, delta, h, self.W2)[0]
        found = self.run(dense_backward, delta, self.x, self.W, h, activation="sigmoid")[1]
        return relative_error(found, _complex_step(cost, self.W))

    def cost(self, name: str) -> float:
        terms = [_COSTS[name](z, y) for z, y in zip(self.delta.ravel(), self.targets.ravel(), strict=True)]
        return relative_error(self.run(_function(name), self.delta, self.targets), math.fsum(terms) / len(self.targets))

    def softmax_cost(self) -> float:
        pairs = zip(self.delta, self.one_hot, strict=True)
        exact = [math.log(math.fsum(map(math.exp, z))) - z[y.argmax()] for z, y in pairs]
        found = self.run(classification.softmax_cross_entropy, self.delta, self.one_hot)
        return relative_error(found, math.fsum(exact) / len(exact))

    def cost_gradient(self, name: str) -> float:
        """A cost's Δ against the complex step of the cost."""
        targets = self.one_hot if name == "softmax_cross_entropy" else self.targets
        exact = _complex_step(lambda z: _function(name)(z, targets.astype(complex)), self.delta)
        return relative_error(self.run(_function(f"{name}_delta"), self.delta, targets), exact)

    def descent(self, l2: float) -> float:
        W, gradient, rate = self.delta.ravel(), self.targets.ravel(), np.asarray(0.25)
        pairs = zip(W.tolist(), gradient.tolist(), strict=True)
        if l2 == 0:
            found = self.run(gradient_descent, W, gradient, rate)
        else:
            found = self.run(gradient_descent_l2, W, gradient, rate, np.asarray(l2))
        return relative_error(found, [(1 - 0.25 * l2) * w - 0.25 * g for w, g in pairs])

    def normalization(self) -> float:
        exact = [[(v - statistics.fmean(c)) / statistics.pstdev(c) for v in c] for c in self.x.T.tolist()]
        return relative_error(Normalization.fit(self.x).transform(self.x), np.transpose(exact))

    def whitening(self) -> float:
        white = Whitening.fit(self.x).transform(self.x)
        return relative_error(white.T @ white / len(white), np.eye(white.shape[1]))


@dataclass(frozen=True, slots=True)
class Equation:
    """One row: the lecture's number, the equation, the function that implements it, and how to measure its error."""

    number: str
    statement: str
    function: str
    error: Callable[..., float]
    argument: Any = None


def equations() -> Iterator[Equation]:
    """The rows in the lecture's order, one for each activation and each cost."""
    yield Equation("1", "h = f(wᵀx + b), one perceptron", "dense_forward", Problem.perceptron)
    yield Equation("2, 7, 9, 11", "h = f(Wx + b), a dense layer", "dense_forward", Problem.dense_layer)
    yield Equation("3", "C = ½ Σ (y − h)²", "quadratic", Problem.cost, "quadratic")
    yield Equation("4", "Δ = h − y", "quadratic_delta", Problem.cost_gradient, "quadratic")
    for name, statement in _DELTAS.items():
        yield Equation("4", statement, f"{name}_delta", Problem.cost_gradient, name)
    yield Equation("5, 10", "δW = δh̄ xᵀ", "dense_backward", Problem.dense_gradient, 1)
    yield Equation("5, 12", "δb = 1 ⊙ δh̄", "dense_backward", Problem.dense_gradient, 2)
    yield Equation("6", "δx = Wᵀ δh̄", "dense_backward", Problem.dense_gradient, 0)
    yield Equation("6, 8", "∂h/∂x = Wᵀ (f′(h̄) ⊙ ∂h/∂h), all layers", "Network.jacobian", Problem.jacobian)
    for name in activation_names():
        statement = {"sigmoid": "σ′ = σ(1 − σ)", "relu": "ReLU′ = H(x)"}.get(name, f"δh̄ = f′(h̄) ⊙ Δ, f = {name}")
        number = _NUMBERED.get(name, "8")
        yield Equation(number, statement, f"{name}_grad", Problem.activation_gradient, name)
    yield Equation("8", "δh̄ = p ⊙ (Δ − Σ p Δ), f = softmax", "softmax_grad", Problem.softmax_gradient)
    yield Equation("15, 16", "y = W_y σ(Wx + b), δW of the denoiser", "dense_backward", Problem.denoiser)
    yield Equation("17", "W ← W − ε δW", "gradient_descent", Problem.descent, 0.0)
    yield Equation("17", "W ← (1 − ελ) W − ε δW", "gradient_descent_l2", Problem.descent, 0.1)
    yield Equation("18", "C = −Σ [y ln o + (1 − y) ln(1 − o)]", "cross_entropy", Problem.cost, "cross_entropy")
    yield Equation("18", "C = −Σ y ln p, p = softmax", "softmax_cross_entropy", Problem.softmax_cost)
    yield Equation("19", "δh̄ = σ(z) − y", "cross_entropy_delta", Problem.cost_gradient, "cross_entropy")
    softmax = "softmax_cross_entropy"
    yield Equation("19", "δh̄ = p − y", f"{softmax}_delta", Problem.cost_gradient, softmax)
    yield Equation("19", "δh̄ = eᶻ − y", "poisson_delta", Problem.cost_gradient, "poisson")
    yield Equation("19", "δh̄ = 1 − y e⁻ᶻ", "gamma_delta", Problem.cost_gradient, "gamma")
    yield Equation("19", "δh̄ = e^((2 − p)z) − y e^((1 − p)z)", "tweedie_delta", Problem.cost_gradient, "tweedie")
    yield Equation("20", "X_n = (X − μ)/σ", "data.Normalization", Problem.normalization)
    yield Equation("21, 22", "X_w = (X − μ) U S^(−½), C = U S Uᵀ", "data.Whitening", Problem.whitening)


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
    return [
        Row(e.number, e.statement, e.function, e.error(problem, *([] if e.argument is None else [e.argument])))
        for e in equations()
    ]


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
        statement, error = r.statement.replace("|", r"\|"), f"{r.error:.1e}{'' if r.passed else ' **failed**'}"
        lines.append(f"| {r.equation} | {statement} | `{r.function}` | {error} |")
    return "\n".join(lines)


def as_json(rows: Sequence[Row], backend: str) -> str:
    """The rows as JSON: backend, bound, passed, and a list of equations; errors that are not finite become null."""
    found = [asdict(r) | {"error": r.error if math.isfinite(r.error) else None, "passed": r.passed} for r in rows]
    content = {"backend": backend, "bound": BOUND, "passed": all(r.passed for r in rows), "equations": found}
    return json.dumps(content, indent=2, ensure_ascii=False)
