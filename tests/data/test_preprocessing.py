"""Normalization and whitening against scikit-learn's definitions, written with NumPy's own statistics."""

import copy
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.backends import get_backend
from nnkit.data import Normalization, Whitening, preprocessing_from

if TYPE_CHECKING:
    from tests.conftest import Arrays


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_normalized_features_have_mean_0_and_deviation_1(n: int, d: int, seed: int) -> None:
    X = np.random.default_rng(seed).normal(3, 5, (n, d))
    normalized = Normalization.fit(X).transform(X)
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(normalized.std(axis=0), 1, rtol=1e-12)


def test_constants_are_those_of_the_training_part() -> None:
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


def test_whitening_drops_directions_without_spread() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 4))
    white = Whitening.fit(X).transform(X)
    assert white.shape == (50, 2)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(2), atol=1e-10)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
@pytest.mark.parametrize("X", [[1.0, 2.0], [], np.empty((0, 3))])
def test_invalid_samples_are_refused(kind: type, X: object) -> None:
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
def test_devices_agree_with_the_host(arrays: "Arrays", kind: Any, dtype: str) -> None:
    made = fitted(kind)
    x = np.random.default_rng(2).normal(5, 3, (7, 4))
    exact = (x - made.mean) / made.deviation if kind is Normalization else whitened(made, x)
    np.testing.assert_allclose(made.transform(x), exact, rtol=1e-12, atol=1e-13)
    for _ in range(2):  # the second time the constants are there
        found = arrays.numpy(made.apply(arrays.backend, arrays(x, dtype)), dtype)
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(found, exact, rtol=tolerance, atol=tolerance)


def whitened(made: Whitening, x: Any) -> Any:
    return (x - made.mean) @ made.rotation / np.sqrt(made.singular_values)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_constants_are_copied_to_a_device_once(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, backend = fitted(kind), get_backend("numpy")
    placed: list[Any] = []
    asarray = backend.asarray

    def counted(values: Any, dtype: Any = None) -> Any:
        placed.append(dtype)
        return asarray(values, dtype)

    monkeypatch.setattr(backend, "asarray", counted)
    for dtype in ("float32", "float64", "float32", "float16", "float64"):
        assert made.apply(backend, np.ones((2, 4), dtype)).dtype == dtype
    assert placed == ["float32", "float32", "float64", "float64"][2 * (kind is Whitening) :]


def test_invalid_arguments_of_apply_are_refused() -> None:
    backend, made = get_backend("numpy"), Normalization([1e39, 0.0], [1.0, 1e-50])
    with pytest.raises(TypeError, match="x has dtype uint8; expected one of float16"):
        made.apply(backend, np.ones((2, 2), np.uint8))
    for shape in ((2,), (2, 3), (1, 2, 2)):
        with pytest.raises(ValueError, match=r"x has shape \(.*\); expected \(samples, 2\)"):
            made.apply(backend, np.ones(shape))


def test_constants_that_float32_cannot_hold() -> None:
    backend, made = get_backend("numpy"), Normalization([1e39, 1e-50], [1e38, 1e-50])
    x = np.array([[0.0, 3e-50]])
    assert made.apply(backend, x).tolist() == [[-10.0, pytest.approx(2.0)]]
    assert made.apply(backend, np.array([[0.0, 0.0]], np.float32)).tolist() == [[-10.0, -1.0]]
    tiny = Whitening([0.0, 0.0], [[1.0, 1e-50], [1e-50, 1.0]], [1.0, 1.0])
    assert tiny.apply(backend, np.ones((1, 2), np.float32)).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_copies_are_equal_and_contain_no_device_arrays(kind: Any) -> None:
    made = fitted(kind)
    made.apply(get_backend("numpy"), np.ones((1, 4)))
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert again == made
        assert again.mean is not made.mean
        assert not again._placed


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
def test_arrays_recreate_a_preprocessing(kind: Any) -> None:
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
        ("normalization", {"mean": [np.nan] * 4}, r"mean holds nan at \[0\]; expected finite numbers"),
        ("normalization", {"deviation": [1, 1, 0, 1]}, "deviation holds 0.0; expected numbers above 0"),
        ("normalization", {"other": [1.0]}, r"normalization has the arrays \['deviation', 'mean', 'other'\]"),
        ("whitening", {"singular_values": [1, 1, -1, 1]}, "singular_values holds -1.0"),
        ("whitening", {"rotation": np.eye(3)}, r"rotation has shape \(3, 3\); expected 2 axes, the first of length 4"),
        ("whitening", {"rotation": np.ones((4, 0))}, r"rotation has shape \(4, 0\)"),
        ("whitening", {"rotation": np.ones((4, 5))}, r"rotation has shape \(4, 5\); expected at most 4 columns"),
        ("whitening", {"rotation": np.full((4, 4), np.inf)}, r"rotation holds inf at \[0, 0\]; expected finite"),
        ("normalization", {"deviation": np.array(["a"] * 4)}, "deviation has dtype <U1; expected real numbers"),
        ("normalization", {"deviation": [1j] * 4}, "deviation has dtype complex128; expected real numbers"),
        ("normalization", {"mean": [None] * 4}, "mean has dtype object; expected real numbers"),
        ("normalization", {"mean": np.empty(0)}, r"mean has shape \(0,\); expected 1 axes"),
    ],
)
def test_wrong_arrays_are_refused(kind: str, changes: Any, message: str) -> None:
    arrays = fitted(Whitening if kind == "whitening" else Normalization).arrays
    with pytest.raises(ValueError, match=message):
        preprocessing_from(kind, arrays | changes)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_what_networks_and_devices_have_copies_of_is_fixed(kind: Any) -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    made = kind.fit(X)
    before = made.transform(X)
    for name in (*made.array_names, "features", "inputs", "outputs", "arrays"):
        with pytest.raises(AttributeError, match=f"{name} of a {kind.__name__} is fixed; create another one"):
            setattr(made, name, np.zeros(3))
    with pytest.raises(TypeError, match="item assignment"):
        made.arrays["mean"] = np.zeros(3)
    assert np.array_equal(made.transform(X), before)
