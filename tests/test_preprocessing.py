"""Normalization and whitening against scikit-learn's definitions, written with NumPy's own statistics."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.data import Normalization, Whitening, preprocessing, preprocessing_from

if TYPE_CHECKING:
    from tests.conftest import Arrays


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


def fitted(kind: Any, n: int = 50, d: int = 4) -> Any:
    rng = np.random.default_rng(1)
    return kind.fit(rng.normal(5, 3, (n, d)) @ rng.normal(size=(d, d)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_a_device_gives_what_the_host_gives(arrays: "Arrays", kind: Any, dtype: str) -> None:
    made = fitted(kind)
    x = np.random.default_rng(2).normal(5, 3, (7, 4))
    for _ in range(2):  # the second time the constants are there
        found = arrays.numpy(made.apply(arrays.backend, arrays(x, dtype)), dtype)
    np.testing.assert_allclose(found, made.transform(x), rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-5)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
@pytest.mark.parametrize("as_rows", [np.asarray, np.asfortranarray, lambda X: X.astype(np.uint8)])
def test_pieces_give_what_numpy_gives(kind: Any, as_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X = as_rows(np.random.default_rng(3).integers(0, 256, (1003, 5)).astype(float))
    whole = kind.fit(X)
    monkeypatch.setattr(preprocessing, "_ROWS", 100)
    parts = kind.fit(X)
    exact = X.astype(float)
    np.testing.assert_allclose(parts.mean, exact.mean(axis=0), rtol=1e-14)
    if kind is Normalization:
        np.testing.assert_allclose(parts.deviation, exact.std(axis=0), rtol=1e-13)
    for name, array in whole.arrays.items():
        np.testing.assert_allclose(np.abs(parts.arrays[name]), np.abs(array), rtol=1e-9, atol=1e-12)


def test_a_constant_that_is_no_binary_fraction() -> None:
    X = np.full((7, 1), 0.1)
    assert Normalization.fit(X).deviation.tolist() == [1.0]
    with pytest.raises(ValueError, match="all alike; there is no direction to whiten"):
        Whitening.fit(X)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_named(kind: Any, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "_ROWS", 2)
    X = np.arange(12.0).reshape(6, 2)
    X[4, 1] = bad
    with pytest.raises(ValueError, match=rf"X holds {bad} at \[4, 1\]; expected finite numbers"):
        kind.fit(X)


def test_one_mean_and_deviation_of_all_entries() -> None:
    X = np.random.default_rng(4).normal(3, 2, (20, 5)) * [1, 2, 3, 4, 5]
    normalization = Normalization.fit(X, per_feature=False)
    np.testing.assert_allclose(normalization.mean, X.mean(), rtol=1e-13)
    np.testing.assert_allclose(normalization.deviation, X.std(), rtol=1e-13)


def test_pixels() -> None:
    images = np.array([[0, 51, 255]], np.uint8)
    assert Normalization.pixels(3).transform(images).tolist() == [[0.0, 0.2, 1.0]]
    assert Normalization.pixels(3, largest=51).transform(images).tolist() == [[0.0, 1.0, 5.0]]


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_arrays_make_it_again(kind: Any) -> None:
    made = fitted(kind)
    again = preprocessing_from(made.kind, made.arrays)
    assert again == made
    assert again != fitted(kind, 30)
    assert (again.inputs, again.outputs) == (made.inputs, made.outputs) == (4, 4)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("normalisation", {}, "unknown preprocessing 'normalisation'; did you mean 'normalization'"),
        ("normalization", {"mean": [1.0]}, r"deviation has shape \(4,\); expected 1 axes, the first of length 1"),
        ("normalization", {"mean": [[1.0]]}, r"mean has shape \(1, 1\)"),
        ("normalization", {"mean": [np.nan] * 4}, "mean holds NaN or infinities"),
        ("normalization", {"deviation": [1, 1, 0, 1]}, "deviation holds 0.0; expected numbers above 0"),
        ("normalization", {"other": [1.0]}, r"normalization has the arrays \['deviation', 'mean', 'other'\]"),
        ("whitening", {"singular_values": [1, 1, -1, 1]}, "singular_values holds -1.0"),
        ("whitening", {"rotation": np.eye(3)}, r"rotation has shape \(3, 3\); expected 2 axes, the first of length 4"),
        ("whitening", {"rotation": np.ones((4, 0))}, r"rotation has shape \(4, 0\)"),
    ],
)
def test_wrong_arrays_are_refused(kind: str, changes: Any, message: str) -> None:
    arrays = fitted(Whitening if kind == "whitening" else Normalization).arrays
    with pytest.raises(ValueError, match=message):
        preprocessing_from(kind, arrays | changes)
