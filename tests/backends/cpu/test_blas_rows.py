"""A row added to each row of a matrix by SciPy's BLAS: the bits of np.add."""

from typing import Any

import numpy as np
import pytest

from nnkit.backends.cpu.calls import Scratch, ufunc_calls
from nnkit.backends.formula import Formula

biased = Formula(lambda xp, h, b: h + b, "biased", ["h", "b"])
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (6, 7), (40, 33), (0, 3), (3, 0)])
def test_rows_added_by_scipy_agree_with_numpy(shape: tuple[int, int], dtype: str) -> None:
    pytest.importorskip("scipy.linalg.blas", reason="scipy is not installed")
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        h, b = (
            np.where(rng.random(s) < 0.3, rng.choice(SPECIAL, s), rng.normal(size=s)).astype(dtype)
            for s in (shape, shape[1:])
        )
        out, expected = h.copy(), h + b
        calls = ufunc_calls(biased.program(), [out, b], [out], Scratch(), adds_rows=True)
        for call in calls:
            call()
    assert ("ger" in str(calls[0])) is (expected.size > 0)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out[out == 0]), np.signbit(expected[expected == 0]))


@pytest.mark.parametrize(
    "case", ["another result", "a column", "another type", "every second column", "a row of its own"]
)
def test_other_sums_use_numpy(case: str) -> None:
    pytest.importorskip("scipy.linalg.blas", reason="scipy is not installed")
    h: Any = np.ones((4, 4))
    b: Any = np.arange(4.0)
    out = h
    if case == "another result":
        out = np.zeros((4, 4))
    elif case == "a column":
        b = b.reshape(4, 1)
    elif case == "another type":
        b = b.astype(np.float32)
    elif case == "a row of its own":
        h = out = np.arange(16.0).reshape(4, 4)
        b = out[1]
    else:
        h = out = np.ones((4, 8))[:, ::2]
    expected = h + b
    for call in ufunc_calls(biased.program(), [h, b], [out], Scratch(), adds_rows=True):
        call()
    np.testing.assert_array_equal(out, expected)
