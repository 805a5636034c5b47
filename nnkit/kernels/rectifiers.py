"""Activations that are linear for positive logits: ReLU, leaky ReLU, ELU, SELU and the identity, with their gradients.

Each gradient kernel computes δh̄ = f′(h̄) ⊙ Δ (eq. 8) in one pass, with f′ from the saved output h; at the kink, f′(0)
is the left derivative (0 for ReLU, eq. 14). Arrays may have any shape and are float16, bfloat16, float32 or float64;
results have the operands' dtype. `out` receives the result and may be one of the operands. Raises TypeError for another
dtype, ValueError for shapes that do not broadcast.
"""

from typing import Any

from nnkit.backends.formula import formula

# Klambauer et al., NeurIPS 2017, eq. 14: the fixed point of mean 0 and variance 1.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@formula
def identity(xp: Any, z: Any) -> Any:
    """f(z) = z, for a layer without activation; z: logits of any shape.

    >>> nnkit.identity(np.array([1.0, -2.0]))
    array([ 1., -2.])
    """
    return z


@formula
def identity_grad(xp: Any, h: Any, delta: Any) -> Any:
    """δh̄ = Δ, since f′ = 1 (eq. 8); h: not used, delta: Δ of any shape.

    >>> nnkit.identity_grad(np.array([5.0]), np.array([3.0]))
    array([3.])
    """
    return delta


@formula
def relu(xp: Any, z: Any) -> Any:
    """max(z, 0); z: logits of any shape. NaN stays NaN.

    >>> nnkit.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return xp.maximum(z, 0.0)


@formula
def relu_grad(xp: Any, h: Any, delta: Any) -> Any:
    """δh̄ = H(h) ⊙ Δ with the step function H, H(0) = 0 (eq. 8 with eq. 14); h: the saved output, delta: Δ.

    >>> nnkit.relu_grad(np.array([0.0, 2.0]), np.array([3.0, 3.0]))
    array([0., 3.])
    """
    return xp.where(h <= 0, 0.0, delta)  # not h > 0, which would turn Δ into 0 where h is NaN


@formula
def leaky_relu(xp: Any, z: Any, negative_slope: float = 0.01) -> Any:
    """z for z > 0, else negative_slope · z (Maas et al., 2013); z: logits of any shape, negative_slope: positive.

    >>> nnkit.leaky_relu(np.array([-1.0, 2.0]), negative_slope=0.1)
    array([-0.1,  2. ])
    """
    return xp.where(z > 0, z, negative_slope * z)


@formula
def leaky_relu_grad(xp: Any, h: Any, delta: Any, negative_slope: float = 0.01) -> Any:
    """δh̄ = Δ where h > 0, else negative_slope · Δ (eq. 8); h: the saved output, delta: Δ.

    >>> nnkit.leaky_relu_grad(np.array([-0.1, 2.0]), np.array([1.0, 1.0]), negative_slope=0.1)
    array([0.1, 1. ])
    """
    return xp.where(h > 0, delta, negative_slope * delta)


@formula
def elu(xp: Any, z: Any, alpha: float = 1.0) -> Any:
    """z for z > 0, else α(eᶻ − 1) (Clevert et al., ICLR 2016); z: logits of any shape, alpha: positive.

    >>> nnkit.elu(np.array([-1000.0, 2.0]))
    array([-1.,  2.])
    """
    return xp.where(z > 0, z, alpha * xp.expm1(xp.minimum(z, 0.0)))


@formula
def elu_grad(xp: Any, h: Any, delta: Any, alpha: float = 1.0) -> Any:
    """δh̄ = Δ where h > 0, else (h + α)Δ, since αeᶻ = h + α (eq. 8); h: the saved output, delta: Δ.

    >>> nnkit.elu_grad(np.array([-0.5, 2.0]), np.array([1.0, 1.0]))
    array([0.5, 1. ])
    """
    return xp.where(h > 0, delta, delta * (h + alpha))


@formula
def selu(xp: Any, z: Any) -> Any:
    """λz for z > 0, else λα(eᶻ − 1), self-normalizing (Klambauer et al., 2017); z: logits of any shape.

    >>> nnkit.selu(np.array([0.0, 1.0])).round(6)
    array([0.      , 1.050701])
    """
    return SELU_SCALE * xp.where(z > 0, z, SELU_ALPHA * xp.expm1(xp.minimum(z, 0.0)))


@formula
def selu_grad(xp: Any, h: Any, delta: Any) -> Any:
    """δh̄ = λΔ where h > 0, else (h + λα)Δ (eq. 8); h: the saved output, delta: Δ.

    >>> nnkit.selu_grad(np.array([1.0]), np.array([1.0])).round(6)
    array([1.050701])
    """
    return delta * xp.where(h > 0, SELU_SCALE, h + SELU_SCALE * SELU_ALPHA)
