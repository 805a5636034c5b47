"""Products, sums and maxima whose results overlap their operands, at once and recorded."""

from collections.abc import Callable

import numpy as np
import pytest

from nnkit.backends import get_backend

BACKEND = get_backend("numpy")
CASES: dict[str, tuple[Callable[[np.ndarray, np.ndarray, np.ndarray], object], Callable[..., np.ndarray]]] = {
    "product": (lambda a, b, out: BACKEND.matmul(a[0], b[0], out=out[0]), lambda a, b: a[0] @ b[0]),
    "products": (lambda a, b, out: BACKEND.matmul(a, b, out=out), lambda a, b: a @ b),
    "sums of columns": (lambda a, b, out: BACKEND.sum(a[0], axis=0, out=out[0, 1]), lambda a, b: a[0].sum(axis=0)),
    "sums of rows": (lambda a, b, out: BACKEND.sum(a[0], axis=1, out=out[0, 1]), lambda a, b: a[0].sum(axis=1)),
    "maxima": (lambda a, b, out: BACKEND.max(a[0], axis=1, out=out[0, 1]), lambda a, b: a[0].max(axis=1)),
}


@pytest.mark.parametrize("records", [False, True], ids=["at once", "recorded"])
@pytest.mark.parametrize("n", [8, 64])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_result_may_overlap_an_operand(name: str, dtype: str, n: int, records: bool) -> None:
    a, b = (np.random.default_rng(seed).normal(size=(3, n, n)).astype(dtype) for seed in (0, 1))
    do, reference = CASES[name]
    expected = reference(a, b)
    if records:
        with BACKEND.recording() as tape:
            do(a, b, a)
        tape.replay()
    else:
        do(a, b, a)
    found = a if name == "products" else a[0] if name == "product" else a[0, 1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)
