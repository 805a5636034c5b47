"""A formula's straight-line program: numbered values, each an operand, a constant or one operation on earlier ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from nnkit.backends.formulas.operations import Kind

_COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a program: `op` is an operation's name, `"operand"` or `"constant"`."""

    op: str
    arguments: tuple[int, ...] = ()
    kind: Kind = "real"
    constant: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A straight-line program: operands first; every value uses only earlier ones. Compared by identity."""

    operands: tuple[str, ...]
    values: tuple[Value, ...]
    outputs: tuple[int, ...]

    def last_uses(self) -> dict[int, int]:
        """For each value, the number of the last value that uses it (outputs are live to the end)."""
        last = {argument: i for i, value in enumerate(self.values) for argument in value.arguments}
        return last | dict.fromkeys(self.outputs, len(self.values))

    def asks_for_sign(self, number: int) -> bool:
        """Whether an operand is only compared with 0, so that rounding it changes nothing."""
        uses = [value for value in self.values if number in value.arguments]
        zero = [i for i, value in enumerate(self.values) if value.op == "constant" and value.constant == 0]
        compared = all(value.op in _COMPARISONS and {*value.arguments} <= {number, *zero} for value in uses)
        return bool(uses) and compared and number not in self.outputs

    def without_dead_values(self) -> "Program":
        """Eliminate values that no output depends on; operands are kept."""
        needed = set(self.outputs)
        for i in reversed(range(len(self.values))):
            if i in needed:
                needed.update(self.values[i].arguments)
        kept = [i for i, v in enumerate(self.values) if i in needed or v.op == "operand"]
        renumbered = {old: new for new, old in enumerate(kept)}
        values = []
        for old in kept:
            value = self.values[old]
            arguments = tuple(renumbered[a] for a in value.arguments)
            values.append(Value(value.op, arguments, value.kind, value.constant))
        return Program(self.operands, tuple(values), tuple(renumbered[o] for o in self.outputs))


# Python's operators take numbers in more namespaces than the functions of the same names.
_EXPRESSIONS = {
    "add": "{0} + {1}", "subtract": "{0} - {1}", "multiply": "{0} * {1}", "divide": "{0} / {1}", "pow": "{0} ** {1}",
    "negative": "-{0}", "less": "{0} < {1}", "less_equal": "{0} <= {1}", "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}", "equal": "{0} == {1}", "not_equal": "{0} != {1}", "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}", "logical_not": "~{0}", "bitwise_xor": "{0} ^ {1}", "bitwise_right_shift": "{0} >> {1}",
    "astype(uint32)": "xp.astype({0}, xp.uint32)", "astype(dtype)": "xp.astype({0}, dtype)",
}  # fmt: skip


@lru_cache(maxsize=64)
def python_function(program: Program) -> Callable[..., Any]:
    """The program as a function of a namespace, a dtype, a function that makes arrays of numbers, and the operands.

    It returns the result, or a tuple of several. Conditions become the dtype, and operations on numbers alone have it:
    in many namespaces their results would have another one.
    """
    names, last = [f"v{i}" for i in range(len(program.values))], program.last_uses()
    lines = [f"def function({', '.join(['xp', 'dtype', 'array', *names[: len(program.operands)]])}):"]
    for i, value in enumerate(program.values):
        if value.op == "constant":
            names[i] = f"({int(value.constant) if value.kind == 'bits' else value.constant!r})"
        elif value.op != "operand":
            arguments = [names[a] for a in value.arguments]
            numbers = value.arguments[1:] if value.op == "where" else value.arguments
            if all(program.values[a].op == "constant" for a in numbers):
                arguments[-1] = f"array({arguments[-1]})"
            called = f"xp.{value.op}({', '.join(arguments)})"
            lines.append(f"    {names[i]} = {_EXPRESSIONS.get(value.op, called).format(*arguments)}")
            used = sorted({a for a in value.arguments if last[a] == i and program.values[a].op != "constant"})
            lines += [f"    del {names[a]}" for a in used]  # large arrays are freed as soon as possible
    lines.append(f"    return {', '.join(names[i] for i in program.outputs)}")
    namespace: dict[str, Any] = {}
    exec("\n".join(lines), namespace)
    function: Callable[..., Any] = namespace["function"]
    return function


ROW_REDUCTIONS = ("row max", "row sum")  # of a value along the last axis of a matrix; only fused kernels have them


def row_reduction(op: str) -> Program:
    """The program of one of `ROW_REDUCTIONS`, whose result is the same in each entry of a row."""
    return Program(("a",), (Value("operand"), Value(op, (0,))), (1,))


@lru_cache(maxsize=1024)
def row_stages(program: Program) -> tuple[tuple[tuple[str, Program], ...], Program]:
    """Each reduction of a program with the program of what it reduces, in order, and the program of the results.

    Their operands are those of the program and the result of each reduction. None contains a reduction.
    """
    count, reduced = len(program.operands), [i for i, v in enumerate(program.values) if v.op in ROW_REDUCTIONS]
    names = program.operands + tuple(f"total{k}" for k in range(len(reduced)))
    places = {i: i for i in range(count)} | {i: count + k for k, i in enumerate(reduced)}
    values = [Value("operand")] * len(names)
    for i, value in enumerate(program.values):
        if i not in places:
            places[i] = len(values)
            values.append(replace(value, arguments=tuple(places[argument] for argument in value.arguments)))

    def part(outputs: tuple[int, ...]) -> Program:
        return Program(names, tuple(values), tuple(places[number] for number in outputs)).without_dead_values()

    return tuple((program.values[i].op, part(program.values[i].arguments)) for i in reduced), part(program.outputs)


class Traceable(Protocol):
    """What a backend needs to know of a `nnkit.backends.formula.Formula`, which itself asks for a backend."""

    name: str
    operands: tuple[str, ...]
    function: Callable[..., Any]

    def program(self, constants: Mapping[str, float] | None = None) -> Program: ...


@lru_cache(maxsize=1024)
def chained(first: Program, second: Program, links: tuple[int | None, ...], kept: tuple[int, ...]) -> Program:
    """The program that does one after the other.

    `links` says for each operand of the second which result of the first it is, or None for one of its own; those
    follow the operands of the first. Its results are those of the first that are `kept`, by number, and then all of the
    second.
    """
    own = [j for j, link in enumerate(links) if link is None]
    operands = first.operands + tuple(second.operands[j] for j in own)
    values = [Value("operand")] * len(operands)
    places = _append(values, first, list(range(len(first.operands))))
    results = [places[number] for number in first.outputs]
    linked = [
        len(first.operands) + own.index(j) if link is None else results[link] for j, link in enumerate(links)
    ]  # where the second finds its operands
    outputs = [results[number] for number in kept]
    places = _append(values, second, linked)
    outputs += [places[number] for number in second.outputs]
    return Program(operands, tuple(values), tuple(outputs)).without_dead_values()


def _append(values: list[Value], program: Program, operands: list[int]) -> list[int]:
    """Append a program's values, with operands from these places; returns the place of each."""
    places = list(operands)
    for value in program.values[len(program.operands) :]:
        places.append(len(values))
        values.append(replace(value, arguments=tuple(places[argument] for argument in value.arguments)))
    return places
