"""A formula's program as native text: one loop that reads each entry once and writes each result once.

Values are computed where they vary: those of scalars before the loops, those of columns once a row. Arithmetic is in
float32 for the half-precision types and float32, else in float64, with the results of the ufuncs
(`nnkit.backends.cpu.calls`): to the bit without exponentials and logarithms, which are those of `mathematics`.
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import NamedTuple, TypeVar

import numpy as np

from nnkit.backends.cpu.allocation import Signature, signature_of
from nnkit.backends.cpu.blocks import SideBySide, can_be_cut, cut, locations, thread_blocks
from nnkit.backends.cpu.native.calls import NativeCall, run_prepared
from nnkit.backends.cpu.native.compiler import Address, address_of, tried
from nnkit.backends.cpu.native.mathematics import OPERATIONS as MATHEMATICS
from nnkit.backends.cpu.native.mathematics import statements
from nnkit.backends.cpu.native.team import Shared, in_team, part_count
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.formulas.program import Program, Traceable, Value
from nnkit.backends.recording import Call

# Numba makes 64-bit integers of arithmetic with 32-bit ones, so bits are cut again.
_EXPRESSIONS = {
    "add": "{0} + {1}", "subtract": "{0} - {1}", "divide": "{0} / {1}", "negative": "-{0}", "square": "{0} * {0}",
    "abs": "absolute({0})", "sqrt": "sqrt({0})", "floor": "floor({0})",
    "sign": "select({0} > R(0), R(1), select({0} < R(0), R(-1), select({0} == R(0), R(0), {0})))",
    "maximum": "select(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "minimum": "select(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "where": "select({0}, {1}, {2})",
    "less": "{0} < {1}", "less_equal": "{0} <= {1}", "greater": "{0} > {1}", "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}", "not_equal": "{0} != {1}",
    "logical_and": "{0} & {1}", "logical_or": "{0} | {1}", "logical_not": "{0} == False",
    "bitwise_xor": "uint32({0} ^ {1})", "bitwise_right_shift": "uint32({0} >> {1})",
    "astype(uint32)": "uint32({0})", "astype(dtype)": "select({0}, R(1), R(0))",
}  # fmt: skip
_FLAGS = attrgetter("flags.num")
T = TypeVar("T")
_UNIT = 8  # rows, whole numbers of which a part has: for vectors of float64
ARRAYS = 32  # that the text can tell apart (intrinsics.py)
_STORED = {"float16": "uint16", "bfloat16": "uint16", "float32": "float32", "float64": "float64"}


class Layout(NamedTuple):
    """How native text finds the arrays of a program.

    Attributes:
        operands: of each operand its dtype, how it varies (full, row, column or scalar), and the number of its memory.
        outs: of each result its dtype and the number of its memory, which may be that of a full operand.
    """

    operands: tuple[tuple[str, str, int], ...]
    outs: tuple[tuple[str, int], ...]

    @property
    def memories(self) -> dict[int, str]:
        """The dtype of each memory."""
        return {memory: dtype for dtype, *_, memory in self.operands} | {memory: dtype for dtype, memory in self.outs}


def supported(program: Program, layout: Layout) -> bool:
    """Whether there is native text; NumPy computes pow, sin and cos, and rounds float64 to half precision."""
    wide = any(dtype == "float64" for dtype, _, _ in layout.operands)
    narrow = any(dtype in ("float16", "bfloat16") for dtype, _ in layout.outs)
    return len(layout.memories) <= ARRAYS and not (wide and narrow) and known(program)


def known(program: Program) -> bool:
    """Whether there is text for all operations."""
    names = {"operand", "constant", "multiply", *_EXPRESSIONS, *MATHEMATICS}
    return all(value.op in names for value in program.values)


def formula_text(program: Program, layout: Layout) -> str:
    """The native text; its arguments are the numbers of rows and columns, and the addresses of constants and memories.

    Constants are not part of it, as a program may keep using new ones. A text with neither rows nor columns among its
    operands takes all entries as rows of one column.
    """
    real = "float64" if any(dtype == "float64" for dtype, _, _ in layout.operands) else "float32"
    flat = all(kind in ("full", "scalar") for _, kind, _ in layout.operands)
    constants, lines = 0, {"scalar": list[str](), "column": list[str](), "row": list[str]()}
    where: list[str] = []  # each value is computed
    for number, value in enumerate(program.values):
        if value.op == "operand":
            dtype, kind, memory = layout.operands[number]
            index = {"full": "i", "row": "column", "column": "row", "scalar": "0"}[kind]
            where.append({"full": "row"}.get(kind, kind))
            lines[where[-1]].append(f"v{number} = {_widened(f'load(p{memory}, {index}, {memory})', dtype, real)}")
            continue
        places = [where[a] for a in value.arguments]
        where.append("row" if "row" in places else "column" if "column" in places else "scalar")
        if value.op == "constant":
            kind = "uint32" if value.kind == "bits" else real
            lines["scalar"].append(f"v{number} = {kind}(constants[{constants}])")
            constants += 1
        else:
            lines[where[-1]] += value_lines(f"v{number}", value, [f"v{a}" for a in value.arguments], real)
    for number, (dtype, memory) in zip(program.outputs, layout.outs, strict=True):
        stored = f"v{number}"
        if dtype == "bfloat16":
            stored = f"b{memory}"
            lines["row"] += statements("to_brain", stored, [f"v{number}"], real)
        elif dtype != real:
            stored = f"to_half({stored})" if dtype == "float16" else f"{dtype}({stored})"
        lines["row"].append(f"store(p{memory}, i, {stored}, {memory})")
    head = ["rows, columns, constants = arguments[0], arguments[1], float64s(arguments[2])"]
    head += [f"p{m} = {_STORED[dtype]}s(arguments[{m + 3}])" for m, dtype in sorted(layout.memories.items())]
    if flat:
        loops = [*head, *lines["scalar"], "for i in range(rows):", *(f"    {line}" for line in lines["row"])]
    else:
        inner = ["for column in range(columns):", "    i = row * columns + column", *(f"    {x}" for x in lines["row"])]
        loops = [*head, *lines["scalar"], "for row in range(rows):", *(f"    {x}" for x in [*lines["column"], *inner])]
    return "def f(arguments):\n" + "".join(f"    {line}\n" for line in loops)


def value_lines(name: str, value: Value, names: list[str], real: str) -> list[str]:
    """The lines that compute a value, called `name`, from those called `names`."""
    if value.op in MATHEMATICS:
        return statements(value.op, name, names, real)
    if value.op == "multiply":
        product = f"{names[0]} * {names[1]}"
        return [f"{name} = {f'uint32({product})' if value.kind == 'bits' else product}"]
    return [f"{name} = {_EXPRESSIONS[value.op].format(*names).replace('R(', f'{real}(')}"]


def _widened(entry: str, dtype: str, real: str) -> str:
    if dtype == "float16":
        entry = f"from_half({entry})"
    elif dtype == "bfloat16":
        entry = f"from_bits32(int32(int32({entry}) << 16))"
    return entry if dtype == real or real == "float32" else f"float64({entry})"


class _Found(NamedTuple):
    """The code of a program for arrays of some layout: its address, and the arguments from sizes and arrays.

    `arrays` are the numbers among the operands and results of those whose addresses are arguments.
    """

    address: Address
    rows: int
    columns: int
    constants: np.ndarray
    arrays: tuple[int, ...]


_CONTIGUOUS, _ALIGNED = 0x1, 0x100  # of ndarray.flags.num


@lru_cache(maxsize=1024)
def _found(program: Program, signature: Signature, flags: tuple[int, ...]) -> _Found | None:
    """The code for arrays of this signature and these flags; None if there is none.

    Full operands and results must be contiguous, and results overlap no operand unless it is the same.
    """
    given = len(signature.shapes)
    plain = all(f & _ALIGNED for f in flags) and all(f & _CONTIGUOUS for f in flags[given:])
    if not plain or signature.shared != signature.same:
        return None
    out, operands, lengths = signature.out_shape, [], set()
    for i, (shape, dtype) in enumerate(zip(signature.shapes, signature.dtypes, strict=True)):
        kind = _kind((1,) * (len(out) - len(shape)) + shape, out)
        if kind is None or (kind != "scalar" and not flags[i] & _CONTIGUOUS):
            return None
        if kind in ("row", "column"):
            size, entries = math.prod(shape), math.prod(out)
            lengths.add(size if kind == "row" else entries // max(size, 1))
        over = [j for j, same in enumerate(signature.same) if i in same]
        operands.append((dtype_name(dtype), kind, min(signature.same[over[0]]) if over else i))
    if len(lengths) > 1:
        return None
    numbers = [min(same) if same else given + j for j, same in enumerate(signature.same)]
    arrays = sorted({number for *_, number in operands} | set(numbers))
    layout = Layout(
        tuple((dtype, kind, arrays.index(number)) for dtype, kind, number in operands),
        tuple((dtype_name(d), arrays.index(n)) for d, n in zip(signature.out_dtypes, numbers, strict=True)),
    )
    if not supported(program, layout):
        return None
    columns = lengths.pop() if lengths else 1
    constants = np.array([value.constant for value in program.values if value.op == "constant"], np.float64)
    address, rows = address_of(formula_text(program, layout)), math.prod(out) // max(columns, 1)
    return _Found(address, rows, columns, constants, tuple(arrays))


def _kind(shape: tuple[int, ...], full: tuple[int, ...]) -> str | None:
    """How an operand of this shape varies over the entries of a result, of as many axes; None if in another way."""
    if shape == full:
        return "full"
    same = [i for i, (n, m) in enumerate(zip(shape, full, strict=True)) if n == m and m != 1]
    wide = [i for i, (n, m) in enumerate(zip(shape, full, strict=True)) if n != m]
    if math.prod(shape) == 1:
        return "scalar"
    if max(wide) < min(same):
        return "row"
    return "column" if min(wide) > max(same) else None


def native_calls(program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> list[Call] | None:
    """The program as native calls on these arrays, on parallel threads if that is faster; None if there is no code."""
    operands, outs = _by_rows(operands, outs)
    if in_team():
        return _shared(program, operands, outs)
    parts = thread_blocks(program, operands, outs, faster=4)
    if not parts:
        whole = native_call(program, operands, outs)
        return None if whole is None else [whole]
    made = [call for call in (native_call(program, *part) for part in parts) if call is not None]
    return [SideBySide([[call] for call in made])] if len(made) == len(parts) else None


def _shared(program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> list[Call] | None:
    """The program as one call for a team's threads."""
    rows = outs[0].shape[0] if outs[0].ndim else 1
    work = outs[0].size * sum(a.itemsize for a in (*operands, *outs)) / 50_000  # µs
    count = max(1, min(part_count(work), -(-rows // _UNIT))) if can_be_cut(operands, outs) else 1
    bounds = [rows * i // count // _UNIT * _UNIT for i in range(count)]
    made = [native_call(program, *part) for part in cut(operands, outs, [*bounds, rows])] if count > 1 else [None]
    parts = [call for call in made if call is not None]
    if len(parts) == count:
        return [Shared.of(parts, work)]
    whole = native_call(program, operands, outs)
    return None if whole is None else [whole]


def run_native(
    program: Program, signature: Signature, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]
) -> bool:
    """Compute the program outside of a recording, by a call that is prepared once; False if there is no code."""
    if len(outs) > 1 and not _apart(outs):
        return False
    arrays = (*operands, *outs)
    key = program, signature, *map(_FLAGS, arrays)
    return run_prepared(key, partial(native_call, program, operands, outs), arrays)


def _by_rows(operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Column-major matrices as transposed row-major ones."""
    out = outs[0]
    if out.flags.c_contiguous or not out.flags.f_contiguous:
        return list(operands), list(outs)
    return [a[(None,) * (out.ndim - a.ndim)].T for a in operands], [o.T for o in outs]


def _apart(outs: Sequence[np.ndarray]) -> bool:
    return not any(np.may_share_memory(a, b) for i, a in enumerate(outs) for b in outs[:i])


def native_call(program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> NativeCall | None:
    """The program as one native call; None if there is no code."""
    if not _apart(outs):
        return None
    operands, outs = _by_rows(operands, outs)
    arrays = [*operands, *outs]
    found = tried(_found, program, signature_of(operands, outs), tuple(map(_FLAGS, arrays)))
    if found is None:
        return None
    used = found.constants, *map(arrays.__getitem__, found.arrays)
    block = np.array([found.rows, found.columns, *locations(used)], np.int64)
    return NativeCall(found.address, block, [found.constants, *arrays])


@lru_cache(maxsize=64)
def approximates(program: Program) -> bool:
    """Whether native code may round otherwise than ufuncs: with exponentials and logarithms."""
    return any(value.op in MATHEMATICS for value in program.values)


def native_source(formula: Traceable, dtype: str = "float32") -> str:
    """The native text of a formula whose operands all have one dtype and the shape of the result.

    >>> from nnkit.kernels.arithmetic import product
    >>> "v2 = v0 * v1" in native_source(product, "float64")
    True
    """
    program, count = formula.program(), len(formula.operands)
    layout = Layout(
        tuple((dtype, "full", i) for i in range(count)),
        tuple((dtype, count + j) for j in range(len(program.outputs))),
    )
    if not supported(program, layout):
        return f"# {formula.name} in {dtype} has no native code: NumPy computes it\n"
    constants = [f"{value.constant:g}" for value in program.values if value.op == "constant"]
    return f"# constants: {', '.join(constants) or 'none'}\n{formula_text(program, layout)}"
