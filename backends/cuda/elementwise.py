"""The launch of a formula's kernel, into which passes fuse formulas, reductions, and the work of other launches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnkit.backends.cuda.formula_text import (
    STORAGE,
    KernelSignature,
    kernel_name,
    kernel_source,
    one_entry,
    widest_lanes,
)  # fmt: skip
from nnkit.backends.cuda.launch import (
    THREADS,
    Launch,
    Rider,
    extent,
    grid,
    grid_of_rows,
    meet,
    overlap,
    rows_group,
    same,
)  # fmt: skip
from nnkit.backends.cuda.prepared import Call
from nnkit.backends.dtypes import ITEMSIZE, dtype_name
from nnkit.backends.formulas.program import ROW_REDUCTIONS, Program, chained


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


def signature_of(
    arrays: Sequence[Any],
    layouts: Sequence[str],
    outs: Sequence[Any],
    pointers: Sequence[int],
    shape: tuple[int, ...] | None = None,
    placed: bool = False,
) -> KernelSignature:
    """The kernel signature for these operands and results, with 16-byte accesses if alignment and length allow.

    `pointers` are the addresses of the operands, then of the results; `shape` is that of the computation, by default
    the first result's. `placed` is whether results start at any row of an array.
    """
    dtypes = tuple(dtype_name(a.dtype) for a in arrays)
    out_dtypes = tuple(dtype_name(o.dtype) for o in outs)
    shape = outs[0].shape if shape is None else shape
    n, columns = math.prod(shape), shape[-1] if shape else 1
    lanes = widest_lanes(dtypes + out_dtypes)
    broadcast = "row" in layouts or "column" in layouts or placed
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


_FEWER = 4  # how many times fewer rows partial sums must have
# Limits of a fused kernel: it holds up to four entries of each array in registers, CUDA allows 4096 bytes of arguments,
# and long sources take time to generate and compile.
_ARRAYS = 24
_VALUES = 256
_RIDERS = 4


class ElementwiseCall(Launch):
    """The call of a program's kernel on a CUDA device.

    The kernel can read the operands directly, each with its layout (see `formula_text`); the results `outs` are not
    empty and in C order.

    Args:
        shape: the shape of the computation, if the program reduces rows: that of each result but reductions.
        sums: the index of a result, and an array (rows, columns) for partial sums of its columns.
        places: by index of a result the 0-d array with its first row, if it is a part of a larger array in `outs`.
        riders: launches of one thread, whose work the first thread does as well.
    """

    kind = "elementwise"

    def __init__(
        self,
        device: Any,
        program: Program,
        name: str,
        operands: Sequence[Any],
        layouts: Sequence[str],
        outs: Sequence[Any],
        shape: tuple[int, ...] | None = None,
        sums: tuple[int, Any] | None = None,
        places: Mapping[int, Any] | None = None,
        riders: tuple[Launch, ...] = (),
    ) -> None:
        self.device, self.program, self.layouts = device, program, tuple(layouts)
        self.operands, self.outs, self.sums, self.riders = tuple(operands), tuple(outs), sums, riders
        self.places = dict(sorted((places or {}).items()))
        self.shape = outs[0].shape if shape is None else shape
        self.name = name
        made = self._signature = self._signed()
        n, columns = math.prod(self.shape), self.shape[-1] if self.shape else 1
        threads, multiprocessors = n, device.multiprocessors
        if made.group:
            threads = n // columns * made.group
        self._blocks = (grid(threads, made.lanes, multiprocessors),)
        if sums is not None:
            self._blocks = (grid_of_rows(n, columns, made.lanes, multiprocessors),)
            assert sums[1].size == self._blocks[0] * THREADS * made.lanes
        index = np.uint32 if made.index == "unsigned int" else np.int64
        self._arguments = (
            *self.operands, *self.outs, *self._partial, index(n), index(columns), *self.places.values(),
            *(argument for rider in riders for argument in rider.arguments),
        )  # fmt: skip
        self._kernel = device.kernel(kernel_source(program, name, made), kernel_name(name))

    def prepared(self) -> Call:
        """The function that launches the kernel for other arrays of the same layouts."""
        kernel, blocks, threads = self._kernel, self._blocks, (self._threads,)
        numbers = self._arguments[len(self.operands) + len(self.outs) :]
        return lambda operands, outs: kernel(blocks, threads, (*operands, *outs, *numbers))

    def _signed(self) -> KernelSignature:
        """The signature of its kernel."""
        pointers = [a.data.ptr for a in (*self.operands, *self.outs)]
        made = signature_of(self.operands, self.layouts, self.outs, pointers, self.shape, bool(self.places))
        group = rows_group(self.shape[-1]) if any(v.op in ROW_REDUCTIONS for v in self.program.values) else 0
        return replace(
            made,
            lanes=1 if group else made.lanes,
            summed=None if self.sums is None else self.sums[0],
            group=group,
            columns=tuple(j for j, out in enumerate(self.outs) if j not in self.places and out.shape != self.shape),
            placed=tuple(self.places),
            riders=tuple(rider.work for rider in self.riders if rider.work),
        )

    @property
    def _partial(self) -> tuple[Any, ...]:
        return () if self.sums is None else self.sums[1:]

    @property
    def read(self) -> tuple[Any, ...]:
        return (*self.operands, *self.places.values(), *(a for rider in self.riders for a in rider.read))

    @property
    def written(self) -> tuple[Any, ...]:
        return (*self.outs, *self._partial, *(a for rider in self.riders for a in rider.written))

    @property
    def work(self) -> Rider | None:
        alone = math.prod(self.shape) == 1 and set(self.layouts) <= {"scalar"}
        if alone and self.is_plain and not self.reduces:
            return one_entry(self.program, self._signature)
        return None

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (*self.operands, *self.outs)

    @property
    def is_plain(self) -> bool:
        """Whether it only computes its program."""
        return self.sums is None and not self.places and not self.riders

    def is_exact(self, number: int) -> bool:
        """Whether a result is stored in the dtype of the computation, without rounding."""
        return STORAGE[dtype_name(self.outs[number].dtype)] == self._signature.real

    def _but(self, **changes: Any) -> "ElementwiseCall":
        """The same call with other arguments."""
        names = ("device", "program", "name", "operands", "layouts", "outs", "shape", "sums", "places", "riders")
        return ElementwiseCall(**{name: getattr(self, name) for name in names} | changes)

    def with_sums(self, number: int) -> "tuple[ElementwiseCall, Any] | None":
        """The call that also sums the columns of a result, and the array (rows, columns) of partial sums.

        Each sum is over equally spaced rows. None if the sums do not have far fewer rows than the result, so that
        reading the result again is as fast.
        """
        out, lanes = self.outs[number], self._signature.lanes
        if out.ndim != 2 or not self.is_plain or self._signature.group or not self.is_exact(number):
            return None
        rows, columns = out.shape
        stride = grid_of_rows(out.size, columns, lanes, self.device.multiprocessors) * THREADS * lanes
        if rows * columns < _FEWER * stride:
            return None
        sums = self.device.empty((stride // columns, columns), out.dtype)
        return self._but(sums=(number, sums)), sums

    @property
    def copies(self) -> bool:
        """Whether it only casts an array to another dtype."""
        return self.is_plain and self.layouts == ("full",) and self.program.outputs == (0,)

    def reading_signs(self, copies: Sequence[tuple[Any, Any]]) -> "ElementwiseCall":
        """The call that reads rounded copies, from pairs (array, copy), where it asks for signs only."""
        operands = list(self.operands)
        for number, operand in enumerate(self.operands):
            copy = next((copy for array, copy in copies if same(array, operand)), None)
            if copy is not None and self.program.asks_for_sign(number):
                operands[number] = copy
        changed = any(new is not old for new, old in zip(operands, self.operands, strict=True))
        return self._but(operands=operands) if changed else self

    def without(self, unread: Sequence[int]) -> "ElementwiseCall":
        """The call that does not store some results, by number; at least one other is left."""
        kept, sums = [number for number in range(len(self.outs)) if number not in unread], self.sums
        left = list(kept)
        if sums is not None:  # of a result that may not be stored
            left += [] if sums[0] in kept else [sums[0]]
            sums = (left.index(sums[0]), sums[1])
        program = replace(self.program, outputs=tuple(self.program.outputs[number] for number in left))
        return self._but(
            program=program.without_dead_values(),
            outs=[self.outs[number] for number in kept],
            sums=sums,
            places={kept.index(number): start for number, start in self.places.items()},
        )

    def placing(self, number: int, start: Any, array: Any) -> "ElementwiseCall | None":
        """The call that also writes a result to the rows of a larger array from `start` on; None if impossible."""
        fits = array.flags.c_contiguous and array.shape[1:] == self.shape[1:] and array.dtype == self.outs[number].dtype
        others = (*self.read, *self.written)
        if not fits or len(self.shape) != 2 or self.outs[number].shape != self.shape or len(others) >= _ARRAYS:
            return None
        if any(overlap(array, other) for other in others) or any(overlap(start, other) for other in self.written):
            return None
        outputs = (*self.program.outputs, self.program.outputs[number])
        places, program = self.places | {len(self.outs): start}, replace(self.program, outputs=outputs)
        made = self._but(program=program, outs=(*self.outs, array), places=places)
        # Partial sums depend on the grid, which depends on the number of entries that a thread moves at a time.
        return made if self.sums is None or made._signature.lanes == self._signature.lanes else None

    def can_copy(self, number: int) -> bool:
        """Whether it can also write a result to an array of another dtype."""
        room = len(self.read) + len(self.written) < _ARRAYS and self.sums is None and not self.reduces
        return room and number not in self.places and self.is_exact(number)

    def also_rounding(self, number: int, copy: Any) -> "ElementwiseCall":
        """The call that also writes a result to an array of another dtype."""
        outputs = (*self.program.outputs, self.program.outputs[number])
        return self._but(program=replace(self.program, outputs=outputs), outs=(*self.outs, copy))

    def carrying(self, rider: Launch) -> "ElementwiseCall | None":
        """The call whose first thread also does a launch of one thread, with other arrays; None if impossible."""
        if rider.work is None or len(self.riders) == _RIDERS or len(self.read) + len(self.written) > _ARRAYS:
            return None
        return self._but(name=f"{self.name}_{rider.name}", riders=(*self.riders, rider))

    @property
    def reduces(self) -> bool:
        """Whether its program contains sums or maxima of rows."""
        return self._signature.group > 0

    def by_rows(self) -> "ElementwiseCall | None":
        return self

    def followed_by(self, other: Launch) -> "ElementwiseCall | None":
        """The fused call, if the other call reads results of this one; None if it does not, or if fusion is unsafe.

        Results that the other call overwrites are not stored. Values are passed on in the dtype of the computation, so
        rounded results, of a half-precision dtype, are not fused.
        """
        if not isinstance(other, ElementwiseCall) or not self.is_plain or not other.is_plain:
            return None
        if self._signature.real != other._signature.real or self.shape != other.shape:
            return None
        links = tuple(self.gives(operand) for operand in other.operands)
        kept = tuple(
            number for number, out in enumerate(self.outs) if not any(same(out, theirs) for theirs in other.outs)
        )
        own = [j for j, link in enumerate(links) if link is None]
        operands = (*self.operands, *(other.operands[j] for j in own))
        layouts = (*self.layouts, *(other.layouts[j] for j in own))
        outs = (*(self.outs[number] for number in kept), *other.outs)
        values = len(self.program.values) + len(other.program.values)
        if len(own) == len(links) or len(operands) + len(outs) > _ARRAYS or values > _VALUES:
            return None
        if self._disturbs(other, own) or _in_the_way(operands, layouts, outs, self.shape):
            return None
        program = chained(self.program, other.program, links, kept)
        name = f"{self.name}_{other.name}"
        return ElementwiseCall(self.device, program, name, operands, layouts, outs, self.shape)

    def gives(self, operand: Any) -> int | None:
        """The index of the result that another call reads as this operand, entry by entry, or None."""
        for number, out in enumerate(self.outs):
            if same(out, operand) and number not in self.places and self.is_exact(number):
                return number
        return None

    def _disturbs(self, other: "ElementwiseCall", own: Sequence[int]) -> bool:
        """Whether the other call reads or overwrites results of this one other than entry by entry."""
        apart = [out for out in other.outs if not any(same(out, ours) for ours in self.outs)]
        return any(overlap(array, out) for array in (*(other.operands[j] for j in own), *apart) for out in self.outs)


def _in_the_way(operands: Sequence[Any], layouts: Sequence[str], outs: Sequence[Any], shape: tuple[int, ...]) -> bool:
    """Whether a result would overwrite operands that other threads still read."""
    return any(
        clobbers(out, out.data.ptr, operand, operand.data.ptr, layout)
        or (out.shape != shape and overlap(out, operand))  # one entry for each row, of which threads read others
        for operand, layout in zip(operands, layouts, strict=True)
        for out in outs
    )
