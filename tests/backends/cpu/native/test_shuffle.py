"""The native shuffle gives NumPy's order."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="compiles")
from nnkit.backends.cpu.native import shuffle


def by_numpy(seed: list[int], n: int) -> np.ndarray:
    order = np.arange(n)
    np.random.default_rng(seed).shuffle(order)
    return order


@pytest.mark.parametrize("n", [0, 1, 2, 3, 255, 256, 257, 4096, 8193, 12_800, 50_000, 100_001])
def test_native_orders(n: int) -> None:
    """Above some 20 000 numbers, the draws come in several parts."""
    for seed in ([0], [1, 1, 7], [2**70, 1, 3]):
        found = shuffle._shuffled(seed, n)
        assert found is not None
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, by_numpy(seed, n))


def test_this_numpy_draws_so() -> None:
    assert shuffle._agrees()


@pytest.mark.parametrize("native", ["0", "1"])
def test_orders(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_NATIVE", native)
    for n in (10, 4095, 4096, 5000):
        np.testing.assert_array_equal(shuffle.shuffled([3, 1, n], n), by_numpy([3, 1, n], n))
