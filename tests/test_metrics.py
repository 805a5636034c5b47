"""Metrics against sums in plain Python, with ties and numbers that are not finite."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

import nnkit
from nnkit.metrics import accuracy, mean_absolute_error, r2, top_k

RANKS = numpy_arrays(np.float64, st.tuples(st.integers(1, 8), st.just(5)), elements=st.integers(-3, 3).map(float))


@given(RANKS, st.integers(1, 5), st.data())
def test_top_k_is_a_stable_sort(h: np.ndarray, k: int, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, 4), min_size=len(h), max_size=len(h)))
    hits = [
        label in [column for _, column in sorted((-value, column) for column, value in enumerate(row))][:k]
        for row, label in zip(h.tolist(), labels, strict=True)
    ]
    assert top_k(k)(np.eye(5)[labels], h) == pytest.approx(sum(hits) / len(hits), rel=1e-15)
    assert top_k(1)(np.eye(5)[labels], h) == np.mean(np.argmax(h, axis=1) == labels)


def test_accuracy_of_one_output() -> None:
    assert accuracy(np.array([[1.0], [0.0], [1.0]]), np.array([[0.6], [0.5], [0.4]])) == pytest.approx(2 / 3)


def test_nan_is_never_right() -> None:
    h = np.full((2, 3), np.nan)
    assert top_k(3)(np.eye(3)[[0, 1]], h) == 0


def test_top_k_needs_a_whole_number() -> None:
    for k in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="top_k: k is"):
            nnkit.metrics.top_k(k)  # type: ignore[arg-type]


def test_r2_and_mean_absolute_error() -> None:
    rng = np.random.default_rng(0)
    y, h = rng.normal(1e6, 1, (40, 2)), rng.normal(1e6, 1, (40, 2))
    wanted = []
    for column in range(2):
        a, b = y[:, column].tolist(), h[:, column].tolist()
        mean = math.fsum(a) / 40
        left = math.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        wanted.append(1 - left / math.fsum((p - mean) ** 2 for p in a))
    assert r2(y, h) == pytest.approx(sum(wanted) / 2, rel=1e-9)
    assert r2(y, y) == 1
    assert r2(np.ones((3, 1)), np.ones((3, 1))) == 1
    assert r2(np.ones((3, 1)), np.zeros((3, 1))) == 0
    assert mean_absolute_error(y, h) == pytest.approx(math.fsum(np.abs(y - h).ravel().tolist()) / 80, rel=1e-12)


def test_lists_columns_and_other_types() -> None:
    y, h = [[1, 0], [0, 1]], [[0.9, 0.1], [0.8, 0.2]]
    assert accuracy(y, h) == top_k(1)(y, h) == 0.5  # type: ignore[arg-type]
    assert r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]) == 0.5  # type: ignore[arg-type]
    assert mean_absolute_error([1, 2], [2, 4]) == 1.5  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", [accuracy, top_k(2), r2, mean_absolute_error])
@pytest.mark.parametrize(
    ("y", "h", "error", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 1)), ValueError, r"h has shape \(3, 1\); expected that of y, \(3, 2\)"),
        (np.ones((3, 2)), np.ones(3), ValueError, r"h has shape \(3,\); expected"),
        (np.ones(()), np.ones(()), ValueError, r"y has shape \(\); expected \(n, d_out\)"),
        (np.ones((0, 2)), np.ones((0, 2)), ValueError, r"y has shape \(0, 2\); expected .* at least one sample"),
        ([[10**400, 1]], [[1.0, 2.0]], TypeError, "y has dtype object; expected real numbers"),
        ([[1.0, 2.0]], [[1j, 2.0]], TypeError, "h has dtype complex128; expected real numbers"),
        ([["a", "b"]], [[1.0, 2.0]], TypeError, "y has dtype .*; expected real numbers"),
    ],
)
def test_what_is_no_pair_of_targets_and_outputs(metric: Any, y: Any, h: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        metric(y, h)
