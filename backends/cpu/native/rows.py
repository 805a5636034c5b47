"""Rows of few columns: adjacent formulas, row sums and row maxima as one loop over rows, whose columns are unrolled.

LLVM vectorizes it across rows, and intermediate values stay in registers. The gradient of softmax and cross-entropy of
32 × 2 logits took 0.35 µs in four loops and 0.05 in one (float32, measured). More columns, which would take seconds to
compile, are in blocks (`transposed`). Results have the bits of single loops.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from nnkit.backends.cpu.blocks import location
from nnkit.backends.cpu.calls import Elementwise
from nnkit.backends.cpu.native.calls import PLAIN, NativeCall, node
from nnkit.backends.cpu.native.compiler import address_of, tried
from nnkit.backends.cpu.native.formulas import ARRAYS, known, value_lines
from nnkit.backends.cpu.native.team import Shared, part_count
from nnkit.backends.cpu.native.tiles import block_text
from nnkit.backends.cpu.native.tiling import bounds, has_tiles, panels
from nnkit.backends.cpu.native.transposed import MAXIMUM, Part, Place, block_loop
from nnkit.backends.cpu.native.transposed import ROWS as BLOCK
from nnkit.backends.formulas.program import Program
from nnkit.backends.recording import Call

COLUMNS, ROWS = 3, 8  # at most, and at least
MANY_COLUMNS, MANY_ROWS = 64, 16  # likewise in blocks, which have to be transposed


def arrays_of(call: Call) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]] | None:
    """What a call reads and writes, if it can be a part of such a loop."""
    read: Sequence[np.ndarray]
    written: Sequence[np.ndarray]
    if isinstance(call, Elementwise):
        read, written = call.operands, call.outs
    elif isinstance(call, partial) and call.func in (np.add.reduce, np.maximum.reduce):
        a, axis, _, out, keepdims = call.args
        if not (keepdims and axis in (-1, a.ndim - 1)):
            return None
        read, written = [a], [out]
    else:
        return None
    real = written[0].dtype
    if written[0].ndim != 2 or written[0].shape[1] > MANY_COLUMNS or not real.isnative or real.char not in "fd":
        return None
    plain = all(a.dtype == real and a.flags.num & PLAIN == PLAIN for a in (*read, *written))
    return (read, written) if plain else None


def in_rows(calls: Sequence[Call]) -> list[Call]:
    """The calls, where adjacent ones can be one loop with that in their place."""
    found: list[Call] = []
    for size, group in groupby(calls, _size):
        adjacent = list(group)
        if size is not None and len(adjacent) > 1 and any(isinstance(call, partial) for call in adjacent):
            rest, made = getattr(adjacent[0], "rows", None) or (None, None)  # kept there without a reference cycle
            if rest != adjacent[1:]:
                made = _loop(adjacent, *size)
                adjacent[0].rows = adjacent[1:], made  # type: ignore[attr-defined]
            adjacent = adjacent if made is None else [made]
        found += adjacent
    return found


def _size(call: Call) -> tuple[int, int] | None:
    """The numbers of rows and columns of the matrices of a call; None if it is not for such a loop."""
    found: Any = getattr(call, "size", ())  # found once, as several tapes may have the call
    if found == ():
        found = _size_of(call)
        if isinstance(call, Elementwise | partial):
            call.size = found  # type: ignore[union-attr]
    return found  # type: ignore[no-any-return]


def _size_of(call: Call) -> tuple[int, int] | None:
    arrays = arrays_of(call)
    if arrays is None or len(arrays[1][0]) < ROWS:
        return None
    shapes, rows = {a.shape for each in arrays for a in each}, len(arrays[1][0])
    columns = max(shape[1] for shape in shapes if len(shape) == 2 and shape[0] > 1)
    kinds = {(rows, columns), (rows, 1), (1, columns), (columns,), (1, 1), (1,), ()}
    fits = 2 <= columns <= COLUMNS or (COLUMNS < columns <= MANY_COLUMNS and rows >= MANY_ROWS and has_tiles())
    return (rows, columns) if shapes <= kinds and fits else None


def _loop(calls: Sequence[Call], rows: int, columns: int) -> NativeCall | None:
    """The calls as one; None if their arrays overlap in part, or there are too many."""
    numbers, memories, parts = dict[Any, int](), list[np.ndarray](), list[Part]()
    for call in calls:
        places = list[Place]()
        for array in (a for each in arrays_of(call) or () for a in each):
            number = numbers.setdefault((location(array), array.shape, array.strides), len(memories))
            if number == len(memories):
                memories.append(array)
            by_rows = array.ndim == 2 and len(array) == rows
            places.append((number, by_rows, array.size == (rows if by_rows else 1)))
        what: Any = call
        parts.append((what.program if isinstance(call, Elementwise) else what.func, tuple(places)))
    ends = sorted((start, start + array.nbytes) for (start, *_), array in zip(numbers, memories, strict=True))
    apart = all(end <= start for (_, end), (start, _) in pairwise(ends))
    programs = [what for what, _ in parts if isinstance(what, Program)]
    if not (apart and len(memories) <= ARRAYS and all(map(known, programs))):
        return None
    constants = np.array([v.constant for p in programs for v in p.values if v.op == "constant"], np.float64)
    real = memories[0].dtype.name
    if columns <= COLUMNS:
        return tried(node, _text(tuple(parts), columns, real), [rows], [constants, *memories])
    return tried(_in_blocks, tuple(parts), rows, columns, constants, memories)


def _in_blocks(
    parts: tuple[Part, ...], rows: int, columns: int, constants: np.ndarray, memories: list[np.ndarray]
) -> NativeCall | None:
    """The calls as one loop over blocks, for each thread of a team a part of it."""
    found = block_loop(parts, columns, memories[0].dtype.name)
    if found is None:
        return None
    text, copies, kept = found
    transpose = address_of(block_text(memories[0].dtype.name, True))
    by_rows = {number for _, places in parts for number, has_rows, _ in places if has_rows}
    work = sum(a.nbytes for a in memories) / 10_000  # µs
    made = []
    for i, j in pairwise(bounds(-(-rows // BLOCK), part_count(work), BLOCK, rows)):
        own = [a[i:j] if number in by_rows else a for number, a in enumerate(memories)]
        size = memories[0].itemsize * BLOCK
        blocks = [panels(size * columns) for _ in copies] + [panels(size) for _ in range(kept)]
        made.append(node(text, [j - i, transpose], [constants, *own, *blocks], [transpose]))
    return made[0] if len(made) == 1 else Shared.of(made, work)


@lru_cache(maxsize=256)
def _text(parts: tuple[Part, ...], columns: int, real: str) -> str:
    """The text of a loop."""
    loop = _Loop(columns, real)
    for part in parts:
        loop.add(*part)
    head = ["rows, constants = arguments[0], float64s(arguments[1])"]
    count = max(number for _, places in parts for number, *_ in places) + 1
    head += [f"p{i} = {real}s(arguments[{i + 2}])" for i in range(count)]
    lines = [*head, *loop.before, "for row in range(rows):", *(f"    {line}" for line in loop.lines)]
    return "def f(arguments):\n" + "".join(f"    {x}\n" for x in lines)


class _Loop:
    """The lines of a loop, and those before it."""

    def __init__(self, columns: int, real: str) -> None:
        self.columns, self.real = columns, real
        self.before, self.lines = list[str](), list[str]()
        self.values: dict[tuple[int, int], str] = {}  # by the number of the memory and the column
        self.calls = self.constants = 0

    def place(self, array: Place, column: int) -> tuple[int, int, str]:
        """The number of an array's memory, and the column and index of its entry in a row of the loop."""
        number, by_rows, single = array
        column = 0 if single else column
        if not by_rows:
            return number, column, str(column)
        return number, column, "row" if single else f"row * {self.columns} + {column}"

    def value(self, array: Place, column: int) -> str:
        """The name of an entry, which is read on first use."""
        number, column, index = self.place(array, column)
        name = self.values.get((number, column))
        if name is None:
            name = self.values[number, column] = f"m{number}_{column}"
            lines = self.lines if index.startswith("row") else self.before
            lines.append(f"{name} = load(p{number}, {index}, {number})")
        return name

    def store(self, array: Place, column: int, name: str) -> None:
        number, column, index = self.place(array, column)
        self.values[number, column] = name
        self.lines.append(f"store(p{number}, {index}, {name}, {number})")

    def add(self, what: Any, places: Sequence[Place]) -> None:
        self.calls += 1
        if isinstance(what, Program):
            self._formula(what, places)
            return
        (a, out), name = places, f"r{self.calls}"
        entries = [self.value(a, column) for column in range(1 if a[2] else self.columns)]
        if what == np.maximum.reduce:
            self.lines += [f"{name} = {entries[0]}", *(MAXIMUM.format(name, entry) for entry in entries[1:])]
        else:  # in the order of NumPy's sums of less than 8 numbers
            self.lines += [f"{name} = {self.real}(-0.0)", *(f"{name} = {name} + {entry}" for entry in entries)]
        self.store(out, 0, name)

    def _formula(self, program: Program, places: Sequence[Place]) -> None:
        operands, outs = places[: len(program.operands)], places[len(program.operands) :]
        first = self.constants
        for column in range(1 if outs[0][2] else self.columns):
            names, self.constants = list[str](), first
            for number, value in enumerate(program.values):
                name = f"v{self.calls}_{number}" + ("" if value.op == "constant" else f"_{column}")
                if value.op == "operand":
                    name = self.value(operands[number], column)
                elif value.op == "constant":
                    if column == 0:
                        kind = "uint32" if value.kind == "bits" else self.real
                        self.before.append(f"{name} = {kind}(constants[{self.constants}])")
                    self.constants += 1
                else:
                    self.lines += value_lines(name, value, [names[a] for a in value.arguments], self.real)
                names.append(name)
            for output, out in zip(program.outputs, outs, strict=True):
                self.store(out, column, names[output])
