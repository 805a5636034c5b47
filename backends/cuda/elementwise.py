"""The launch of a formula's kernel, of which passes ask for more: another formula, sums of columns."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnkit.backends.cuda.formula_text import STORAGE, KernelSignature, kernel_name, kernel_source, widest_lanes
from nnkit.backends.dtypes import ITEMSIZE, dtype_name
from nnkit.backends.formulas.program import Program, chained
from nnkit.backends.recording import Node

THREADS = 256  # in a block
BLOCKS_PER_MULTIPROCESSOR = 16  # enough to fill any GPU; each thread then walks the array in strides


def layout_of(shape: tuple[int, ...], out_shape: tuple[int, ...]) -> str | None:
    """How a C-contiguous operand of this shape is broadcast to the result, or None if the kernel has no layout for it.

    >>> layout_of((5, 3), (5, 3)), layout_of((3,), (5, 3)), layout_of((5, 1), (5, 3)), layout_of((), (5, 3))
    ('full', 'row', 'column', 'scalar')
    >>> layout_of((2, 1, 3), (2, 5, 3)) is None
    True
    """
    if math.prod(shape) == 1:
        return "scalar"
    padded = (1,) * (len(out_shape) - len(shape)) + tuple(shape)
    if padded == tuple(out_shape):
        return "full"
    if padded[-1] == out_shape[-1] and math.prod(padded[:-1]) == 1:
        return "row"
    if padded[-1] == 1 and padded[:-1] == tuple(out_shape[:-1]):
        return "column"
    return None


def clobbers(out: Any, out_pointer: int, operand: Any, pointer: int, layout: str) -> bool:
    """Whether threads could overwrite entries of a C-contiguous operand of this layout that others still read.

    Not so if the operand is the result itself: each thread reads its own entries before it writes them.
    """
    entry_by_entry = layout == "full" or out.size == 1
    if entry_by_entry and pointer == out_pointer and operand.dtype == out.dtype:
        return False
    return meet(extent(operand, pointer), extent(out, out_pointer))


def extent(array: Any, pointer: int) -> tuple[int, int]:
    """The addresses of an array's first byte and of the one after its last.

    CuPy's own may_share_memory takes arrays that came from elsewhere, by DLPack say, never to overlap.
    """
    reaches = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    start = pointer + sum(reach for reach in reaches if reach < 0)
    return start, pointer + sum(reach for reach in reaches if reach > 0) + array.itemsize


def meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two ranges of addresses have one in common.

    >>> meet((0, 4), (3, 9)), meet((0, 4), (4, 9))
    (True, False)
    """
    return one[0] < other[1] and other[0] < one[1]


def overlap(a: Any, b: Any) -> bool:
    """Whether two arrays of a device may share memory."""
    return meet(extent(a, a.data.ptr), extent(b, b.data.ptr))


def same(one: Any, other: Any) -> bool:
    """Whether two arrays are the same entries of memory, in the same order."""
    return bool(
        one.data.ptr == other.data.ptr
        and (one.shape, one.strides, one.dtype) == (other.shape, other.strides, other.dtype)
    )


def signature_of(
    arrays: Sequence[Any], layouts: Sequence[str], outs: Sequence[Any], pointers: Sequence[int]
) -> KernelSignature:
    """The kernel for these operands and results: with 16-byte accesses where alignment and length allow.

    `pointers` are the addresses of the operands and then of the results.
    """
    dtypes = tuple(dtype_name(a.dtype) for a in arrays)
    out_dtypes = tuple(dtype_name(o.dtype) for o in outs)
    n, columns = outs[0].size, outs[0].shape[-1] if outs[0].ndim else 1
    lanes = widest_lanes(dtypes + out_dtypes)
    broadcast = "row" in layouts or "column" in layouts
    packed = [*(layout in ("full", "row") for layout in layouts), *(True for _ in outs)]
    aligned = all(
        pointer % (ITEMSIZE[dtype] * lanes) == 0
        for pointer, dtype, is_packed in zip(pointers, dtypes + out_dtypes, packed, strict=True)
        if is_packed
    )
    if n % lanes or (broadcast and columns % lanes) or not aligned:
        lanes = 1
    # The loop's counter passes n by up to one stride of the whole grid before it stops.
    index = "unsigned int" if n < 2**31 else "long long"
    return KernelSignature(dtypes, tuple(layouts), out_dtypes, lanes, index)


def grid_of_rows(n: int, columns: int, lanes: int, multiprocessors: int) -> int:
    """How many blocks to launch for `n` entries, if their threads together are to stand at whole rows of `columns`.

    >>> grid_of_rows(8192 * 4096, 4096, 4, 132), grid_of_rows(8192 * 784, 784, 4, 132)
    (2112, 2107)
    """
    unit = columns // math.gcd(columns, lanes * THREADS)
    return max(1, grid(n, lanes, multiprocessors) // unit) * unit


def grid(n: int, lanes: int, multiprocessors: int) -> int:
    """How many blocks to launch for `n` entries.

    >>> grid(1000, 4, 132), grid(10**9, 4, 132)
    (1, 2112)
    """
    return max(1, min(-(-n // (lanes * THREADS)), multiprocessors * BLOCKS_PER_MULTIPROCESSOR))


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
