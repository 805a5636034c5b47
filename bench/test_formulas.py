"""Each activation and its gradient kernel, fused, against the same expression in plain array operations."""

from collections.abc import Callable
from typing import Any

import pytest

import nnkit
from nnkit.backends import Backend
from nnkit.backends.base import quiet
from nnkit.backends.formula import Formula
from nnkit.kernels.activations import activation_names, get_activation

SIZES = [1 << 10, 1 << 14, 1 << 18, 1 << 21, 1 << 24]
UPDATES = [
    name
    for name, update in vars(nnkit.kernels.updates).items()
    if isinstance(update, Formula) and update.operands[:2] == ("p", "g")
]
DTYPES = ["float16", "bfloat16", "float32", "float64"]


def _plain(formula: Formula, backend: Backend, *operands: Any) -> Any:
    with quiet():
        return formula.function(backend.xp, *operands)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["fused", "plain"])
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["fused", "plain"])
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


@pytest.mark.parametrize("size", SIZES)
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
