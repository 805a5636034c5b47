"""Native nodes of products, sums, maxima, copies and rows do what the calls of NumPy do."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from nnkit.backends import get_backend
from nnkit.backends.cpu.products import AddColumnSums, AddProduct, AddProducts
from nnkit.backends.recording import Tape, recording

pytest.importorskip("numba", reason="compiles")
from nnkit.backends.cpu.native.nodes import native_call
from nnkit.backends.cpu.native.tiling import fewest

BACKEND = get_backend("numpy")
RNG = np.random.default_rng(3)
DTYPES = ("float32", "float64")


def recorded(do: Callable[[], object]) -> list[Any]:
    with recording(Tape()) as tape:
        do()
    return [node.call for node in tape.nodes]


def compare(do: Callable[[], object], outs: list[np.ndarray], tolerance: float = 0.0) -> None:
    """The calls write the same to `outs` as their native nodes, which all exist."""
    calls, before = recorded(do), [out.copy() for out in outs]
    nodes = [node for call in calls if (node := native_call(call)) is not None]
    assert len(nodes) == len(calls)
    for call in calls:
        call()
    expected = [out.copy() for out in outs]
    for out, old in zip(outs, before, strict=True):
        out[...] = old
    for node in nodes:
        node()
    for out, old, wanted in zip(outs, before, expected, strict=True):
        assert not np.array_equal(wanted, old, equal_nan=True)
        np.testing.assert_allclose(out, wanted, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(5, 7, 3), (1, 7, 3), (5, 7, 1), (1, 7, 1), (1, 1, 1), (5, 1, 3), (33, 64, 65)])
@pytest.mark.parametrize("orders", ["CCC", "CFC", "FCC", "FFC", "CCF", "FCF"])
def test_products(dtype: str, sizes: tuple[int, int, int], orders: str) -> None:
    pytest.importorskip("scipy", reason="has the BLAS")
    m, k, n = sizes
    a, b, out = (
        np.array(RNG.standard_normal(shape), dtype, order=order)  # type: ignore[call-overload]
        for shape, order in zip([(m, k), (k, n), (m, n)], orders, strict=True)
    )
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    # To the bit: the same BLAS, or tiles (test_tiles.py).
    compare(lambda: BACKEND.matmul(a, b, out=out), [out], 0.0 if m * n * k < fewest() else tolerance)
    call, added = AddProduct(a, b, out, np.asarray(-0.3, dtype)), out.copy(order="K")
    node = native_call(call)
    assert node is not None
    node()
    np.testing.assert_allclose(out, added - 0.3 * (a.astype(float) @ b), rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sizes", [(10, 4, 7, 3), (1, 3, 5, 1), (5, 1, 4, 4), (3, 16, 1, 2), (4, 2, 1, 1), (32, 3, 40, 20)]
)
def test_products_of_members_side_by_side(dtype: str, sizes: tuple[int, int, int, int]) -> None:
    n, count, inputs, units = sizes
    rng = np.random.default_rng(0)
    h, delta = (rng.random((n, count * d)).astype(dtype) for d in (inputs, units))
    h3, delta3 = (a.reshape(n, count, -1).swapaxes(0, 1) for a in (h, delta))
    by_rows = rng.random((count, units, inputs)).astype(dtype)
    by_columns = np.moveaxis(rng.random((inputs, count, units)).astype(dtype), 0, 2)
    for W in (by_rows, by_columns):
        for a, b, out in ((h3, W.mT, delta3), (delta3.mT, h3, W), (delta3, W, h3)):
            given = out.copy()
            call = native_call(partial(np.matmul, a, b, out))
            assert call is not None
            call()
            np.testing.assert_allclose(out, np.matmul(a, b), rtol=1e-5)
            out[...] = given
            add = AddProducts(a, b, out, np.array(-0.5, dtype))
            call = native_call(add)
            assert call is not None
            call()
            added = out.copy()
            np.testing.assert_allclose(added, given - 0.5 * np.matmul(a, b), rtol=1e-4, atol=1e-6)
            out[...] = given
            add()
            np.testing.assert_allclose(out, added, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 40), (67, 13)])
def test_column_sums(dtype: str, shape: tuple[int, int]) -> None:
    a, out = RNG.standard_normal(shape).astype(dtype), np.zeros(shape[1], dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    compare(lambda: BACKEND.sum(a, axis=0, out=out), [out], tolerance)
    pytest.importorskip("scipy", reason="has the BLAS")
    node, before = native_call(AddColumnSums(a, out, np.asarray(0.5, dtype))), out.copy()
    assert node is not None
    node()
    np.testing.assert_allclose(out, before + 0.5 * a.sum(axis=0, dtype=float), rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [255, 256, 257, 511, 512, 513, 768, 1023, 1025, 4096, 5000, 300_001])
def test_column_sums_of_many_rows_keep_their_digits(dtype: str, rows: int) -> None:
    """Of equal signs, the relative error is that of a sum in pairs, as NumPy's of a contiguous vector."""
    a = RNG.uniform(1, 2, (rows, 3)).astype(dtype)
    out, added = np.zeros(3, dtype), np.zeros(3, dtype)
    right = [math.fsum(column) for column in a.T.astype(float).tolist()]
    eps = float(np.finfo(dtype).eps)
    (call,) = recorded(lambda: BACKEND.sum(a, axis=0, out=out))
    for node in (native_call(call), native_call(AddColumnSums(a, added, np.asarray(2.0, dtype)))):
        assert node is not None
        node()
    np.testing.assert_allclose(out, right, rtol=40 * eps)
    np.testing.assert_allclose(added, 2 * np.array(right), rtol=40 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 40), (67, 128), (5, 129), (2, 1000), (3, 2051)])
def test_row_sums_are_numpy_s_to_the_bit_and_maxima_exact(dtype: str, shape: tuple[int, int]) -> None:
    a, out = RNG.standard_normal(shape).astype(dtype), np.full((shape[0], 1), 9, dtype)
    compare(lambda: BACKEND.sum(a, axis=-1, keepdims=True, out=out), [out])
    out[...] = 9
    a[-1, shape[1] // 2] = np.nan
    compare(lambda: BACKEND.max(a, axis=-1, keepdims=True, out=out), [out])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_of_everything(dtype: str) -> None:
    for shape in ((1, 1), (3, 5), (9, 14), (123, 457), (5, 200), (1000, 100)):
        a, out = RNG.standard_normal(shape).astype(dtype), np.zeros((), dtype)
        compare(lambda: BACKEND.sum(a, out=out), [out])  # noqa: B023


@pytest.mark.parametrize("given", ["uint8", "bool", "float32", "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ordered", [True, False])
def test_rows_at_a_counter(given: str, dtype: str, ordered: bool) -> None:
    rows = RNG.integers(0, 2 if given == "bool" else 200, (20, 9)).astype(given)[:, :7]  # rows with a stride
    rows = rows if ordered else np.ascontiguousarray(rows)
    start, order = np.array(4), RNG.permutation(20)
    out = np.full((5, 7), 0.5, dtype)
    compare(lambda: BACKEND.take_at(rows, start, out, order if ordered else None), [out])
    chosen = order[4:9] if ordered else slice(4, 9)
    np.testing.assert_array_equal(out, rows[chosen].astype(dtype))


def test_one_row_and_putting_rows_and_counting() -> None:
    rates, rate, start = RNG.random((4, 2)), np.zeros(2), np.array(3)
    compare(lambda: BACKEND.take_at(rates, start, rate), [rate])
    values, out = RNG.random((3, 6)), np.zeros((9, 6))
    compare(lambda: BACKEND.put_at(values, start, out), [out])
    assert not out[:3].any()
    assert not out[6:].any()
    compare(lambda: BACKEND.advance(start, 5), [start])
    copied = np.zeros((3, 6), np.float32)
    compare(lambda: BACKEND.copy(values, copied), [copied])


def test_what_has_no_node_stays_a_call() -> None:
    half = np.ones((2, 2), np.float16)
    for call in (
        *recorded(lambda: BACKEND.matmul(half, half, out=half.copy())),
        partial(np.copyto, np.zeros((2, 3)).T, np.ones((3, 2))),
        partial(np.add, half, half, half),
        partial(np.maximum.reduce, np.ones((2, 3)), 0, None, np.ones(3), False),
        print,
    ):
        assert native_call(call) is None
