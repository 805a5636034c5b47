"""The errors of nnkit's functions with respect to the lecture's equations.

The result of a function on the chosen backend, in float64, is compared with a reference that shares no code with it:
derivatives with the complex step of the forward formula on NumPy, values with sums in plain Python.
"""

import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import Backend
from nnkit.data.preprocessing import Normalization, Whitening
from nnkit.kernels.activations import get_activation
from nnkit.kernels.classification import cross_entropy, softmax_cross_entropy
from nnkit.kernels.dense import dense_backward, dense_forward
from nnkit.kernels.regression import quadratic, quadratic_delta
from nnkit.kernels.softmax import softmax, softmax_grad
from nnkit.kernels.updates import gradient_descent, gradient_descent_l2
from nnkit.layers import Dense
from nnkit.network import Network
from nnkit.verify.derivatives import STEP, complex_steps
from nnkit.verify.gradient_check import relative_error

Real = NDArray[np.float64]


# The derivatives of piecewise activations, which are not analytic.
_PIECEWISE: dict[str, Callable[[float], float]] = {
    "relu": lambda z: float(z > 0),
    "leaky_relu": lambda z: 1.0 if z > 0 else 0.01,
    "elu": lambda z: 1.0 if z > 0 else math.exp(z),
    "selu": lambda z: 1.0507009873554805 * (1.0 if z > 0 else 1.6732632423543772 * math.exp(z)),
    "softsign": lambda z: 1 / (1 + abs(z)) ** 2,
    "hard_sigmoid": lambda z: 1 / 6 if -3 < z < 3 else 0.0,
}


class Problem:
    """Small random NumPy arrays, and conversion to a backend and back."""

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


def complex_step(function: Callable[[NDArray[Any]], Any], at: Real) -> Real:
    """The derivatives of a real-valued function by each entry of an array."""
    return np.array(list(complex_steps(function, at, range(at.size)))).reshape(at.shape)


def _layer_by_hand(x: Real, W: Real, b: Real, f: Callable[[float], float]) -> Real:
    """f(Wx + b) for each sample, each sum exactly rounded."""
    return np.array([[f(math.fsum([*(row * sample), bias])) for row, bias in zip(W, b, strict=True)] for sample in x])


def logistic(z: float) -> float:
    """σ(z) with Python floats."""
    return 1 / (1 + math.exp(-z))


def perceptron(p: Problem) -> float:
    """Eq. 1."""
    found = p.run(dense_forward, p.x[0], p.W[:1], p.b[:1], activation="sigmoid")
    return relative_error(found, _layer_by_hand(p.x[:1], p.W[:1], p.b[:1], logistic)[0])


def dense_layer(p: Problem) -> float:
    """Eq. 2, 7, 9."""
    found = p.run(dense_forward, p.x, p.W, p.b, activation="tanh")
    return relative_error(found, _layer_by_hand(p.x, p.W, p.b, math.tanh))


def dense_gradient(which: int) -> Callable[[Problem], float]:
    """One of dense_backward's results (δx, δW, δb) against the complex step of Σ Δ ⊙ f(Wx + b)."""

    def error(p: Problem) -> float:
        h = p.run(dense_forward, p.x, p.W, p.b, activation="sigmoid")
        found = p.run(dense_backward, p.delta, p.x, p.W, h, activation="sigmoid")[which]
        arguments: list[Any] = [p.x, p.W, p.b]

        def cost(point: NDArray[Any]) -> Any:
            arguments[which] = point
            x, W, b = (a.astype(complex) for a in arguments)
            return np.sum(p.delta * dense_forward(x, W, b, activation="sigmoid"))

        return relative_error(found, complex_step(cost, (p.x, p.W, p.b)[which]))

    return error


def jacobian(p: Problem) -> float:
    """Eq. 6 and 8 down to the inputs, of two layers, against the complex step of each output."""
    layers = [Dense(5, 4, "sigmoid"), Dense(4, 3, "sigmoid")]
    network = Network(layers, cost="quadratic", dtype="float64", backend=p.backend, seed=0)
    network.parameters.assign([(p.W, p.b), (p.W2, p.b2)])

    def output(x: NDArray[Any], k: int) -> Any:
        h = dense_forward(x, p.W.astype(complex), p.b.astype(complex), "sigmoid")
        return np.sum(dense_forward(h, p.W2.astype(complex), p.b2.astype(complex), "sigmoid")[:, k])

    exact = np.stack([complex_step(partial(output, k=k), p.x) for k in range(3)], axis=1)
    return relative_error(p.backend.to_numpy(network.jacobian(p.x)), exact)


def activation_gradient(name: str) -> Callable[[Problem], float]:
    """Eq. 8 for an activation, against the complex step of its formula, or `_PIECEWISE` if it is not analytic."""

    def error(p: Problem) -> float:
        f = get_activation(name)
        saved = p.run(f.forward, p.z) if f.gradient_from == "output" else p.z
        if name in _PIECEWISE:
            slope = np.array([_PIECEWISE[name](z) for z in p.z.tolist()])
        else:
            slope = f.forward(p.z + 1j * STEP).imag / STEP
        delta = 1 / np.maximum(1, np.abs(slope))  # a slope of e³⁰ would hide the errors at all other points
        return relative_error(p.run(f.gradient, saved, delta), slope * delta)

    return error


def softmax_gradient(p: Problem) -> float:
    """Eq. 8 for softmax."""
    found = p.run(softmax_grad, p.run(softmax, p.delta), p.targets)
    return relative_error(found, complex_step(lambda z: np.sum(p.targets * softmax(z)), p.delta))


def denoiser(p: Problem) -> float:
    """The gradient of ½ Σ (y − W_y σ(Wx + b))²/n by W, through both layers."""

    def forward(W: NDArray[Any]) -> Any:
        h = dense_forward(p.x.astype(complex), W, p.b.astype(complex), "sigmoid")
        return dense_forward(h, p.W2.astype(complex), p.b2.astype(complex))

    second, y = (p.W2, p.b2), p.targets[:, :3]
    h = p.run(dense_forward, p.x, p.W, p.b, activation="sigmoid")
    delta = p.run(quadratic_delta, p.run(dense_forward, h, *second), y)
    delta = p.run(dense_backward, delta, h, p.W2)[0]
    found = p.run(dense_backward, delta, p.x, p.W, h, activation="sigmoid")[1]
    return relative_error(found, complex_step(lambda W: _half_squares(forward(W), y), p.W))


def _half_squares(h: NDArray[Any], y: Real) -> Any:
    return np.sum((y - h) ** 2) / 2 / len(y)


def quadratic_cost(p: Problem) -> float:
    """Eq. 3."""
    return _cost(p, quadratic, lambda h, y: (y - h) ** 2 / 2)


def cross_entropy_cost(p: Problem) -> float:
    """Eq. 18."""
    return _cost(p, cross_entropy, lambda z, y: -y * math.log(logistic(z)) - (1 - y) * math.log(logistic(-z)))


def _cost(p: Problem, function: Callable[..., Any], by_hand: Callable[[float, float], float]) -> float:
    terms = [by_hand(z, y) for z, y in zip(p.delta.ravel(), p.targets.ravel(), strict=True)]
    return relative_error(p.run(function, p.delta, p.targets), math.fsum(terms) / len(p.targets))


def cost_gradient(
    delta: Callable[..., Any], cost: Callable[..., Any], y: str = "targets"
) -> Callable[[Problem], float]:
    """Eq. 4 and 19: a Δ against the complex step of its cost."""

    def error(p: Problem) -> float:
        targets = getattr(p, y)
        exact = complex_step(lambda z: cost(z, targets.astype(complex)), p.delta)
        return relative_error(p.run(delta, p.delta, targets), exact)

    return error


def softmax_cost(p: Problem) -> float:
    """The categorical cross-entropy of softmax."""
    exact = [math.log(math.fsum(map(math.exp, z))) - z[y.argmax()] for z, y in zip(p.delta, p.one_hot, strict=True)]
    return relative_error(p.run(softmax_cross_entropy, p.delta, p.one_hot), math.fsum(exact) / len(exact))


def descent(p: Problem) -> float:
    """Eq. 17."""
    W, gradient = p.delta.ravel(), p.targets.ravel()
    found = p.run(gradient_descent, W, gradient, np.asarray(0.25))
    return relative_error(found, [w - 0.25 * g for w, g in zip(W.tolist(), gradient.tolist(), strict=True)])


def descent_l2(p: Problem) -> float:
    """Eq. 17 with L2, in Nielsen's form."""
    W, gradient = p.delta.ravel(), p.targets.ravel()
    found = p.run(gradient_descent_l2, W, gradient, np.asarray(0.25), np.asarray(0.1))
    exact = [(1 - 0.25 * 0.1) * w - 0.25 * g for w, g in zip(W.tolist(), gradient.tolist(), strict=True)]
    return relative_error(found, exact)


def normalization(p: Problem) -> float:
    """Eq. 20, against Python's statistics module."""
    exact = [[(v - statistics.fmean(c)) / statistics.pstdev(c) for v in c] for c in p.x.T.tolist()]
    return relative_error(Normalization.fit(p.x).transform(p.x), np.transpose(exact))


def whitening(p: Problem) -> float:
    """Eq. 21, 22: the covariance of whitened samples is the identity."""
    white = Whitening.fit(p.x).transform(p.x)
    return relative_error(white.T @ white / len(white), np.eye(white.shape[1]))
