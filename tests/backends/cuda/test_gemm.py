"""Where BLAS finds the entries of a matrix: as NumPy's own strides say, for every kind of view."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnkit.backends.cuda.cublas import (
    AS_IS,
    COMPUTE_DOUBLE,
    COMPUTE_FLOAT,
    COMPUTE_TF32,
    DATA_TYPES,
    DEFAULT_ALGORITHM,
    TRANSPOSED,
)
from nnkit.backends.cuda.layouts import Stored, row_step, stored, strides_of

LEADS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((), ()), ((1,), (1,)), ((3,), (3,)), ((1,), (3,)), ((), (3,)), ((2, 3), (2, 3)), ((3,), (2, 3)),
    ((2, 1), (2, 3)), ((1, 3), (2, 3)), ((), (2, 3)),
]  # fmt: skip
# Of rows and of columns, in memory of 12 columns.
STEPS = [(12, 1), (1, 12), (24, 1), (12, 2), (2, 12), (1, 1), (0, 1), (1, 0), (0, 0), (-12, 1), (3, 1)]


def entries(layout: Stored, shape: tuple[int, ...]) -> np.ndarray:
    """The places of a stack's entries in memory, by the formula of `Stored`."""
    count = math.prod(shape[:-2])
    i, r, c = np.ogrid[:count, : shape[-2], : shape[-1]]
    placed: np.ndarray = i * layout.batch + (c * layout.ld + r if layout.transposed else r * layout.ld + c)
    return placed.reshape(shape)


@pytest.mark.parametrize(("own", "lead"), LEADS)
def test_entries_are_where_the_strides_say(own: tuple[int, ...], lead: tuple[int, ...]) -> None:
    """Every matrix up to 3 × 3 in memory of 12 × 12, by steps forward, backward and none, and its transpose."""
    found = 0
    for rows, columns in np.ndindex(4, 4):
        for down, across in STEPS:
            for between in (144, 150, 0, 12, 1):
                shape = (*own, rows, columns)
                outer = [between * math.prod(own[i + 1 :]) for i in range(len(own))]
                strides = (*outer, down, across)
                layout = stored(shape, strides, lead)
                if layout is None or 0 in shape:
                    continue
                found += 1
                assert layout.ld >= max(1, rows if layout.transposed else columns)  # what cuBLAS asks for
                steps = [s if n > 1 else 0 for n, s in zip(shape, strides, strict=True)]
                i = np.indices(shape).reshape(len(shape), -1)
                truth = np.broadcast_to((np.array(steps) @ i).reshape(shape), (*lead, rows, columns))
                np.testing.assert_array_equal(entries(layout, truth.shape), truth)
    assert found > 30


@pytest.mark.parametrize(
    ("strides", "taken"),
    [((4, 1), True), ((9, 1), True), ((1, 3), True), ((1, 7), True), ((4, 2), False), ((2, 4), False), ((0, 1), False),
     ((1, 0), False), ((-4, 1), False), ((4, -1), False), ((2, 1), False)],
)  # fmt: skip
def test_layouts_that_blas_supports(strides: tuple[int, int], taken: bool) -> None:
    assert (stored((3, 4), strides) is not None) == taken


def test_stacks_without_a_single_stride() -> None:
    assert stored((2, 3, 4, 5), (60, 20, 5, 1), (2, 3)) == (False, 5, 20)
    assert stored((2, 3, 4, 5), (61, 20, 5, 1), (2, 3)) is None
    assert stored((2, 3, 4, 5), (0, 20, 5, 1), (2, 3)) is None
    assert stored((3, 4, 5), (20, 5, 1), (2, 3)) is None  # the same three matrices twice
    assert stored((2, 1, 4, 5), (20, 20, 5, 1), (2, 3)) is None  # each of two three times
    assert stored((3, 4, 5), (-20, 5, 1), (3,)) is None


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.lists(st.integers(0, 4), min_size=4, max_size=4))
def test_row_step(shape: list[int], strides: list[int]) -> None:
    strides = strides[: len(shape)]
    step = row_step(tuple(shape), tuple(strides))
    places = [sum(np.multiply(i, strides[1:])) for i in np.ndindex(*shape[1:])]
    even = [places == [i * k for i in range(len(places))] for k in range(5)]
    if step is None:
        assert not any(even)
    else:
        assert even[step]


def test_constants_match_cublas() -> None:
    theirs = pytest.importorskip("nvmath.bindings.cublas", reason="nvmath-python is not installed")
    nvmath = pytest.importorskip("nvmath", reason="nvmath-python is not installed")
    assert (AS_IS, TRANSPOSED) == (theirs.Operation.N, theirs.Operation.T)
    types = nvmath.CudaDataType
    halves = {"float16": types.CUDA_R_16F, "bfloat16": types.CUDA_R_16BF}
    assert halves | {"float32": types.CUDA_R_32F, "float64": types.CUDA_R_64F} == DATA_TYPES
    compute = theirs.ComputeType
    assert COMPUTE_FLOAT == compute.COMPUTE_32F
    assert COMPUTE_TF32 == compute.COMPUTE_32F_FAST_TF32
    assert COMPUTE_DOUBLE == compute.COMPUTE_64F
    assert DEFAULT_ALGORITHM == theirs.GemmAlgo.DFALT
    assert strides_of(np.empty((3, 4))[:, ::2]) == (4, 2)
