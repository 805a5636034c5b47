"""Normalization and whitening against scikit-learn's definitions, written with NumPy's own statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.data import Normalization, Whitening


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_normalized_features_have_mean_0_and_deviation_1(n: int, d: int, seed: int) -> None:
    X = np.random.default_rng(seed).normal(3, 5, (n, d))
    normalized = Normalization.fit(X).transform(X)
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(normalized.std(axis=0), 1, rtol=1e-12)


def test_the_training_part_decides() -> None:
    normalization = Normalization.fit([[0.0], [4.0]])
    assert normalization.transform([[6.0]]).tolist() == [[2.0]]


def test_constant_features_become_zero() -> None:
    X = np.array([[1.0, 7.0], [2.0, 7.0]])
    assert Normalization.fit(X).transform(X)[:, 1].tolist() == [0.0, 0.0]


def test_whitened_samples_have_the_identity_as_covariance() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 10
    white = Whitening.fit(X).transform(X)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-10)


def test_whitening_leaves_out_directions_without_spread() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 4))
    white = Whitening.fit(X).transform(X)
    assert white.shape == (50, 2)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(2), atol=1e-10)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
@pytest.mark.parametrize("X", [[1.0, 2.0], [], np.empty((0, 3))])
def test_what_is_no_matrix_of_samples_is_refused(kind: type, X: object) -> None:
    with pytest.raises(ValueError, match=r"X has shape .* expected \(samples, features\)"):
        kind.fit(X)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_another_width_is_refused(kind: type) -> None:
    fitted = kind.fit(np.random.default_rng(0).normal(size=(9, 3)))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"X has shape \(2, 4\); expected \(samples, 3\)"):
        fitted.transform(np.zeros((2, 4)))
