"""The costs as functions of arrays, for a loop of one's own: the mean over the samples, and its derivative Δ.

`h` or `logits` and `y` have one shape (..., n, d_out) and one floating dtype. `scale` is the share of each sample in
the mean: a number or an array (n, 1); 1/n by default. The costs are 0-d arrays; the deltas have the shape of `y`.
Raised are ValueError for shapes that differ or no samples, TypeError for other dtypes, and BackendMismatchError.
"""

import math
from typing import Any

from nnkit.backends import backend_of
from nnkit.backends.base import Array, Backend
from nnkit.kernels.output import OutputPair, output_pair


def quadratic(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of ½ Σₖ (y − h)² (eq. 3), of outputs h.

    >>> float(nnkit.quadratic(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])))
    2.5
    """
    return _cost(output_pair("quadratic", "identity"), h, y, scale)


def quadratic_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = (h − y)/n (eq. 4), of outputs h.

    >>> nnkit.quadratic_delta(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([[1., 2.]])
    """
    return _delta(output_pair("quadratic", "identity"), h, y, scale)


def cross_entropy(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of −Σₖ [y ln o + (1 − y) ln(1 − o)] with o = σ(logits) (eq. 18); y in [0, 1].

    >>> float(nnkit.cross_entropy(np.array([[1e4, -1e4]]), np.array([[1.0, 1.0]])))
    10000.0
    """
    return _cost(output_pair("cross_entropy", "sigmoid"), logits, y, scale)


def cross_entropy_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (σ(logits) − y)/n (eq. 19): no f′ factor is left.

    >>> nnkit.cross_entropy_delta(np.array([[0.0, 1e4]]), np.array([[1.0, 1.0]]))
    array([[-0.5,  0. ]])
    """
    return _delta(output_pair("cross_entropy", "sigmoid"), logits, y, scale)


def softmax_cross_entropy(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of −Σₖ y ln p with p = softmax(logits); each row of y sums to 1.

    >>> round(float(nnkit.softmax_cross_entropy(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))), 6)
    0.693147
    """
    return _cost(output_pair("softmax_cross_entropy", "softmax"), logits, y, scale)


def softmax_cross_entropy_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (p − y)/n (eq. 19 for softmax); each row of y sums to 1.

    >>> nnkit.softmax_cross_entropy_delta(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[-0.5,  0.5]])
    """
    return _delta(output_pair("softmax_cross_entropy", "softmax"), logits, y, scale)


def _cost(pair: OutputPair, z: Array, y: Array, scale: Any) -> Array:
    backend, z, y, scale = _prepared(pair, z, y, scale)
    return backend.sum(pair.terms(backend, z, y, scale))


def _delta(pair: OutputPair, z: Array, y: Array, scale: Any) -> Array:
    backend, z, y, scale = _prepared(pair, z, y, scale)
    return pair.delta(backend, z, y, scale)


def _prepared(pair: OutputPair, z: Array, y: Array, scale: Any) -> tuple[Backend, Array, Array, Array]:
    name = pair.cost.name
    backend = backend_of(logits=z, y=y, scale=scale)
    z, y = backend.operands(("logits", "y"), (z, y))
    if z.shape != y.shape or z.ndim == 0 or math.prod(z.shape) == 0:
        raise ValueError(f"{name}: outputs have shape {z.shape} and y {y.shape}; expected one shape (..., n, d_out)")
    share = 1 / math.prod(z.shape[:-1]) if scale is None else scale
    return backend, z, y, backend.operands(("logits", "scale"), (z, share))[1]
