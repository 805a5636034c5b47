"""Rows as CUDA text: they compile for real GPUs, and move on the host what NumPy moves."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.backends.cuda.formula_text import PRELUDE
from nnkit.backends.cuda.rows import ADVANCE, RowSignature, conversion, lanes_of, rows_source
from nnkit.backends.dtypes import numpy_dtype
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host
from tests.support.nvrtc import ARCHITECTURES, compile_cuda, turn

Array = NDArray[Any]
ORDER = np.array([6, 0, 5, 1, 4, 2, 3], np.int64)
CASTS = [
    ("uint8", "float32"),
    ("int8", "float64"),
    ("bool", "float32"),
    ("float16", "float32"),
    ("bfloat16", "float32"),
    ("float64", "float32"),
    ("float32", "float64"),
    ("int64", "float32"),
]
KEPT = [
    (dtype, dtype) for dtype in ("float32", "float64", "float16", "bfloat16", "uint8", "bool", "int64", "complex64")
]


@pytest.fixture
def host() -> HostDevice:
    return HostDevice(pytest.importorskip("cupy", reason="CuPy is not installed"))


def rows_of(shape: tuple[int, ...], dtype: str) -> Array:
    values = np.random.default_rng(0).integers(0, 100, shape)
    return (values % 2 if dtype == "bool" else values).astype(numpy_dtype(dtype))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_kernel_of_rows_compiles(arch: int) -> None:
    compile_cuda(ADVANCE, arch)
    for i, (source, target) in enumerate(CASTS + KEPT):
        types = conversion(numpy_dtype(source), numpy_dtype(target))
        assert types is not None
        size = max(numpy_dtype(source).itemsize, numpy_dtype(target).itemsize)
        for puts in (False, True):
            for lanes in (1, 16 // size):
                index, order = (("unsigned int", "long long"), ("long long", "int"))[i % 2]
                text = rows_source(RowSignature(*types, order, lanes, puts, index))
                if turn(i + puts, arch):
                    cubin = compile_cuda(text, arch)
                    assert b"nnkit_put_rows\0" in cubin if puts else b"nnkit_take_rows\0" in cubin


@pytest.mark.parametrize(("dtype", "out"), CASTS + KEPT)
@pytest.mark.parametrize("shape", [(7, 3), (7,), (7, 2, 4), (7, 16), (7, 0)])
def test_rows_are_gathered_and_scattered(host: HostDevice, dtype: str, out: str, shape: tuple[int, ...]) -> None:
    rows = rows_of(shape, dtype)
    large, order, start = host.asarray(rows), host.asarray(ORDER), host.asarray(np.array(2, np.int64))
    target = host.zeros((3, *shape[1:]), out)
    assert host.take_at(large, start, target) is target
    np.testing.assert_array_equal(on_host(target), rows[2:5].astype(numpy_dtype(out)))
    host.take_at(large, start, target, order)
    np.testing.assert_array_equal(on_host(target), rows[ORDER[2:5]].astype(numpy_dtype(out)))
    back = host.zeros(shape, out)
    host.put_at(host.asarray(rows[:3]), start, back)
    np.testing.assert_array_equal(on_host(back)[2:5], rows[:3].astype(numpy_dtype(out)))
    assert not on_host(back)[:2].any()
    assert not on_host(back)[5:].any()
    np.testing.assert_array_equal(host.to_numpy(host.take(large, order)), rows[ORDER])
    host.advance(start, 5)
    assert int(on_host(start)) == 7


def test_rows_of_any_strides(host: HostDevice) -> None:
    whole = np.random.default_rng(1).normal(size=(14, 24))
    a, start, order = host.asarray(whole), host.asarray(np.array(1, np.int64)), host.asarray(ORDER)
    for view, seen in (
        (a[::2], whole[::2]),
        (a[:, ::3], whole[:, ::3]),
        (a[:, 1:], whole[:, 1:]),
        (a.T, whole.T),
        (a[::-1, :5], whole[::-1, :5]),
        (a.reshape(14, 4, 6)[:, :, ::2], whole.reshape(14, 4, 6)[:, :, ::2]),
        (a.reshape(14, 4, 6)[:, :, :3], whole.reshape(14, 4, 6)[:, :, :3]),  # no single step: copied
    ):
        out = host.zeros((3, *view.shape[1:]), "float64")
        host.take_at(view, start, out, order)
        np.testing.assert_array_equal(on_host(out), seen[ORDER[1:4]])
    every = host.asarray(np.repeat(ORDER, 2))[::2]
    np.testing.assert_array_equal(host.to_numpy(host.take(a, every)), whole[ORDER])
    np.testing.assert_array_equal(host.to_numpy(host.take(a, [3, 1])), whole[[3, 1]])
    for view in (a[:, ::3], a.T):
        values = np.arange(2.0 * view.shape[1]).reshape(2, -1)
        host.put_at(host.asarray(values), start, view)
        np.testing.assert_array_equal(on_host(view)[1:3], values)


def test_a_single_row_and_a_single_number(host: HostDevice) -> None:
    rates, step = host.asarray(np.arange(7.0) / 8), host.asarray(np.array(5, np.int64))
    number = host.asarray(np.array(0.0))
    host.take_at(rates, step, number)
    assert on_host(number) == 5 / 8
    host.take_at(rates, step, number, host.asarray(ORDER))
    assert on_host(number) == 2 / 8
    rows, row = host.asarray(np.arange(28.0).reshape(7, 4)), host.zeros((4,), "float32")
    host.take_at(rows, step, row)
    np.testing.assert_array_equal(on_host(row), [20, 21, 22, 23])


def test_unfit_arguments_are_refused(host: HostDevice) -> None:
    rows, start = host.zeros((7, 4), "float32"), host.asarray(np.array(0, np.int64))
    with pytest.raises(ValueError, match=r"take: out has shape \(2, 3\); expected \(2, 4\)"):
        host.take(rows, host.asarray(ORDER[:2]), out=host.zeros((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"take_at: out has shape \(3,\); expected rows of \(7, 4\), or one"):
        host.take_at(rows, start, host.zeros((3,), "float32"))
    with pytest.raises(ValueError, match=r"put_at: values have shape \(2, 3\); expected rows of \(7, 4\)"):
        host.put_at(host.zeros((2, 3), "float32"), start, rows)
    with pytest.raises(TypeError, match="start has dtype float32; expected int64"):
        host.advance(host.zeros((), "float32"), 1)


def test_how_wide_rows_are_moved() -> None:
    image = [(0, 4), (512, 4)]
    assert [lanes_of(width, width, 1, image) for width in (784, 10, 30, 3)] == [4, 2, 2, 1]
    assert lanes_of(784, 784, 1, [(0, 1), (512, 4)]) == 4  # bytes to float32
    assert lanes_of(784, 784, 1, [(0, 1), (512, 1)]) == 16
    assert lanes_of(784, 784, 1, [(4, 4), (512, 4)]) == 1
    assert lanes_of(784, 786, 1, image) == 2  # rows of a wider matrix
    assert lanes_of(784, 1, 784, image) == 1  # a matrix in column order
    assert PRELUDE in rows_source(RowSignature("float", "float", "x.lane[k]", lanes=4))


def test_rows_of_an_array_may_be_taken_into_itself(host: HostDevice) -> None:
    """They are read before any is written over: in any order, as NumPy does it."""
    rows = np.random.default_rng(2).normal(size=(40, 3))
    order = np.arange(40)[::-1].copy()
    a = host.asarray(rows.copy())
    host.take(a, host.asarray(order), out=a)
    np.testing.assert_array_equal(on_host(a), rows[order])
    a = host.asarray(rows.copy())
    host.take_at(a, host.asarray(np.array(0, np.int64)), a[1:11])
    np.testing.assert_array_equal(on_host(a)[1:11], rows[:10])
