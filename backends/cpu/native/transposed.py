"""Rows of some columns: adjacent formulas, row sums and row maxima of transposed blocks, which stay in the cache.

A loop over 10 columns fills no vector. A block of rows is transposed once, what the calls compute is vectorized across
its rows, and the results are transposed back: softmax of 4096 × 10 logits took 85 µs in four loops over rows and 25 so
(float32, Zen 5, measured). Results have the bits of single loops.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nnkit.backends.cpu.native.formulas import ARRAYS, value_lines
from nnkit.backends.cpu.native.mathematics import OPERATIONS
from nnkit.backends.cpu.native.tiles import BYTES
from nnkit.backends.formulas.program import Program

ROWS = 64  # of a block

Place = tuple[int, bool, bool]  # the number of an array's memory, and whether it has rows, and a single column
Part = tuple[Any, tuple[Place, ...]]  # a program or the function of a reduction, and what it reads and writes
MAXIMUM = "{0} = select(({1} > {0}) | ({1} != {1}), {1}, {0})"


@lru_cache(maxsize=256)
def block_loop(parts: tuple[Part, ...], columns: int, real: str) -> tuple[str, tuple[int, ...], int] | None:
    """The text of a loop over blocks, the memories with a transposed copy, and how many columns of values it keeps.

    Its arguments are the number of rows, the address of a function that transposes a block of vectors, those of the
    constants and memories, of the copies, (columns, ROWS) each, and of the values, (ROWS,) each. None if there are too
    many arrays.
    """
    loop = _Blocks(parts, columns, real)
    for part in parts:
        loop.add(*part)
    if loop.count + len(loop.copies) + loop.kept > ARRAYS:
        return None
    return loop.text(), tuple(loop.copies), loop.kept


class _Blocks:
    """The lines of a loop over blocks, and those before it."""

    def __init__(self, parts: Sequence[Part], columns: int, real: str) -> None:
        self.columns, self.real, self.size = columns, real, np.dtype(real).itemsize
        self.count = max(number for _, places in parts for number, *_ in places) + 1
        full = {number for _, places in parts for number, by_rows, single in places if by_rows and not single}
        self.copies = sorted(full)
        self.before, self.lines = list[str](), list[str]()
        self.read, self.written = list[int](), list[int]()  # of the copies
        self.calls = self.constants = self.kept = 0

    def text(self) -> str:
        head = ["rows, transpose, constants = arguments[0], arguments[1], float64s(arguments[2])"]
        head += [f"p{i} = {self.real}s(arguments[{i + 3}])" for i in range(self.count)]
        at = self.count + 3
        for number in self.copies:
            head += [f"a{number}, c{number} = arguments[{number + 3}], arguments[{at}]"]
            head += [f"t{number} = {self.real}s(arguments[{at}])"]
            at += 1
        head += [f"u{k} = {self.real}s(arguments[{at + k}])" for k in range(self.kept)]
        lines = [f"count = {ROWS} if rows - start >= {ROWS} else rows - start"]
        lines += [line for number in self.read for line in self._transposing(number, back=False)]
        lines += self.lines
        lines += [line for number in self.written for line in self._transposing(number, back=True)]
        lines = [*head, *self.before, f"for start in range(0, rows, {ROWS}):", *(f"    {x}" for x in lines)]
        return "def f(arguments):\n" + "".join(f"    {line}\n" for line in lines)

    def _transposing(self, number: int, back: bool) -> list[str]:
        width, size, across = BYTES // self.size, self.size, self.columns * self.size
        block = f"a{number} + (start + r) * {across} + c * {size}"
        copy = f"c{number} + (c * {ROWS} + r) * {size}"
        given = f"{block}, {copy}, {across}, {ROWS * size}, count - r, {self.columns} - c"
        if back:
            given = f"{copy}, {block}, {ROWS * size}, {across}, {self.columns} - c, count - r"
        return [
            f"for r in range(0, count, {width}):",
            f"    for c in range(0, {self.columns}, {width}):",
            f"        call(transpose, {given})",
        ]

    def _scope(self, number: int) -> int:
        """The number that tells the memory of a copy from others."""
        return self.count + self.copies.index(number)

    def entry(self, place: Place, column: int | str) -> str:
        """What reads an entry of an array, in loops over `r` and over columns."""
        number, by_rows, single = place
        if by_rows and not single:
            if number not in (*self.read, *self.written):
                self.read.append(number)
            return f"load(t{number}, {column} * {ROWS} + r, {self._scope(number)})"
        return f"load(p{number}, {'start + r' if by_rows else 0 if single else column}, {number})"

    def store(self, place: Place, column: int | str, name: str) -> str:
        number, _, single = place
        if single:
            return f"store(p{number}, start + r, {name}, {number})"
        if number not in self.written:
            self.written.append(number)
        return f"store(t{number}, {column} * {ROWS} + r, {name}, {self._scope(number)})"

    def add(self, what: Any, places: Sequence[Place]) -> None:
        self.calls += 1
        if isinstance(what, Program):
            self._formula(what, places)
            return
        a, out = places
        lines = [f"e{c} = {self.entry(a, c)}" for c in range(1 if a[2] else self.columns)]
        names = [f"e{c}" for c in range(len(lines))]
        if what == np.maximum.reduce:
            lines += ["total = e0", *(MAXIMUM.format("total", name) for name in names[1:])]
        else:
            lines += _sum_lines(names, self.real)
        self.lines += ["for r in range(count):", *(f"    {x}" for x in [*lines, self.store(out, 0, "total")])]

    def _formula(self, program: Program, places: Sequence[Place]) -> None:
        """A loop over columns and rows, after one for what is the same in all columns."""
        operands, outs = places[: len(program.operands)], places[len(program.operands) :]
        lines: dict[str, list[str]] = {"number": self.before, "column": [], "row": [], "full": []}
        where, names, kept = list[str](), list[str](), dict[str, int]()  # the values of columns, by name
        for number, value in enumerate(program.values):
            name = f"v{self.calls}_{number}"
            names.append(name)
            if value.op == "operand":
                _, by_rows, single = operands[number]
                where.append(("column" if single else "full") if by_rows else ("number" if single else "row"))
                lines[where[-1]].append(f"{name} = {self.entry(operands[number], 'c')}")
            elif value.op == "constant":
                where.append("number")
                kind = "uint32" if value.kind == "bits" else self.real
                self.before.append(f"{name} = {kind}(constants[{self.constants}])")
                self.constants += 1
            else:
                found = {where[a] for a in value.arguments} - {"number"}
                where.append("number" if not found else found.pop() if len(found) == 1 else "full")
                arguments = list[str]()
                for a in value.arguments:
                    costly = where[a] == "column" and where[-1] == "full" and program.values[a].op in OPERATIONS
                    arguments.append(f"w{kept.setdefault(names[a], self.kept + len(kept))}" if costly else names[a])
                lines[where[-1]] += value_lines(name, value, arguments, self.real)
        self._loops(lines, kept, [(names[number], out) for number, out in zip(program.outputs, outs, strict=True)])

    def _loops(self, lines: dict[str, list[str]], kept: dict[str, int], outputs: Sequence[tuple[str, Place]]) -> None:
        scopes = {k: self.count + len(self.copies) + k for k in kept.values()}
        single = [self.store(out, 0, name) for name, out in outputs if out[2]]
        single += [f"store(u{k}, r, {name}, {scopes[k]})" for name, k in kept.items()]
        if single:
            self.lines += ["for r in range(count):", *(f"    {x}" for x in [*lines["column"], *single])]
        full = [self.store(out, "c", name) for name, out in outputs if not out[2]]
        if full:
            loaded = [f"w{k} = load(u{k}, r, {scopes[k]})" for k in kept.values()]
            inner = [*lines["column"], *loaded, *lines["full"], *full]
            self.lines += [f"for c in range({self.columns}):", *(f"    {x}" for x in lines["row"])]
            self.lines += ["    for r in range(count):", *(f"        {x}" for x in inner)]
        self.kept += len(kept)


def _sum_lines(names: Sequence[str], real: str) -> list[str]:
    """The sum of up to 128 entries in NumPy's order: eight partial sums, and the rest one by one."""
    lines, rest = [f"total = {real}(-0.0)"], list(names)
    if len(names) >= 8:
        whole = len(names) // 8 * 8
        partial = [" + ".join(names[j:whole:8]) for j in range(8)]
        lines = [f"s{j} = {terms}" for j, terms in enumerate(partial)]
        lines += ["total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))"]
        rest = rest[whole:]
    return [*lines, *(f"total = total + {name}" for name in rest)]
