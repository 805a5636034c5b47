"""Tracing: a formula called with stand-in operands becomes a straight-line program.

`Symbol` stands in for an operand: arithmetic on it is written down instead of done. `TraceNamespace` stands in for
the array namespace. What was written down is a `Program`: numbered values, each an operand, a constant or one
operation on earlier values, with common subexpressions shared.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nnkit.backends.errors import FormulaError
from nnkit.backends.operations import ARITY, OPERATIONS, Kind


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a program: `op` is an operation's name, `"operand"` or `"constant"`."""

    op: str
    arguments: tuple[int, ...] = ()
    kind: Kind = "real"
    constant: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A straight-line program: operands come first, every value uses only earlier ones. Compared by identity."""

    operands: tuple[str, ...]
    values: tuple[Value, ...]
    outputs: tuple[int, ...]

    @property
    def instructions(self) -> list[tuple[int, Value]]:
        """The values that are computed, with their numbers, in order."""
        return [(i, v) for i, v in enumerate(self.values) if v.op in OPERATIONS]

    def last_uses(self) -> dict[int, int]:
        """For each value, the number of the last value computed from it (outputs live to the end)."""
        last = {argument: i for i, value in enumerate(self.values) for argument in value.arguments}
        return last | dict.fromkeys(self.outputs, len(self.values))


# How many of its first arguments an operation takes as conditions; the others are real values.
_CONDITIONS = {"where": 1, "logical_and": 2, "logical_or": 2, "logical_not": 1}


class Tracer:
    """Collects the values of one trace."""

    def __init__(self, operands: Sequence[str]) -> None:
        self.values = [Value("operand") for _ in operands]
        self._known: dict[tuple[object, ...], int] = {}

    def constant(self, number: float) -> int:
        """The number of the value that holds a Python number."""
        if not math.isfinite(number):
            raise FormulaError(f"a formula holds the constant {number}; only finite constants can be compiled")
        key = ("constant", float(number), math.copysign(1.0, number))
        return self._add(key, Value("constant", constant=float(number)))

    def apply(self, op: str, *arguments: object) -> "Symbol":
        """Write one operation down, or find it where it was written down before."""
        numbers = tuple(self.number(argument, op) for argument in arguments)
        self._check_kinds(op, [self.values[number].kind for number in numbers])
        value = Value(op, numbers, OPERATIONS[op].result)
        return Symbol(self, self._add((op, *numbers), value))

    def number(self, argument: object, op: str) -> int:
        """The number of a symbol's or a Python number's value."""
        if isinstance(argument, Symbol):
            return argument.number
        if isinstance(argument, int | float):
            return self.constant(argument)
        raise FormulaError(f"{op} got a {type(argument).__name__}; expected an operand or a Python number")

    def _check_kinds(self, op: str, kinds: list[Kind]) -> None:
        if op in ("equal", "not_equal") and kinds == ["bool", "bool"]:
            return
        for i, kind in enumerate(kinds):
            if i < _CONDITIONS.get(op, 0) and kind == "real":
                raise FormulaError(f"{op} got a real value; expected a condition such as a > 0")
            if i >= _CONDITIONS.get(op, 0) and kind == "bool":
                raise FormulaError(f"{op} got a condition; write xp.where(condition, a, b) to make a value of it")

    def _add(self, key: tuple[object, ...], value: Value) -> int:
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]


def _binary(op: str) -> Callable[["Symbol", object], "Symbol"]:
    return lambda self, other: self.tracer.apply(op, self, other)


def _reflected(op: str) -> Callable[["Symbol", object], "Symbol"]:
    return lambda self, other: self.tracer.apply(op, other, self)


def _unary(op: str) -> Callable[["Symbol"], "Symbol"]:
    return lambda self: self.tracer.apply(op, self)


class Symbol:
    """An operand's stand-in while a formula is traced."""

    __slots__ = ("number", "tracer")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tracer: Tracer, number: int) -> None:
        self.tracer = tracer
        self.number = number

    def __bool__(self) -> bool:
        raise FormulaError("a formula branches on a value; write xp.where(condition, a, b) instead")

    def __pow__(self, exponent: object) -> "Symbol":
        number = None if isinstance(exponent, Symbol) else exponent
        if number == 2:
            return self.tracer.apply("square", self)
        if number == 3:
            return self.tracer.apply("multiply", self.tracer.apply("square", self), self)
        return self.tracer.apply("pow", self, exponent)

    def __pos__(self) -> "Symbol":
        return self

    __rpow__ = _reflected("pow")
    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("subtract"), _reflected("subtract")
    __mul__, __rmul__ = _binary("multiply"), _reflected("multiply")
    __truediv__, __rtruediv__ = _binary("divide"), _reflected("divide")
    __and__, __or__, __invert__ = _binary("logical_and"), _binary("logical_or"), _unary("logical_not")
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")
    __eq__, __ne__ = _binary("equal"), _binary("not_equal")  # type: ignore[assignment]
    __neg__, __abs__ = _unary("negative"), _unary("abs")


class TraceNamespace:
    """The array namespace that a formula sees while it is traced."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in OPERATIONS:
            raise FormulaError(f"a formula uses xp.{name}; formulas may use {', '.join(sorted(OPERATIONS))}")

        def operation(*arguments: object) -> Symbol:
            if len(arguments) != ARITY[name]:
                raise FormulaError(f"xp.{name} takes {ARITY[name]} argument(s), got {len(arguments)}")
            return self._tracer.apply(name, *arguments)

        return operation


def trace(function: Callable[..., Any], operands: Sequence[str], parameters: dict[str, float]) -> Program:
    """Trace `function(xp, *operands, **parameters)` into a program."""
    tracer = Tracer(operands)
    symbols = [Symbol(tracer, i) for i in range(len(operands))]
    result = function(TraceNamespace(tracer), *symbols, **parameters)
    results = result if isinstance(result, tuple) else (result,)
    outputs = tuple(tracer.number(value, "the result") for value in results)
    if not outputs:
        raise FormulaError("a formula returns nothing; expected a value, or a tuple of values")
    if any(tracer.values[i].kind != "real" for i in outputs):
        raise FormulaError("a formula returns a condition; expected a real value")
    return _without_dead_values(Program(tuple(operands), tuple(tracer.values), outputs))


def _without_dead_values(program: Program) -> Program:
    """Leave out what no output needs; the operands stay."""
    needed = set(program.outputs)
    for i in reversed(range(len(program.values))):
        if i in needed:
            needed.update(program.values[i].arguments)
    kept = [i for i, v in enumerate(program.values) if i in needed or v.op == "operand"]
    renumbered = {old: new for new, old in enumerate(kept)}
    values = []
    for old in kept:
        value = program.values[old]
        arguments = tuple(renumbered[a] for a in value.arguments)
        values.append(Value(value.op, arguments, value.kind, value.constant))
    return Program(program.operands, tuple(values), tuple(renumbered[o] for o in program.outputs))
