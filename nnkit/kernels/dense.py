"""The dense layer, forward (eq. 2, 7, 9) and backward (eq. 5, 6, 8, 10, 12), in batch form.

Samples are rows: x is (..., n, d_in), W (d_out, d_in), b (d_out,), h and Δ (..., n, d_out). W and b may have the same
leading axes as x: a stack of independent layers is computed then.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from nnkit.backends import backend_of
from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import check_axes
from nnkit.backends.formula import Formula, compose
from nnkit.backends.selection import NEUTRAL
from nnkit.kernels.activations import Activation, get_activation

Shape = tuple[int, ...]


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
        W: weights, (d_out, d_in).
        b: biases, (d_out,). x, W and b have the same floating-point dtype.
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
    shape = _output_shape(x.shape, W.shape, b.shape)
    if out is not None or z is not None:
        _check_results(shape, out=out, z=z)
        _check_apart("out", out, b=b)
        _check_apart("z", z, b=b)
    if x.ndim == 2 or W.ndim > 2:
        return layer_forward(backend, f, x, W, b, out, z)
    row_z = _rows(backend, z)
    h = layer_forward(backend, f, _rows(backend, x), W, b, _rows(backend, out), row_z)
    if z is not None:
        _deliver(backend, row_z, z, shape)
    return _deliver(backend, h, out, shape)


def layer_forward(
    backend: Backend, f: Activation, x: Array, W: Array, b: Array, out: Array = None, z: Array = None
) -> Array:
    """`dense_forward` without its checks, for matrices or stacks of them, of one backend and dtype, that fit."""
    bias = b if b.ndim == 1 else b[..., None, :]
    h = backend.matmul(x, W.mT, out=out)
    if z is not None:
        backend.elementwise(compose(f.forward, biased, keep_inner=True), (h, bias), out=(z, h))
        return h
    fused = biased if f.name == "identity" else compose(f.forward, biased)
    return backend.elementwise(fused, (h, bias), out=h)


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
        activation: the name of f.
        z: the pre-activation h̄, if the gradient needs it (gelu, gelu_tanh, silu, mish).
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
    shape = _output_shape(x.shape, W.shape, None, delta.shape)
    if delta.shape != shape:
        raise ValueError(f"delta has shape {delta.shape}; expected {shape} to fit x and W")
    _check_results(x.shape, dx=out_dx)
    _check_results(W.shape, dW=out_dW)
    _check_results(W.shape[:-1], db=out_db)
    kept = delta if f.name == "identity" or overwrite_delta else None  # delta holds δh̄ then
    for name, array in (("dW", out_dW), ("db", out_db)):
        _check_apart(name, array, W=W if need_dx else None, delta=kept)
    saved = None if f.name == "identity" else _saved(backend, f, delta, h, z)
    outs = (out_dx, out_dW, out_db)
    if x.ndim == 2 or W.ndim > 2:
        return layer_backward(backend, f, delta, x, W, saved, outs, need_dx, overwrite_delta)
    if saved is not None:
        delta = backend.elementwise(f.gradient, (saved, delta), out=delta if overwrite_delta else None)
    outs, identity = (_rows(backend, out_dx), out_dW, out_db), get_activation("identity")
    dx, dW, db = layer_backward(
        backend, identity, _rows(backend, delta), _rows(backend, x), W, None, outs, need_dx, False
    )
    return None if dx is None else _deliver(backend, dx, out_dx, x.shape), dW, db


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
    """`dense_backward` without its checks, for matrices or stacks of them that fit; `saved` is h or z."""
    out_dx, out_dW, out_db = outs
    if f.name != "identity":
        delta = backend.elementwise(f.gradient, (saved, delta), out=delta if overwrite_delta else None)
    dW = backend.matmul(delta.mT, x, out=out_dW)
    db = backend.sum(delta, axis=delta.ndim - 2, out=out_db)
    return backend.matmul(delta, W, out=out_dx) if need_dx else None, dW, db


def _saved(backend: Backend, f: Activation, delta: Array, h: Array, z: Array) -> Array:
    """The output h or the pre-activation z, as f's gradient kernel requires; ValueError if it is missing or unfit."""
    name, saved = ("h", h) if f.gradient_from == "output" else ("z", z)
    if saved is None:
        raise ValueError(f"dense_backward: the gradient of {f.name} needs {name}, the {f.gradient_from} of the layer")
    saved, _ = backend.operands((name, "delta"), (saved, delta))
    if saved.shape != delta.shape:
        raise ValueError(f"dense_backward: {name} has shape {saved.shape}; expected that of delta, {delta.shape}")
    return saved


def _rows(backend: Backend, array: Any) -> Any:
    """Samples with any number of leading axes as the rows of a matrix."""
    return None if array is None else backend.xp.reshape(array, (math.prod(array.shape[:-1]), array.shape[-1]))


def _deliver(backend: Backend, rows: Array, out: Any, shape: tuple[int, ...]) -> Array:
    """Reshape rows to the shape of the samples, into `out` if given: its rows may have been a copy."""
    found = backend.xp.reshape(rows, shape)
    return found if out is None else backend.copy(found, out)


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


@lru_cache(maxsize=1024)
def _output_shape(x: Shape, W: Shape, b: Shape | None, delta: Shape | None = None) -> Shape:
    """The shape of a layer's outputs from those of its operands; raises ValueError if they do not fit."""
    if len(W) < 2:
        raise ValueError(f"W has shape {W}; expected (d_out, d_in)")
    check_axes("W", W)
    if len(x) < 1 or x[-1] != W[-1]:
        outputs = next((shape[-1] for shape in (b, delta) if shape), W[-1])
        fits = len(x) > 0 and W[-2:] == (x[-1], outputs)
        hint = "; W is (d_out, d_in); is it transposed?" if fits else ""
        raise ValueError(f"x has shape {x}; expected (..., {W[-1]}) to fit W of shape {W}{hint}")
    if len(W) > 2 and x[:-2] != W[:-2]:
        raise ValueError(f"x has shape {x}; expected the leading axes of W, {W[:-2]}")
    if b is not None and b != W[:-1]:
        raise ValueError(f"b has shape {b}; expected {W[:-1]} to fit W of shape {W}")
    return (*x[:-1], W[-2])
