"""Products, sums, maxima and rows on every backend, compared with NumPy's results in higher precision."""

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.backends import get_backend

if TYPE_CHECKING:
    from tests.conftest import Arrays

FLOATS = ["float32", "float64"]
HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


MATMULS = [
    ((3, 4), (4, 2)),
    ((1, 1), (1, 1)),
    ((3, 0), (0, 2)),
    ((0, 4), (4, 2)),
    ((5, 3, 4), (5, 4, 2)),
    ((5, 3, 4), (4, 2)),
    ((2, 1, 3, 4), (5, 4, 2)),
]


@pytest.mark.parametrize("given_out", [False, True])
@pytest.mark.parametrize("transposed", ["neither", "a", "b", "both"])
@pytest.mark.parametrize("shapes", MATMULS)
def test_matmul(arrays: "Arrays", shapes: tuple[Any, Any], transposed: str, given_out: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape) for shape in shapes)
    on_a = arrays(a.mT).mT if transposed in ("a", "both") else arrays(a)
    on_b = arrays(b.mT).mT if transposed in ("b", "both") else arrays(b)
    out = arrays.backend.asarray(np.full((a @ b).shape, 77.0), "float64") if given_out else None
    result = arrays.backend.matmul(on_a, on_b, out=out)
    assert out is None or result is out
    np.testing.assert_allclose(arrays.numpy(result, "float64"), a @ b, rtol=1e-13, atol=1e-13)


def test_matmul_of_strided_views_into_one(arrays: "Arrays") -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6, 6))
    whole = arrays.backend.zeros((4, 6), "float64")
    result = arrays.backend.matmul(arrays(a)[::2, 1:5], arrays(b)[1:5, ::3], out=whole[1:, ::3])
    expected = a[::2, 1:5] @ b[1:5, ::3]
    np.testing.assert_allclose(arrays.numpy(result), expected, rtol=1e-13, atol=1e-13)
    rest = arrays.numpy(whole)
    np.testing.assert_allclose(rest[1:, ::3], expected, rtol=1e-13, atol=1e-13)
    rest[1:, ::3] = 0
    assert not rest.any()


@pytest.mark.parametrize("dtype", HALVES)
def test_half_products_and_sums_are_accumulated_in_float32(dtype: str) -> None:
    """4096 ones: in float16, 2048 + 1 is 2048, and in bfloat16, 256 + 1 is 256."""
    backend, n = get_backend("numpy"), 4096
    ones = np.ones((3, n), HALVES[dtype])
    for product in (backend.matmul(ones, ones.mT), backend.matmul(ones, ones.mT, out=np.empty((3, 3), ones.dtype))):
        assert product.dtype == ones.dtype
        np.testing.assert_array_equal(product.astype(float), n)
    for a, axis in [(ones, -1), (ones.T, 0), (ones.T.copy(), 0), (ones.T[:, None].copy(), 0)]:
        for total in (backend.sum(a, axis), backend.sum(a, axis, out=np.empty_like(backend.sum(a, axis)))):
            assert total.dtype == ones.dtype
            np.testing.assert_array_equal(total.astype(float), n)
    np.testing.assert_array_equal(backend.sum(ones, None, keepdims=True).astype(float), [[3 * n]])
    largest = backend.max(np.array([[1, np.nan, 3], [1, 2, 3]], HALVES[dtype]), -1)
    assert largest.dtype == ones.dtype
    np.testing.assert_array_equal(largest.astype(float), [np.nan, 3])


@pytest.mark.parametrize("dtype", HALVES)
def test_a_half_product_that_overflows_is_infinite(dtype: str) -> None:
    huge = np.full((1, 1), 6e4 if dtype == "float16" else 3e38, HALVES[dtype])
    assert np.isposinf(get_backend("numpy").matmul(huge, huge).astype(float)).all()


REDUCED = [(3, 4), (1, 5), (4, 1), (2, 3, 4), (6,)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, -1, None])
@pytest.mark.parametrize("shape", REDUCED)
def test_sum(arrays: "Arrays", shape: tuple[int, ...], axis: int | None, keepdims: bool, dtype: str) -> None:
    backend, a = arrays.backend, np.random.default_rng(0).normal(size=shape).astype(dtype)
    expected = np.sum(a.astype(np.longdouble), axis=axis, keepdims=keepdims)
    bound = a.size * float(np.finfo(dtype).eps) * float(np.abs(a).sum())
    for operand in (arrays(a, dtype), arrays(a.T.copy(), dtype).mT if a.ndim == 2 else arrays(a, dtype)):
        result = arrays.numpy(backend.sum(operand, axis, keepdims), dtype)
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=0, atol=bound)
        # Every other entry of a larger array, of the same dtype and of another.
        for out_dtype in FLOATS:
            whole = backend.zeros((*expected.shape, 2), out_dtype)
            out = whole[..., 0]
            assert backend.sum(operand, axis, keepdims, out=out) is out
            np.testing.assert_allclose(arrays.numpy(whole)[..., 0], expected, rtol=0, atol=bound + 1e-6)
            assert not arrays.numpy(whole)[..., 1].any()


def test_sum_of_nothing_and_of_nan(arrays: "Arrays") -> None:
    backend = arrays.backend
    np.testing.assert_array_equal(arrays.numpy(backend.sum(arrays(np.empty((0, 3))), 0)), np.zeros(3))
    assert float(arrays.numpy(backend.sum(arrays(np.empty((0, 3)))))) == 0
    columns = backend.sum(arrays([[1.0, np.nan, np.inf], [1.0, 1.0, 1.0]]), 0)
    np.testing.assert_array_equal(arrays.numpy(columns), [2.0, np.nan, np.inf])


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_max_propagates_nan(arrays: "Arrays", axis: int, keepdims: bool) -> None:
    a = np.array([[1.0, -np.inf, 3.0], [np.nan, -np.inf, np.inf]])
    result = arrays.backend.max(arrays(a), axis, keepdims)
    expected = {0: [np.nan, -np.inf, np.inf], 1: [3.0, np.nan]}[axis % 2]
    np.testing.assert_array_equal(arrays.numpy(result, "float64").ravel(), expected)
    assert tuple(result.shape) == a.max(axis, keepdims=keepdims).shape
    out = arrays.backend.zeros(result.shape, "float64")
    assert arrays.backend.max(arrays(a), axis, keepdims, out=out) is out
    np.testing.assert_array_equal(arrays.numpy(out).ravel(), expected)


def test_numbers(arrays: "Arrays") -> None:
    backend = arrays.backend
    assert backend.numbers([]) == []
    ones = backend.asarray(np.ones((5, 2), np.float32))
    given = [backend.sum(ones), backend.same_largest(ones, ones)[0, ...], backend.xp.all(ones == ones)]
    found = backend.numbers(given)
    assert found == [10.0, 5.0, 1.0]
    assert set(map(type, found)) == {float}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("columns", [1, 2, 3, 10])
def test_same_largest(arrays: "Arrays", columns: int, dtype: str) -> None:
    """Of equal entries the first counts; among NaN on NumPy, too, as for `numpy.argmax`."""
    rng = np.random.default_rng(columns)
    a, b = (rng.integers(0, 4, (200, columns)).astype(dtype) for _ in range(2))
    a[3], a[::9, 0] = -np.inf, np.inf
    if arrays.backend.name == "numpy":
        a[::7, columns - 1], b[::5], b[1, 0] = np.nan, np.nan, np.nan
    same = a.argmax(axis=1) == b.argmax(axis=1)
    for groups in (1, 4):
        found = arrays.numpy(arrays.backend.same_largest(arrays(a), arrays(b), groups))
        np.testing.assert_array_equal(found, [same[group::groups].sum() for group in range(groups)])


@pytest.mark.parametrize("indices", [[], [1], [2, 0, 0, 1]])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2)])
def test_take(arrays: "Arrays", shape: tuple[int, ...], indices: list[int]) -> None:
    backend, rows = arrays.backend, np.arange(float(np.prod(shape))).reshape(shape)
    chosen = backend.asarray(np.array(indices, np.int64))
    expected = rows[np.array(indices, np.int64)]
    np.testing.assert_array_equal(arrays.numpy(backend.take(arrays(rows), chosen), "float64"), expected)
    whole = backend.zeros((len(indices), *shape[1:], 2), "float64")
    for out in (backend.zeros(expected.shape, "float64"), whole[..., 1]):
        assert backend.take(arrays(rows), chosen, out=out) is out
        np.testing.assert_array_equal(arrays.numpy(out), expected)
    assert not arrays.numpy(whole)[..., 0].any()


def test_a_take_into_a_wrong_shape_is_refused(arrays: "Arrays") -> None:
    indices, out = arrays.backend.asarray(np.array([0, 1])), arrays.backend.zeros((3, 2, 2), "float64")
    with pytest.raises(ValueError):  # noqa: PT011  the words are the namespace's own
        arrays.backend.take(arrays([[1.0, 2.0], [3.0, 4.0]]), indices, out=out)


A, B = np.ones((2, 3)), np.ones((3, 2))
REFUSED = [
    ("matmul", (A, A), None, ValueError, r"matmul: a has shape \(2, 3\) and b \(2, 3\), which do not match"),
    ("matmul", (A, np.ones(3)), None, ValueError, r"matmul: a has shape \(2, 3\) and b \(3,\), which do not match"),
    ("matmul", (np.ones((2, 2, 3)), np.ones((3, 3, 2))), None, ValueError, "whose leading axes do not broadcast"),
    ("matmul", (A, np.ones((3, 2), int)), None, TypeError, "matmul: b has dtype int64; expected one of float16"),
    ("matmul", (A, B), (3, 2, 2), ValueError, r"matmul: out has shape \(3, 2, 2\); expected \(2, 2\)"),
    ("sum", (A, 2), None, ValueError, r"sum: axis is 2; expected an axis of an array of shape \(2, 3\)"),
    ("sum", (A, -3), None, ValueError, r"sum: axis is -3; expected an axis of an array of shape \(2, 3\)"),
    ("sum", (A > 0, 0), None, TypeError, "sum: a has dtype bool; expected one of float16"),
    ("sum", (A, 0), (1, 3), ValueError, r"sum: out has shape \(1, 3\); expected \(3,\)"),
    ("sum", (A,), (1,), ValueError, r"sum: out has shape \(1,\); expected \(\)"),
    ("max", (A, 0, True), (3,), ValueError, r"max: out has shape \(3,\); expected \(1, 3\)"),
    ("max", (A, 5), None, ValueError, "max: axis is 5; expected an axis"),
    (
        "max",
        (np.ones((2, 0)), 1),
        None,
        ValueError,
        r"max: a has shape \(2, 0\); the maximum of an empty axis is undefined",
    ),
]


@pytest.mark.parametrize(("method", "arguments", "out", "error", "words"), REFUSED)
def test_wrong_shapes_and_dtypes_are_refused_in_the_same_words(
    arrays: "Arrays", method: str, arguments: tuple[Any, ...], out: tuple[int, ...] | None, error: type, words: str
) -> None:
    given = [arrays.backend.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
    target = None if out is None else arrays.backend.zeros(out, "float64")
    for _ in range(2):  # an error is not kept
        with pytest.raises(error, match=words):
            getattr(arrays.backend, method)(*given, out=target)


@pytest.mark.parametrize("method", ["matmul", "sum", "max"])
def test_an_out_of_integers_or_read_only_is_refused(arrays: "Arrays", method: str) -> None:
    a = arrays([[1.0, 2.0], [3.0, 4.0]])
    arguments = {"matmul": (a, a), "sum": (a, 0, True), "max": (a, 0, True)}[method]
    shape = (2, 2) if method == "matmul" else (1, 2)
    with pytest.raises(TypeError, match=f"{method}: out has dtype int32; expected one of float16"):
        getattr(arrays.backend, method)(*arguments, out=arrays.backend.asarray(np.zeros(shape, np.int32)))
    if arrays.backend.name == "numpy":
        out = np.zeros(shape)
        out.flags.writeable = False
        with pytest.raises(ValueError, match=f"{method}: out is read-only"):
            getattr(arrays.backend, method)(*arguments, out=out)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_integer_products_are_exact(n: int, k: int, m: int, seed: int) -> None:
    """Products of small integers have no rounding, so that any wrong shortcut of NumPy's backend shows."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-9, 9, (n, k)), rng.integers(-9, 9, (k, m))
    result = get_backend("numpy").matmul(a.astype(np.float32), b.astype(np.float64))
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, a @ b)
