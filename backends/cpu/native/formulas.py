"""A formula's program as native text: one loop that reads each entry once and writes each result once.

Values are computed where they vary: those of scalars before the loops, those of columns once a row. Arithmetic is in
float32 for the half-precision types and float32, else in float64, with the results of the ufuncs
(`nnkit.backends.cpu.calls`): to the bit without exponentials and logarithms, which are those of `mathematics`.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nnkit.backends.cpu.blocks import SideBySide, can_be_cut, same_entries, thread_blocks
from nnkit.backends.cpu.native.calls import NativeCall
from nnkit.backends.cpu.native.compiler import address_of
from nnkit.backends.cpu.native.mathematics import OPERATIONS as MATHEMATICS
from nnkit.backends.cpu.native.mathematics import statements
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
ARRAYS = 16  # that the text can tell apart (intrinsics.py)
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
    known = {"operand", "constant", "multiply", *_EXPRESSIONS, *MATHEMATICS}
    return (
        len(layout.memories) <= ARRAYS and not (wide and narrow) and all(value.op in known for value in program.values)
    )


@lru_cache(maxsize=1024)
def formula_text(program: Program, layout: Layout) -> str:
    """The native text; its arguments are the numbers of rows and columns, then the address of each memory.

    A text with neither rows nor columns among its operands takes all entries as rows of one column.
    """
    real = "float64" if any(dtype == "float64" for dtype, _, _ in layout.operands) else "float32"
    flat = all(kind in ("full", "scalar") for _, kind, _ in layout.operands)
    lines: dict[str, list[str]] = {"scalar": [], "column": [], "row": []}
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
        lines[where[-1]] += _value_lines(number, value, program.values, real)
    for number, (dtype, memory) in zip(program.outputs, layout.outs, strict=True):
        stored = f"v{number}"
        if dtype == "bfloat16":
            stored = f"b{memory}"
            lines["row"] += statements("to_brain", stored, [f"v{number}"], real)
        elif dtype != real:
            stored = f"to_half({stored})" if dtype == "float16" else f"{dtype}({stored})"
        lines["row"].append(f"store(p{memory}, i, {stored}, {memory})")
    head = ["rows, columns = arguments[0], arguments[1]"]
    head += [f"p{m} = {_STORED[dtype]}s(arguments[{m + 2}])" for m, dtype in sorted(layout.memories.items())]
    if flat:
        loops = [*head, *lines["scalar"], "for i in range(rows):", *(f"    {line}" for line in lines["row"])]
    else:
        inner = ["for column in range(columns):", "    i = row * columns + column", *(f"    {x}" for x in lines["row"])]
        loops = [*head, *lines["scalar"], "for row in range(rows):", *(f"    {x}" for x in [*lines["column"], *inner])]
    return "def f(arguments):\n" + "".join(f"    {line}\n" for line in loops)


def _value_lines(number: int, value: Value, values: Sequence[Value], real: str) -> list[str]:
    names = [f"v{a}" for a in value.arguments]
    if value.op in MATHEMATICS:
        return statements(value.op, f"v{number}", names, real)
    if value.op == "constant":
        constant = repr(value.constant) if math.isfinite(value.constant) else f"{value.constant}"
        return [f"v{number} = {f'uint32({int(value.constant)})' if value.kind == 'bits' else f'{real}({constant})'}"]
    if value.op == "multiply":
        product = f"{names[0]} * {names[1]}"
        return [f"v{number} = {f'uint32({product})' if value.kind == 'bits' else product}"]
    return [f"v{number} = {_EXPRESSIONS[value.op].format(*names).replace('R(', f'{real}(')}"]


def _widened(entry: str, dtype: str, real: str) -> str:
    if dtype == "float16":
        entry = f"from_half({entry})"
    elif dtype == "bfloat16":
        entry = f"from_bits32(int32(int32({entry}) << 16))"
    return entry if dtype == real or real == "float32" else f"float64({entry})"


def native_calls(program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> list[Call] | None:
    """The program as native calls on these arrays, on parallel threads if that is faster; None if there is no text.

    The arrays of full operands and results must be contiguous, and results overlap no operand unless it is the same.
    """
    parts = thread_blocks(program, operands, outs)
    if not parts:
        call = _call(program, operands, outs)
        return None if call is None else [call]
    calls = [call for part in parts if (call := _call(program, *part)) is not None]
    return [SideBySide([[call] for call in calls])] if len(calls) == len(parts) else None


def _call(program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> NativeCall | None:
    out = outs[0]
    if not out.flags.c_contiguous and all(o.flags.f_contiguous for o in outs):  # by columns: all transposed
        ndim = out.ndim
        operands = [a.reshape((1,) * (ndim - a.ndim) + a.shape).T for a in operands]
        outs = [o.T for o in outs]
        out = outs[0]
    arrays = [*operands, *outs]
    if not all(o.flags.c_contiguous for o in outs) or not all(a.flags.aligned for a in arrays):
        return None
    if not can_be_cut(operands, outs) or any(np.may_share_memory(a, b) for i, a in enumerate(outs) for b in outs[:i]):
        return None
    kinds = [_kind(a, out.shape) for a in operands]
    if None in kinds:
        return None
    lengths = {
        out.size // max(a.size, 1) if kind == "column" else a.size
        for a, kind in zip(operands, kinds, strict=True)
        if kind in ("row", "column")
    }
    if len(lengths) > 1:
        return None
    columns = lengths.pop() if lengths else 1
    kept: list[np.ndarray] = []
    found = []
    for a, kind in zip(operands, kinds, strict=True):
        found.append((dtype_name(a.dtype), str(kind), _memory(a, kept)))
    layout = Layout(tuple(found), tuple((dtype_name(o.dtype), _memory(o, kept)) for o in outs))
    if not supported(program, layout):
        return None
    block = np.array([out.size // max(columns, 1), columns, *(a.ctypes.data for a in kept)], np.int64)
    return NativeCall(address_of(formula_text(program, layout)), block, arrays)


def _memory(array: np.ndarray, kept: list[np.ndarray]) -> int:
    for number, other in enumerate(kept):
        if same_entries(array, other):
            return number
    kept.append(array)
    return len(kept) - 1


def _kind(operand: np.ndarray, shape: tuple[int, ...]) -> str | None:
    """How an operand of this shape varies over the entries of a result; None if in another way."""
    if operand.size == 1 and math.prod(shape) != 1:
        return "scalar"
    if not operand.flags.c_contiguous:
        return None
    padded = (1,) * (len(shape) - operand.ndim) + operand.shape
    if padded == shape:
        return "full"
    same = [i for i, (n, m) in enumerate(zip(padded, shape, strict=True)) if n == m and m != 1]
    wide = [i for i, (n, m) in enumerate(zip(padded, shape, strict=True)) if n != m]
    if max(wide) < min(same):
        return "row"
    return "column" if min(wide) > max(same) else None


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
    return formula_text(program, layout)
