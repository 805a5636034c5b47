"""How operands meet a kernel: their layouts, how wide the accesses may be, what may overlap, and the grid.

All of it looks at shapes, strides, dtypes and addresses only, which NumPy's arrays have too.
"""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnkit.backends.cuda.elementwise import clobbers, layout_of, signature_of
from nnkit.backends.cuda.launch import BLOCKS_PER_MULTIPROCESSOR, THREADS, grid

Array = NDArray[Any]

# The entry that each layout reads for entry i of the result, as in the kernel's text.
INDEX = {
    "full": lambda i, columns: i,
    "row": lambda i, columns: i % columns,
    "column": lambda i, columns: i // columns,
    "scalar": lambda i, columns: 0 * i,
}


@st.composite
def shapes_that_broadcast(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of an operand, and one that it broadcasts to."""
    out_shape = tuple(draw(st.lists(st.integers(1, 5), max_size=4)))
    kept = [length if draw(st.booleans()) else 1 for length in out_shape]
    return tuple(kept[draw(st.integers(0, len(kept))) :]), out_shape


@given(shapes_that_broadcast())
def test_layouts_agree_with_broadcasting(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape, out_shape = shapes
    operand = np.arange(math.prod(shape)).reshape(shape)
    layout = layout_of(shape, out_shape)
    if layout is None:  # then the backend broadcasts it before the launch
        return
    i, columns = np.arange(math.prod(out_shape)), out_shape[-1] if out_shape else 1
    picked = operand.ravel()[INDEX[layout](i, columns)]
    np.testing.assert_array_equal(picked, np.broadcast_to(operand, out_shape).ravel())


@pytest.mark.parametrize(
    ("shape", "out_shape", "layout"),
    [
        ((6, 4), (6, 4), "full"),
        ((2, 6, 4), (2, 6, 4), "full"),
        ((4,), (6, 4), "row"),
        ((1, 4), (6, 4), "row"),
        ((4,), (2, 3, 4), "row"),
        ((4,), (1, 4), "full"),
        ((6, 1), (6, 4), "column"),
        ((2, 3, 1), (2, 3, 4), "column"),
        ((6, 1), (6, 1), "full"),
        ((), (6, 4), "scalar"),
        ((1, 1), (6, 4), "scalar"),
        ((), (), "scalar"),
        ((3, 4), (2, 3, 4), None),
        ((2, 1, 4), (2, 3, 4), None),
        ((3, 1), (2, 3, 4), None),
    ],
)
def test_layout_of(shape: tuple[int, ...], out_shape: tuple[int, ...], layout: str | None) -> None:
    assert layout_of(shape, out_shape) == layout


def signature(arrays: list[Array], layouts: list[str], out: Array, shift: int = 0) -> tuple[int, str, str]:
    """Lanes, index type and arithmetic of the kernel, with the last operand `shift` bytes off a 256-byte boundary."""
    pointers = [1 << 20] * (len(arrays) + 1)
    pointers[len(arrays) - 1] += shift
    made = signature_of(arrays, layouts, [out], pointers)
    assert made.dtypes == tuple(a.dtype.name for a in arrays)
    assert made.layouts == tuple(layouts)
    assert made.out_dtypes == (out.dtype.name,)
    return made.lanes, made.index, made.real


@pytest.mark.parametrize(
    ("dtype", "lanes", "real"),
    [(np.float16, 8, "float"), (ml_dtypes.bfloat16, 8, "float"), (np.float32, 4, "float"), (np.float64, 2, "double")],
)
def test_lanes_fill_16_bytes_if_alignment_and_length_allow(dtype: type, lanes: int, real: str) -> None:
    def lanes_of(shape: tuple[int, int], layout: str, shift: int = 0) -> int:
        arrays: list[Array] = [np.empty(shape, dtype), np.empty(shape[1], dtype)]
        found, index, arithmetic = signature(arrays, ["full", layout], arrays[0], shift)
        assert (index, arithmetic) == ("unsigned int", real)
        return found

    assert lanes_of((3, 2 * lanes), "row") == lanes
    assert lanes_of((3, 2 * lanes), "row", shift=16) == lanes
    assert lanes_of((3, 2 * lanes), "row", shift=16 // lanes) == 1  # an entry off
    assert lanes_of((3, 2 * lanes), "column", shift=16 // lanes) == lanes  # single entries are read there
    assert lanes_of((3, 2 * lanes + 1), "row") == 1  # a tail
    # A multiple of the lanes in all, but rows that do not start at a pack.
    for layout, expected in (("row", 1), ("column", 1), ("scalar", lanes)):
        assert lanes_of((lanes, 3), layout) == expected


def test_an_unaligned_result_is_written_entry_by_entry() -> None:
    array = np.empty(8, np.float32)
    assert signature_of([array], ["full"], [array, array], [0, 0, 16]).lanes == 4
    assert signature_of([array], ["full"], [array, array], [0, 0, 4]).lanes == 1


def test_mixed_dtypes_take_lanes_of_the_widest_and_align_each() -> None:
    arrays: list[Array] = [np.empty(8, np.float64), np.empty(8, np.float32)]
    assert signature(arrays, ["full", "full"], arrays[0]) == (2, "unsigned int", "double")
    assert signature(arrays, ["full", "full"], arrays[0], shift=8)[0] == 2  # a pack of two float32 is 8 bytes
    assert signature(arrays, ["full", "full"], arrays[0], shift=4)[0] == 1
    halves: list[Array] = [np.empty(8, np.float16), np.empty(8, np.float32)]
    assert signature(halves, ["full", "full"], halves[1]) == (4, "unsigned int", "float")


@pytest.mark.parametrize(("n", "index"), [(2**31 - 1, "unsigned int"), (2**31, "long long")])
def test_index_type_holds_the_loop_counter(n: int, index: str) -> None:
    out = np.broadcast_to(np.empty(1, np.float32), (n,))
    lanes, found, _ = signature([np.empty((), np.float32)], ["scalar"], out)
    assert found == index
    # The last thread's counter passes n by up to one stride of the grid; GPUs have had up to about 200 multiprocessors.
    stride = grid(n, lanes, 1024) * THREADS * lanes
    assert n + stride < 2 ** (32 if index == "unsigned int" else 63)


@given(st.integers(1, 10**10), st.sampled_from([1, 2, 4, 8]), st.integers(1, 200))
def test_the_grid_covers_all_entries(n: int, lanes: int, multiprocessors: int) -> None:
    blocks = grid(n, lanes, multiprocessors)
    full = multiprocessors * BLOCKS_PER_MULTIPROCESSOR
    assert 1 <= blocks <= full
    assert blocks == full or blocks * THREADS * lanes >= n
    assert blocks == 1 or (blocks - 1) * THREADS * lanes < n


def overwrites(out: Array, operand: Array, layout: str) -> bool:
    return clobbers(out, out.ctypes.data, operand, operand.ctypes.data, layout)


def test_a_result_may_be_an_operand_of_its_shape_and_dtype() -> None:
    a = np.zeros((4, 3))
    assert not overwrites(a, a, "full")
    assert overwrites(a.view(np.int64), a, "full")
    assert overwrites(a, a[0], "row")
    assert overwrites(a, a[:1, :1], "scalar")
    assert overwrites(a, a[:, 0], "column")
    one = np.zeros((1, 1))
    assert not overwrites(one, one.reshape(()), "scalar")


def test_memory_beside_the_result_is_not_clobbered() -> None:
    a = np.zeros(10)
    assert not overwrites(a[5:], a[:5], "full")
    assert not overwrites(a[:5], a[5:], "full")
    assert overwrites(a[4:9], a[:5], "full")
    assert overwrites(a[:5], a[4:9], "full")
    assert not overwrites(a[5:], a[4::-1], "full")
    assert overwrites(a[3:8], a[4::-1], "full")


@given(st.data())
def test_overlapping_memory_is_clobbered(data: st.DataObject) -> None:
    memory = np.zeros(24, np.float32)
    starts, steps = st.integers(0, 23), st.sampled_from([1, 2, 3, -1, -2])
    first, second = (memory[data.draw(starts) :: data.draw(steps)] for _ in range(2))
    if np.shares_memory(first, second) and first.ctypes.data != second.ctypes.data:
        assert overwrites(first, second, "full")
