"""Parameter updates as formulas over the flat parameter vector: gradient descent (eq. 17) and its successors.

The operands are, in this order: the parameters p, their gradients g and the vectors of the optimizer's state, all of
one shape and dtype; then the learning rate and other scalars as 0-d arrays, so that a schedule can change them between
replays of a recorded step. Each formula returns the new p and the new state, usually written in place:
`momentum_descent(p, g, velocity, learning_rate, momentum, out=(p, velocity))`.
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
def gradient_descent_l2(xp: Any, p: Any, g: Any, learning_rate: Any, l2: Any) -> Any:
    """W ← (1 − ελ) W − ε δW in one pass (eq. 17; Nielsen, eq. 93, where λ is λ/n with n the size of the training set).

    >>> nnkit.kernels.updates.gradient_descent_l2(np.array([1.0]), np.array([2.0]), 0.25, 0.4)
    array([0.4])
    """
    return p - learning_rate * (g + l2 * p)


@formula
def momentum_descent(xp: Any, p: Any, g: Any, velocity: Any, learning_rate: Any, momentum: Any) -> Any:
    """v ← μ v + g and W ← W − ε v (Polyak 1964, in PyTorch's scaling); momentum is μ. Returns (W, v).

    >>> nnkit.kernels.updates.momentum_descent(np.array([1.0]), np.array([2.0]), np.array([4.0]), 0.25, 0.5)
    (array([0.]), array([4.]))
    """
    velocity = momentum * velocity + g
    return p - learning_rate * velocity, velocity


@formula
def nesterov_descent(xp: Any, p: Any, g: Any, velocity: Any, learning_rate: Any, momentum: Any) -> Any:
    """v ← μ v + g and W ← W − ε (g + μ v) (Nesterov 1983, as in Sutskever et al., ICML 2013). Returns (W, v).

    >>> nnkit.kernels.updates.nesterov_descent(np.array([1.0]), np.array([2.0]), np.array([4.0]), 0.25, 0.5)
    (array([0.]), array([4.]))
    """
    velocity = momentum * velocity + g
    return p - learning_rate * (g + momentum * velocity), velocity


@formula
def rmsprop(
    xp: Any, p: Any, g: Any, square: Any, learning_rate: Any, alpha: float = 0.99, epsilon: float = 1e-8
) -> Any:
    """v ← αv + (1 − α)g² and W ← W − ε g/(√v + 10⁻⁸) (Tieleman and Hinton 2012). Returns (W, v).

    >>> nnkit.kernels.updates.rmsprop(np.array([1.0]), np.array([2.0]), np.array([0.0]), 0.05)[0].round(6)
    array([0.5])
    """
    square = alpha * square + (1 - alpha) * g**2
    return p - learning_rate * (g / (xp.sqrt(square) + epsilon)), square


@formula
def rmsprop_momentum(
    xp: Any,
    p: Any,
    g: Any,
    square: Any,
    velocity: Any,
    learning_rate: Any,
    momentum: Any,
    alpha: float = 0.99,
    epsilon: float = 1e-8,
) -> Any:
    """RMSprop's g/(√v + 10⁻⁸) with momentum: u ← μu + g/(√v + 10⁻⁸) and W ← W − ε u. Returns (W, v, u).

    >>> one, zero = np.array([1.0]), np.array([0.0])
    >>> nnkit.kernels.updates.rmsprop_momentum(one, one, zero, one, 0.1, 0.5)[2].round(3)
    array([10.5])
    """
    square = alpha * square + (1 - alpha) * g**2
    velocity = momentum * velocity + g / (xp.sqrt(square) + epsilon)
    return p - learning_rate * velocity, square, velocity


@formula
def adagrad(xp: Any, p: Any, g: Any, total: Any, learning_rate: Any, epsilon: float = 1e-10) -> Any:
    """s ← s + g² and W ← W − ε g/(√s + 10⁻¹⁰) (Duchi, Hazan and Singer, JMLR 2011); total: s. Returns (W, s).

    >>> nnkit.kernels.updates.adagrad(np.array([1.0]), np.array([3.0]), np.array([16.0]), 0.5)
    (array([0.7]), array([25.]))
    """
    total = total + g**2
    return p - learning_rate * (g / (xp.sqrt(total) + epsilon)), total


@formula
def lion(xp: Any, p: Any, g: Any, mean: Any, learning_rate: Any, beta1: float = 0.9, beta2: float = 0.99) -> Any:
    """W ← W − ε sign(β₁m + (1 − β₁)g) and m ← β₂m + (1 − β₂)g (Chen et al. 2023, algorithm 2). Returns (W, m).

    >>> nnkit.kernels.updates.lion(np.array([1.0]), np.array([2.0]), np.array([-1.0]), 0.25)
    (array([1.25]), array([-0.97]))
    """
    step = xp.sign(beta1 * mean + (1 - beta1) * g)
    return p - learning_rate * step, beta2 * mean + (1 - beta2) * g


@formula
def moving_average(xp: Any, average: Any, p: Any, share: Any) -> Any:
    """a ← a + s(p − a), the exponential moving average of the parameters; s = share, 0-d: 1 at first, then 1 − ema.

    >>> nnkit.kernels.updates.moving_average(np.array([1.0]), np.array([3.0]), 0.25)
    array([1.5])
    """
    return average + share * (p - average)


@formula
def adam_clock(xp: Any, t: Any, log_beta1: Any, log_beta2: Any) -> Any:
    """t ← t + 1 and the bias corrections 1 − β₁ᵗ and 1 − β₂ᵗ, computed by expm1 for accuracy in float32.

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
    W ← W − ε m̂/(√v̂ + 10⁻⁸) with m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ), rearranged as at the end of the paper's
    section 2. Returns (W, m, v).

    >>> one, zero = np.array([1.0]), np.array([0.0])
    >>> nnkit.kernels.updates.adam(one, one, zero, zero, 0.5, 0.1, 0.001)[0].round(6)
    array([0.5])
    """  # noqa: D205
    mean = beta1 * mean + (1 - beta1) * g
    square = beta2 * square + (1 - beta2) * g**2
    scale = xp.sqrt(correction2)
    root = xp.sqrt(square) + epsilon * scale
    return p - learning_rate * scale / correction1 * mean / root, mean, square
