"""The launch of a formula's kernel, into which passes fuse other formulas and column sums."""

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
BLOCKS_PER_MULTIPROCESSOR = 16  # enough for any GPU; threads use grid-stride loops


def layout_of(shape: tuple[int, ...], out_shape: tuple[int, ...]) -> str | None:
    """How a C-contiguous operand of this shape broadcasts to the result; None if the kernel does not support it.

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
    """Whether threads could overwrite entries of a C-contiguous operand that other threads still read.

    They cannot if the operand is the result: each thread reads its entries before it writes them.
    """
    entry_by_entry = layout == "full" or out.size == 1
    if entry_by_entry and pointer == out_pointer and operand.dtype == out.dtype:
        return False
    return meet(extent(operand, pointer), extent(out, out_pointer))


def extent(array: Any, pointer: int) -> tuple[int, int]:
    """The addresses of an array's first byte and after its last.

    CuPy's may_share_memory assumes that arrays from other libraries, such as by DLPack, never overlap.
    """
    reaches = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    start = pointer + sum(reach for reach in reaches if reach < 0)
    return start, pointer + sum(reach for reach in reaches if reach > 0) + array.itemsize


def meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two address ranges overlap.

    >>> meet((0, 4), (3, 9)), meet((0, 4), (4, 9))
    (True, False)
    """
    return one[0] < other[1] and other[0] < one[1]


def overlap(a: Any, b: Any) -> bool:
    """Whether two arrays on a device may share memory."""
    return meet(extent(a, a.data.ptr), extent(b, b.data.ptr))


def same(one: Any, other: Any) -> bool:
    """Whether two arrays are the same view of the same memory."""
    return bool(
        one.data.ptr == other.data.ptr
        and (one.shape, one.strides, one.dtype) == (other.shape, other.strides, other.dtype)
    )


def signature_of(
    arrays: Sequence[Any], layouts: Sequence[str], outs: Sequence[Any], pointers: Sequence[int]
) -> KernelSignature:
    """The kernel signature for these operands and results, with 16-byte accesses if alignment and length allow.

    `pointers` are the addresses of the operands, then of the results.
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
    # The loop index exceeds n by up to one grid stride.
    index = "unsigned int" if n < 2**31 else "long long"
    return KernelSignature(dtypes, tuple(layouts), out_dtypes, lanes, index)


def grid_of_rows(n: int, columns: int, lanes: int, multiprocessors: int) -> int:
    """The number of blocks for `n` entries, if the grid stride must be a multiple of `columns`.

    >>> grid_of_rows(8192 * 4096, 4096, 4, 132), grid_of_rows(8192 * 784, 784, 4, 132)
    (2112, 2107)
    """
    unit = columns // math.gcd(columns, lanes * THREADS)
    return max(1, grid(n, lanes, multiprocessors) // unit) * unit


def grid(n: int, lanes: int, multiprocessors: int) -> int:
    """The number of blocks for `n` entries.

    >>> grid(1000, 4, 132), grid(10**9, 4, 132)
    (1, 2112)
    """
    return max(1, min(-(-n // (lanes * THREADS)), multiprocessors * BLOCKS_PER_MULTIPROCESSOR))


_FEWER = 4  # how many times fewer rows partial sums must have
# Limits of a fused kernel: it holds up to four entries of each array in registers, CUDA allows 4096 bytes of arguments,
# and long sources take time to generate and compile.
_ARRAYS = 24
_VALUES = 256


class ElementwiseCall:
    """The call of a program's kernel on a CUDA device.

    The kernel can read the operands directly, each with its layout (see `formula_text`); the results `outs` are not
    empty and in C order. `sums` are the index of a result and an array (rows, columns) for partial sums of its columns.
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
        """Whether a result is stored in the dtype of the computation, without rounding."""
        return STORAGE[dtype_name(self.outs[number].dtype)] == self._signature.real

    @property
    def written(self) -> tuple[Any, ...]:
        """All arrays that the kernel writes."""
        return (*self.outs, *(() if self._sums is None else self._sums[1:]))

    @property
    def node(self) -> Node:
        """Its node in a recording."""
        return Node(self, tuple(self.operands), self.written, self.name)

    def with_sums(self, number: int) -> "tuple[ElementwiseCall, Any] | None":
        """The call that also sums the columns of a result, and the array (rows, columns) of partial sums.

        Each sum is over equally spaced rows. None if the sums do not have far fewer rows than the result, so that
        reading the result again is as fast.
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
        """The fused call, if the other call reads results of this one; None if it does not, or if fusion is unsafe.

        Results that the other call overwrites are not stored. Values are passed on in the dtype of the computation, so
        rounded results, of a half-precision dtype, are not fused.
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
        """The index of the result that another call reads as this operand, entry by entry, or None."""
        for number, out in enumerate(self.outs):
            if same(out, operand) and self.is_exact(number):
                return number
        return None

    def _disturbs(self, other: "ElementwiseCall", own: Sequence[int]) -> bool:
        """Whether the other call reads or overwrites results of this one other than entry by entry."""
        apart = [out for out in other.outs if not any(same(out, ours) for ours in self.outs)]
        return any(overlap(array, out) for array in (*(other.operands[j] for j in own), *apart) for out in self.outs)


def _in_the_way(operands: Sequence[Any], layouts: Sequence[str], outs: Sequence[Any]) -> bool:
    """Whether a result would overwrite operands that other threads still read."""
    return any(
        clobbers(out, out.data.ptr, operand, operand.data.ptr, layout)
        for operand, layout in zip(operands, layouts, strict=True)
        for out in outs
    )
