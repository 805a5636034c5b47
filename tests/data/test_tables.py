"""Tables with named columns: taken by name, whatever library they are of; what cannot be taken is named."""

from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.tables import as_array, is_table, table_numbers

RNG = np.random.default_rng(11)
X = RNG.normal(size=(12, 3))
LABELS = RNG.integers(0, 2, 12)
COLUMNS = {"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]}
LIBRARIES = ["pandas", "polars", "pyarrow", "narwhals"]
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 5, "progress": False}


def table(library: str, columns: dict[str, Any] = COLUMNS) -> Any:
    """A table of a library with these columns."""
    if library == "pyarrow":
        return pytest.importorskip("pyarrow", reason="pyarrow is not installed").table(columns)
    if library == "narwhals":
        narwhals = pytest.importorskip("narwhals", reason="narwhals is not installed")
        return narwhals.from_native(table("polars", columns))
    return pytest.importorskip(library, reason=f"{library} is not installed").DataFrame(columns)


def column(library: str, values: Any) -> Any:
    """A single column of a library."""
    if library == "pyarrow":
        return table(library, {"y": values}).column("y")
    return table(library, {"y": values})["y"]


def reordered(columns: dict[str, Any] = COLUMNS) -> dict[str, Any]:
    return {name: columns[name] for name in ("c", "a", "b")}


def network(features: Any = ("a", "b", "c"), **options: Any) -> nnkit.Network:
    defaults: dict[str, Any] = {"cost": "softmax_cross_entropy", "seed": 1, "dtype": "float64"}
    return nnkit.Network([3, 4, 2], "tanh", features=features, **defaults | options)


def minibatches(made: Callable[[dict[str, Any]], Any]) -> Callable[[], Iterator[Any]]:
    def stream() -> Iterator[Any]:
        for start in range(0, 12, 5):
            part = {name: values[start : start + 5] for name, values in COLUMNS.items()}
            yield made(part if start == 0 else reordered(part)), LABELS[start : start + 5]

    return stream


ASKED: dict[str, Callable[[nnkit.Network, Any], Any]] = {
    "predict": lambda net, x: net.predict(x),
    "forward": lambda net, x: net.forward(x),
    "predict_proba": lambda net, x: net.predict_proba(x),
    "logits": lambda net, x: net.logits(x),
    "evaluate": lambda net, x: net.evaluate(x, LABELS),
    "gradients": lambda net, x: net.gradients(x, LABELS)[1][0],
    "train_step": lambda net, x: [net.train_step(x, LABELS), net.parameters.flat][1],
    "check_gradients": lambda net, x: nnkit.check_gradients(net, x, LABELS).errors,
    "fit": lambda net, x: [net.fit(x, LABELS, **OPTIONS), net.parameters.flat][1],
    "partial_fit": lambda net, x: [net.partial_fit(x, LABELS), net.parameters.flat][1],
    "evaluate of a stream": lambda net, x: net.evaluate(iter([(x, LABELS)])),
    "validation": lambda net, x: net.fit(X, LABELS, validation_data=(x, LABELS), **OPTIONS)["validation_cost"],
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("asked", ASKED)
def test_columns_are_taken_by_name(asked: str, library: str) -> None:
    wanted, found = (ASKED[asked](network(), x) for x in (X, table(library, reordered())))
    np.testing.assert_equal(found, wanted)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("asked", ASKED)
def test_other_columns_are_named(asked: str, library: str) -> None:
    other = {"a": X[:, 0], "B": X[:, 1], "c": X[:, 2], "d": X[:, 2]}
    with pytest.raises(
        ValueError, match="X has columns that differ from the features of this network: missing: 'b'; unknown: 'B', 'd'"
    ):
        ASKED[asked](network(), table(library, other))
    with pytest.raises(ValueError, match=r"unknown: 'd'; select them with X\[network.features\]"):
        ASKED[asked](network(), table(library, COLUMNS | {"d": X[:, 0]}))


@pytest.mark.parametrize("library", LIBRARIES)
def test_fit_learns_the_features(library: str, tmp_path: Path) -> None:
    net, wanted = network(None), network(None)
    wanted.fit(X, LABELS, **OPTIONS)
    net.fit(table(library), LABELS, **OPTIONS)
    assert net.features == ["a", "b", "c"]
    assert wanted.features is None
    assert np.array_equal(net.parameters.flat, wanted.parameters.flat)
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net.save(tmp_path / "net.safetensors")
    again = nnkit.load(tmp_path / "net.safetensors")
    assert np.array_equal(again.forward(table(library, reordered())), wanted.forward(X))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_stream_of_tables_is_put_in_the_order_of_the_first(library: str) -> None:
    net, wanted = network(None), network(None)
    net.fit(minibatches(lambda part: table(library, part)), epochs=2, progress=False)
    wanted.fit(X, LABELS, epochs=2, batch_size=5, shuffle=False, progress=False)
    assert net.features == ["a", "b", "c"]
    assert np.array_equal(net.parameters.flat, wanted.parameters.flat)
    step = network(None)
    step.train_step(table(library), LABELS)
    assert step.features == ["a", "b", "c"]
    validated = network(None)
    validated.fit(X, LABELS, validation_data=minibatches(lambda part: table(library, part)), **OPTIONS)
    assert validated.features is None  # only what it is trained on


def test_features_are_restored_if_fit_does_not_start() -> None:
    net = network(None)
    with pytest.raises(ValueError, match="y holds label 7"):
        net.fit(table("pandas"), np.full(12, 7), **OPTIONS)
    assert net.features is None
    with pytest.raises(ValueError, match="unknown metric"):
        net.fit(table("pandas"), LABELS, metrics=["r3"], **OPTIONS)
    assert net.features is None


def test_names_that_are_not_text_are_not_learned() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    net, plain = network(None), pandas.DataFrame(X)
    net.fit(plain, LABELS, **OPTIONS)
    assert net.features is None
    assert np.array_equal(network().forward(plain), network().forward(X))  # as an array has no names either
    levels = pandas.DataFrame(X, columns=pandas.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)]))
    net.fit(levels, LABELS, **OPTIONS)
    assert net.features is nnkit.data.Normalization.fit(levels).features is None
    assert np.array_equal(network().forward(levels), network().forward(X))
    twice = pandas.DataFrame(X, columns=["a", "b", "a"])
    mixed = pandas.DataFrame(X, columns=["a", 0, "b"])
    assert np.array_equal(network(None).forward(twice), network(None).forward(X))  # it needs no names
    for learn in (
        net.fit,
        net.train_step,
        lambda x, _: nnkit.data.Whitening.fit(x),
        lambda x, y: net.fit(iter([(x, y)])),
    ):
        before = net.parameters.flat.copy()
        with pytest.raises(ValueError, match=r"X: two columns are called 'a'; expected names that differ"):
            learn(twice, LABELS)
        with pytest.raises(TypeError, match="X has the column name 0 beside text; expected text for all"):
            learn(mixed, LABELS)
        assert net.features is None
        assert np.array_equal(net.parameters.flat, before)
    net.fit(mixed.rename(columns=str), LABELS, **OPTIONS)
    assert net.features == ["a", "0", "b"]
    with pytest.raises(ValueError, match="missing: 'c'"):
        network().forward(twice)
    with pytest.raises(ValueError, match="X: two columns are called 'a'"):
        network().forward(pandas.DataFrame(np.hstack([X, X[:, :1]]), columns=["a", "b", "c", "a"]))


def test_column_names_that_are_attributes_of_the_library() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    names = ["dtype", "shape", "columns"]
    odd = pandas.DataFrame(X, columns=names)
    net = network(names)
    assert np.array_equal(net.forward(odd[["columns", "dtype", "shape"]]), net.forward(X))
    assert not is_table(pandas.Series([1.0], index=["columns"]))


MIXED = {
    "number": [1.5, 2.0, 3.0],
    "whole": np.array([1, 2, 3], np.int32),
    "truth": [True, False, True],
    "small": np.array([1, 2, 3], np.uint8),
}
AS_NUMBERS = np.array([[1.5, 1, 1, 1], [2, 2, 0, 2], [3, 3, 1, 3]])


@pytest.mark.parametrize("library", LIBRARIES)
def test_numbers_and_booleans_together(library: str) -> None:
    mixed = table(library, MIXED)
    np.testing.assert_array_equal(table_numbers(mixed, "X"), AS_NUMBERS)
    np.testing.assert_allclose(nnkit.data.Normalization.fit(mixed).mean, np.mean(AS_NUMBERS, axis=0))
    np.testing.assert_array_equal(
        nnkit.data.Normalization.fit(mixed).transform(mixed),
        nnkit.data.Normalization.fit(AS_NUMBERS).transform(AS_NUMBERS),
    )
    assert nnkit.data.Whitening.fit(mixed) == nnkit.data.Whitening.fit(AS_NUMBERS)
    for found, wanted in zip(nnkit.data.split(mixed, [0, 1, 1]), nnkit.data.split(AS_NUMBERS, [0, 1, 1]), strict=True):
        np.testing.assert_array_equal(found, wanted)
    whole = table_numbers(table(library, {"a": MIXED["whole"], "b": MIXED["truth"]}), "X")
    assert whole.dtype == np.int32
    assert whole.tolist() == [[1, 1], [2, 0], [3, 1]]
    small = table(library, {"a": MIXED["small"], "b": MIXED["small"]})
    assert table_numbers(small, "X").dtype == np.uint8  # bytes stay bytes


def test_get_dummies() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    made = pandas.get_dummies(pandas.DataFrame({"age": [1.5, 2, 3], "city": list("abc")}))
    np.testing.assert_allclose(nnkit.data.Normalization.fit(made).mean, [6.5 / 3, 1 / 3, 1 / 3, 1 / 3])


PANDAS_TYPES = ["Int64", "int64[pyarrow]", "Float64", "double[pyarrow]", "boolean", "bool[pyarrow]", "object"]


@pytest.mark.parametrize("dtype", PANDAS_TYPES)
def test_nullable_columns_of_pandas(dtype: str) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame = pandas.DataFrame({"a": pandas.Series([1, 0, 1], dtype=dtype), "b": [0.5, 1.5, 2.5]})
    assert table_numbers(frame, "X").tolist() == [[1, 0.5], [0, 1.5], [1, 2.5]]
    frame.loc[1, "a"] = None
    net = nnkit.Network([2, 2], seed=0)
    for call in (
        net.forward,
        net.predict,
        nnkit.data.Normalization.fit,
        lambda x: net.fit(x, [0, 1, 0], progress=False),
    ):
        with pytest.raises(ValueError, match=r"X holds nan at \[1, 'a'\]; expected finite numbers, none missing"):
            call(frame)
    labels = pandas.Series([1, 0, 1], dtype=dtype)
    if "loat" not in dtype and "double" not in dtype:
        net.fit(frame[["b"]].assign(c=1.0), labels, progress=False)
        labels[2] = None
        with pytest.raises(ValueError, match=r"y holds nan at \[2\]; expected"):
            net.fit(frame[["b"]].assign(c=1.0), labels, progress=False)


@pytest.mark.parametrize("library", LIBRARIES)
def test_missing_values_are_named(library: str) -> None:
    for missing in ([1, None, 2], [True, None, False], [1.5, None, 2.5]):
        with pytest.raises(ValueError, match=r"X holds nan at \[1, 'm'\]; expected finite numbers, none missing"):
            table_numbers(table(library, {"a": [1, 2, 3], "m": missing}), "X")


@pytest.mark.parametrize("library", LIBRARIES)
def test_columns_of_other_types_are_named(library: str) -> None:
    text = table(library, {"a": [1.0, 2.0], "city": ["x", "y"]})
    net = nnkit.Network([2, 2], seed=0)
    for call in (net.forward, nnkit.data.Whitening.fit):
        with pytest.raises(TypeError, match="X has text in column 'city', such as 'x'; expected real numbers"):
            call(text)
    with pytest.raises(TypeError, match="validation X has text in column 'city'"):
        net.fit(np.ones((2, 2)), [0, 1], validation_data=(text, [0, 1]), progress=False)
    when = table(library, {"a": [1.0, 2.0], "when": [datetime(2020, 1, 1), datetime(2020, 1, 2)]})
    with pytest.raises(TypeError, match=r"X has dtype datetime64\[.*\] in column 'when'; expected real numbers"):
        net.forward(when)


def test_decimals_are_numbers() -> None:
    decimals = table("pyarrow", {"a": [Decimal("1.25"), Decimal("2.50")]})
    assert table_numbers(decimals, "X").tolist() == [[1.25], [2.5]]


@pytest.mark.parametrize("library", LIBRARIES)
def test_labels_targets_and_weights_of_tables(library: str) -> None:
    names = np.array(["no", "yes"])[LABELS]
    by_array = network()
    by_array.fit(X, names, sample_weight=np.arange(1.0, 13), **OPTIONS)
    for y in (column(library, names.tolist()), table(library, {"y": names.tolist()})):
        net = network()
        net.fit(X, y, sample_weight=column(library, np.arange(1.0, 13)), **OPTIONS)
        assert net.classes is not None
        assert net.classes.tolist() == ["no", "yes"]
        assert np.array_equal(net.parameters.flat, by_array.parameters.flat)
    nets = [network(cost="quadratic") for _ in range(2)]
    targets = RNG.normal(size=(12, 2))
    nets[0].fit(X, table(library, {"u": targets[:, 0], "v": targets[:, 1]}), **OPTIONS)
    nets[1].fit(X, targets, **OPTIONS)
    assert np.array_equal(nets[0].parameters.flat, nets[1].parameters.flat)
    missing = ["no", None, *names[2:].tolist()]
    with pytest.raises(ValueError, match=r"y holds (None|nan|<NA>) at \[1\]; expected a class name"):
        network().fit(X, column(library, missing), **OPTIONS)


@pytest.mark.parametrize("library", LIBRARIES)
def test_split_gives_tables_of_the_same_library(library: str) -> None:
    """As scikit-learn's train_test_split does: so names reach the network."""
    x, y = table(library), column(library, LABELS)
    parts = nnkit.data.split(x, y, seed=3)
    wanted = nnkit.data.split(X, LABELS, seed=3)
    assert [type(part) for part in parts[::2]] == [type(x)] * 2
    for found, right in zip(parts, wanted, strict=True):
        np.testing.assert_array_equal(as_array(found, "a part"), right)
    if library != "pyarrow":  # whose columns have no names
        assert [(type(part), part.name) for part in parts[1::2]] == [(type(y), "y")] * 2
    net = network(None)
    net.fit(*parts[:2], **OPTIONS)
    assert net.features == ["a", "b", "c"]
    targets = nnkit.data.split(X, table(library, {"u": X[:, 0], "v": X[:, 1]}), seed=3)
    assert [type(part) for part in targets[1::2]] == [type(x)] * 2
    np.testing.assert_array_equal(as_array(targets[3], "y"), nnkit.data.split(X, X[:, :2], seed=3)[3])


TARGETS = {"u": X[:, 0] - X[:, 1], "v": X[:, 2]}
SWAPPED = {name: TARGETS[name] for name in ("v", "u")}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("cost", ["quadratic", "cross_entropy"])
def test_columns_of_targets_are_taken_by_name(cost: str, library: str, tmp_path: Path) -> None:
    """Those of regressions and of several classes in a sample, wherever targets are given, and after a file."""
    targets, swapped = (table(library, {k: (v > 0) * 1.0 for k, v in t.items()}) for t in (TARGETS, SWAPPED))
    net = network(None, cost=cost)
    net.fit(X, targets, validation_data=(X, swapped), **OPTIONS)
    assert net.target_names == ["u", "v"]
    wanted = net.evaluate(X, targets)
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net.save(tmp_path / "net.safetensors")
    for same in (net, deepcopy(net), nnkit.load(tmp_path / "net.safetensors")):
        assert same.target_names == ["u", "v"]
        for data in ((X, swapped), (iter([(X, swapped)]),)):
            assert same.evaluate(*data) == pytest.approx(wanted, rel=1e-14)
        assert float(same.gradients(X, swapped)[0]) == pytest.approx(wanted["cost"], rel=1e-14)
        with pytest.raises(
            ValueError, match=r"y has columns .* target_names of this network: missing: 'v'; unknown: 'w'"
        ):
            same.evaluate(X, table(library, {"w": X[:, 0], "u": X[:, 1]}))
    nets = [network(None, cost=cost) for _ in range(4)]
    for other, (first, second) in zip(nets, ((targets, targets), (targets, swapped)) * 2, strict=True):
        if other in nets[:2]:
            other.train_step(X, first)
            other.train_step(X, second)
        else:
            other.fit(iter([(X, first), (X, second)]), epochs=1, progress=False)
    parameters = [other.parameters.flat.tobytes() for other in nets]
    assert parameters[0] == parameters[1]
    assert parameters[2] == parameters[3]


def test_names_of_targets_are_learned_once_and_can_be_set() -> None:
    net = network(None, cost="quadratic")
    with pytest.raises(ValueError, match="unknown metric"):
        net.fit(X, table("pandas", TARGETS), metrics=["r3"], **OPTIONS)
    assert net.target_names is None
    with pytest.raises(ValueError, match=r"target_names is \['u'\]; expected the names of 2 targets"):
        net.target_names = ["u"]
    net.target_names = ["v", "u"]
    net.fit(X, table("pandas", TARGETS), **OPTIONS)
    wanted = network(None, cost="quadratic")
    wanted.fit(X, np.stack([*SWAPPED.values()], axis=1), **OPTIONS)
    assert net.target_names == ["v", "u"]
    assert np.array_equal(net.parameters.flat, wanted.parameters.flat)
    named = network(None, cost="cross_entropy", classes=["v", "u"])
    named.fit(X, table("pandas", {name: (values > 0) * 1.0 for name, values in TARGETS.items()}), **OPTIONS)
    assert named.target_names is None  # the columns are called like the classes


MASKED = np.ma.masked_array(X, X > 1)
MASK_LOST: dict[str, Callable[[], Any]] = {
    "Normalization.fit": lambda: nnkit.data.Normalization.fit(MASKED),
    "Whitening.fit": lambda: nnkit.data.Whitening.fit(MASKED),
    "transform": lambda: nnkit.data.Normalization.fit(X).transform(MASKED),
    "mean": lambda: nnkit.data.Normalization(MASKED[0], X[0] ** 2),
    "split X": lambda: nnkit.data.split(MASKED, LABELS),
    "split y": lambda: nnkit.data.split(X, np.ma.masked_array(LABELS, LABELS == 1)),
    "one_hot": lambda: nnkit.data.one_hot(np.ma.masked_array(LABELS, LABELS == 1)),
    "weights": lambda: network().evaluate(X, LABELS, sample_weight=np.ma.masked_array(X[:, 0] ** 2, X[:, 0] > 0)),
    "labels": lambda: network().fit(X, np.ma.masked_array(LABELS, LABELS == 1), **OPTIONS),
    "a kernel": lambda: nnkit.sigmoid(MASKED),
    "a cost": lambda: nnkit.quadratic(X, MASKED),
    "validation": lambda: network().fit(X, LABELS, validation_data=(MASKED, LABELS), **OPTIONS),
}


@pytest.mark.parametrize("call", MASK_LOST)
def test_masks_are_not_ignored(call: str) -> None:
    with pytest.raises(TypeError, match=r"fill .*, with \w+\.filled\(value\)"):
        MASK_LOST[call]()


def test_a_masked_array_without_mask_is_accepted() -> None:
    unmasked = np.ma.masked_array(X)
    assert nnkit.data.Normalization.fit(unmasked) == nnkit.data.Normalization.fit(X)
    nets = [network() for _ in range(2)]
    nets[0].fit(unmasked, np.ma.masked_array(LABELS), **OPTIONS)
    nets[1].fit(X, LABELS, **OPTIONS)
    assert np.array_equal(nets[0].parameters.flat, nets[1].parameters.flat)
    assert np.array_equal(nets[0].predict(unmasked), nets[1].predict(X))


def test_an_array_with_columns_is_not_a_table() -> None:
    class Named(np.ndarray):
        columns = ("a", "b", "c")

    assert not is_table(X.view(Named))


def test_sequences_without_array_protocol_are_read() -> None:
    assert as_array(range(3), "y").tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="y is a deque; expected an array, a list or a table"):
        as_array(deque(["a", None]), "y")


@pytest.mark.parametrize("kind", ["array", "chunked_array"])
def test_single_columns_of_pyarrow(kind: str) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    make = pa.array if kind == "array" else lambda values: pa.chunked_array([values[:5], values[5:]])
    names = np.array(["no", "yes"])[LABELS]
    for y in (LABELS, names, X[:, 0]):
        options: dict[str, Any] = {"cost": "quadratic"} if y.dtype == float else {}
        width = 1 if y.dtype == float else 2
        wanted, net = (nnkit.Network([3, width], seed=1, dtype="float64", **options) for _ in range(2))
        wanted.fit(X, y, **OPTIONS, sample_weight=np.arange(12.0))
        net.fit(X, make(y), **OPTIONS, sample_weight=make(np.arange(12.0)))
        np.testing.assert_array_equal(net.predict(X), wanted.predict(X))
        assert net.evaluate(X, make(y)) == wanted.evaluate(X, y)
    assert nnkit.metrics.r2(make(X[:, 0]), make(X[:, 0])) == 1
    with pytest.raises(ValueError, match=r"X has shape \(12,\); expected \(samples, 3\)"):
        net.predict(make(X[:, 0]))


def test_a_lazy_frame_is_told_to_collect() -> None:
    lazy = table("polars").lazy()
    for ask in (network().predict, nnkit.data.Normalization.fit, lambda x: network().fit(x, LABELS)):
        with pytest.raises(TypeError, match=r"X is a LazyFrame; .*; call its collect\(\) first"):
            ask(lazy)


def test_buffers_and_sparse_tensors() -> None:
    weights = np.arange(12.0).data
    assert network().evaluate(X, LABELS.data, sample_weight=weights) == network().evaluate(
        X, LABELS, sample_weight=np.arange(12.0)
    )
    torch = pytest.importorskip("torch", reason="torch is not installed")
    sparse = torch.tensor(X).to_sparse()
    for ask in (network().predict, nnkit.data.Normalization.fit, lambda x: network().evaluate(X, x)):
        with pytest.raises(TypeError, match=r"[Xy] is a tensor of layout torch.sparse.*to_dense\(\)"):
            ask(sparse)
