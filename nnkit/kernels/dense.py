"""The dense layer, forward (eq. 2, 7, 9) and backward (eq. 5, 6, 8, 10, 12), in batch form.

Samples are rows: x is (..., n, d_in), W (d_out, d_in), b (d_out,), h and Δ (..., n, d_out). W and b may have the same
leading axes as x: a stack of independent layers is computed then.
"""

import math
from typing import Any

import numpy as np

from nnkit.backends import backend_of
from nnkit.backends.base import Array, Backend, check_axes
from nnkit.backends.formula import Formula, compose
from nnkit.backends.selection import NEUTRAL
from nnkit.kernels.activations import Activation, get_activation


def _biased(xp: Any, product: Any, b: Any) -> Any:
    """h̄ = product + b, product being Wx (eq. 2)."""
    return product + b


biased = Formula(_biased, "biased", ["product", "b"])


def dense_forward(
    x: Array, W: Array, b: Array, activation: str | Activation = "identity", *, out: Any = None, z: Any = None
) -> Array:
    """A dense layer: h̄ = xWᵀ + b and h = f(h̄) (eq. 2, 7, 9), with bias and activation fused after the product.

    Args:
        x: samples, (..., n, d_in) or a single one (d_in,).
        W: weights, (d_out, d_in). b: biases, (d_out,). x, W and b have the same floating-point dtype.
        activation: the name of f.
        out: an array for h, (..., n, d_out).
        z: an array for the pre-activation h̄, which some gradients need (see `activations`), of the shape of h.

    Returns h. Raises ValueError for incompatible shapes or an unknown activation, TypeError for other dtypes,
    BackendMismatchError for arrays of two backends.

    >>> x, W, b = np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [0.0, -1.0]]), np.array([0.5, 0.0])
    >>> nnkit.dense_forward(x, W, b, activation="relu")
    array([[3.5, 0. ]])
    """
    f = get_activation(activation)
    backend = backend_of(x=x, W=W, b=b, out=out, z=z)
    x, W, b = backend.operands(("x", "W", "b"), (x, W, b))
    _check_shapes(x, W, b)
    if out is not None or z is not None:
        _check_results((*x.shape[:-1], W.shape[-2]), out=out, z=z)
        _check_apart("out", out, b=b)
        _check_apart("z", z, b=b)
    return layer_forward(backend, f, x, W, b, out, z)


def layer_forward(
    backend: Backend, f: Activation, x: Array, W: Array, b: Array, out: Array = None, z: Array = None
) -> Array:
    """`dense_forward` without its checks: for arrays of one backend and dtype that fit."""
    rows, row_z = _rows(backend, x, W), _rows(backend, z, W)
    bias = b if b.ndim == 1 else b[..., None, :]
    h = backend.matmul(rows, W.mT, out=_rows(backend, out, W))
    if z is None:
        fused = biased if f.name == "identity" else compose(f.forward, biased)
        backend.elementwise(fused, (h, bias), out=h)
    else:
        backend.elementwise(compose(f.forward, biased, keep_inner=True), (h, bias), out=(row_z, h))
        _deliver(backend, row_z, z)
    return _deliver(backend, h, out, (*x.shape[:-1], W.shape[-2]))


def dense_backward(
    delta: Array,
    x: Array,
    W: Array,
    h: Array = None,
    activation: str | Activation = "identity",
    *,
    z: Array = None,
    out: tuple[Any, Any, Any] | None = None,
    need_dx: bool = True,
    overwrite_delta: bool = False,
) -> tuple[Array, Array, Array]:
    """Backpropagation through a dense layer: from Δ = ∂C/∂h to δx (eq. 6), δW (eq. 5, 10) and δb (eq. 5, 12).

    First δh̄ = f′(h̄) ⊙ Δ (eq. 8) in one fused kernel; then δx = δh̄ W, δW = δh̄ᵀ x and δb = 1ᵀ δh̄.

    Args:
        delta: Δ, (..., n, d_out); unchanged unless `overwrite_delta` is true, which lets δh̄ overwrite it.
        x, W: the arguments of `dense_forward`.
        h: its result; not needed for the identity.
        activation: the name of f. z: the pre-activation h̄, if the gradient needs it (gelu, gelu_tanh, silu).
        out: arrays for (δx, δW, δb); each may be None.
        need_dx: if False, δx is not computed and returned as None, as for the first layer.

    Returns (δx, δW, δb) in the shapes of x, W and b. They are sums over the samples: the 1/n of the mean is part of Δ.
    Raises ValueError for incompatible shapes or a missing h or z, TypeError and BackendMismatchError like
    `dense_forward`.

    >>> x, W = np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [0.0, -1.0]])
    >>> dx, dW, db = nnkit.dense_backward(np.array([[1.0, 1.0]]), x, W, np.array([[3.5, 0.0]]), activation="relu")
    >>> dx, dW, db
    (array([[1., 1.]]), array([[1., 2.], [0., 0.]]), array([1., 0.]))
    """
    f = get_activation(activation)
    out_dx, out_dW, out_db = _three(out)
    backend = backend_of(delta=delta, x=x, W=W, h=h, z=z, dx=out_dx, dW=out_dW, db=out_db)
    delta, x, W = backend.operands(("delta", "x", "W"), (delta, x, W))
    _check_shapes(x, W, None, delta)
    if delta.shape != (*x.shape[:-1], W.shape[-2]):
        raise ValueError(f"delta has shape {delta.shape}; expected {(*x.shape[:-1], W.shape[-2])} to fit x and W")
    _check_results(x.shape, dx=out_dx)
    _check_results(W.shape, dW=out_dW)
    _check_results(W.shape[:-1], db=out_db)
    kept = delta if f.name == "identity" or overwrite_delta else None  # delta holds δh̄ then
    for name, array in (("dW", out_dW), ("db", out_db)):
        _check_apart(name, array, W=W if need_dx else None, delta=kept)
    saved = None if f.name == "identity" else _saved(backend, f, delta, h, z)
    return layer_backward(backend, f, delta, x, W, saved, (out_dx, out_dW, out_db), need_dx, overwrite_delta)


def layer_backward(
    backend: Backend,
    f: Activation,
    delta: Array,
    x: Array,
    W: Array,
    saved: Array,
    outs: tuple[Any, Any, Any],
    need_dx: bool,
    overwrite_delta: bool,
) -> tuple[Array, Array, Array]:
    """`dense_backward` without its checks: for arrays of one backend and dtype that fit; `saved` is h or z.

    `overwrite_delta` saves the memory traffic of one array.
    """
    out_dx, out_dW, out_db = outs
    dz = delta
    if f.name != "identity":
        dz = backend.elementwise(f.gradient, (saved, delta), out=delta if overwrite_delta else None)
    dz, rows = _rows(backend, dz, W), _rows(backend, x, W)
    dW = backend.matmul(dz.mT, rows, out=out_dW)
    db = backend.sum(dz, axis=dz.ndim - 2, out=out_db)
    if not need_dx:
        return None, dW, db
    dx = backend.matmul(dz, W, out=_rows(backend, out_dx, W))
    return _deliver(backend, dx, out_dx, x.shape), dW, db


def _saved(backend: Backend, f: Activation, delta: Array, h: Array, z: Array) -> Array:
    """The output h or the pre-activation z, as f's gradient kernel requires; ValueError if it is missing or unfit."""
    name, saved = ("h", h) if f.gradient_from == "output" else ("z", z)
    if saved is None:
        raise ValueError(f"dense_backward: the gradient of {f.name} needs {name}, the {f.gradient_from} of the layer")
    saved, _ = backend.operands((name, "delta"), (saved, delta))
    if saved.shape != delta.shape:
        raise ValueError(f"dense_backward: {name} has shape {saved.shape}; expected that of delta, {delta.shape}")
    return saved


def _rows(backend: Backend, array: Any, W: Array) -> Any:
    """Reshape samples to the rows of a matrix if W is a matrix; all leading axes are samples then."""
    if array is None or W.ndim > 2 or array.ndim == 2:
        return array
    return backend.xp.reshape(array, (math.prod(array.shape[:-1]), array.shape[-1]))


def _deliver(backend: Backend, rows: Array, out: Any, shape: tuple[int, ...] | None = None) -> Array:
    """Reshape rows to the shape of the samples; copy them to `out` if they are not written there yet."""
    if out is None:
        return rows if rows.shape == shape else backend.xp.reshape(rows, shape)
    if rows.shape != out.shape:
        backend.copy(backend.xp.reshape(rows, out.shape), out)
    return out


def _check_results(shape: tuple[int, ...], **outs: Any) -> None:
    for name, out in outs.items():
        if isinstance(out, NEUTRAL) and out is not None:
            raise TypeError(f"{name} is a {type(out).__name__}; expected an array to write to")
        if out is not None and tuple(out.shape) != shape:
            raise ValueError(f"{name} has shape {out.shape}; expected {shape}")


def _check_apart(name: str, out: Any, **needed: Any) -> None:
    """Raise ValueError if a result would overwrite an operand that is read later; only checked for NumPy arrays."""
    for operand, array in needed.items():
        if isinstance(out, np.ndarray) and isinstance(array, np.ndarray) and np.may_share_memory(out, array):
            raise ValueError(f"{name} overlaps {operand}, which is read after it is written; expected another array")


def _three(out: Any) -> tuple[Any, Any, Any]:
    """Unpack `out` of `dense_backward`: None or an array for each result."""
    if out is None:
        return None, None, None
    if not isinstance(out, tuple | list) or len(out) != 3:
        what = f"holds {len(out)}" if isinstance(out, tuple | list) else f"is a {type(out).__name__}"
        raise TypeError(f"out {what}; expected a tuple of three, for δx, δW and δb, each an array or None")
    return out[0], out[1], out[2]


def _check_shapes(x: Array, W: Array, b: Array | None, delta: Array | None = None) -> None:
    if W.ndim < 2:
        raise ValueError(f"W has shape {W.shape}; expected (d_out, d_in)")
    check_axes("W", W)
    if x.ndim < 1 or x.shape[-1] != W.shape[-1]:
        outputs = next((a.shape[-1] for a in (b, delta) if a is not None and a.ndim), W.shape[-1])
        fits = x.ndim > 0 and W.shape[-2:] == (x.shape[-1], outputs)
        hint = "; W is (d_out, d_in); is it transposed?" if fits else ""
        raise ValueError(f"x has shape {x.shape}; expected (..., {W.shape[-1]}) to fit W of shape {W.shape}{hint}")
    if W.ndim > 2 and x.shape[:-2] != W.shape[:-2]:
        raise ValueError(f"x has shape {x.shape}; expected the leading axes of W, {W.shape[:-2]}")
    if b is not None and b.shape != W.shape[:-1]:
        raise ValueError(f"b has shape {b.shape}; expected {W.shape[:-1]} to fit W of shape {W.shape}")
