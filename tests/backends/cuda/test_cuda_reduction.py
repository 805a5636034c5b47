"""Sums and maxima as CUDA text: they compile for real GPUs, and give on the host what NumPy gives."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnkit.backends.cuda.launch import THREADS
from nnkit.backends.cuda.reductions import Shape, launch_of, reduced, reduction_name, reduction_source
from nnkit.backends.dtypes import FLOATS, compute_type, numpy_dtype
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host
from tests.support.nvrtc import ARCHITECTURES, compile_cuda, turn
from tests.support.rounding import spacing

Array = NDArray[Any]

# Which kernel: the operation, the type of the entries and of the results, and whether they are added.
KERNELS = [(operation, dtype, result, False) for operation in ("sum", "max") for dtype in FLOATS
           for result in {dtype, compute_type(dtype)}]  # fmt: skip
KERNELS += [("sum", "float32", half, False) for half in ("float16", "bfloat16")]  # from partial sums
KERNELS += [("sum", dtype, dtype, True) for dtype in ("float32", "float64")]
KERNELS += [("sum", "bfloat16", "float32", True)]  # of errors that only products read


@pytest.fixture
def host() -> HostDevice:
    return HostDevice(pytest.importorskip("cupy", reason="CuPy is not installed"))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_reduction_compiles(arch: int) -> None:
    for i, (operation, dtype, result, added) in enumerate(KERNELS):
        text = reduction_source(operation, dtype, result, added)
        if turn(i, arch):
            assert reduction_name(operation, added).encode() + b"\0" in compile_cuda(text, arch)
        if arch == 90:
            assert b"atom" not in compile_cuda(text, arch, ptx=True)


SHAPES: list[tuple[tuple[int, ...], int | None]] = [
    ((1, 1), -1), ((3, 10), -1), ((7, 300), -1), ((300, 3), -1), ((2, 5000), -1),
    ((5, 1), 0), ((10, 3), 0), ((33, 70), 0), ((5000, 3), 0), ((600, 40), 0),
    ((3, 5, 4), 1), ((2, 300, 33), 1), ((3, 2, 2, 2), 1), ((3, 4), None), ((300, 100), None), ((4, 1, 9), None),
]  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_sum_and_max_agree_with_numpy(host: HostDevice, dtype: str, shape: tuple[int, ...], axis: int | None) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    a = (values * 10 ** np.random.default_rng(1).uniform(-3, 2, shape)).astype(numpy_dtype(dtype))
    wide = a.astype(np.longdouble)
    expected, magnitude = wide.sum(axis), abs(wide).sum(axis)
    on_device = host.asarray(a)
    for keepdims in (False, True):
        found = host.to_numpy(host.sum(on_device, axis, keepdims))
        assert found.dtype == a.dtype
        assert found.shape == a.astype(float).sum(axis, keepdims=keepdims).shape
        bound = a.size * spacing(magnitude.astype(float), compute_type(dtype)) + spacing(expected.astype(float), dtype)
        assert np.all(abs(found.reshape(expected.shape).astype(float) - expected) <= bound)
    if axis is not None:
        found = host.to_numpy(host.max(on_device, axis, keepdims=True))
        np.testing.assert_array_equal(found, a.max(axis, keepdims=True))
        again = host.to_numpy(host.sum(on_device, axis))
        assert again.tobytes() == host.to_numpy(host.sum(on_device, axis)).tobytes()


def test_only_long_axes_are_split(host: HostDevice) -> None:
    a = host.asarray(np.ones((5000, 3)), "float32")
    for axis, parts in ((0, [2, 1]), (1, [1]), (None, [1])):
        host.launched.clear()
        host.sum(a, axis)
        assert [blocks[1] for _, blocks in host.launched] == parts


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_max_propagates_nan_from_any_place(host: HostDevice, dtype: str) -> None:
    for place in (0, 1, 255, 256, 3000, 8999):
        a = np.full(9000, -np.inf).astype(numpy_dtype(dtype))
        a[::7] = np.arange(len(a[::7]))
        a[place] = np.nan
        for shape, axis in (((1, 9000), 1), ((9000, 1), 0), ((4500, 2), 0)):
            found = host.to_numpy(host.max(host.asarray(a.reshape(shape)), axis))
            np.testing.assert_array_equal(found.astype(float), a.astype(float).reshape(shape).max(axis))
    lowest = np.full((2, 9), -np.inf).astype(numpy_dtype(dtype))
    assert np.isneginf(host.to_numpy(host.max(host.asarray(lowest), -1)).astype(float)).all()


def test_columns_of_strides_and_results_of_another_type(host: HostDevice) -> None:
    whole = np.random.default_rng(3).normal(size=(20, 30))
    a = host.asarray(whole)
    for view, seen in ((a.T, whole.T), (a[::2, 1:], whole[::2, 1:])):
        np.testing.assert_allclose(host.to_numpy(host.sum(view, 0)), seen.sum(0), rtol=1e-14, atol=1e-14)
    out = host.empty((30,), "float32")
    assert host.sum(a, 0, out=out) is out
    np.testing.assert_array_equal(on_host(out), host.to_numpy(host.sum(a, 0)).astype(np.float32))
    np.testing.assert_array_equal(host.to_numpy(host.sum(host.empty((0, 3), "float64"), 0)), np.zeros(3))
    with pytest.raises(ValueError, match="the maximum of an empty axis is undefined"):
        host.max(host.empty((0, 3), "float64"), 0)
    with pytest.raises(TypeError, match="sum: a has dtype int64"):
        host.sum(host.asarray(np.arange(3)))
    with pytest.raises(ValueError, match=r"sum: out has shape \(3,\); expected \(30,\)"):
        host.sum(a, 0, out=host.empty((3,), "float64"))


@given(st.integers(1, 10**4), st.integers(0, 10**8), st.integers(1, 10**4), st.integers(1, 150), st.booleans())
def test_a_launch_covers_everything_once(outer: int, n: int, inner: int, multiprocessors: int, whole: bool) -> None:
    shape = Shape(outer, n, inner)
    (across, parts), lanes, part = launch_of(shape, multiprocessors, whole)
    assert lanes.bit_count() == 1
    assert lanes <= THREADS
    width = THREADS // lanes
    assert (across - 1) * width < shape.outputs <= across * width
    assert (parts - 1) * part < max(n, 1) <= parts * part
    assert parts == 1 or (not whole and part >= lanes)
    assert parts <= max(1, multiprocessors * 8 // across)  # no more than fit at a time, and than a grid may have


def test_a_wide_bias_gradient_fills_the_gpu() -> None:
    blocks = launch_of(Shape(1, 8192, 4096), 132).blocks
    assert blocks[0] * blocks[1] >= 132 * 4  # half of the threads that 132 multiprocessors hold


def test_shapes() -> None:
    assert reduced((2, 3, 4), 1) == Shape(2, 3, 4)
    assert reduced((2, 3, 4), None) == Shape(1, 24, 1)
    assert reduced((), None) == Shape(1, 1, 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_long_sums_of_half_numbers_are_in_float32(host: HostDevice, dtype: str) -> None:
    """Partial sums as well: each is thousands, of which float16 has one number in two and bfloat16 one in 16."""
    a = np.full((20_000, 2), 1.0009765625 if dtype == "float16" else 1.0078125).astype(numpy_dtype(dtype))
    found = host.to_numpy(host.sum(host.asarray(a), 0, out=host.empty((2,), "float32")))
    np.testing.assert_allclose(found, a.astype(float).sum(0), rtol=1e-6)


def test_a_reduction_may_be_written_into_its_operand(host: HostDevice) -> None:
    values = np.random.default_rng(3).normal(size=(300, 3))
    for axis, into in ((0, np.s_[7]), (1, np.s_[:, 1]), (-1, np.s_[:, 0])):
        a = host.asarray(values.copy())
        host.sum(a, axis, out=a[into])
        np.testing.assert_allclose(on_host(a)[into], values.sum(axis), rtol=1e-13)
        a = host.asarray(values.copy())
        host.max(a, axis, out=a[into])
        np.testing.assert_array_equal(on_host(a)[into], values.max(axis))
    long = np.random.default_rng(4).normal(size=(2000, 20))
    a = host.asarray(long.copy())
    host.sum(a, 1, out=a.reshape(-1)[-2000:])  # the last rows, which other blocks read after the first have written
    np.testing.assert_allclose(on_host(a).reshape(-1)[-2000:], long.sum(1), rtol=1e-12, atol=1e-12)
