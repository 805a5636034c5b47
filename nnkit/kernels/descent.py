"""Backpropagation and gradient descent in one: the gradient goes into the weights as it is multiplied out.

W ← W − ε δh̄ᵀx (eq. 10 in eq. 17) is one matrix product that adds to W, where the BLAS of the backend can do
that: the gradient is then neither written nor read again.
"""

from typing import Any

from nnkit.backends import backend_of
from nnkit.backends.base import Array
from nnkit.backends.formula import formula
from nnkit.kernels.activations import Activation, get_activation
from nnkit.kernels.dense import preactivation_delta


@formula
def scaled_sum(xp: Any, a: Any, b: Any, alpha: Any) -> Any:
    """a + α b."""
    return a + alpha * b


def dense_descent(
    delta: Array,
    x: Array,
    W: Array,
    b: Array,
    h: Array = None,
    activation: str | Activation = "identity",
    *,
    z: Array = None,
    minus_rate: Array,
    need_dx: bool = True,
    overwrite_delta: bool = False,
) -> Array:
    """One gradient-descent step of a dense layer, in place, and δx for the layer before it (eq. 5 to 12 and 17).

    W ← W − ε δh̄ᵀx and b ← b − ε 1ᵀδh̄, with δh̄ = f′(h̄) ⊙ Δ; δx = δh̄ W with the W from before.

    Args:
        delta: Δ, (n, d_out); with `overwrite_delta` δh̄ is written over it. x: (n, d_in). h: the layer's output,
            (n, d_out). z: its h̄, for gradients that need it.
        W: (d_out, d_in), contiguous, and b: (d_out,); both are overwritten.
        activation: the name of f.
        minus_rate: −ε, a 0-d array that each replay reads.
        need_dx: False leaves δx out.

    Returns δx, (n, d_in), or None. Raises ValueError for a missing h or z.

    >>> x, W, b = np.array([[1.0, 2.0]]), np.array([[1.0, 1.0]]), np.array([0.0])
    >>> dx = nnkit.kernels.descent.dense_descent(
    ...     np.array([[1.0]]), x, W, b, minus_rate=np.array(-0.5))
    >>> dx, W, b
    (array([[1., 1.]]), array([[0.5, 0. ]]), array([-0.5]))
    """
    backend = backend_of(delta=delta, x=x, W=W, b=b, h=h, z=z)
    delta, x = backend.operands(("delta", "x"), (delta, x))
    dz = preactivation_delta(backend, get_activation(activation), delta, h, z, overwrite_delta)
    dx = backend.matmul(dz, W) if need_dx else None  # before W changes
    if backend.adds_products(W, x.shape[0]):
        backend.add_product(dz.mT, x, W, minus_rate)
        backend.add_column_sums(dz, b, minus_rate)
    else:
        backend.elementwise(scaled_sum, (W, backend.matmul(dz.mT, x), minus_rate), out=W)
        backend.elementwise(scaled_sum, (b, backend.sum(dz, axis=0), minus_rate), out=b)
    return dx
