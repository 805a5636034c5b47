"""The precision of products: what may be chosen, and that only CuPy listens."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

import nnkit


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    nnkit.set_matmul_precision("highest")


def test_the_precision_applies_to_the_whole_process() -> None:
    assert nnkit.get_matmul_precision() == "highest"
    found = []
    for precision in ("high", "medium", "highest"):
        nnkit.set_matmul_precision(precision)
        thread = threading.Thread(target=lambda: found.append(nnkit.get_matmul_precision()))
        thread.start()
        thread.join()
    assert found == ["high", "medium", "highest"]


@pytest.mark.parametrize("wrong", ["low", "HIGH", "", None, 1])
def test_other_precisions_are_refused(wrong: object) -> None:
    nnkit.set_matmul_precision("high")
    with pytest.raises(ValueError, match=r"^precision is .*; expected 'highest', 'high', 'medium'$"):
        nnkit.set_matmul_precision(wrong)  # type: ignore[arg-type]
    assert nnkit.get_matmul_precision() == "high"


def test_numpy_ignores_the_precision() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 50)).astype(np.float32)
    expected = nnkit.get_backend("numpy").matmul(a, b)
    np.testing.assert_allclose(expected, a.astype(float) @ b, rtol=0, atol=1e-5)
    for precision in ("high", "medium"):
        nnkit.set_matmul_precision(precision)
        np.testing.assert_array_equal(nnkit.get_backend("numpy").matmul(a, b), expected)
