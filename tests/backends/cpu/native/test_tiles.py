"""Products by tiles: within the rounding of a sum, the same for any number of rows, in a recording and outside."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.backends import get_backend

pytest.importorskip("numba", reason="compiles")
from nnkit.backends.cpu.native import calls, tiling
from nnkit.backends.cpu.native.products import product
from nnkit.backends.cpu.native.tiling import has_tiles, tiled

pytestmark = pytest.mark.skipif(not has_tiles(), reason="the CPU has no AVX-512")
BACKEND = get_backend("numpy")
ORDERS = st.sampled_from("CF")


def matrix(rng: np.random.Generator, shape: tuple[int, int], dtype: str, order: Any) -> np.ndarray:
    return np.array(rng.standard_normal(shape), dtype, order=order)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32), st.sampled_from(["float32", "float64"]), ORDERS, ORDERS,
    st.integers(2, 130), st.integers(1, 130), st.integers(2, 130), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([7, 32, 1024]), st.sampled_from([1, 4000, 1 << 19]), st.sampled_from([0, 1 << 20]),
)  # fmt: skip
def test_tiles_give_the_product(
    seed: int, dtype: str, first: str, order: str, m: int, k: int, n: int, adds: bool, apart: bool, transposed: bool,
    terms: int, block: int, large: int,
) -> None:  # fmt: skip
    """With long sums in parts, columns in blocks, and B copied or as it is; its rows and those of A may be apart."""
    rng = np.random.default_rng(seed)
    a, b, out = (matrix(rng, *each) for each in (((m, k), dtype, first), ((k, n), dtype, order), ((m, n), dtype, "C")))
    if apart:
        a = np.hstack([a, a])[:, :k] if first == "C" else np.hstack([a.T, a.T])[:, :m].T
        b = np.hstack([b, b])[:, :n] if order == "C" else np.hstack([b.T, b.T])[:, :k].T
    alpha = np.asarray(-0.3, dtype) if adds else None
    with pytest.MonkeyPatch.context() as patched:
        small = {"_TERMS": terms, "_COPIED_TERMS": terms, "_BLOCK": block, "_LARGE": large, "_HUGE": large}
        for name, value in (small | dict.fromkeys(("_WIDE", "_BY_ROWS", "_SQUARE"), 0)).items():
            patched.setattr(tiling, name, value)
        patched.setattr(tiling, "fewest", lambda: 0)
        call = tiled(b.T, a.T, out.T, alpha) if transposed else tiled(a, b, out, alpha)
    if call is None:
        narrow, few = m < 4 or 2 * n * out.itemsize < 64, (order == "F" or b.nbytes > large) and m < 16
        assert narrow or few or (first == "F" and (dtype, order) != ("float64", "C"))
        return
    wide_a, wide_b, before = (x.astype(float) for x in (a, b, out))
    factor = 0.0 if alpha is None else float(alpha)
    expected = before + factor * (wide_a @ wide_b) if adds else wide_a @ wide_b
    call()
    bound = (k + 2) * np.finfo(dtype).eps * (abs(wide_a) @ abs(wide_b) + abs(before) * adds)
    assert (abs(out - expected) <= bound).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_do_not_depend_on_their_number(dtype: str, order: str) -> None:
    rng = np.random.default_rng(0)
    a, b = matrix(rng, (61, 300), dtype, "C"), matrix(rng, (300, 101), dtype, order)
    whole, part = np.empty((61, 101), dtype), np.empty((17, 101), dtype)
    for left, out in ((a, whole), (a[44:], part)):
        call = tiled(left, b, out)
        assert call is not None
        call()
    assert whole[44:].tobytes() == part.tobytes()


@pytest.mark.parametrize("order", ["C", "F"])
def test_products_are_the_same_in_a_recording_and_outside(order: Any) -> None:
    rng = np.random.default_rng(1)
    a, b = matrix(rng, (40, 900), "float32", "C"), matrix(rng, (900, 90), "float32", order)
    found = BACKEND.matmul(a, b)
    with BACKEND.recording() as tape:
        recorded = BACKEND.matmul(a, b)
    tape.replay()
    assert found.tobytes() == recorded.tobytes()
    assert found.tobytes() != np.dot(a, b).tobytes()  # which would test nothing


def test_products_outside_are_prepared_for_a_layout_not_for_arrays() -> None:
    rng = np.random.default_rng(2)
    made = [matrix(rng, (128, 128), "float64", "C") for _ in range(4)]
    pairs = [(made[0], made[0]), (made[0], made[1]), (made[2], made[3].T), (made[1], made[1].T), (made[3], made[2])]
    for a, b in pairs:
        out = np.empty((128, 128))
        call = tiled(a, b, out)
        assert call is not None
        call()
        assert BACKEND.matmul(a, b).tobytes() == out.tobytes()


def test_each_thread_prepares_its_own_products() -> None:
    """The addresses of arrays are written into a call before it is made."""
    a, found = matrix(np.random.default_rng(3), (90, 90), "float64", "C"), []

    def prepare() -> None:
        BACKEND.matmul(a, a.T)
        found.append([made[0].block for made in calls._prepared.calls.values() if made is not None])

    calls._prepared.calls.clear()
    prepare()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(prepare).result()
    (here,), (there,) = found
    assert here is not there


def test_not_finite_numbers_stay_in_their_rows_and_columns() -> None:
    a, b = np.ones((20, 300), np.float32), np.ones((300, 70), np.float32)
    a[3, 5], b[7, 69] = np.nan, np.inf
    out = np.full((20, 70), -1, np.float32)
    call = tiled(a, b, out)
    assert call is not None
    call()
    expected = np.full((20, 70), 300, np.float32)
    expected[:, 69], expected[3] = np.inf, np.nan
    np.testing.assert_array_equal(out, expected)


def test_other_cpus_use_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "has_tiles", lambda: False)
    a, b, out = np.ones((40, 80)), np.ones((80, 90)), np.empty((40, 90))
    assert tiled(a, b, out) is None
    call = product(a, b, out)
    assert call is not None
    call()
    np.testing.assert_array_equal(out, 80.0)
