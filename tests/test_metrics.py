"""Metrics against sums in plain Python, with ties and numbers that are not finite."""

import math

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
