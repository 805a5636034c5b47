"""Metrics against sums in plain Python, with ties and numbers that are not finite."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

import nnkit
from nnkit.metrics import accuracy, get_metrics, mean_absolute_error, r2, root_mean_squared_error, top_k

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


def test_nan_is_never_correct() -> None:
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
    assert accuracy(y, h) == top_k(1)(y, h) == 0.5
    assert r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]) == 0.5
    assert mean_absolute_error([1, 2], [2, 4]) == 1.5


@pytest.mark.parametrize("metric", [accuracy, top_k(2), r2, mean_absolute_error, root_mean_squared_error])
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
def test_invalid_targets_and_outputs_are_refused(metric: Any, y: Any, h: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        metric(y, h)


def test_errors_say_which_metrics_take_one_axis() -> None:
    for metric in (accuracy, top_k(2)):
        with pytest.raises(ValueError, match=r"y has shape \(3,\); expected \(n, d_out\) with at least one sample"):
            metric(np.ones(3), np.ones(3))
    for metric in (r2, mean_absolute_error, root_mean_squared_error):
        with pytest.raises(ValueError, match=r"y has shape \(1, 3, 1\); expected \(n, d_out\) or \(n,\) with at least"):
            metric(np.ones((1, 3, 1)), np.ones((1, 3, 1)))


WEIGHTS = np.array([0.0, 2.0, 0.5, 1.0, 0.0, 3.0, 1.5, 0.25])
MULTI = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], float)
CLASSES = np.array([0, 2, 1, 1, 0, 2, 0, 1])
H = np.random.default_rng(4).random((8, 3))
REAL = np.random.default_rng(5).normal(size=(8, 3))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_scikit_learn_agrees(weights: Any) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    near = np.where(np.arange(8)[:, None] % 2, MULTI, H)  # half of the rows are right
    pairs: list[tuple[Callable[..., float], Any, Any, float]] = [
        (accuracy, MULTI, near, sklearn.accuracy_score(MULTI, near > 0.5, sample_weight=weights)),
        (accuracy, np.eye(3)[CLASSES], H, sklearn.accuracy_score(CLASSES, H.argmax(axis=1), sample_weight=weights)),
        (accuracy, MULTI[:, :1], H[:, :1], sklearn.accuracy_score(MULTI[:, 0], H[:, 0] > 0.5, sample_weight=weights)),
        (r2, REAL, H, sklearn.r2_score(REAL, H, sample_weight=weights)),
        (mean_absolute_error, REAL, H, sklearn.mean_absolute_error(REAL, H, sample_weight=weights)),
        (root_mean_squared_error, REAL, H, sklearn.root_mean_squared_error(REAL, H, sample_weight=weights)),
    ]
    for k in (1, 2):
        wanted = sklearn.top_k_accuracy_score(CLASSES, H, k=k, sample_weight=weights)
        pairs.append((top_k(k), np.eye(3)[CLASSES], H, wanted))
    for metric, y, h, wanted in pairs:
        assert metric(y, h, sample_weight=weights) == pytest.approx(wanted, rel=1e-14)


def test_a_large_error_of_weight_0_hides_no_others() -> None:
    y, h = np.array([1e300, 2e-10, 3e-10]), np.array([0.0, 4e-10, 5e-10])
    for metric in (root_mean_squared_error, mean_absolute_error):
        assert metric(y, h, sample_weight=[0, 1, 1]) == pytest.approx(2e-10, rel=1e-14)


def test_samples_without_weight_do_not_count() -> None:
    y, h, kept = REAL.copy(), H.copy(), WEIGHTS > 0
    y[~kept], h[~kept] = 1e300, np.nan
    for metric in (accuracy, r2, mean_absolute_error, root_mean_squared_error, top_k(2)):
        assert metric(y, h, sample_weight=WEIGHTS) == metric(y[kept], h[kept], sample_weight=WEIGHTS[kept])
        assert math.isnan(metric(y, h, sample_weight=np.zeros(8)))


def test_top_k_of_several_classes() -> None:
    h = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]])
    y = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert [top_k(k)(y, h) for k in (1, 2, 3)] == [0, pytest.approx(2 / 3), pytest.approx(2 / 3)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [0.3, -1e4, 1e-3, 3.7])
def test_r2_of_a_constant_is_1_or_0(dtype: str, value: float) -> None:
    for n in (1, 3, 10, 1000):
        y = np.full((n, 1), value, dtype)
        assert r2(y, y) == 1
        assert r2(y, y + np.asarray(0.1 + abs(value), dtype)) == 0
        rounded = np.where(np.arange(n)[:, None] % 2, np.nextafter(y, np.asarray(np.inf, dtype)), y)
        assert r2(rounded, y) == 1
        assert r2(rounded, y + np.asarray(0.1 + abs(value), dtype)) == 0
    both = np.hstack([np.full((4, 1), value), np.arange(4.0)[:, None]])
    assert r2(both, both + np.array([1.0, 0.0])) == 0.5
    assert r2(np.zeros((3, 1)), np.zeros((3, 1))) == 1
    assert r2(np.zeros((3, 1)), np.full((3, 1), 1e-30)) == 0


def test_r2_of_small_and_large_differences() -> None:
    for y in (1e-200 * REAL, 1e150 * REAL, 1e-30 * REAL.astype(np.float32), 1 + 1e-6 * REAL.astype(np.float32)):
        with np.errstate(all="raise"):
            assert r2(y, y) == 1
            assert r2(y, y[::-1]) < 1


@pytest.mark.parametrize("metric", [accuracy, r2, mean_absolute_error, root_mean_squared_error, top_k(2)])
def test_other_arguments_are_named(metric: Callable[..., float]) -> None:
    assert metric(REAL.tolist(), H.tolist()) == metric(REAL, H)
    hint = r"; for labels use nnkit.data.one_hot\(y, 3\)$"
    with pytest.raises(ValueError, match=r"(y has shape \(8,\)|h has shape \(8, 3\)); expected .*" + hint):
        metric(CLASSES, H)
    with pytest.raises(TypeError, match="y is a masked array"):
        metric(np.ma.masked_array(REAL, REAL > 0), H)
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\); expected \(8,\)"):
        metric(REAL, H, sample_weight=[1, 2, 3])


WRONG: dict[str, tuple[Any, type[Exception]]] = {
    "nothing": (None, TypeError),
    "a list": ([0.5], TypeError),
    "text": ("0.5", TypeError),
    "complex": (0.5 + 0j, TypeError),
    "one an output": (np.ones(3), TypeError),
    "an object": (object(), TypeError),
    "too large": (10**400, ValueError),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_metric_that_does_not_return_a_number_is_named(kind: str) -> None:
    value, error = WRONG[kind]

    def mine(y: Any, h: Any) -> Any:
        return value

    net = nnkit.Network([3, 2], seed=0)
    before = np.array(net.parameters.flat)
    for ask in (net.evaluate, lambda *data, **o: net.fit(*data, epochs=1, progress=False, **o)):
        with pytest.raises(error, match=r"metrics: 'mine' returned .*number"):
            ask(np.ones((4, 3)), [0, 1, 0, 1], metrics=[mine])
    assert np.array_equal(net.parameters.flat, before)


@pytest.mark.parametrize("value", [1, True, np.float32(1), np.array(1.0), np.array(1, "int8"), Fraction(1), Decimal(1)])
def test_numbers_of_every_type_are_numbers(value: Any) -> None:
    net = nnkit.Network([3, 2], seed=0)
    assert net.evaluate(np.ones((4, 3)), [0, 1, 0, 1], metrics=[lambda y, h: value])["<lambda>"] == 1


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_r2_of_targets_that_are_not_finite(value: float) -> None:
    y = np.array([[1.0], [value], [3.0]])
    assert math.isnan(r2(y, np.ones((3, 1))))
    assert math.isnan(r2(y, y))
    assert r2(np.array([[1.0], [2.0], [3.0]]), y) == (math.nan if math.isnan(value) else -math.inf) or math.isnan(value)


def test_a_metric_may_write_to_its_arguments() -> None:
    def careless(y: Any, h: Any, sample_weight: Any = None) -> float:
        for array in (y, h, sample_weight):
            array[...] = 0
        return 1.0

    X, y, w = np.random.default_rng(0).normal(size=(6, 3)), [0, 1, 0, 1, 1, 0], np.arange(6.0)
    net = nnkit.Network([3, 2], seed=0)
    plain = net.evaluate(X, y, metrics=["mae", "r2"], sample_weight=w)
    assert net.evaluate(X, y, metrics=[careless, "mae", "r2"], sample_weight=w) == plain | {"careless": 1.0}


@pytest.mark.parametrize("metric", [accuracy, r2, mean_absolute_error, root_mean_squared_error, top_k(1)])
def test_invalid_sample_weights_are_refused(metric: Any) -> None:
    y = h = np.eye(3)
    for weights, error in (([1, -1, 1], ValueError), ([1, np.nan, 1], ValueError), ([1j, 1, 1], TypeError)):
        with pytest.raises(error, match="sample_weight"):
            metric(y, h, sample_weight=weights)


def test_weights_and_metrics_in_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    rng = np.random.default_rng(0)
    y, h = rng.normal(size=(2, 6, 1))
    w = np.arange(6.0).astype(ml_dtypes.bfloat16)
    assert r2(y, h, sample_weight=w) == r2(y, h, sample_weight=np.arange(6.0))
    net, labels = nnkit.Network([3, 2], seed=0), [0, 1, 0, 1, 1, 0]
    X = rng.normal(size=(6, 3))
    assert net.evaluate(X, labels, sample_weight=w) == net.evaluate(X, labels, sample_weight=np.arange(6.0))
    assert get_metrics([lambda y, h: ml_dtypes.bfloat16(0.5)], 2, True)[0].measure(y, h) == 0.5


def test_an_invalid_metric_is_named() -> None:
    with pytest.raises(TypeError, match="metrics holds array"):
        get_metrics([np.ones(3)], 2, True)  # type: ignore[list-item]
