"""Bits in formulas: 32-bit arithmetic that wraps, the same on every backend, and kinds that do not mix."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nnkit.backends.errors import FormulaError
from nnkit.backends.formula import Formula
from nnkit.backends.formulas.operations import complex_step_namespace
from nnkit.backends.formulas.tracing import trace
from tests.support.host_cuda import aligned, build, launch, with_driver
from tests.support.kernels import variant

if TYPE_CHECKING:
    from tests.conftest import Arrays


def bits(xp: Any, a: Any) -> Any:
    return xp.astype(a, xp.uint32)


# a is 3 and b is 2³² − 1; each is true.
CONDITIONS: list[Callable[[Any, Any, Any], Any]] = [
    lambda xp, a, b: a ^ b == 2**32 - 4,
    lambda xp, a, b: 5 ^ a == 6,
    lambda xp, a, b: xp.bitwise_xor(a, 5) == 6,
    lambda xp, a, b: b >> 28 == 15,
    lambda xp, a, b: xp.bitwise_right_shift(b, 31) == 1,
    lambda xp, a, b: b >> 0 == b,
    lambda xp, a, b: a * b == 2**32 - 3,
    lambda xp, a, b: b * b == 1,
    lambda xp, a, b: 2**31 * a == 2**31,
    lambda xp, a, b: a < b,
    lambda xp, a, b: 3 <= a,  # noqa: SIM300
    lambda xp, a, b: (b > 2**32 - 2) & (b != a) & ~(a >= 4),
]


def all_conditions(xp: Any, a: Any, b: Any) -> Any:
    return tuple(xp.astype(condition(xp, bits(xp, a), bits(xp, b)), a.dtype) for condition in CONDITIONS)


ALL = Formula(all_conditions, "all_conditions", ["a", "b"])


def test_arithmetic_on_bits(arrays: "Arrays") -> None:
    for number, result in enumerate(ALL(arrays([3.0, 3.0]), arrays(2.0**32 - 1))):
        np.testing.assert_array_equal(arrays.numpy(result, "float64"), [1.0, 1.0], f"CONDITIONS[{number}]")


def test_arithmetic_on_bits_as_cuda_text(tmp_path: Path) -> None:
    made = variant(ALL, ALL.name, "float64", ("full", "scalar"), 1)
    outs = [aligned(np.zeros(2)) for _ in CONDITIONS]
    launch(build(with_driver(made), tmp_path), made, [aligned(np.full(2, 3.0)), aligned(np.array(2.0**32 - 1))], outs)
    np.testing.assert_array_equal(outs, 1.0)


def test_constants_of_two_kinds_are_two_values() -> None:
    program = trace(lambda xp, a: a * 3 * xp.astype(bits(xp, a) * 3 == 3, a.dtype), ["a"], {})
    assert [(v.kind, v.constant) for v in program.values if v.op == "constant"] == [("real", 3.0), ("bits", 3.0)]


def test_the_complex_step_takes_the_bits_of_real_parts() -> None:
    a = np.array(5 + 1e-30j)
    found = complex_step_namespace.astype(bits(complex_step_namespace, a) == 5, a.dtype)
    assert (found, found.dtype) == (1, a.dtype)


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (lambda xp, a, b: bits(xp, a), "returns bits; expected a real value"),
    (lambda xp, a, b: bits(xp, a) * b, "multiply got bits and a real value; expected one kind"),
    (lambda xp, a, b: b < bits(xp, a), "less got a real value and bits; expected one kind"),
    (lambda xp, a, b: bits(xp, a) * (a > 0), r"multiply got a condition; write xp\.where"),
    (lambda xp, a, b: bits(xp, a) + 1, "add got bits; write xp.where.* to make a real value"),
    (lambda xp, a, b: xp.exp(bits(xp, a)), "exp got bits"),
    (lambda xp, a, b: xp.where(a > b, bits(xp, a), bits(xp, b)), "where got bits"),
    (lambda xp, a, b: xp.where(bits(xp, a), a, b), "where got bits; expected a condition"),
    (lambda xp, a, b: ~bits(xp, a), "logical_not got bits; expected a condition"),
    (lambda xp, a, b: a ^ b, r"bitwise_xor got a real value; expected bits such as xp\.astype\(a, xp\.uint32\)"),
    (lambda xp, a, b: (a > 0) ^ (b > 0), "bitwise_xor got a condition; expected bits"),
    (lambda xp, a, b: a >> 3, "bitwise_right_shift got a real value; expected bits"),
    (lambda xp, a, b: bits(xp, a) >> 32, "bitwise_right_shift of bits got 32; expected a Python int from 0 to 31"),
    (lambda xp, a, b: bits(xp, a) >> bits(xp, b), "bitwise_right_shift of bits got a computed value; expected"),
    (lambda xp, a, b: bits(xp, a) ^ 2**32, "bitwise_xor of bits got 4294967296; expected a Python int from 0 to 429"),
    (lambda xp, a, b: bits(xp, a) ^ -1, "bitwise_xor of bits got -1; expected"),
    (lambda xp, a, b: bits(xp, a) * 2.0, r"multiply of bits got 2\.0; expected a Python int"),
    (lambda xp, a, b: bits(xp, a) == True, "equal of bits got True; expected a Python int"),  # noqa: E712
    (lambda xp, a, b: bits(xp, a) ^ "1", "bitwise_xor got a str"),
    (lambda xp, a, b: bits(xp, a > b), r"astype\(uint32\) got a condition; write xp\.where"),
    (lambda xp, a, b: bits(xp, bits(xp, a)), r"astype\(uint32\) got bits"),
    (lambda xp, a, b: xp.astype(bits(xp, a), a.dtype), r"astype\(dtype\) got bits; expected a condition"),
    (lambda xp, a, b: xp.astype(a, b.dtype), r"astype\(dtype\) got a real value; expected a condition"),
    (lambda xp, a, b: xp.astype(a > b, (a > b).dtype), "xp.astype got dtype 'bool'; expected xp.uint32 or"),
    (lambda xp, a, b: xp.astype(a, np.uint32), r"xp\.astype got dtype .*uint32.*; expected xp\.uint32"),
    (lambda xp, a, b: xp.astype(a, xp.int64), r"xp\.int64; formulas may use"),
]


@pytest.mark.parametrize(("function", "message"), REFUSED)
def test_invalid_formulas_are_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        Formula(function, "refused", ["a", "b"])(1.0, 2.0)
