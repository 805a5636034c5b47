"""Tracing: a formula that is called with symbolic operands becomes a straight-line program.

A `Symbol` replaces an operand and records arithmetic instead of computing it. `TraceNamespace` replaces the array
namespace. The result is a `Program` without common subexpressions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from nnkit.backends.errors import FormulaError
from nnkit.backends.formulas.operations import ARITY, OPERATIONS, Kind
from nnkit.backends.formulas.program import Program, Value

# The names of the kinds in error messages, and hints on how to get an argument of the right kind.
_CALLED: dict[Kind, str] = {"real": "a real value", "bool": "a condition", "bits": "bits"}
_HINTS: dict[Kind, str] = {
    "real": "write xp.where(condition, a, b) to make a real value",
    "bool": "expected a condition such as a > 0",
    "bits": "expected bits such as xp.astype(a, xp.uint32)",
}


class Tracer:
    """Collects the values of one trace."""

    def __init__(self, operands: Sequence[str]) -> None:
        self.values = [Value("operand") for _ in operands]
        self._known: dict[tuple[object, ...], int] = {}

    def constant(self, number: float) -> int:
        """The value number of a real constant."""
        if not math.isfinite(number):
            raise FormulaError(f"a formula contains the constant {number}; expected finite constants")
        key = ("constant", float(number), math.copysign(1.0, number))
        return self._add(key, Value("constant", constant=float(number)))

    def bits_constant(self, number: object, op: str, end: int = 2**32) -> int:
        """The value number of a bits constant, a Python int below `end`."""
        if type(number) is not int or not 0 <= number < end:
            raise FormulaError(f"{op} of bits got {number!r}; expected a Python int from 0 to {end - 1}")
        return self._add(("bits", number), Value("constant", kind="bits", constant=float(number)))

    def apply(self, op: str, *arguments: object) -> "Symbol":
        """Record an operation, or find its earlier record."""
        operation = OPERATIONS[op]
        on_bits = "bits" in operation.takes and any(isinstance(a, Symbol) and a.dtype == "bits" for a in arguments)
        numbers = [self.number(argument, op, on_bits) for argument in arguments]
        if op == "bitwise_right_shift":  # shifts by 32 or more depend on the machine
            numbers[1] = self.bits_constant(arguments[1], op, 32)
        self._check_kinds(op, [self.values[number].kind for number in numbers])
        kind = "bits" if on_bits and operation.result == "real" else operation.result
        return Symbol(self, self._add((op, *numbers), Value(op, tuple(numbers), kind)))

    def number(self, argument: object, op: str, on_bits: bool = False) -> int:
        """The value number of a symbol or a Python number."""
        if isinstance(argument, Symbol):
            return argument.number
        if isinstance(argument, int | float):
            return self.bits_constant(argument, op) if on_bits else self.constant(argument)
        raise FormulaError(f"{op} got a {type(argument).__name__}; expected an operand or a Python number")

    def _check_kinds(self, op: str, kinds: list[Kind]) -> None:
        takes: list[tuple[Kind, ...]] = [OPERATIONS[op].takes] * len(kinds)
        if op == "where":
            takes[0] = ("bool",)
        for kind, allowed in zip(kinds, takes, strict=True):
            if kind not in allowed:
                raise FormulaError(f"{op} got {_CALLED[kind]}; {_HINTS[allowed[0]]}")
        if op != "where" and len(set(kinds)) > 1:
            raise FormulaError(f"{op} got {' and '.join(_CALLED[kind] for kind in kinds)}; expected one kind")

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


class _Compared(str):
    """The kind of a value in the place of its dtype, which formulas do not depend on."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if other in tuple(map(str, _CALLED)):
            return str.__eq__(self, str(other))
        raise FormulaError(f"a formula compares a dtype with {other!r}; it is one for all of them")

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __str__(self) -> str:
        raise FormulaError("a formula asks for the name of a dtype; it is one for all of them")


class Symbol:
    """A symbolic value in a trace."""

    __slots__ = ("number", "tracer")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tracer: Tracer, number: int) -> None:
        self.tracer = tracer
        self.number = number

    @property
    def dtype(self) -> Kind:
        """The value's kind, which replaces the dtype."""
        kind: Any = _Compared(self.tracer.values[self.number].kind)
        return kind  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return "a computed value"

    def __bool__(self) -> bool:
        raise FormulaError("a formula branches on a value; write xp.where(condition, a, b) instead")

    def __float__(self) -> float:
        raise FormulaError("a formula converts a value to a Python number, as math.sin does; write xp.sin")

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise FormulaError("a formula converts a value to a NumPy array; use the functions of xp")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: object, **__: object) -> "Symbol":
        own = _own_name(ufunc, ufunc.__name__)
        first = inputs[0]
        if len(inputs) == 2 and isinstance(first, np.generic | np.ndarray) and first.ndim == 0 and own in OPERATIONS:
            return self.tracer.apply(own, first.item(), inputs[1])  # as in np.float64(2) * z
        raise _foreign(ufunc, ufunc.__name__)

    def __array_function__(self, function: Any, *_: object) -> NoReturn:
        raise _foreign(function, function.__name__)

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
    __xor__, __rxor__, __rshift__ = _binary("bitwise_xor"), _reflected("bitwise_xor"), _binary("bitwise_right_shift")
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")
    __eq__, __ne__ = _binary("equal"), _binary("not_equal")  # type: ignore[assignment]
    __neg__, __abs__ = _unary("negative"), _unary("abs")


_ALIASES = {"absolute": "abs", "power": "pow", "right_shift": "bitwise_right_shift", "true_divide": "divide"}


def _own_name(function: object, name: str) -> str:
    """The name in formulas of a NumPy function."""
    return next((op for op, known in OPERATIONS.items() if known.ufunc is function), _ALIASES.get(name, name))


def _foreign(function: object, name: str) -> FormulaError:
    """The error for a NumPy function in a formula, which would only run on NumPy."""
    own = _own_name(function, name)
    hint = f"write xp.{own}" if own in OPERATIONS else f"formulas may use {_vocabulary()}"
    return FormulaError(f"a formula calls np.{name}, which other backends do not have; {hint}")


def _vocabulary() -> str:
    return "xp." + ", xp.".join(sorted(name for name in OPERATIONS if name.isidentifier()))


class TraceNamespace:
    """The array namespace of a formula during tracing."""

    uint32: Kind = "bits"

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def astype(self, x: object, dtype: object) -> Symbol:
        """Convert integers from 0 to 2³² − 1 to bits, or a condition to 1 and 0 in the dtype of a real value."""
        if dtype not in ("bits", "real"):
            raise FormulaError(f"xp.astype got dtype {dtype!r}; expected xp.uint32 or the dtype of an operand")
        return self._tracer.apply("astype(uint32)" if dtype == "bits" else "astype(dtype)", x)

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in OPERATIONS:
            raise FormulaError(f"a formula uses xp.{name}; formulas may use {_vocabulary()}")

        def operation(*arguments: object) -> Symbol:
            if len(arguments) != ARITY[name]:
                raise FormulaError(f"xp.{name} got {len(arguments)} arguments; expected {ARITY[name]}")
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
        raise FormulaError("a formula returns nothing; expected a value or a tuple of values")
    for i in outputs:
        if tracer.values[i].kind != "real":
            raise FormulaError(f"a formula returns {_CALLED[tracer.values[i].kind]}; expected a real value")
    return Program(tuple(operands), tuple(tracer.values), outputs).without_dead_values()
