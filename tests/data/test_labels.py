"""Labels as users have them: −1 and 1, 1 to k, truth values, columns; the network learns its classes' names.

Predictions are given back in the same form: by these names, in the shape of the targets; never for NaN.
"""

import copy
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.classes import checked_classes, class_indices, names_in
from nnkit.inputs import label_rows
from tests.support import ROOT

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(12)
X = RNG.normal(size=(30, 3))
NUMBERS = RNG.integers(0, 3, 30)
TWO = RNG.integers(0, 2, 30)
STREAMED: dict[str, Any] = {"epochs": 3, "progress": False}
OPTIONS: dict[str, Any] = STREAMED | {"batch_size": 8}


@pytest.mark.parametrize("classes", [3, 5, 6, 40])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("given", ["int64", "uint8", "bool"])
def test_rows_of_labels(classes: int, dtype: str, given: str) -> None:
    """Also of more classes than the square root of the number of labels."""
    labels = (TWO if given == "bool" else NUMBERS).astype(given)
    found = label_rows(labels, classes, dtype)
    assert found.dtype == dtype
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.arange(classes) == labels.astype(int)[:, None])


def network(outputs: int = 3, cost: str | None = None, **options: Any) -> nnkit.Network:
    cost = cost or ("cross_entropy" if outputs == 1 else "softmax_cross_entropy")
    return nnkit.Network([3, 5, outputs], "tanh", cost, seed=2, dtype="float64", **options)


def trained(y: Any, outputs: int = 3, **options: Any) -> nnkit.Network:
    net = network(outputs)
    net.fit(X, y, **OPTIONS | options)
    return net


CASES: dict[str, tuple[int, np.ndarray, np.ndarray, list[Any]]] = {
    "1 to k": (3, np.array([1, 2, 3])[NUMBERS], NUMBERS, [1, 2, 3]),
    "others": (3, np.array([-5, 0, 70000])[NUMBERS].astype(np.int32), NUMBERS, [-5, 0, 70000]),
    "-1 and 1": (1, 2 * TWO - 1, TWO, [-1, 1]),
    "1 and 2": (1, (TWO + 1).astype(np.uint8), TWO, [1, 2]),
    "-1 and 1 of two outputs": (2, 2 * TWO - 1, TWO, [-1, 1]),
    "truth values": (1, TWO.astype(bool), TWO, [False, True]),
    "truth values of two outputs": (2, TWO.astype(bool), TWO, [False, True]),
}


@pytest.mark.parametrize("case", CASES)
def test_other_labels_than_0_to_k_become_classes(arrays: "Arrays", case: str, tmp_path: Path) -> None:
    outputs, y, numbers, classes = CASES[case]
    wanted = trained(numbers, outputs)
    predicted = arrays.numpy(wanted.predict(X))
    for given in (y, y.tolist(), y[:, None], y[:, None].tolist(), arrays.backend.asarray(y)):
        net = trained(given, outputs, validation_data=(X, given))
        assert net.classes is not None
        assert net.classes.tolist() == classes
        assert np.array_equal(arrays.numpy(net.parameters.flat), arrays.numpy(wanted.parameters.flat))
    assert net.predict(X).tolist() == [classes[number] for number in predicted.tolist()]
    measured = wanted.evaluate(X, numbers)
    assert net.evaluate(X, y) == measured
    again = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net.save(tmp_path / "net.safetensors")
    for other in (*again, nnkit.load(tmp_path / "net.safetensors")):
        assert other.predict(X).tolist() == net.predict(X).tolist()
        assert other.evaluate(X, y[:, None]) == measured


@pytest.mark.parametrize("case", CASES)
def test_weights_of_learned_classes(case: str) -> None:
    outputs, y, numbers, classes = CASES[case]
    weighted = trained(y, outputs, class_weight={classes[1]: 3.0})
    wanted = trained(numbers, outputs, class_weight={1: 3.0})
    assert np.array_equal(weighted.parameters.flat, wanted.parameters.flat)
    balanced, expected = (trained(labels, outputs, class_weight="balanced") for labels in (y, numbers))
    assert np.array_equal(balanced.parameters.flat, expected.parameters.flat)


@pytest.mark.parametrize("y", [np.array([0, 2] * 15), np.array([1, 2] * 15), np.zeros(30, int), np.ones(30, bool)])
def test_numbers_of_classes_stay_numbers(arrays: "Arrays", y: np.ndarray) -> None:
    net = trained(arrays.backend.asarray(y))
    assert net.classes is None
    found = net.predict(arrays(X))
    arrays.numpy(found, "int64")  # of this backend
    assert trained(np.array([0] * 30), 1).classes is None


def test_another_number_of_classes_is_refused() -> None:
    for y in ([1, 3] * 15, [0, 1, 2, 3, 4] * 6, [-1, 0] * 15):
        net = network()
        with pytest.raises(
            ValueError, match=r"y holds label .* at .*; expected 0 to 2; if the classes have other names"
        ):
            net.fit(X, y, **OPTIONS)
        assert net.classes is None
    for call in (network(1).evaluate, network(1).train_step, network(1).gradients):
        with pytest.raises(
            ValueError, match=r"y holds label -1 at \[0\]; expected 0 to 1; if the classes have other names"
        ):
            call(X, np.array([-1, 1] * 15))


def test_a_failing_fit_forgets_the_classes() -> None:
    net = network()
    with pytest.raises(ValueError, match="unknown metric"):
        net.fit(X, NUMBERS + 1, metrics=["r3"], **OPTIONS)
    assert net.classes is None
    with pytest.raises(ValueError, match=r"validation y holds 0 at \[\d+\]; expected 1, 2, 3"):
        net.fit(X, NUMBERS + 1, validation_data=(X, NUMBERS), **OPTIONS)
    assert net.classes is None


def test_streams_of_class_names() -> None:
    def stream() -> Any:
        return ((X[i : i + 8], NUMBERS[i : i + 8, None] + 1) for i in range(0, 30, 8))

    with pytest.raises(
        ValueError, match=r"y of minibatch \d of X holds label 3 at .*; if the classes have other names"
    ):
        network().fit(stream, **STREAMED)
    net, wanted = network(classes=[1, 2, 3]), network()
    history = net.fit(stream, validation_data=stream, class_weight={3: 2.0}, **STREAMED)
    expected = wanted.fit(
        (lambda: ((X[i : i + 8], NUMBERS[i : i + 8]) for i in range(0, 30, 8))),
        validation_data=(X, NUMBERS), class_weight={2: 2.0}, **STREAMED,
    )  # fmt: skip
    assert np.array_equal(net.parameters.flat, wanted.parameters.flat)
    assert history["validation_accuracy"] == expected["validation_accuracy"]


def test_balanced_weights_of_a_stream_are_refused() -> None:
    net = network()
    for data in (iter([(X, NUMBERS)]), lambda: [(X, NUMBERS)]):
        with pytest.raises(
            ValueError, match="class_weight='balanced' needs all labels at once; for minibatches give a"
        ):
            net.fit(data, class_weight="balanced", **STREAMED)
        with pytest.raises(ValueError, match="class_weight='balanced' needs all labels at once"):
            net.evaluate(data, class_weight="balanced")
    assert net.epochs_trained == 0


def test_a_checkpoint_stores_the_classes(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "run.safetensors"
    trained(NUMBERS + 1, checkpoint=path, epochs=2)
    net, wanted = network(), trained(NUMBERS, epochs=4)
    net.fit(X, NUMBERS + 1, checkpoint=path, resume=True, **OPTIONS | {"epochs": 4})
    assert np.array_equal(net.parameters.flat, wanted.parameters.flat)
    assert nnkit.load(path).predict(X).tolist() == (np.asarray(wanted.predict(X)) + 1).tolist()


def test_integers_match_classes_that_are_text() -> None:
    names = np.array(["1", "2", "3a"])
    net = trained(names[NUMBERS])
    few = NUMBERS < 2
    assert net.evaluate(X[few], NUMBERS[few] + 1) == net.evaluate(X[few], names[NUMBERS[few]])
    with pytest.raises(ValueError, match=r"y holds '3' at \[\d+\]; expected '1', '2', '3a'"):
        net.evaluate(X, NUMBERS + 1)
    truth = trained(np.array(["False", "True"])[TWO], 2)
    assert truth.evaluate(X, TWO.astype(bool)) == truth.evaluate(X, np.array(["False", "True"])[TWO])


def test_real_numbers_are_not_labels() -> None:
    with pytest.raises(TypeError, match=r"y has dtype float64 and shape \(30,\); expected integer labels"):
        network().fit(X, NUMBERS + 1.0, **OPTIONS)
    with pytest.raises(ValueError, match=r"y has shape \(30, 1\); expected labels \(30,\) or targets \(30, 3\)"):
        network().fit(X, (NUMBERS + 1.0)[:, None], **OPTIONS)
    assert network(1).fit(X, TWO.astype(float)[:, None], **OPTIONS).epochs == 3  # targets


def test_a_column_for_regression_is_not_labels() -> None:
    with pytest.raises(
        ValueError, match=r"y has shape \(30, 1\); expected .* for labels use nnkit.data.one_hot\(y, 3\)"
    ):
        network(cost="quadratic").fit(X, NUMBERS[:, None], **OPTIONS)
    with pytest.raises(ValueError, match=r"y holds label 3 at \[\d+\]; expected 0 to 2"):
        network(cost="quadratic").fit(X, NUMBERS + 1, **OPTIONS)


@pytest.mark.parametrize("cost", [nnkit.quadratic, nnkit.cross_entropy, nnkit.softmax_cross_entropy_delta])
def test_the_cost_determines_how_labels_become_targets(cost: Any) -> None:
    for y in (NUMBERS, NUMBERS.astype(float), NUMBERS.tolist()):
        with pytest.raises((TypeError, ValueError), match=r"; for labels use nnkit.data.one_hot\(y, 3\)$"):
            cost(X, y)
    with pytest.raises(ValueError, match=r"expected one shape \(..., n, d_out\)$"):
        cost(X, X[:, :2])


# --- predictions have the shape of the targets ------------------------------------------------------------------

TARGETS = RNG.normal(size=30)
SHAPES = {"vector": TARGETS, "column": TARGETS[:, None]}


def shapes(net: nnkit.Network) -> list[tuple[int, ...]]:
    return [tuple(found.shape) for found in (net.predict(X), net.forward(X), net.predict_proba(X), net.logits(X))]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("way", ["fit", "partial_fit", "train_step", "stream"])
def test_predictions_have_the_shape_of_the_targets(arrays: "Arrays", way: str, kind: str, tmp_path: Path) -> None:
    y = SHAPES[kind]
    net = network(1, "quadratic")
    assert shapes(net) == [(30, 1)] * 4
    for given in (y, y.tolist(), arrays(y)):
        if way == "train_step":
            net.train_step(X, given)
        elif way == "stream":
            net.fit(iter([(X, given)]), epochs=1, progress=False)
            net.evaluate(iter([(X, SHAPES["column"])]))  # which trains nothing
        else:
            getattr(net, way)(
                X, given, validation_data=(X, TARGETS), progress=False, **{"epochs": 1} if way == "fit" else {}
            )
        expected = [y.shape, (30, 1), (30, 1), (30, 1)]
        assert shapes(net) == expected
    assert (y - arrays.numpy(net.predict(X))).shape == y.shape
    np.testing.assert_array_equal(arrays.numpy(net.predict(X)).ravel(), arrays.numpy(net.forward(X)).ravel())
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net.save(tmp_path / "net.safetensors")
    others = (
        copy.copy(net),
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
        nnkit.load(tmp_path / "net.safetensors"),
    )
    for other in others:
        assert shapes(other) == expected
    assert shapes(nnkit.load(ROOT / "tests" / "files" / "network-1.safetensors"))[0] == (30,)


def test_gradients_and_a_failing_fit_do_not_learn_the_shape() -> None:
    net = network(1, "quadratic")
    net.gradients(X, TARGETS)
    with pytest.raises(ValueError, match="y holds nan"):
        net.fit(X, np.full(30, np.nan), **OPTIONS)
    assert shapes(net)[0] == (30, 1)


def test_a_checkpoint_keeps_the_shape(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    network(1, "quadratic").fit(X, TARGETS, checkpoint=tmp_path / "run.safetensors", **OPTIONS)
    assert shapes(nnkit.load(tmp_path / "run.safetensors"))[0] == (30,)


def test_the_shape_is_learned_only_for_a_single_regression_output() -> None:
    several = network(3, "quadratic")
    several.fit(X, NUMBERS, **OPTIONS)
    assert shapes(several) == [(30, 3)] * 4
    one = network(1)
    one.fit(X, TWO[:, None], **OPTIONS)
    assert shapes(one) == [(30,), (30, 1), (30, 1), (30, 1)]


# --- NaN into predictions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 1000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("preprocessed", [False, True])
def test_predict_refuses_samples_that_are_not_finite(arrays: "Arrays", preprocessed: bool, bad: float, n: int) -> None:
    preprocessing = nnkit.data.Whitening.fit(X) if preprocessed else None
    samples = RNG.normal(size=(n, 3))
    for cost, outputs in (("quadratic", 1), ("cross_entropy", 1), ("softmax_cross_entropy", 3)):
        for dtype in ("float32", "float64"):
            net = nnkit.Network([3, outputs], cost=cost, seed=0, dtype=dtype, preprocessing=preprocessing)
            for _ in range(3):  # the last ones are replayed
                net.predict(samples)
            wrong = samples.copy()
            wrong[n // 2, 1] = bad
            for given in (wrong, wrong.tolist(), arrays(wrong), wrong.astype(np.float32), wrong[::-1][::-1]):
                with pytest.raises(ValueError, match=rf"X holds {bad} at \[{n // 2}, 1\]; expected finite numbers"):
                    net.predict(given)
            assert net.predict(samples).shape[0] == n


def test_large_numbers_and_numbers_of_every_type_are_predicted(arrays: "Arrays") -> None:
    net = nnkit.Network([3, 2], seed=0)
    for value in (1e30, -3e38, 1e-45):
        assert net.predict(np.full((2, 3), value)).shape == (2,)
    for dtype in ("bool", "uint8", "int64", "float16"):
        assert net.predict(np.ones((2, 3), dtype)).shape == (2,)
    with pytest.raises(ValueError, match=r"X holds inf at \[0, 0\]; expected finite numbers in float32"):
        net.predict(np.full((2, 3), 1e39))


@pytest.mark.parametrize("activation", nnkit.activation_names())
def test_a_sample_with_nan_gives_nan(arrays: "Arrays", activation: str) -> None:
    if activation == "softmax":
        pytest.skip("couples the units, and is for the output layer")
    samples = X.copy()
    samples[4, 2] = np.nan
    net = nnkit.Network([3, 5, 2], activation, seed=0)
    for answer in (net.forward, net.logits, net.predict_proba):
        found = arrays.numpy(answer(arrays(samples)))
        assert np.isnan(found[4]).all()
        assert np.isfinite(np.delete(found, 4, axis=0)).all()


def test_names_keep_their_type() -> None:
    assert checked_classes([3, 5], 2).dtype.kind == "i"
    assert checked_classes(["a", "b"], 2).dtype.kind == "U"
    assert checked_classes([1, "a"], 2).tolist() == [1, "a"]


def test_a_missing_class_name_is_located() -> None:
    with pytest.raises(ValueError, match=r"y holds nan at \[1\]; expected a class name"):
        names_in(np.array(["a", float("nan"), "b"], object), 2)


@pytest.mark.parametrize("dtype", [bytes, object])
def test_bytes_are_no_class_names_but_what_the_error_makes_of_them_is(dtype: Any) -> None:
    """As of h5py, whose texts are arrays of bytes; a file could not have them."""
    y, net = np.array(["köln".encode(), b"bonn", b"ulm"] * 10, dtype), network()
    with pytest.raises(TypeError, match=r"^y holds b'.*' at \[0\]; expected .* as text: np.char.decode\(") as caught:
        net.fit(X, y, **OPTIONS)
    assert net.classes is None
    hint = str(caught.value).partition("as text: ")[2].partition(", or ")[0]
    text = eval(hint, {"np": np, "y": y, "bytes": bytes})
    net.fit(X, text, **OPTIONS)
    assert net.classes.tolist() == ["bonn", "köln", "ulm"]  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="y holds b'"):
        nnkit.tabular(X, y)


@pytest.mark.parametrize(("count", "listed"), [(20, True), (21, False)])
def test_up_to_20_names_are_listed(count: int, listed: bool) -> None:
    names = [f"n{i}" for i in range(count)]
    expected = ", ".join(map(repr, names)) if listed else "one of 21 classes"
    with pytest.raises(ValueError, match=rf"y holds 'x' at \[0\]; expected {expected}$"):
        class_indices(np.array(names), ["x"], "y")


@pytest.mark.parametrize("names", [[30, 10, 20], ["c", "a", "b"], [30, "a", 2.5]])
def test_unsorted_classes_are_found_and_unknown_ones_named(names: list[Any]) -> None:
    classes = checked_classes(names, 3)
    assert class_indices(classes, [names[2], names[0], names[1]], "y").tolist() == [2, 0, 1]
    known = ", ".join(map(repr, names))
    for other, another in ((15, 99), (99, 15), (-1, 35)) if names[1] == 10 else (("aa", "z"), ("z", "aa")):
        with pytest.raises(ValueError, match=rf"y holds {other!r} at \[2\]; expected {known}$"):
            class_indices(classes, [names[1], names[0], other, names[2], another], "y")


@pytest.mark.parametrize("classes", [{"a": 0, "b": 1}, {"a", "b"}])
def test_classes_have_an_order(classes: Any) -> None:
    with pytest.raises(TypeError, match=f"classes is a {type(classes).__name__}; expected a list of names"):
        checked_classes(classes, 2)


DAYS = np.datetime64("2020-01-01") + np.arange(3)


@pytest.mark.parametrize("unit", ["D", "s", "ns"])
def test_datetimes_are_predicted_as_datetimes(unit: str, tmp_path: Path) -> None:
    """Of nanoseconds Python makes integers, which predictions and files would then hold."""
    y = DAYS.astype(f"datetime64[{unit}]")[NUMBERS]
    net, wanted = trained(y), trained(NUMBERS)
    predicted = net.predict(X)
    assert predicted.dtype == y.dtype
    assert np.array_equal(predicted, DAYS[wanted.predict(X)])
    assert net.evaluate(X, y) == wanted.evaluate(X, NUMBERS)
    assert copy.deepcopy(net).predict(X).dtype == y.dtype
    weights = {1: 3.0}, {y.dtype.type(DAYS[1]): 3.0}
    assert trained(y, class_weight=weights[1]).evaluate(X, y) == trained(NUMBERS, class_weight=weights[0]).evaluate(
        X, NUMBERS
    )
    with pytest.raises(ValueError, match=r"y holds np.datetime64\('2021-01-01.*'\) at \[0\]; expected np.datetime64"):
        net.evaluate(X[:1], np.array(["2021-01-01"], y.dtype))
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net.save(tmp_path / "net.safetensors")
    again = nnkit.load(tmp_path / "net.safetensors").predict(X)
    assert (again.dtype, again.tolist()) == (predicted.dtype, predicted.tolist())
    for days in (DAYS, DAYS - DAYS[0]):
        missing = days.astype(days.dtype.kind + f"8[{unit}]")[NUMBERS]
        missing[4] = "NaT"
        with pytest.raises(ValueError, match=r"y holds np\..*\('NaT'.*\) at \[4\]; expected a class name"):
            trained(missing)


def test_columns_of_times() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    y = pd.Series(DAYS[NUMBERS].astype("datetime64[ns]"))
    assert (trained(y).predict(X) == DAYS[trained(NUMBERS).predict(X)]).all()
    y[4] = pd.NaT
    with pytest.raises(ValueError, match=r"y holds .*NaT.* at \[4\]"):
        trained(y)


def test_names_with_nul_characters_stay(tmp_path: Path) -> None:
    """NumPy drops them at the end, so that "a" and "a\\0" would become one class."""
    names = ["a", "a\0", "b"]
    y = [names[number] for number in NUMBERS]
    net = trained(y)
    assert net.predict(X).tolist() == [names[number] for number in trained(NUMBERS).predict(X)]
    assert network(classes=names).classes is not None
    y_train = nnkit.data.split(X, y, seed=0)[1]
    assert set(y_train.tolist()) == set(names)
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net.save(tmp_path / "net.safetensors")
    assert nnkit.load(tmp_path / "net.safetensors").predict(X).tolist() == net.predict(X).tolist()


@pytest.mark.parametrize(
    "names", [[1, 2**63, 3], [-1, 2**63, 0], [2**53, 2**53 + 1, 2**53 + 2], [2**70, 0, 7], [2**63, 2**63 + 1, 0]]
)
def test_large_whole_numbers_as_names(names: list[int]) -> None:
    """NumPy makes floats of 1 beside 2⁶³, and compares int64 with uint64 as floats."""
    net = trained(np.array(names, object)[NUMBERS])
    wanted = trained([sorted(names).index(names[number]) for number in NUMBERS])
    assert net.predict(X).tolist() == [sorted(names)[number] for number in wanted.predict(X)]
    assert {type(name) for name in net.predict(X).tolist()} == {int}
    given = checked_classes(names, 3)
    for dtype in ("int64", "uint64"):
        known = [name for name in names if np.iinfo(dtype).min <= name <= np.iinfo(dtype).max]
        assert class_indices(given, np.array(known, dtype), "y").tolist() == [names.index(n) for n in known]
        with pytest.raises(ValueError, match="y holds 12345"):
            class_indices(given, np.array([12345], dtype), "y")


def test_class_names_are_read_only() -> None:
    net = network(classes=["a", "b", "c"])
    assert net.classes is not None
    with pytest.raises(ValueError, match="read-only"):
        net.classes[0] = "longer"
    predicted = net.predict(X)
    predicted[0] = "z"  # a copy of its own


def test_class_names_are_not_learned_after_steps() -> None:
    """After train_step on 0 to k − 1 the outputs stand for these numbers, as they do after an epoch."""
    net = network()
    net.train_step(X, NUMBERS)
    with pytest.raises(TypeError, match=r"y holds '.' at \[0\]; .*; if the classes have other names"):
        net.fit(X, np.array(["a", "b", "c"])[NUMBERS], **OPTIONS)
    assert net.classes is None
    net.classes = np.array(["a", "b", "c"])
    net.fit(X, np.array(["a", "b", "c"])[NUMBERS], **OPTIONS)
