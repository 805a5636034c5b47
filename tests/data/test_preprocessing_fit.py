"""Fitting normalization and whitening: some rows at a time, of any real type, in memory or on a disk."""

import copy
import pickle
import statistics
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnkit
from nnkit.data import Normalization, Whitening, moments, open_npy
from nnkit.data.moments import sample_matrix


@pytest.mark.parametrize("kind", [Normalization, Whitening])
@pytest.mark.parametrize("as_rows", [np.asarray, np.asfortranarray, lambda X: X.astype(np.uint8)])
def test_fitting_in_blocks_agrees_with_numpy(kind: Any, as_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X = as_rows(np.random.default_rng(3).integers(0, 256, (1003, 5)).astype(float))
    whole = kind.fit(X)
    monkeypatch.setattr(moments, "_NUMBERS", 500)
    parts = kind.fit(X)
    exact = X.astype(float)
    np.testing.assert_allclose(parts.mean, exact.mean(axis=0), rtol=1e-14)
    if kind is Normalization:
        np.testing.assert_allclose(parts.deviation, exact.std(axis=0), rtol=1e-13)
    for name, array in whole.arrays.items():
        np.testing.assert_allclose(np.abs(parts.arrays[name]), np.abs(array), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_entries_that_are_not_finite_are_named(kind: Any, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_NUMBERS", 4)
    X = np.arange(12.0).reshape(6, 2)
    X[4, 1] = bad
    with pytest.raises(ValueError, match=rf"X holds {bad} at \[4, 1\]; expected finite numbers"):
        kind.fit(X)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=40),
    st.sampled_from([0, 1, 10**8, -(10**12)]),
    st.sampled_from([1, 3, 100]),
)
def test_the_exact_mean_and_deviation(numbers: list[int], offset: int, together: int) -> None:
    """Against rational arithmetic, far from 0 too, where the mean of squares less the square of the mean fails."""
    numbers = [offset + number for number in numbers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "_NUMBERS", together)
        found = Normalization.fit(np.array(numbers)[:, None])
    mean = Fraction(sum(numbers), len(numbers))
    assert found.mean[0] == pytest.approx(float(mean), rel=1e-14)
    deviation = float(statistics.pvariance(map(Fraction, numbers))) ** 0.5
    # The mean is rounded, and deviations are from what it is rounded to, as NumPy's.
    assert found.deviation[0] == pytest.approx(deviation or 1.0, rel=1e-12, abs=4e-16 * abs(offset))


@pytest.mark.parametrize("value", [0.1, 1e8 / 3, -7.0, 1e-200, 0.0])
@pytest.mark.parametrize("per_feature", [True, False])
def test_constant_features_become_exactly_zero(value: float, per_feature: bool) -> None:
    X = np.full((1001, 3), value)
    normalization = Normalization.fit(X, per_feature=per_feature)
    assert normalization.deviation.tolist() == [1.0] * 3
    assert not normalization.transform(X).any()
    with pytest.raises(ValueError, match="X has only equal samples; there is no direction to whiten"):
        Whitening.fit(X)


def test_one_deviation_of_very_small_features() -> None:
    X = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 2.0, 3.0]
    for scale in (1.0, 1e-150):
        found = Normalization.fit(X * scale, per_feature=False)
        np.testing.assert_allclose(found.deviation, [X.std() * scale] * 3, rtol=1e-12)


def test_a_small_spread_far_from_zero_is_not_constant() -> None:
    seconds = 1.7e9 + np.arange(5)[:, None] * 2.0**-12  # times, a quarter of a millisecond apart
    assert Normalization.fit(seconds).transform(seconds).std() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_bytes_are_converted_in_blocks(kind: Any) -> None:
    X = np.random.default_rng(0).integers(0, 256, (20_000, 300), dtype=np.uint8)
    kind.fit(X[:100])  # what is imported at the first call
    tracemalloc.start()
    try:
        found = kind.fit(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.size * 8 / 3
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-14)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_rows_on_a_disk(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_NUMBERS", 20)
    X = np.random.default_rng(0).normal(size=(33, 4)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    rows = open_npy(tmp_path / "X.npy")
    assert kind.fit(rows) == kind.fit(X)
    assert np.array_equal(kind.fit(X).transform(rows), kind.fit(X).transform(X))


@pytest.mark.parametrize("kind", [Normalization, Whitening])
@pytest.mark.parametrize("X", [[["a", "b"]], [[1j, 2.0]], [[None, 1.0]], np.array([[1, 2]], "M8[s]")])
def test_data_that_are_not_real_numbers_are_refused(kind: Any, X: Any) -> None:
    with pytest.raises(TypeError, match=r"X has dtype .*; expected real numbers"):
        kind.fit(X)


@pytest.mark.parametrize("kind", [Normalization, Whitening])
@pytest.mark.parametrize("X", [[[1e308], [1e308], [1.0]], [[1e200], [-1e200]]])
def test_too_large_numbers_are_refused(kind: Any, X: Any) -> None:
    with pytest.raises(ValueError, match="X holds numbers whose sums or squares overflow in float64"):
        kind.fit(X)


def test_features_whose_squares_are_0() -> None:
    """Outputs of a softmax are so small: they vary, and count as the others."""
    z = np.random.default_rng(0).normal(size=(500, 4))
    X = z * [1e-170, 1.0, 1e-300, 0.0]
    found = Normalization.fit(X)
    exact = [float(statistics.pstdev(map(Fraction, column))) for column in (X[:, :3] * [2.0**560, 1.0, 2.0**990]).T]
    np.testing.assert_allclose(found.deviation[:3] * [2.0**560, 1.0, 2.0**990], exact, rtol=1e-12)
    assert found.deviation[3] == 1
    np.testing.assert_allclose(found.transform(X).std(axis=0), [1, 1, 1, 0], rtol=1e-12)
    with pytest.raises(ValueError, match="X holds numbers whose squares are too small for float64; multiply them"):
        Whitening.fit(X[:, :1])


def test_whitening_refuses_squares_that_lose_digits() -> None:
    """Squares of 1e-161 are subnormal numbers with one digit: the variances became 0.92 instead of 1."""
    X = np.random.default_rng(0).normal(size=(200, 2)) * [1.0, 2e-5]
    white = Whitening.fit(X * 1e-148).transform(X * 1e-148)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(2), atol=1e-6)
    for scale in (1e-152, 1e-158, 1e-161):
        with pytest.raises(ValueError, match="X holds numbers whose squares are too small for float64"):
            Whitening.fit(X * scale)


def test_a_buffer_without_a_dtype_is_read_as_an_array() -> None:
    samples = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(sample_matrix(samples.data), samples)


def test_the_first_of_several_invalid_numbers_is_named() -> None:
    samples = np.ones((4, 3))
    samples[1, 2] = samples[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"X holds nan at \[1, 2\]"):
        Normalization.fit(samples)


@pytest.fixture(params=["pandas", "polars", "pyarrow"])
def table(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Makes a table of the library with some of the columns a, b and c, in the order of a text."""
    library = pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    columns = {"a": [1.0, 3.0, 8.0, 1.0], "b": [10.0, 50.0, 20.0, 0.0], "c": [-1.0, 0.0, 0.5, 7.0], "d": [0.0] * 4}
    make = library.table if request.param == "pyarrow" else library.DataFrame
    return lambda names: make({name: columns[name] for name in names})


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_columns_are_taken_by_their_names(kind: Any, table: Callable[[str], Any]) -> None:
    fitted = kind.fit(table("abc"))
    assert fitted.features == ["a", "b", "c"]
    plain = kind.fit(np.asarray(table("abc")))
    assert plain.features is None
    wanted = plain.transform(np.asarray(table("abc")))
    for again in (fitted, pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert again.features == fitted.features
        np.testing.assert_array_equal(again.transform(table("cab")), wanted)
        np.testing.assert_array_equal(again.transform(np.asarray(table("abc"))), wanted)
        with pytest.raises(ValueError, match=rf"from the features of this {kind.kind}: missing: 'b'; unknown: 'd'"):
            again.transform(table("adc"))
        with pytest.raises(ValueError, match=rf"unknown: 'd'; select them with X\[{kind.kind}.features\]"):
            again.transform(table("abcd"))
    made = nnkit.data.preprocessing_from(fitted.kind, fitted.arrays, features=["c", "a", "b"])
    assert made.features == ["c", "a", "b"]
    assert fitted == plain
    assert fitted != made
    with pytest.raises(ValueError, match=r"features is .*; expected the names of 3 features"):
        nnkit.data.preprocessing_from(fitted.kind, fitted.arrays, features=["a", "b"])


@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_a_network_takes_the_feature_names_of_its_preprocessing(
    kind: Any, table: Callable[[str], Any], tmp_path: Path
) -> None:
    fitted, y = kind.fit(table("abc")), [0, 1, 0, 1]
    net = nnkit.Network([3, 2], seed=0, preprocessing=fitted)
    assert net.features == ["a", "b", "c"]
    net.fit(table("cab"), y, epochs=2, progress=False)
    twin = nnkit.Network([3, 2], seed=0, preprocessing=kind(*fitted.arrays.values()))
    twin.fit(np.asarray(table("abc")), y, epochs=2, progress=False)
    np.testing.assert_array_equal(net.forward(table("bca")), twin.forward(np.asarray(table("abc"))))
    assert nnkit.Network([3, 2], preprocessing=fitted, features=["a", "b", "c"]).features == fitted.features
    with pytest.raises(ValueError, match=r"features is \['b', 'a', 'c'\]; the preprocessing was fitted on \['a'"):
        nnkit.Network([3, 2], preprocessing=fitted, features=["b", "a", "c"])
    twin.features = ["b", "a", "c"]
    with pytest.raises(ValueError, match="the preprocessing was fitted on"):
        twin.preprocessing = fitted
    twin.features = None
    twin.preprocessing = fitted
    twin.features = None
    assert twin.features == ["a", "b", "c"]
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    for each in (net, twin):
        each.save(tmp_path / "net.safetensors")
        again = nnkit.load(tmp_path / "net.safetensors")
        assert again.preprocessing == fitted
        assert again.preprocessing is not None
        assert getattr(again.preprocessing, "features", None) == again.features == ["a", "b", "c"]


def test_constants_cannot_be_changed_in_place() -> None:
    """Devices have copies of them, which would stay as they were."""
    fitted = Normalization([1.0, 2.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="read-only"):
        fitted.mean[0] = 5


def test_whitening_keeps_features_in_small_units() -> None:
    """Standard deviations of 30 000 and 0.1: 10⁻¹¹ of the variance, of which float64 has some digits."""
    rng = np.random.default_rng(0)
    income, rate = rng.normal(60_000, 30_000, 1000), rng.normal(0.05, 0.1, 1000)
    white = nnkit.data.Whitening.fit(np.column_stack([income, rate]))
    found = white.transform(np.column_stack([income, rate]))
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(2), atol=1e-3)
    with pytest.warns(
        UserWarning, match=r"X: feature 1 has a standard deviation of 1.02e-05, which is lost beside 2.93e"
    ):
        white = nnkit.data.Whitening.fit(np.column_stack([income, rate / 1e4]))
    assert white.outputs == 1
