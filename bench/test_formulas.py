"""Each fused kernel compared with the same expression in plain array operations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import Backend
from nnkit.backends.base import quiet
from nnkit.backends.formula import Formula
from nnkit.kernels.activations import activation_names, get_activation
from nnkit.kernels.dropout import dropout
from nnkit.kernels.regularization import treated

SIZES = [1 << 10, 1 << 14, 1 << 18, 1 << 21, 1 << 24]
SHOWN = {1 << 14, 1 << 21}  # the default selection: fits into the L2 cache, and exceeds all caches
UPDATES = [
    name
    for name, update in vars(nnkit.kernels.updates).items()
    if isinstance(update, Formula) and update.operands[:2] == ("p", "g")
]
DTYPES = ["float16", "bfloat16", "float32", "float64"]


def _case(how: str, size: int, dtype: str) -> Any:
    """The default selection is float32, fused and plain, and the other dtypes fused, at the size for the L2 cache."""
    shown = size in SHOWN if dtype == "float32" else (how, size) == ("fused", 1 << 14)
    return pytest.param(how, size, dtype, marks=() if shown else pytest.mark.full)


CASES = [_case(how, size, dtype) for how in ("fused", "plain") for size in SIZES for dtype in DTYPES]


def _plain(formula: Formula, backend: Backend, *operands: Any) -> Any:
    with quiet():
        return formula.function(backend.xp, *operands)


@pytest.mark.parametrize(("how", "size", "dtype"), CASES)
@pytest.mark.parametrize("name", activation_names())
def test_activation(
    measure: Callable[..., None],
    random: Callable[..., Any],
    backend: Backend,
    name: str,
    how: str,
    size: int,
    dtype: str,
) -> None:
    f, z = get_activation(name).forward, random((size,), dtype)
    out = backend.empty((size,), dtype)
    group = f"{name} of {size} {dtype}"
    if how == "fused":
        measure(group, lambda: f(z, out=out))
    else:
        measure(group, _plain, f, backend, z)


@pytest.mark.parametrize(("how", "size", "dtype"), CASES)
@pytest.mark.parametrize("name", activation_names())
def test_gradient(
    measure: Callable[..., None],
    random: Callable[..., Any],
    backend: Backend,
    name: str,
    how: str,
    size: int,
    dtype: str,
) -> None:
    activation, z, delta = get_activation(name), random((size,), dtype), random((size,), dtype)
    saved = activation.forward(z) if activation.gradient_from == "output" else z
    out, group = backend.empty((size,), dtype), f"{name}_grad of {size} {dtype}"
    if how == "fused":
        measure(group, lambda: activation.gradient(saved, delta, out=out))
    else:
        measure(group, _plain, activation.gradient, backend, saved, delta)


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=() if size in SHOWN else pytest.mark.full) for size in SIZES]
)
@pytest.mark.parametrize("name", UPDATES)
def test_update(
    measure: Callable[..., None], random: Callable[..., Any], backend: Backend, name: str, size: int
) -> None:
    update: Formula = getattr(nnkit.kernels.updates, name)
    numbers = {"learning_rate": 1e-6, "l2": 1e-6, "momentum": 0.9, "correction1": 0.1, "correction2": 0.001}
    operands = [
        backend.asarray(numbers[o], "float32") if o in numbers else abs(random((size,))) for o in update.operands
    ]
    state = [a for a, o in zip(operands, update.operands, strict=True) if o not in {*numbers, "g"}]
    out = state[0] if len(state) == 1 else tuple(state)
    measure(f"{name} of {size}", lambda: update(*operands, out=out))


@pytest.mark.parametrize("how", ["fused", "plain"])
@pytest.mark.parametrize("n", [128, 4096])
def test_dropout(measure: Callable[..., None], random: Callable[..., Any], backend: Backend, n: int, how: str) -> None:
    h, row, column = random((n, 256)), np.arange(n).reshape(n, 1), np.arange(256)
    operands = (h, *(backend.asarray(a, "float32") for a in (row, column, 1, 2, 0, 3)))
    if how == "fused":
        out = (backend.empty(h.shape, "float32"), backend.empty(h.shape, "float32"))
        measure(f"dropout of {n}×256", lambda: dropout(*operands, out=out))
    else:
        measure(f"dropout of {n}×256", _plain, dropout, backend, *operands)


@pytest.mark.parametrize("n", [128, 4096])
@pytest.mark.parametrize("name", ["softmax", "softmax_grad"])
def test_softmax(measure: Callable[..., None], random: Callable[..., Any], name: str, n: int) -> None:
    operands = (random((n, 10)), random((n, 10)))[: 1 if name == "softmax" else 2]
    measure(f"{name} of {n}×10", getattr(nnkit, name), *operands)


@pytest.mark.parametrize("options", [("l1",), ("l2", "weight_decay"), ("clip_value",)], ids="+".join)
def test_treated_update(
    measure: Callable[..., None], random: Callable[..., Any], backend: Backend, options: tuple[str, ...]
) -> None:
    update = treated(nnkit.kernels.updates.gradient_descent, *options)
    p, g, *numbers = (random((1 << 14,)) if o in ("p", "g") else backend.asarray(1e-6) for o in update.operands)
    measure(f"{update.name} of {1 << 14}", lambda: update(p, g, *numbers, out=p))


@pytest.mark.parametrize("kind", [nnkit.data.Normalization, nnkit.data.Whitening])
def test_preprocessing(measure: Callable[..., None], random: Callable[..., Any], backend: Backend, kind: Any) -> None:
    X = random((4096, 64))
    fitted = kind.fit(backend.to_numpy(X))
    measure(f"{kind.__name__} of 4096×64", fitted.transform, X)
