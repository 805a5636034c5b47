"""The costs as functions of arrays, for custom training loops: the mean over the samples, and its derivative Δ.

`h` or `logits` and `y` have the same shape (..., n, d_out) and the same floating dtype. `scale` is the weight of each
sample in the mean: a number, an array (..., n, 1), or (..., n, d_out) with weights per output; 1/n by default. Costs
are 0-d arrays, sums over the outputs; deltas have the shape of `y`. PyTorch and Keras take the mean over outputs:
their values are these divided by d_out, except for softmax_cross_entropy. The functions raise ValueError for mismatched
shapes, no samples and constants out of range, TypeError for other dtypes, and BackendMismatchError.
"""

import math
from typing import Any

from nnkit.backends import backend_of
from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import dtype_name
from nnkit.kernels import classification_costs as classification
from nnkit.kernels import regression_costs as regression
from nnkit.kernels.costs import Cost, get_cost
from nnkit.kernels.output import OutputPair, output_pair


def quadratic(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of ½ Σₖ (y − h)² (eq. 3), of outputs h.

    >>> float(nnkit.quadratic(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])))
    2.5
    """
    return _cost(regression.quadratic, h, y, scale)


def quadratic_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = (h − y)/n (eq. 4), of outputs h.

    >>> nnkit.quadratic_delta(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([[1., 2.]])
    """
    return _delta(regression.quadratic, h, y, scale)


def mean_absolute(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ |y − h|, of outputs h.

    >>> float(nnkit.mean_absolute(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])))
    3.0
    """
    return _cost(regression.mean_absolute, h, y, scale)


def mean_absolute_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = sign(h − y)/n, of outputs h; 0 where h = y, as in PyTorch.

    >>> nnkit.mean_absolute_delta(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
    array([[0., 1.]])
    """
    return _delta(regression.mean_absolute, h, y, scale)


def huber(h: Array, y: Array, scale: Any = None, *, delta: float = 1.0) -> Array:
    """C = mean over the samples of Σₖ ½ r² where r = |y − h| ≤ δ, else δ (r − ½δ) (Huber 1964), of outputs h; δ > 0.

    >>> float(nnkit.huber(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])))
    2.0
    """
    return _cost(get_cost("huber", delta=delta), h, y, scale)


def huber_delta(h: Array, y: Array, scale: Any = None, *, delta: float = 1.0) -> Array:
    """Δ = ∂C/∂h = min(max(h − y, −δ), δ)/n, of outputs h; δ > 0.

    >>> nnkit.huber_delta(np.array([[0.5, 3.0]]), np.array([[0.0, 1.0]]))
    array([[0.5, 1. ]])
    """
    return _delta(get_cost("huber", delta=delta), h, y, scale)


def log_cosh(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ ln cosh r, r = h − y, of outputs h: near ½ r² for small r, |r| − ln 2 for large.

    >>> float(nnkit.log_cosh(np.array([[1e-4]]), np.array([[0.0]])).round(12))
    5e-09
    """
    return _cost(regression.log_cosh, h, y, scale)


def log_cosh_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = tanh(h − y)/n, of outputs h.

    >>> nnkit.log_cosh_delta(np.array([[1.0, 1e4]]), np.array([[1.0, 1.0]]))
    array([[0., 1.]])
    """
    return _delta(regression.log_cosh, h, y, scale)


def poisson(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ (h − y ln h) with h = e^logits, for counts y of at least 0.

    −ln of the Poisson distribution with mean h at y, without ln y!, which does not depend on the parameters.

    >>> float(nnkit.poisson(np.array([[0.0, -1e4]]), np.array([[1.0, 2.0]])))
    20001.0
    """
    return _cost(regression.poisson, logits, y, scale)


def poisson_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (e^logits − y)/n, of the form of eq. 19.

    >>> nnkit.poisson_delta(np.array([[0.0, -1e4]]), np.array([[3.0, 2.0]]))
    array([[-2., -2.]])
    """
    return _delta(regression.poisson, logits, y, scale)


def cross_entropy(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of −Σₖ [y ln o + (1 − y) ln(1 − o)] with o = σ(logits) (eq. 18); y in [0, 1].

    >>> float(nnkit.cross_entropy(np.array([[1e4, -1e4]]), np.array([[1.0, 1.0]])))
    10000.0
    """
    return _cost(classification.cross_entropy, logits, y, scale)


def cross_entropy_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (σ(logits) − y)/n (eq. 19), without a factor f′.

    >>> nnkit.cross_entropy_delta(np.array([[0.0, 1e4]]), np.array([[1.0, 1.0]]))
    array([[-0.5,  0. ]])
    """
    return _delta(classification.cross_entropy, logits, y, scale)


def softmax_cross_entropy(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of −Σₖ y ln p with p = softmax(logits); each row of y sums to 1.

    >>> round(float(nnkit.softmax_cross_entropy(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))), 6)
    0.693147
    """
    return _cost(classification.softmax_cross_entropy, logits, y, scale)


def softmax_cross_entropy_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (p − y)/n (eq. 19 for softmax); each row of y sums to 1.

    >>> nnkit.softmax_cross_entropy_delta(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[-0.5,  0.5]])
    """
    return _delta(classification.softmax_cross_entropy, logits, y, scale)


def hinge(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ max(0, 1 − th) with t = 2y − 1, of outputs h; y in [0, 1].

    With one-hot targets, each class has a margin against the rest.

    >>> float(nnkit.hinge(np.array([[0.5, 3.0]]), np.array([[1.0, 0.0]])))
    4.5
    """
    return _cost(classification.hinge, h, y, scale)


def hinge_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = −t/n where th < 1, else 0, of outputs h; the left derivative at th = 1.

    >>> nnkit.hinge_delta(np.array([[0.5, 3.0]]), np.array([[1.0, 0.0]]))
    array([[-1.,  1.]])
    """
    return _delta(classification.hinge, h, y, scale)


def _cost(cost: Cost, z: Array, y: Array, scale: Any) -> Array:
    pair = output_pair(cost)
    backend, z, y, scale = _prepared(pair, z, y, scale)
    return backend.sum(pair.terms(backend, z, y, scale))


def _delta(cost: Cost, z: Array, y: Array, scale: Any) -> Array:
    pair = output_pair(cost)
    backend, z, y, scale = _prepared(pair, z, y, scale)
    return pair.delta(backend, z, y, scale)


def _prepared(pair: OutputPair, z: Array, y: Array, scale: Any) -> tuple[Backend, Array, Array, Array]:
    name = pair.cost.name
    backend = backend_of(logits=z, y=y, scale=scale)
    try:
        z, y = backend.operands(("logits", "y"), (z, y))
    except TypeError as error:
        raise TypeError(f"{name}: {error}{_hint(z, y)}") from None
    if z.shape != y.shape or z.ndim == 0 or math.prod(z.shape) == 0:
        expected = f"expected one shape (..., n, d_out){_hint(z, y)}"
        raise ValueError(f"{name}: outputs have shape {z.shape} and y {y.shape}; {expected}")
    if scale is None:
        return backend, z, y, backend.asarray(1 / math.prod(z.shape[:-1]), dtype_name(z.dtype))
    _, share = backend.operands(("logits", "scale"), (z, scale))
    # A vector (d_out,) would broadcast as weights of outputs.
    if share.ndim not in (0, z.ndim) or any(s not in (1, d) for s, d in zip(share.shape, z.shape, strict=False)):
        expected = f"a number, {(*z.shape[:-1], 1)} or {tuple(z.shape)}"
        raise ValueError(f"{name}: scale has shape {tuple(share.shape)}; expected {expected}")
    return backend, z, y, share


def _hint(z: Any, y: Any) -> str:
    """A hint for labels (..., n) given as targets (..., n, d_out)."""
    outputs, given = (tuple(getattr(array, "shape", ())) for array in (z, y))
    return f"; for labels use nnkit.data.one_hot(y, {outputs[-1]})" if outputs and given == outputs[:-1] else ""
