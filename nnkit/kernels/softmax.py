"""Softmax and its cross-entropy, with rows of logits shifted by their maximum to avoid overflow."""

from typing import Any

from nnkit.backends import backend_of
from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import HALF, check_axes, dtype_name, promote
from nnkit.backends.formula import formula
from nnkit.kernels.arithmetic import divided, product, rounded, widened


@formula
def shifted_exp(xp: Any, z: Any, largest: Any) -> Any:
    """e^(z − m), at most 1."""
    return xp.exp(z - largest)


@formula
def softmax_terms(xp: Any, z: Any, largest: Any, total: Any, y: Any, scale: Any) -> Any:
    """y (ln Σ e^(z − m) − (z − m)) · scale = −y ln p · scale."""
    return y * (xp.log(total) - (z - largest)) * scale


@formula
def softmax_delta(xp: Any, exponential: Any, total: Any, y: Any, scale: Any) -> Any:
    """δh̄ = (p − y) · scale with p = e^(z − m)/Σ e^(z − m) (eq. 19)."""
    return (exponential / total - y) * scale


@formula
def softmax_weighted_delta(xp: Any, exponential: Any, total: Any, shares: Any, sum_of_shares: Any) -> Any:
    """δh̄ = p Σ s − s with s = y · scale: the derivative with weights per output."""
    return exponential / total * sum_of_shares - shares


@formula
def softmax_pullback(xp: Any, p: Any, delta: Any, projection: Any) -> Any:
    """p ⊙ (Δ − Σ p Δ)."""
    return p * (delta - projection)


def exponentials(backend: Backend, z: Array) -> tuple[Array, Array, Array]:
    """The maximum m of each row, e^(z − m), and its sum over the row; shapes (..., n, 1), z.shape and (..., n, 1)."""
    largest = backend.max(z, axis=-1, keepdims=True)
    exponential = backend.elementwise(shifted_exp, (z, largest))
    return largest, exponential, backend.sum(exponential, axis=-1, keepdims=True)


def softmax(z: Array) -> Array:
    """p = e^z/Σ e^z over the last axis; z: logits (..., classes) of a floating dtype; p has the same shape and dtype.

    Raises TypeError for other dtypes and ValueError for 0-d arrays or no classes.

    >>> nnkit.softmax(np.array([[0.0, 0.0], [1e4, -1e4]]))
    array([[0.5, 0.5], [1. , 0. ]])
    """
    backend = backend_of(z=z)
    (z,) = backend.operands(("z",), (z,))
    _check_classes("z", z)
    dtype = dtype_name(z.dtype)
    _, exponential, total = exponentials(backend, widened(backend, z) if dtype in HALF else z)
    p = backend.elementwise(divided, (exponential, total))
    return rounded(backend, p, dtype) if dtype in HALF else p


def softmax_grad(p: Array, delta: Array) -> Array:
    """δh̄ = p ⊙ (Δ − Σₖ pₖ Δₖ), eq. 8 for softmax, whose Jacobian is diag(p) − p pᵀ (Bishop 2006, eq. 4.106).

    p: the saved output, (..., classes); delta: Δ, with the same shape and dtype. Raises TypeError for other dtypes and
    ValueError for other shapes.

    >>> nnkit.softmax_grad(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    array([[ 0.25, -0.25]])
    """
    backend = backend_of(p=p, delta=delta)
    p, delta = backend.operands(("p", "delta"), (p, delta))
    _check_classes("p", p)
    if delta.shape != p.shape:
        raise ValueError(f"delta has shape {delta.shape}; expected the shape of p, {p.shape}")
    dtype = None
    if dtype_name(p.dtype) in HALF or dtype_name(delta.dtype) in HALF:
        dtype, p, delta = promote({"p": p, "delta": delta}), widened(backend, p), widened(backend, delta)
    projection = backend.sum(backend.elementwise(product, (p, delta)), axis=-1, keepdims=True)
    result = backend.elementwise(softmax_pullback, (p, delta, projection))
    return result if dtype is None else rounded(backend, result, dtype)


def _check_classes(name: str, array: Array) -> None:
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected (..., classes) with at least one class")
    check_axes(name, array.shape)
