"""Training steps in float64 by the lecture's equations, and the comparison of a contender's parameters with them."""

from typing import Any

import numpy as np

from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem

STEPS = 5  # by each contender before it is compared and timed
# The allowed error of a contender, in the Euclidean norm, relative to the change of an array in these steps.
TOLERANCES = {"float32": 1e-3, "float64": 1e-10}


def reference(problem: Problem, steps: int = STEPS, xp: Any = np) -> Parameters:
    """The parameters after some steps, in float64, as arrays of NumPy or CuPy (`xp`)."""
    X, Y = (xp.asarray(a, np.float64) for a in problem.batch())
    parameters = [xp.array(a, np.float64) for pair in problem.parameters() for a in pair]
    mean, square = [xp.zeros_like(p) for p in parameters], [xp.zeros_like(p) for p in parameters]
    for t in range(1, steps + 1):
        gradient = gradients(problem.activation, parameters, X, Y, xp)
        for p, g, m, v in zip(parameters, gradient, mean, square, strict=True):
            if problem.optimizer == "sgd":
                p -= problem.learning_rate * g  # eq. 17
                continue
            m += (1 - BETA1) * (g - m)
            v += (1 - BETA2) * (g * g - v)
            p -= problem.learning_rate * (m / (1 - BETA1**t)) / (xp.sqrt(v / (1 - BETA2**t)) + EPSILON)
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def errors(problem: Problem, expected: Parameters, found: Parameters, first: Parameters | None = None) -> list[float]:
    """For each W and b, ‖found − expected‖/‖expected − first‖; inf for another shape or dtype, or NaN.

    `first` are the initial parameters; by default they are drawn again, which takes a while.
    """
    result = []
    for pairs in zip(first or problem.parameters(), expected, found, strict=True):
        for before, wanted, got in zip(*pairs, strict=True):
            if got.shape != wanted.shape or got.dtype != problem.dtype:
                result.append(np.inf)
                continue
            error = float(np.linalg.norm(got - wanted) / np.linalg.norm(before - wanted))
            result.append(np.inf if np.isnan(error) else error)
    return result


def gradients(activation: str, parameters: list[Any], X: Any, Y: Any, xp: Any = np) -> list[Any]:
    """[δW, δb, ...] of the mean cross-entropy."""
    inputs, h, last = [], X, len(parameters) // 2 - 1
    for i in range(last + 1):
        inputs.append(h)
        z = h @ parameters[2 * i].T + parameters[2 * i + 1]  # eq. 2
        h = xp.maximum(z, 0) if activation == "relu" and i < last else 0.5 * (1 + xp.tanh(z / 2))
    delta, gradient = (h - Y) / len(X), []  # eq. 19
    for i in range(last, -1, -1):
        gradient += [delta.sum(axis=0), delta.T @ inputs[i]]  # eq. 6, 12 and 10
        slope = inputs[i] > 0 if activation == "relu" else inputs[i] * (1 - inputs[i])
        if i:
            delta = (delta @ parameters[2 * i]) * slope  # eq. 8
    return gradient[::-1]
