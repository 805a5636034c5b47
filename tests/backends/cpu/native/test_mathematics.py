"""Native exponentials and logarithms differ by at most 2 units in the last place from the exact values."""

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from nnkit.backends.cpu.native.formulas import native_calls
from nnkit.backends.cpu.native.mathematics import OPERATIONS
from nnkit.backends.formula import Formula

pytest.importorskip("numba")


def native(operation: str, x: np.ndarray) -> np.ndarray:
    program = Formula(lambda xp, a: getattr(xp, operation)(a), operation, ["a"]).program()
    out = np.empty_like(x)
    (call,) = native_calls(program, [x], [out]) or []
    call()
    return out


def errors(result: np.ndarray, exact: np.ndarray) -> Any:
    """The distance from the exact values in units in their last place; infinite where only one of both is finite."""
    info = np.finfo(result.dtype)
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(exact)
        unit = np.ldexp(np.ones_like(exact), np.maximum(exponent - 1, info.minexp) - info.nmant)
        found = np.abs(result.astype(exact.dtype) - exact) / unit
        rounded = exact.astype(result.dtype)
    return np.where((result == rounded) | (np.isnan(result) & np.isnan(exact)), 0, found)


@pytest.mark.parametrize("stride", [4099, pytest.param(1, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_float32(operation: str, stride: int) -> None:
    """All float32 numbers of a stride of their bits, signs, subnormals and NaN among them; float64 is exact here."""
    for start in range(0, 1 << 32, 1 << 28):
        x = np.arange(start, start + (1 << 28), stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
        with np.errstate(all="ignore"):
            exact = getattr(np, operation)(x.astype(np.float64))
        assert errors(native(operation, x), exact).max() <= 2


_POINTS = {
    "exp": (-745.5, 709.7),
    "expm1": (-44.0, 709.7),
    "log": (0.0, 4.0),
    "log1p": (-1.0, 4.0),
    "tanh": (-22.0, 22.0),
}


def exact_value(operation: str, x: float) -> Decimal:
    d = Decimal(x)
    match operation:
        case "exp":
            return d.exp()
        case "expm1":
            return d.exp() - 1
        case "log":
            return d.ln()
        case "log1p":
            return (1 + d).ln()
        case _:
            return 1 - 2 / ((2 * d).exp() + 1)


@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_float64(operation: str, count: int) -> None:
    """Compared with decimals of 60 digits: over the whole range, around zero, and at the ends of exponents."""
    rng, (low, high) = np.random.default_rng(0), _POINTS[operation]
    x = np.concatenate([rng.uniform(low, high, count), rng.normal(0, 0.5, count), rng.normal(0, 1e-5, count)])
    if operation.startswith("log"):
        x = np.concatenate([x, np.exp(rng.uniform(-740 if operation == "log" else -30, 700, count))])
    x = x[(x > low) & ((x < high) | operation.startswith("log"))]
    result = native(operation, x)
    with localcontext() as context:
        context.prec, context.Emin = 60, -2000
        for a, b in zip(x.tolist(), result.tolist(), strict=True):
            exact = exact_value(operation, a)
            nearest = float(exact)
            assert abs(Decimal(b) - exact) <= 2 * Decimal(float(np.spacing(np.abs(nearest)))), (a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_edges(operation: str, dtype: str) -> None:
    """Signed zeros, the smallest numbers, what overflows, infinities and NaN give what NumPy gives."""
    info = np.finfo(dtype)
    edges: list[Any] = [
        0.0,
        info.smallest_subnormal,
        info.smallest_normal,
        info.eps / 8,
        1.0,
        info.max,
        np.inf,
        np.nan,
        120,
        800,
    ]
    x = np.array([*edges, *(-e for e in edges)], dtype)
    with np.errstate(all="ignore"):
        expected = getattr(np, operation)(x)
    result = native(operation, x)
    np.testing.assert_array_max_ulp(result, expected, 2)
    small = np.abs(x) < info.eps  # exp(0) aside, the results are as small, and log's are not
    if operation in ("expm1", "log1p", "tanh"):
        np.testing.assert_array_equal(result[small], x[small])
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result[numbers]), np.signbit(expected[numbers]))
