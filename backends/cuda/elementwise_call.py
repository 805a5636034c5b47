"""The launch of a formula's kernel, of which passes ask for more: another formula, sums of columns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnkit.backends.chained import chained
from nnkit.backends.cuda.formula_text import STORAGE, kernel_name, kernel_source
from nnkit.backends.cuda.launch import THREADS, clobbers, grid, grid_of_rows, overlap, same, signature_of
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.program import Program
from nnkit.backends.recording import Node

_FEWER = 4  # times: how many fewer rows sums must have than what they are of
# What a kernel that does several things has at most: it may hold an entry or four of each array in registers, CUDA
# takes 4096 bytes of arguments, and a text of any length takes its time to write and to compile.
_ARRAYS = 24
_VALUES = 256


class ElementwiseCall:
    """The call of a program's kernel on a device of CuPy's.

    The operands are those that the kernel can read as they are, each with its layout (see `formula_text`); the results
    `outs` are in C order, and have entries. `sums` are the number of a result and an array (rows, columns) for sums of
    its columns, each of some of its rows.
    """

    __slots__ = (
        "_arguments", "_blocks", "_device", "_kernel", "_layouts", "_program", "_signature", "_sums", "name",
        "operands", "outs",
    )  # fmt: skip

    def __init__(
        self,
        device: Any,
        program: Program,
        name: str,
        operands: Sequence[Any],
        layouts: Sequence[str],
        outs: Sequence[Any],
        sums: tuple[int, Any] | None = None,
    ) -> None:
        self._device, self._program, self.name = device, program, name
        self.operands, self._layouts, self.outs, self._sums = operands, layouts, outs, sums
        signature = signature_of(operands, layouts, outs, [a.data.ptr for a in (*operands, *outs)])
        self._signature = signature
        index = np.uint32 if signature.index == "unsigned int" else np.int64
        n, columns = outs[0].size, outs[0].shape[-1] if outs[0].ndim else 1
        self._blocks = (grid(n, signature.lanes, device.multiprocessors),)
        written = outs
        if sums is not None:
            signature, written = replace(signature, summed=sums[0]), (*outs, sums[1])
            self._blocks = (grid_of_rows(n, columns, signature.lanes, device.multiprocessors),)
            assert sums[1].size == self._blocks[0] * THREADS * signature.lanes
        self._arguments = (*operands, *written, index(n), index(columns))
        self._kernel = device.kernel(kernel_source(program, name, signature), kernel_name(name))

    def __call__(self) -> None:
        self._kernel(self._blocks, (THREADS,), self._arguments)

    def is_exact(self, number: int) -> bool:
        """Whether a result is what the kernel computed, without another rounding."""
        return STORAGE[dtype_name(self.outs[number].dtype)] == self._signature.real

    @property
    def written(self) -> tuple[Any, ...]:
        """All arrays that it writes."""
        return (*self.outs, *(() if self._sums is None else self._sums[1:]))

    @property
    def node(self) -> Node:
        """What a recording holds of it."""
        return Node(self, tuple(self.operands), self.written, self.name)

    def with_sums(self, number: int) -> "tuple[ElementwiseCall, Any] | None":
        """The call that sums the columns of a matrix among its results too, and the array (rows, columns) of the sums.

        Each is of every so many rows; None if they would not be much fewer than those of the result, so that reading
        that again is as fast.
        """
        out, lanes = self.outs[number], self._signature.lanes
        if out.ndim != 2 or self._sums is not None or not self.is_exact(number):
            return None
        rows, columns = out.shape
        stride = grid_of_rows(out.size, columns, lanes, self._device.multiprocessors) * THREADS * lanes
        if rows * columns < _FEWER * stride:
            return None
        sums = self._device.empty((stride // columns, columns), out.dtype)
        made = (self._device, self._program, self.name, self.operands, self._layouts, self.outs, (number, sums))
        return ElementwiseCall(*made), sums

    def followed_by(self, other: "ElementwiseCall") -> "ElementwiseCall | None":
        """The call that does both, if the other one takes results of this one; None where that is not so, or not safe.

        A result that the other overwrites is not written any more. What is computed stays in the type of the kernel's
        arithmetic, so that a result of a half type, which is rounded, is not handed on.
        """
        if self._signature.real != other._signature.real or self.outs[0].shape != other.outs[0].shape:
            return None
        if self._sums is not None or other._sums is not None:
            return None
        links = tuple(self._gives(operand) for operand in other.operands)
        kept = tuple(
            number for number, out in enumerate(self.outs) if not any(same(out, theirs) for theirs in other.outs)
        )
        own = [j for j, link in enumerate(links) if link is None]
        operands = (*self.operands, *(other.operands[j] for j in own))
        layouts = (*self._layouts, *(other._layouts[j] for j in own))
        outs = (*(self.outs[number] for number in kept), *other.outs)
        values = len(self._program.values) + len(other._program.values)
        if len(own) == len(links) or len(operands) + len(outs) > _ARRAYS or values > _VALUES:
            return None
        if self._disturbs(other, own) or _in_the_way(operands, layouts, outs):
            return None
        program = chained(self._program, other._program, links, kept)
        return ElementwiseCall(self._device, program, f"{self.name}_{other.name}", operands, layouts, outs)

    def _gives(self, operand: Any) -> int | None:
        """Which of the results another call on arrays of this shape takes as this operand: so, entry by entry."""
        for number, out in enumerate(self.outs):
            if same(out, operand) and self.is_exact(number):
                return number
        return None

    def _disturbs(self, other: "ElementwiseCall", own: Sequence[int]) -> bool:
        """Whether the other call reads or overwrites results of this one in another way than entry by entry."""
        apart = [out for out in other.outs if not any(same(out, ours) for ours in self.outs)]
        return any(overlap(array, out) for array in (*(other.operands[j] for j in own), *apart) for out in self.outs)


def _in_the_way(operands: Sequence[Any], layouts: Sequence[str], outs: Sequence[Any]) -> bool:
    """Whether a result would be written where another thread still has to read an operand."""
    return any(
        clobbers(out, out.data.ptr, operand, operand.data.ptr, layout)
        for operand, layout in zip(operands, layouts, strict=True)
        for out in outs
    )
