"""How a formula's operands meet a CUDA kernel: layout, alignment, and the launch.

Works on any array with the shape, strides and device pointer of CuPy's, and computes nothing itself.
"""

import math
from collections.abc import Sequence
from typing import Any

from nnkit.backends.cuda.formula_text import KernelSignature, widest_lanes
from nnkit.backends.dtypes import ITEMSIZE, dtype_name

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
