"""Tracing: what is written down when a formula is called with stand-ins, and what is refused."""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnkit  # noqa: F401  lists the formulas of the kernels
from nnkit.backends.errors import BackendError, FormulaError
from nnkit.backends.formula import Formula, formula, list_formulas
from nnkit.backends.formulas.operations import OPERATIONS
from nnkit.backends.formulas.program import Program, Value
from nnkit.backends.formulas.tracing import trace

# What each operation means for Python's own numbers, to run a traced program without NumPy.
PYTHON: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "negative": operator.neg,
    "abs": abs,
    "square": lambda a: a * a,
    "pow": math.pow,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "logical_and": lambda a, b: a and b,
    "logical_or": lambda a, b: a or b,
    "logical_not": operator.not_,
    "where": lambda condition, a, b: a if condition else b,
}


def run(program: Program, *operands: float) -> list[float]:
    """The outputs of a program, by Python's arithmetic."""
    values: list[Any] = []
    for i, value in enumerate(program.values):
        if value.op == "operand":
            values.append(operands[i])
        elif value.op == "constant":
            values.append(value.constant)
        else:
            values.append(PYTHON[value.op](*(values[a] for a in value.arguments)))
    return [values[i] for i in program.outputs]


def traced(function: Callable[..., Any]) -> Program:
    return trace(function, ["a", "b"], {})


def operations(function: Callable[..., Any]) -> list[str]:
    return [value.op for value in traced(function).values if value.op in OPERATIONS]


ARITHMETIC: list[tuple[Callable[..., Any], float]] = [
    (lambda xp, a, b: a + b, 1),
    (lambda xp, a, b: a - b, 5),
    (lambda xp, a, b: a * b, -6),
    (lambda xp, a, b: a / b, -1.5),
    (lambda xp, a, b: -a, -3),
    (lambda xp, a, b: +b, -2),
    (lambda xp, a, b: abs(b), 2),
    (lambda xp, a, b: 10 + a, 13),
    (lambda xp, a, b: 10 - a, 7),
    (lambda xp, a, b: 10 * a, 30),
    (lambda xp, a, b: 12 / a, 4),
    (lambda xp, a, b: a - 10, -7),
    (lambda xp, a, b: a / 12, 0.25),
    (lambda xp, a, b: np.float64(10) - a, 7),
    (lambda xp, a, b: b**2, 4),
    (lambda xp, a, b: b**3, -8),
    (lambda xp, a, b: b**4, 16),
    (lambda xp, a, b: a**b, 1 / 9),
    (lambda xp, a, b: 2**a, 8),
    (lambda xp, a, b: xp.pow(a, b), 1 / 9),
    (lambda xp, a, b: xp.where(a > b, a, b), 3),
    (lambda xp, a, b: xp.where(a > b, 7, 8.5), 7),
    (lambda xp, a, b: 42, 42),
]


@pytest.mark.parametrize(("function", "expected"), ARITHMETIC)
def test_arithmetic_on_symbols(function: Callable[..., Any], expected: float) -> None:
    assert run(traced(function), 3.0, -2.0) == [expected]


CONDITIONS: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("<", lambda a, b: a < b),
    ("<=", lambda a, b: a <= b),
    (">", lambda a, b: a > b),
    (">=", lambda a, b: a >= b),
    ("==", lambda a, b: a == b),
    ("!=", lambda a, b: a != b),
    ("reflected", lambda a, b: 1 < a),  # noqa: SIM300
    ("and", lambda a, b: (a > 0) & (b > 0)),
    ("or", lambda a, b: (a > 0) | (b > 0)),
    ("not", lambda a, b: ~(a > b)),
    ("either", lambda a, b: (a > 0) != (b > 0)),
    ("both or none", lambda a, b: (a > 0) == (b > 0)),
]


@pytest.mark.parametrize(("a", "b"), [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -2.0)])
@pytest.mark.parametrize(("name", "condition"), CONDITIONS)
def test_conditions(name: str, condition: Callable[[Any, Any], Any], a: float, b: float) -> None:
    program = traced(lambda xp, a, b: xp.where(condition(a, b), 1, 0))
    truth = not a > b if name == "not" else condition(a, b)  # Python's ~True is -2
    assert run(program, a, b) == [int(truth)]


def test_common_subexpressions_are_computed_once() -> None:
    assert operations(lambda xp, a, b: xp.exp(a * b) + xp.exp(a * b)) == ["multiply", "exp", "add"]
    assert operations(lambda xp, a, b: (a * 2 + 1, a * 2.0)) == ["multiply", "add"]
    assert operations(lambda xp, a, b: a - b + (b - a)) == ["subtract", "subtract", "add"]


def test_constants_are_shared_except_zeros_of_both_signs() -> None:
    def constants(function: Callable[..., Any]) -> list[float]:
        return [value.constant for value in traced(function).values if value.op == "constant"]

    assert constants(lambda xp, a, b: 2 * a + 2.0 * b) == [2.0]
    zeros = constants(lambda xp, a, b: xp.where(a > b, 0.0, -0.0))
    assert [math.copysign(1, zero) for zero in zeros] == [1, -1]


def test_dead_values_are_eliminated_and_operands_kept() -> None:
    def function(xp: Any, a: Any, b: Any) -> Any:
        _ = xp.exp(a + 17) * b
        return a * 3

    program = traced(function)
    assert program.values == (
        Value("operand"),
        Value("operand"),
        Value("constant", constant=3.0),
        Value("multiply", (0, 2)),
    )
    assert program.outputs == (3,)


def test_powers_two_and_three_are_products() -> None:
    assert operations(lambda xp, a, b: a**2) == ["square"]
    assert operations(lambda xp, a, b: a**3.0) == ["square", "multiply"]
    assert operations(lambda xp, a, b: a**0.5) == ["pow"]


@pytest.mark.parametrize("name", [name for name in list_formulas() if name.startswith("nnkit.kernels.")])
def test_programs_of_the_kernels_are_straight_lines(name: str) -> None:
    program = list_formulas()[name].program()
    last = program.last_uses()
    assert [value.op for value in program.values[: len(program.operands)]] == ["operand"] * len(program.operands)
    for i, value in enumerate(program.values):
        if value.op not in OPERATIONS:
            continue
        assert all(argument < i <= last[argument] for argument in value.arguments)
        assert last[i] > i  # nothing is dead
    assert all(last[i] == len(program.values) for i in program.outputs)


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (lambda xp, a, b: a if a > 0 else b, r"branches on a value.*xp\.where"),
    (lambda xp, a, b: 0 < a < 1, "branches on a value"),
    (lambda xp, a, b: max(a, b), "branches on a value"),
    (lambda xp, a, b: xp.erf(a), r"xp\.erf; formulas may use xp\.abs, xp\.add, .*where"),
    (lambda xp, a, b: xp.exp(a, b), r"xp\.exp got 2 arguments; expected 1"),
    (lambda xp, a, b: xp.where(a > 0, a), r"xp\.where got 2 arguments; expected 3"),
    (lambda xp, a, b: a * math.inf, "constant inf"),
    (lambda xp, a, b: xp.maximum(a, math.nan), "constant nan"),
    (lambda xp, a, b: a > 0, "returns a condition"),
    (lambda xp, a, b: (a, a > b), "returns a condition"),
    (lambda xp, a, b: a + "1", "add got a str"),
    (lambda xp, a, b: None, "the result got a NoneType"),
    (lambda xp, a, b: [a, b], "the result got a list"),
    (lambda xp, a, b: (), "returns nothing"),
    (lambda xp, a, b: xp.exp(a > 0), "exp got a condition"),
    (lambda xp, a, b: a * (a > 0), r"multiply got a condition; write xp\.where"),
    (lambda xp, a, b: xp.where(a > 0, a > 1, b), "where got a condition"),
    (lambda xp, a, b: xp.where(a, a, b), "where got a real value; expected a condition"),
    (lambda xp, a, b: xp.where(True, a, b), "where got a real value; expected a condition"),
    (lambda xp, a, b: ~a, "logical_not got a real value"),
    (lambda xp, a, b: xp.where((a > 0) & b, a, b), "logical_and got a real value"),
    (lambda xp, a, b: xp.where((a > 0) == b, a, b), "equal got a condition"),
    (lambda xp, a, b: np.sin(a), r"calls np\.sin, which other backends do not have; write xp\.sin$"),
    (lambda xp, a, b: np.absolute(a), r"calls np\.absolute, .*; write xp\.abs$"),
    (lambda xp, a, b: np.power(a, 2.0), r"calls np\.power, .*; write xp\.pow$"),
    (lambda xp, a, b: np.maximum(0.0, a), r"calls np\.maximum, .*; write xp\.maximum$"),
    (lambda xp, a, b: np.where(a > 0, a, b), r"calls np\.where, .*; write xp\.where$"),
    (lambda xp, a, b: np.clip(a, 0, 1), r"calls np\.clip, .*; formulas may use xp\.abs, .*xp\.where"),
    (lambda xp, a, b: np.arange(3.0) * a, r"calls np\.multiply"),
    (lambda xp, a, b: np.asarray(a), "converts a value to a NumPy array; use the functions of xp"),
    (lambda xp, a, b: math.sin(a), r"converts a value to a Python number, as math\.sin does; write xp\.sin"),
    (lambda xp, a, b: a * float(b), "converts a value to a Python number"),
]


@pytest.mark.parametrize(("function", "message"), REFUSED)
def test_invalid_formulas_are_refused(function: Callable[..., Any], message: str) -> None:
    made = Formula(function, "refused", ["a", "b"])  # making it is no error yet
    with pytest.raises(FormulaError, match=message) as caught:
        made(1.0, 2.0)
    assert isinstance(caught.value, BackendError)
    assert isinstance(caught.value, TypeError)


def test_numpy_scalars_are_constants() -> None:
    two: Any = np.float64(2)
    for function in (lambda xp, a, b: two * a, lambda xp, a, b: a * two, lambda xp, a, b: np.array(2.0) * a):
        assert operations(function) == ["multiply"]
        assert run(traced(function), 3.0, 0.0) == [6.0]
    assert run(traced(lambda xp, a, b: xp.where(two < a, np.pi, np.sqrt(two) - b)), 3.0, 0.0) == [math.pi]
    assert run(traced(lambda xp, a, b: xp.where(two < a, np.pi, np.sqrt(two) - b)), 1.0, 1.0) == [math.sqrt(2) - 1]


def test_a_formula_needs_an_operand() -> None:
    with pytest.raises(FormulaError, match="constant has no operands"):

        @formula
        def constant(xp: Any) -> Any:
            return 1.0
