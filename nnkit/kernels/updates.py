"""Parameter updates as formulas over the flat parameter vector: gradient descent (eq. 17), momentum, Adam.

p are parameters, g their gradients, and the other vectors the optimizer's state, all of one shape and dtype; the
learning rate and its like are 0-d arrays, so that a schedule may change them between the replays of a recorded step.
Each formula returns the new values, meant to be written over the old: `gradient_descent(p, g, learning_rate, out=p)`.
"""

from typing import Any

from nnkit.backends.formula import formula


@formula
def gradient_descent(xp: Any, p: Any, g: Any, learning_rate: Any) -> Any:
    """W ← W − ε δW (eq. 17).

    >>> nnkit.kernels.updates.gradient_descent(np.array([1.0]), np.array([2.0]), 0.25)
    array([0.5])
    """
    return p - learning_rate * g


@formula
def decayed_gradient(xp: Any, g: Any, p: Any, l2: Any) -> Any:
    """G + λp, the gradient of the cost with ½ λ Σ p² added: with eq. 17, (1 − ελ) p − ε g (Nielsen, eq. 93).

    Nielsen writes λ/n for λ, n the size of the training set.

    >>> nnkit.kernels.updates.decayed_gradient(np.array([1.0]), np.array([2.0]), 0.1)
    array([1.2])
    """
    return g + l2 * p


@formula
def gradient_descent_l2(xp: Any, p: Any, g: Any, learning_rate: Any, l2: Any) -> Any:
    """W ← (1 − ελ) W − ε δW in one pass (eq. 17; Nielsen, eq. 93).

    >>> nnkit.kernels.updates.gradient_descent_l2(np.array([1.0]), np.array([2.0]), 0.25, 0.4)
    array([0.4])
    """
    return p - learning_rate * (g + l2 * p)


@formula
def momentum_descent(xp: Any, p: Any, g: Any, velocity: Any, learning_rate: Any, momentum: Any) -> Any:
    """V ← μ v + g and W ← W − ε v (Polyak 1964, in PyTorch's scaling); momentum is μ. Returns (W, v).

    >>> nnkit.kernels.updates.momentum_descent(np.array([1.0]), np.array([2.0]), np.array([4.0]), 0.25, 0.5)
    (array([0.]), array([4.]))
    """
    velocity = momentum * velocity + g
    return p - learning_rate * velocity, velocity


@formula
def adam_clock(xp: Any, t: Any, log_beta1: Any, log_beta2: Any) -> Any:
    """T ← t + 1 and the bias corrections 1 − β₁ᵗ and 1 − β₂ᵗ, by expm1 so that they are exact in float32.

    Returns (t, 1 − β₁ᵗ, 1 − β₂ᵗ), all 0-d.

    >>> t, first, second = nnkit.kernels.updates.adam_clock(0.0, np.log(0.9), np.log(0.999))
    >>> float(t), round(float(first), 12), round(float(second), 12)
    (1.0, 0.1, 0.001)
    """
    t = t + 1
    return t, -xp.expm1(t * log_beta1), -xp.expm1(t * log_beta2)


@formula
def adam(
    xp: Any,
    p: Any,
    g: Any,
    mean: Any,
    square: Any,
    learning_rate: Any,
    correction1: Any,
    correction2: Any,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> Any:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1): m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², and
    W ← W − ε m̂/(√v̂ + 10⁻⁸) with m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ). Returns (W, m, v).

    >>> one, zero = np.array([1.0]), np.array([0.0])
    >>> nnkit.kernels.updates.adam(one, one, zero, zero, 0.5, 0.1, 0.001)[0].round(6)
    array([0.5])
    """  # noqa: D205
    mean = beta1 * mean + (1 - beta1) * g
    square = beta2 * square + (1 - beta2) * g**2
    root = xp.sqrt(square / correction2) + epsilon
    return p - learning_rate / correction1 * mean / root, mean, square
