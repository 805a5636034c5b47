"""Saturating activations: sigmoid, tanh, softsign and hard sigmoid, each with its gradient kernel.

Each gradient kernel computes δh̄ = f′(h̄) ⊙ Δ (eq. 8) in one pass, with f′ from the saved output h. Arrays may have any
shape and are float16, bfloat16, float32 or float64; results have the operands' dtype. `out` receives the result and may
be one of the operands. Raises TypeError for another dtype, ValueError for shapes that do not broadcast.
"""

from typing import Any

from nnkit.backends.formula import formula


@formula
def sigmoid(xp: Any, z: Any) -> Any:
    """The logistic function σ(z) = 1/(1 + e⁻ᶻ), the lecture's f in eq. 2; z: logits of any shape.

    >>> nnkit.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return 1 / (1 + xp.exp(-z))


@formula
def sigmoid_grad(xp: Any, s: Any, delta: Any) -> Any:
    """δh̄ = σ(1 − σ) ⊙ Δ (eq. 8 with eq. 13); s: the saved output σ(h̄), delta: Δ, of shapes that broadcast.

    >>> nnkit.sigmoid_grad(np.array([0.5, 0.9]), np.array([1.0, 2.0]))
    array([0.25, 0.18])
    """
    return delta * s * (1 - s)


@formula
def tanh(xp: Any, z: Any) -> Any:
    """The hyperbolic tangent; z: logits of any shape.

    >>> nnkit.tanh(np.array([0.0, 100.0]))
    array([0., 1.])
    """
    return xp.tanh(z)


@formula
def tanh_grad(xp: Any, h: Any, delta: Any) -> Any:
    """δh̄ = (1 − h²) ⊙ Δ (eq. 8); h: the saved output tanh(h̄), delta: Δ, of shapes that broadcast.

    >>> nnkit.tanh_grad(np.array([0.0, 0.5]), np.array([2.0, 4.0]))
    array([2., 3.])
    """
    return delta * (1 - h**2)


@formula
def softsign(xp: Any, z: Any) -> Any:
    """z/(1 + |z|), which saturates more slowly than tanh (Glorot and Bengio, AISTATS 2010); z: logits of any shape.

    >>> nnkit.softsign(np.array([-1.0, 0.0, 3.0]))
    array([-0.5 ,  0.  ,  0.75])
    """
    return z / (1 + xp.abs(z))


@formula
def softsign_grad(xp: Any, h: Any, delta: Any) -> Any:
    """δh̄ = (1 − |h|)² ⊙ Δ (eq. 8); h: the saved output softsign(h̄), delta: Δ, of shapes that broadcast.

    >>> nnkit.softsign_grad(np.array([-0.5, 0.0]), np.array([4.0, 1.0]))
    array([1., 1.])
    """
    return delta * (1 - xp.abs(h)) ** 2


@formula
def hard_sigmoid(xp: Any, z: Any) -> Any:
    """The piecewise linear sigmoid min(max(z/6 + ½, 0), 1), as in PyTorch; z: logits of any shape.

    >>> nnkit.hard_sigmoid(np.array([-4.0, 0.0, 4.0]))
    array([0. , 0.5, 1. ])
    """
    return xp.minimum(xp.maximum(z / 6 + 0.5, 0.0), 1.0)


@formula
def hard_sigmoid_grad(xp: Any, h: Any, delta: Any) -> Any:
    """δh̄ = Δ/6 where 0 < h < 1, else 0 (eq. 8); h: the saved output, delta: Δ, of shapes that broadcast.

    >>> nnkit.hard_sigmoid_grad(np.array([0.0, 0.5, 1.0]), np.array([6.0, 6.0, 6.0]))
    array([0., 1., 0.])
    """
    return xp.where((h <= 0) | (h >= 1), 0.0, delta / 6)  # keeps Δ/6 where h is NaN
