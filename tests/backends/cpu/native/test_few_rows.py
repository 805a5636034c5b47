"""The first call for some rows, computed at once, and later ones, recorded and compiled, have the same bits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nnkit

pytest.importorskip("numba", reason="compiles")

WIDTHS = st.lists(st.sampled_from([1, 2, 5, 8, 30]), min_size=2, max_size=4)
ACTIVATIONS = st.sampled_from(["identity", "tanh", "sigmoid", "relu"])


@settings(max_examples=25)
@given(WIDTHS, st.integers(1, 3), st.sampled_from(["float32", "float64"]), ACTIVATIONS, st.integers(0, 2**32 - 1))
@example([5, 30, 1], 1, "float32", "tanh", 0)
@example([1, 8, 1], 1, "float64", "identity", 1)
@example([8, 1, 1], 1, "float32", "identity", 2)
def test_first_and_later_calls(widths: list[int], rows: int, dtype: Any, activation: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows, widths[0])), rng.normal(size=(rows, widths[-1]))

    def network() -> nnkit.Network:
        return nnkit.Network(widths, activation, cost="quadratic", dtype=dtype, seed=seed)

    one, other, third = network(), network(), network()
    for call in (lambda: one.predict(x), lambda: other.forward(x), lambda: np.array(third.evaluate(x, y)["cost"])):
        first, *later = [np.array(call()).tobytes() for _ in range(4)]
        assert later == [first] * 3
