"""A formula's program as NumPy ufunc calls on preallocated arrays; repeated runs do not allocate."""

import math
from collections.abc import Sequence
from functools import partial
from operator import attrgetter

import numpy as np

from nnkit.backends.cpu.blas import add_row_call
from nnkit.backends.cpu.blocks import Block, can_be_cut, cut, same_entries
from nnkit.backends.cpu.limits import limit_calls
from nnkit.backends.cpu.schedule import Place, Signature, schedule
from nnkit.backends.cpu.scratch import Scratch, thread_scratch
from nnkit.backends.cpu.select import selection_calls
from nnkit.backends.cpu.threads import SideBySide, thread_blocks
from nnkit.backends.operations import OPERATIONS
from nnkit.backends.program import Program
from nnkit.backends.recording import Call

# Bytes of each array per block, so that a few blocks fit into the L2 cache. On one CPU thread, gelu_tanh's gradient in
# float32 took, at once and in blocks, 3.0 and 2.0 ns per entry with 2²¹ entries, 4.0 and 2.1 with 2²³, and 1.7 either
# way with 2¹⁹.
BLOCK = 1 << 18

_SHAPE, _DTYPE = attrgetter("shape"), attrgetter("dtype")


class Elementwise:
    """The call of a program on these arrays; a recording binds it once, as ufuncs (`ufunc_calls`)."""

    __slots__ = ("operands", "outs", "program")

    def __init__(self, program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> None:
        self.program, self.operands, self.outs = program, operands, outs

    def __call__(self) -> None:
        for call in ufunc_calls(self.program, self.operands, self.outs, thread_scratch()):
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
            return _bind(program, operands, outs, scratch, adds_rows)
        return [call for block in blocks for call in _bind(program, *block, scratch, adds_rows)]
    lists = []
    for i, part in enumerate(parts):
        blocks = _cache_blocks(program, *part)
        lists.append([call for block in blocks for call in _bind(program, *block, scratch.part(i))])
    return [SideBySide(lists)]


def _cache_blocks(program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> list[Block]:
    """Blocks of rows to compute one after another, if the intermediate values of all rows exceed the cache."""
    out, whole = outs[0], [(list(operands), list(outs))]
    if out.nbytes < 8 * BLOCK or out.ndim == 0 or not can_be_cut(operands, outs):
        return whole
    if not any(move.result.kind == "scratch" for move in schedule(program, _signature(operands, outs))):
        return whole
    rows = max(1, BLOCK * len(out) // out.nbytes)
    return cut(operands, outs, [*range(0, len(out), rows), len(out)])


def _signature(operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> Signature:
    shared, same = [], []
    for out in outs:
        shared.append([i for i, a in enumerate(operands) if np.may_share_memory(out, a)])
        same.append([i for i in shared[-1] if same_entries(out, operands[i])])
    return Signature(
        tuple(map(_SHAPE, operands)),
        tuple(map(_DTYPE, operands)),
        outs[0].shape,
        tuple(map(_DTYPE, outs)),
        tuple(map(frozenset, shared)),
        tuple(map(frozenset, same)),
    )


def _bind(
    program: Program,
    operands: Sequence[np.ndarray],
    outs: Sequence[np.ndarray],
    scratch: Scratch,
    adds_rows: bool = False,
) -> list[Call]:
    """The schedule's moves as calls on these arrays, with intermediate values in `scratch`."""
    arrays: dict[Place, np.ndarray] = {}
    calls: list[Call] = []
    for move in schedule(program, _signature(operands, outs)):
        for place in (*move.arguments, move.result):
            if place not in arrays:
                if place.kind == "operand":
                    arrays[place] = operands[place.number]
                elif place.kind == "out":
                    arrays[place] = outs[place.number]
                elif place.kind == "constant":
                    arrays[place] = np.asarray(program.values[place.number].constant, place.dtype)
                else:
                    arrays[place] = scratch.array(place.number, place.shape, np.dtype(place.dtype))
        arguments, result = [*map(arrays.__getitem__, move.arguments)], arrays[move.result]
        ufunc = OPERATIONS[move.op].ufunc if move.op in OPERATIONS else None
        added = add_row_call(arguments[1], result) if adds_rows and _adds_to(move.op, arguments, result) else None
        if added is not None:
            calls.append(added)
        elif ufunc in (np.maximum, np.minimum):
            calls += limit_calls(ufunc, arguments, [a.kind == "constant" for a in move.arguments], result)
        elif ufunc is np.negative and not result.flags.c_contiguous:
            # NumPy 2.4's in-place negative is wrong for some strides, such as 4 entries of float32.
            calls.append(partial(np.multiply, arguments[0], np.asarray(-1, result.dtype), result))
        elif ufunc is not None:
            calls.append(partial(ufunc, *arguments, result))  # a keyword argument would cost 0.1 µs per call
        elif move.op == "where":
            chosen, otherwise = (None if _is_zero(program, place) else arrays[place] for place in move.arguments[1:])
            calls += selection_calls(arguments[0], chosen, otherwise, result, scratch)
        else:  # a copy, or astype
            calls.append(partial(np.copyto, result, arguments[0], casting="unsafe"))
    return calls


def _adds_to(op: str, arguments: Sequence[np.ndarray], result: np.ndarray) -> bool:
    """Whether an operation adds to its result in place."""
    return op == "add" and same_entries(arguments[0], result)


def _is_zero(program: Program, place: Place) -> bool:
    """Whether this is the constant +0, with no bit set."""
    if place.kind != "constant":
        return False
    constant = program.values[place.number].constant
    return constant == 0 and math.copysign(1.0, constant) > 0
