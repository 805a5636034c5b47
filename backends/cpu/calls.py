"""A formula's program as calls of NumPy into preallocated arrays; running them again allocates nothing.

Most operations are one ufunc. There are faster ways for `where`, by masks of bits, and for limits by a constant.
"""

import math
import threading
from collections.abc import Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.cpu.allocation import Move, Place, Signature, moves, signature_of
from nnkit.backends.cpu.blocks import Block, SideBySide, can_be_cut, cut, same_entries, thread_blocks
from nnkit.backends.cpu.native.compiler import enabled
from nnkit.backends.cpu.native.formulas import approximates, native_calls, run_native
from nnkit.backends.cpu.products import add_row_call
from nnkit.backends.formulas.operations import OPERATIONS
from nnkit.backends.formulas.program import Program
from nnkit.backends.recording import Call


class Scratch:
    """Numbered byte buffers that grow on demand; previously returned arrays stay valid."""

    def __init__(self) -> None:
        self._buffers: dict[int, NDArray[np.uint8]] = {}
        self._parts: dict[int, Scratch] = {}

    def array(self, number: int, shape: tuple[int, ...], dtype: np.dtype) -> NDArray[Any]:
        """An uninitialized C-contiguous array in buffer `number`."""
        size = dtype.itemsize
        for length in shape:
            size *= length
        buffer = self._buffers.get(number)
        if buffer is None or buffer.nbytes < size:
            buffer = self._buffers[number] = np.empty(size, np.uint8)
        return buffer[:size].view(dtype).reshape(shape)

    def part(self, number: int) -> "Scratch":
        """A separate scratch, for calls that run in parallel with those that use this one."""
        return self._parts.setdefault(number, Scratch())


# Bytes of each array per block, so that a few blocks fit into the L2 cache. On one CPU thread, gelu_tanh's gradient in
# float32 took, at once and in blocks, 3.0 and 2.0 ns per entry with 2²¹ entries, 4.0 and 2.1 with 2²³, and 1.7 either
# way with 2¹⁹.
BLOCK = 1 << 18


class Elementwise:
    """The call of a program on these arrays; a recording binds it once, as ufuncs (`ufunc_calls`)."""

    __slots__ = ("native", "operands", "outs", "program", "rows", "size")

    def __init__(self, program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> None:
        self.program, self.operands, self.outs = program, operands, outs

    def __call__(self) -> None:
        program, operands, outs = self.program, self.operands, self.outs
        # What recordings compute otherwise than ufuncs, so that results do not depend on what was recorded.
        native = approximates(program) and enabled()
        if outs[0].nbytes <= FEW_BYTES:
            signature = signature_of(operands, outs)
            if not (native and run_native(program, signature, operands, outs)):
                _thread.plan(program, signature).run(operands, outs)
            return
        made = native_calls(program, operands, outs) if native else None
        for call in ufunc_calls(program, operands, outs, _thread.scratch) if made is None else made:
            call()


def ufunc_calls(
    program: Program,
    operands: Sequence[np.ndarray],
    outs: Sequence[np.ndarray],
    scratch: Scratch,
    adds_rows: bool = False,
) -> list[Call]:
    """Calls that compute a program on these arrays, on parallel threads if that is faster.

    With `adds_rows`, SciPy's BLAS adds a row to all rows of a result.
    """
    parts = thread_blocks(program, operands, outs)
    if not parts:
        blocks = _cache_blocks(program, operands, outs)
        if len(blocks) == 1:
            return _calls(program, operands, outs, scratch, adds_rows)
        return [call for block in blocks for call in _calls(program, *block, scratch, adds_rows)]
    lists = []
    for i, part in enumerate(parts):
        blocks = _cache_blocks(program, *part)
        lists.append([call for block in blocks for call in _calls(program, *block, scratch.part(i))])
    return [SideBySide(lists)]


def _cache_blocks(program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> list[Block]:
    """Blocks of rows to compute one after another, if the intermediate values of all rows exceed the cache."""
    out, whole = outs[0], [(list(operands), list(outs))]
    if out.nbytes < 8 * BLOCK or out.ndim == 0 or not can_be_cut(operands, outs):
        return whole
    if not any(move.result.kind == "scratch" for move in moves(program, signature_of(operands, outs))):
        return whole
    rows = max(1, BLOCK * len(out) // out.nbytes)
    return cut(operands, outs, [*range(0, len(out), rows), len(out)])


class Plan:
    """A program's moves for one signature, with its constants and scratch arrays.

    Each step has its ufunc, if it is one, and the arrays of its move among (*operands, *results, *fixed).
    """

    def __init__(self, program: Program, signature: Signature, scratch: Scratch) -> None:
        self.program, self.scratch = program, scratch
        self.steps: list[tuple[np.ufunc | None, Move, itemgetter[Any]]] = []
        self.fixed: list[np.ndarray] = []
        given, results = len(signature.shapes), len(signature.out_dtypes)
        numbers: dict[Place, int] = {}
        for move in moves(program, signature):
            for place in (*move.arguments, move.result):
                if place in numbers:
                    continue
                numbers[place] = given + results + len(self.fixed)
                if place.kind == "operand":
                    numbers[place] = place.number
                elif place.kind == "out":
                    numbers[place] = given + place.number
                elif place.kind == "constant":
                    self.fixed.append(np.asarray(program.values[place.number].constant, place.dtype))
                else:
                    self.fixed.append(scratch.array(place.number, place.shape, np.dtype(place.dtype)))
            chosen = itemgetter(*map(numbers.__getitem__, (*move.arguments, move.result)))
            self.steps.append((_ufunc(move.op), move, chosen))

    def run(self, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> None:
        """Execute the program."""
        arrays = (*operands, *outs, *self.fixed)
        for ufunc, move, chosen in self.steps:
            picked: Any = chosen(arrays)
            if ufunc is None or (ufunc is np.negative and not picked[-1].flags.c_contiguous):
                for call in self.calls_of(move, *picked):
                    call()
            elif ufunc in _LIMITS:
                first, second, result = picked
                ufunc(first, second, out=result)  # NumPy deprecates the third positional argument of these two
            else:
                ufunc(*picked)

    def calls_of(self, move: Move, *arrays: np.ndarray, adds_rows: bool = False) -> list[Call]:
        """The calls of a move on its arguments and its result."""
        *arguments, result = arrays
        ufunc = _ufunc(move.op)
        if ufunc is np.add and adds_rows and same_entries(arguments[0], result):
            added = add_row_call(arguments[1], result)
            if added is not None:
                return [added]
        if ufunc in _LIMITS:
            return limit_calls(ufunc, arguments, [a.kind == "constant" for a in move.arguments], result)
        if ufunc is np.negative and not result.flags.c_contiguous:
            # NumPy 2.4's in-place negative is wrong for some strides, such as 4 entries of float32.
            return [partial(np.multiply, arguments[0], np.asarray(-1, result.dtype), result)]
        if ufunc is not None:
            return [partial(ufunc, *arrays)]  # a keyword argument would cost 0.1 µs per call
        if move.op == "where":
            zero = [_is_zero(self.program, place) for place in move.arguments]
            chosen, otherwise = (None if zero[i] else arguments[i] for i in (1, 2))
            return selection_calls(arguments[0], chosen, otherwise, result, self.scratch)
        return [partial(np.copyto, result, arguments[0], casting="unsafe")]  # a copy, or astype


_LIMITS = (np.maximum, np.minimum)


def _ufunc(op: str) -> np.ufunc | None:
    return OPERATIONS[op].ufunc if op in OPERATIONS else None


FEW_BYTES = 1 << 16  # of a result, up to which a thread keeps the plans of its calls outside recordings


class _Thread(threading.local):
    """What a thread keeps for calls outside recordings."""

    def __init__(self) -> None:
        self.scratch = Scratch()
        self.plan = lru_cache(maxsize=64)(partial(Plan, scratch=self.scratch))


_thread = _Thread()


def _calls(
    program: Program,
    operands: Sequence[np.ndarray],
    outs: Sequence[np.ndarray],
    scratch: Scratch,
    adds_rows: bool = False,
) -> list[Call]:
    """The program's moves as calls on these arrays."""
    plan, calls = Plan(program, signature_of(operands, outs), scratch), list[Call]()
    arrays = (*operands, *outs, *plan.fixed)
    for _, move, chosen in plan.steps:
        calls += plan.calls_of(move, *chosen(arrays), adds_rows=adds_rows)
    return calls


def _is_zero(program: Program, place: Place) -> bool:
    """Whether this is the constant +0, with no bit set."""
    if place.kind != "constant":
        return False
    constant = program.values[place.number].constant
    return constant == 0 and math.copysign(1.0, constant) > 0


FEW_CHOSEN = 512  # entries; up to here, masked copies are as fast
_INTEGERS: dict[int, np.dtype[Any]] = {4: np.dtype(np.int32), 8: np.dtype(np.int64)}
_BYTES, _MASK, _BOTH = -1, -2, -3  # scratch arrays; those of an allocation have numbers above 0


def selection_calls(
    condition: np.ndarray, chosen: np.ndarray | None, otherwise: np.ndarray | None, result: np.ndarray, scratch: Scratch
) -> list[Call]:
    """Calls that write `chosen` to `result` where the condition is true and `otherwise` elsewhere; None means 0.

    All broadcast to the result's shape and have its dtype, of 4 or 8 bytes. The result may be identical to one of them,
    entry by entry, and must not overlap them otherwise.
    """
    if result.size < FEW_CHOSEN:
        x, y = (0.0 if values is None else values for values in (chosen, otherwise))
        if chosen is not None and same_entries(chosen, result):
            false = scratch.array(_BYTES, condition.shape, condition.dtype)
            return [partial(np.logical_not, condition, false), partial(np.copyto, result, y, where=false)]
        return [partial(np.copyto, result, y), partial(np.copyto, result, x, where=condition)]
    integer = _INTEGERS[result.itemsize]
    truth, bits = condition.view(np.int8), result.view(integer)
    signs, mask = scratch.array(_BYTES, condition.shape, truth.dtype), scratch.array(_MASK, result.shape, integer)
    # −1 has all bits set, also after widening.
    ones = [partial(np.negative, truth, signs), partial(np.copyto, mask, signs)]
    if otherwise is None and chosen is not None:
        return [*ones, partial(np.bitwise_and, chosen.view(integer), mask, bits)]
    y = np.zeros((), integer) if otherwise is None else otherwise.view(integer)
    if chosen is None:
        ones[0] = partial(np.subtract, truth, np.int8(1), signs)  # where the condition is false
        return [*ones, partial(np.bitwise_and, y, mask, bits)]
    both = scratch.array(_BOTH, result.shape, integer)
    return [
        *ones,
        partial(np.bitwise_xor, chosen.view(integer), y, both),
        partial(np.bitwise_and, both, mask, both),
        partial(np.bitwise_xor, y, both, bits),
    ]


FEW_LIMITED = 64  # entries; up to here, a number is as fast
BYTES = 1 << 18  # for the array of the constant, which stays in the cache


def limit_calls(
    ufunc: np.ufunc, arguments: Sequence[np.ndarray], constant: Sequence[bool], result: np.ndarray
) -> list[Call]:
    """Calls of np.maximum or np.minimum; `constant` says which argument is a constant of the formula, 0-d."""
    numbers = [a for a, is_constant in zip(arguments, constant, strict=True) if is_constant]
    arrays = [a for a, is_constant in zip(arguments, constant, strict=True) if not is_constant]
    plain = len(arrays) == 1 and result.size >= FEW_LIMITED and arrays[0].shape == result.shape
    plain = plain and arrays[0].flags.c_contiguous and result.flags.c_contiguous
    if not plain or not can_be_cut(arrays, [result]):
        return [partial(ufunc, *arguments, out=result)]
    number = numbers[0].item()
    many = _repeated(number, numbers[0].dtype.str, math.copysign(1.0, number))
    x, out = arrays[0].reshape(-1), result.reshape(-1)
    calls: list[Call] = []
    for start in range(0, out.size, many.size):
        part = slice(start, min(start + many.size, out.size))
        pair = [many[: part.stop - start] if is_constant else x[part] for is_constant in constant]
        calls.append(partial(ufunc, *pair, out=out[part]))
    return calls


@lru_cache(maxsize=16)
def _repeated(number: float, dtype: str, sign: float) -> np.ndarray:
    """A read-only array filled with a number; its sign distinguishes 0 from −0 in the cache."""
    array = np.full(BYTES // np.dtype(dtype).itemsize, number, dtype)
    array.flags.writeable = False
    return array
