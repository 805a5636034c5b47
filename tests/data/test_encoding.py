"""Tables of mixed columns, also through files and networks, against scikit-learn's transformers and get_dummies."""

import copy
import datetime
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import nnkit
from nnkit.data import TableEncoding

pandas = pytest.importorskip("pandas")
compose = pytest.importorskip("sklearn.compose")
sklearn_preprocessing = pytest.importorskip("sklearn.preprocessing")
impute = pytest.importorskip("sklearn.impute")
pipeline = pytest.importorskip("sklearn.pipeline")
safetensors = pytest.importorskip("safetensors")

LIBRARIES = ["pandas", "polars", "pyarrow", "narwhals"]
finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
CELLS: dict[str, Any] = {
    "number": st.none() | finite,
    "whole": st.integers(-100, 100),
    "truth": st.booleans(),
    "truth or none": st.none() | st.booleans(),
    "text": st.none() | st.sampled_from(["a", "b", "ä", "", "1", "naïve b"]),
    "category": st.sampled_from(["x", "y", "z"]),
    "codes": st.sampled_from([3, 5, 7]),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, list[Any]]]]:
    """The kind of each column by its name, and columns of two tables: to fit, and others."""
    kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=4))
    names = {f"{kind} {at}": kind for at, kind in enumerate(kinds)}
    sizes = draw(st.tuples(st.integers(1, 8), st.integers(1, 4)))
    made = [{n: draw(st.lists(CELLS[k], min_size=s, max_size=s)) for n, k in names.items()} for s in sizes]
    return names, made


def framed(kinds: dict[str, str], columns: dict[str, list[Any]], library: str = "pandas") -> Any:
    """A table of another library."""
    if library == "pandas":
        types = {"category": "category", "codes": "category", "truth or none": "boolean", "number": "float64"}
        return pandas.DataFrame({n: pandas.array(v, types.get(kinds[n])) for n, v in columns.items()})
    if library == "pyarrow":
        pyarrow = pytest.importorskip("pyarrow")
        types = {"category": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), "text": pyarrow.string()}
        types |= {"number": pyarrow.float64(), "truth or none": pyarrow.bool_()}
        types |= {"codes": pyarrow.dictionary(pyarrow.int8(), pyarrow.int64())}
        return pyarrow.table({n: pyarrow.array(v, types.get(kinds[n])) for n, v in columns.items()})
    polars = pytest.importorskip("polars")
    types = {"category": polars.Categorical, "text": polars.String, "number": polars.Float64}
    types |= {"truth or none": polars.Boolean}
    made = polars.DataFrame([polars.Series(n, v, types.get(kinds[n])) for n, v in columns.items()])
    return made if library == "polars" else pytest.importorskip("narwhals").from_native(made)


def sklearn_encoder(kinds: dict[str, str]) -> Any:
    """The same encoding by scikit-learn, for columns of objects."""
    number = pipeline.make_pipeline(sklearn_preprocessing.StandardScaler(), impute.SimpleImputer(add_indicator=True))
    floats = sklearn_preprocessing.FunctionTransformer(
        lambda X: X.astype(object).where(X.notna(), np.nan).astype(float)
    )
    categories = sklearn_preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    texts = ("text", "category", "codes")
    steps = [(n, categories if k in texts else pipeline.make_pipeline(floats, number), [n]) for n, k in kinds.items()]
    return compose.ColumnTransformer(steps)


def objects(columns: dict[str, list[Any]]) -> Any:
    return pandas.DataFrame({name: np.array(values, object) for name, values in columns.items()}, dtype=object)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), st.sampled_from(LIBRARIES), st.sampled_from(LIBRARIES))
def test_any_table_is_encoded_as_by_scikit_learn_also_through_a_file(
    tmp_path: Path, given: Any, library: str, other: str
) -> None:
    kinds, (known, new) = given
    assume(all(any(value is not None for value in values) for values in known.values()))
    codes = [name for name, kind in kinds.items() if kind == "codes"]
    encoding = TableEncoding.fit(framed(kinds, known, library), categories=codes)
    theirs = sklearn_encoder(kinds).fit(objects(known))
    X_known, X_new = theirs.transform(objects(known)), theirs.transform(objects(new))
    assert encoding.outputs == X_known.shape[1] == len(set(encoding.output_names))
    np.testing.assert_allclose(encoding.transform(framed(kinds, known, other)), X_known, atol=1e-12, rtol=1e-12)
    shuffled = dict(reversed(new.items()))
    np.testing.assert_allclose(encoding.transform(framed(kinds, shuffled, other)), X_new, atol=1e-9, rtol=1e-12)

    net = nnkit.Network([encoding.outputs, 3, 2], "tanh", seed=1, dtype="float64", preprocessing=encoding)
    net.save(tmp_path / "net.safetensors")
    plain = nnkit.Network([encoding.outputs, 3, 2], "tanh", seed=1, dtype="float64")
    for made in (nnkit.load(tmp_path / "net.safetensors"), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert made.preprocessing == encoding
        assert made.features == list(kinds)
        np.testing.assert_allclose(made.forward(framed(kinds, shuffled, other)), plain.forward(X_new), atol=1e-9)


def test_get_dummies_and_the_text_of_files(tmp_path: Path) -> None:
    table = pandas.DataFrame({"city": ["Rome", "Bonn", None, "Rome"], "member": [True, False, True, True]})
    encoding = TableEncoding.fit(table)
    dummies = pandas.get_dummies(table["city"], prefix="city", prefix_sep=" ", dtype=float)
    own = pandas.DataFrame(encoding.transform(table), columns=encoding.output_names)
    pandas.testing.assert_frame_equal(own[list(dummies.columns)], dummies)
    assert own["city missing"].tolist() == [0, 0, 1, 0]
    nnkit.Network([encoding.outputs, 2], seed=0, preprocessing=encoding).save(tmp_path / "net.safetensors")
    with safetensors.safe_open(tmp_path / "net.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["network"])["categories"] == [["Bonn", "Rome"], None]


def test_robust_scaling_is_bounded_and_ignores_outliers() -> None:
    x = np.r_[np.arange(9.0), 1e9][:, None]
    z = TableEncoding.fit(x, "robust").transform(x)[:, 0]
    expected = (x[:, 0] - 4.5) / 4.5  # the quartiles are 2.25 and 6.75
    np.testing.assert_allclose(z, expected / np.sqrt(1 + (expected / 3) ** 2), rtol=1e-13)
    assert z[-1] == pytest.approx(3, abs=1e-12)
    mostly_equal = np.array([[0.0]] * 9 + [[4.0]])
    assert TableEncoding.fit(mostly_equal, "robust").deviation.tolist() == [2.0]
    assert TableEncoding.fit(np.ones((3, 1)), "robust").transform([[1.0]]).tolist() == [[0.0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outliers_whose_squares_overflow_are_at_the_bound(dtype: str) -> None:
    fitted = TableEncoding.fit(np.random.default_rng(0).normal(size=(200, 2)), scaling="robust")
    largest = float(np.finfo(dtype).max)
    for size in (1e16, 1e18, 1e20, 1e30, largest / 3, largest, *([1e100, 1e155, 1e300] if dtype == "float64" else [])):
        x = np.array([[size, -size], [-size, np.nan], [0.1, size]], dtype)
        wanted = [[3, -3], [-3, 0], [fitted.transform([[0.1, 0]])[0, 0], 3]]
        assert np.allclose(fitted.transform(x), wanted, rtol=1e-6, atol=0)
        net = nnkit.Network([2, 2], None, "quadratic", preprocessing=fitted, init="zeros", seed=0, dtype=dtype)
        net.parameters.W[0][...] = np.eye(2)
        assert np.allclose(net.predict(x), wanted, rtol=1e-6, atol=0)
        found = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed").InferenceSession(
            net.to_onnx().SerializeToString()
        )
        assert np.allclose(found.run(None, {"X": x.astype(np.float64)})[0], wanted, rtol=1e-6, atol=0)


def test_numbers_that_overflow_in_units_of_a_tiny_deviation_are_infinite() -> None:
    fitted = TableEncoding.fit(np.array([[1e-300], [2e-300], [3e-300]]))
    assert fitted.transform([[1e10], [-1e10], [2e-300], [np.nan]]).tolist() == [[np.inf], [-np.inf], [0.0], [0.0]]
    net = nnkit.Network([1, 2], preprocessing=fitted, seed=0)
    with pytest.raises(ValueError, match="X"):
        net.predict([[1e10]])


def test_a_network_takes_rows_of_objects_by_position_and_trains_on_a_split_table() -> None:
    table = pandas.DataFrame({"size": np.arange(40.0), "color": ["red", "blue"] * 20})
    X, y, X_test, y_test = nnkit.data.split(table, np.arange(40) % 2)
    encoding = TableEncoding.fit(X)
    net = nnkit.Network([encoding.outputs, 8, 2], "tanh", seed=0, preprocessing=encoding)
    history = net.fit(X, y, epochs=50, optimizer=nnkit.Adam(0.1), validation_data=(X_test, y_test), progress=False)
    assert history["validation_accuracy"][-1] == 1
    rows = X_test.to_numpy().tolist()
    assert np.array_equal(net.forward(rows), net.forward(X_test))
    assert np.array_equal(net.forward(np.array(rows, object)), net.forward(X_test))


def test_a_network_matches_columns_by_name_also_if_the_encoding_was_fitted_to_an_array() -> None:
    table = pandas.DataFrame({"size": np.arange(40.0), "code": [1, 2] * 20, "x": np.sin(np.arange(40.0))})
    y = table["size"] + 9 * table["code"]
    encoding = TableEncoding.fit(table.to_numpy(), categories=[1])
    net = nnkit.Network([encoding.outputs, 1], cost="quadratic", preprocessing=encoding, seed=0)
    net.fit(table, y, epochs=2, progress=False)
    expected, other = net.predict(table.to_numpy()), table[["x", "size", "code"]]
    assert np.array_equal(net.predict(other), expected)
    for library in LIBRARIES:
        made = framed({"x": "number", "size": "number", "code": "codes"}, other.to_dict("list"), library)
        assert np.array_equal(net.predict(made), expected)
    with pytest.raises(ValueError, match="differ from the features of this network: missing: 'x'; unknown: 'z'"):
        net.predict(table.rename(columns={"x": "z"}))


def test_an_encoding_on_the_strict_array_api() -> None:
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    table = pandas.DataFrame({"size": [1.0, None, 3.0, 4.0], "color": ["red", None, "blue", "red"]})
    encoding, backend = TableEncoding.fit(table), nnkit.get_backend("standard:array_api_strict")
    found = encoding.apply(backend, backend.asarray(encoding.encode(table, "X"), "float64"))
    assert np.array_equal(backend.to_numpy(found), encoding.transform(table))


@pytest.mark.parametrize("fitted", [["2024-01-01", "2024-01-02"], [1, 2], [19723.0, 19724.0]])
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("kind", ["date", "datetime", "duration", "bytes"])
def test_other_kinds_than_text_and_numbers_are_not_an_unknown_category(
    fitted: list[Any], library: str, kind: str
) -> None:
    """As in a Parquet file, which has types, after training on a CSV file, which has text."""
    encoding = TableEncoding.fit(pandas.DataFrame({"day": pandas.Categorical(fitted)}))
    assert encoding.categories[0] is not None
    days = np.array(["2024-01-01", "2024-01-02"], "M8[ms]")
    column: Any = {
        "date": [datetime.date(2024, 1, day) for day in (1, 2)],
        "datetime": days,
        "duration": days - days[0],
        "bytes": [b"2024-01-01", b"1"],
    }[kind]
    package = pytest.importorskip(library, reason=f"{library} is not installed")
    made = package.table if library == "pyarrow" else package.DataFrame
    with pytest.raises(TypeError, match=r"X has .* in column 'day'.*; expected numbers, text or truth values"):
        encoding.transform(made({"day": column}))


TABLE = {"age": [1.0, 2.0, None], "city": ["a", "b", "a"]}


@pytest.mark.parametrize(
    ("columns", "options", "error", "message"),
    [
        ({"x": ["a", 1]}, {}, TypeError, "X has text and numbers in column 'x', such as 'a' and 1; use one kind"),
        ({"x": [None, None]}, {}, ValueError, "X has no value in column 'x', only missing ones; leave it out"),
        ({"x": [1.0, np.inf]}, {}, ValueError, "X holds inf at .1, 'x'.; expected finite or missing numbers"),
        ({"x": [(1, 2)]}, {}, TypeError, "X has a tuple in column 'x': .1, 2.; expected numbers, text or truth"),
        ({"x": [[1], [2]]}, {}, TypeError, "X has a list in column 'x'; expected numbers, text or truth values"),
        (TABLE, {"scaling": "minmax"}, ValueError, "scaling is 'minmax'; expected 'standard' or 'robust'"),
        (TABLE, {"categories": ["town"]}, ValueError, "categories contains 'town'; expected names of columns of X"),
        (
            {"x": np.array(["2020-01-01"], "M8[D]")},
            {},
            TypeError,
            "X has dtype datetime64.* in column 'x'; expected num",
        ),
    ],
)
def test_columns_that_cannot_be_encoded(columns: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        TableEncoding.fit(pandas.DataFrame(columns), **options)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (
            {"age": [1.0]},
            ValueError,
            "X has columns that differ from the features of this TableEncoding: missing: 'city'",
        ),
        ({"age": ["old"], "city": ["a"]}, TypeError, "X has 'old' in column 'age'; expected numbers or truth values"),
        (
            {"age": [-np.inf], "city": ["a"]},
            ValueError,
            "X holds -inf at .0, 'age'.; expected finite or missing numbers",
        ),
    ],
)
def test_tables_unlike_the_fitted_one(columns: Any, error: Any, message: str) -> None:
    encoding = TableEncoding.fit(pandas.DataFrame(TABLE))
    net = nnkit.Network([encoding.outputs, 1], seed=0, preprocessing=encoding)
    for call in (encoding.transform, net.predict, net.forward):
        with pytest.raises(error, match=message):
            call(pandas.DataFrame(columns))
    with pytest.raises(TypeError, match="no derivatives by the table's columns"):
        net.jacobian(pandas.DataFrame(TABLE))


def test_lists_and_records_of_other_libraries_are_refused() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    for values in ([[1], [2]], [{"a": 1}, {"a": 2}]):
        with pytest.raises(TypeError, match=r"X has a.* in column 'x'; expected numbers, text or truth values"):
            TableEncoding.fit(polars.DataFrame({"x": values}))


def test_numbers_for_categories_of_text_are_their_text_also_beside_missing_ones() -> None:
    encoding = TableEncoding.fit(pandas.DataFrame({"zip": ["10", "20", None, "10"]}))
    expected = [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]
    for values in (["10", None, "20", "30"], [10, None, 20, 30], [10.0, np.nan, 20.0, 20.5]):
        assert encoding.transform(pandas.DataFrame({"zip": values})).tolist() == expected


def test_numbers_and_their_texts_are_compared_by_value() -> None:
    def encoded(fitted: list[Any], given: list[Any]) -> Any:
        table = pandas.DataFrame({"zip": fitted})
        return TableEncoding.fit(table, categories="zip").transform(pandas.DataFrame({"zip": given})).tolist()

    unit = np.eye(3).tolist()
    for fitted in ([10, 20, 30], [10.0, 20.0, 30.0], ["10", "20", "30"], ["010", "020", "30.0"]):
        assert encoded(fitted, [10, 20, 30]) == encoded(fitted, [10.0, 20.0, 30.0]) == unit
    assert encoded([10, 20, 30], ["10.0", "+20", "030"]) == encoded([10, 20, 30], ["1e1", "20", "3.0e1"]) == unit
    large = 2**60 + np.arange(3)
    assert encoded(large.tolist(), large.astype(str).tolist()) == unit
    assert encoded(["0.5", "1.50", "x"], [0.5, 1.5, 2.5]) == [unit[0], unit[1], [0, 0, 0]]
    assert encoded(["007", "7", "8"], ["7", "007", "07"]) == [unit[1], unit[0], [0, 0, 0]]  # texts stay different
    assert encoded(["007", "7", "8"], [7.0, 8.0, np.nan]) == [unit[1], unit[2], [0, 0, 0]]
    assert encoded(["0", "1", "x"], [True, False]) == [[0, 0, 0]] * 2
    with pytest.raises(TypeError, match="X has 'inf' in column 'zip'; expected numbers"):
        encoded([1, 2], ["1", "inf"])
    with pytest.raises(ValueError, match=r"X has 7 in column 'zip', where \['007', '07'\] differ; expected text"):
        encoded(["007", "07"], [7])
    names = TableEncoding.fit(pandas.DataFrame({"zip": [10.0, None, 20.5]}), categories="zip").output_names
    assert names == ["zip 10", "zip 20.5", "zip missing"]


def test_text_for_categories_of_numbers_is_refused() -> None:
    encoding = TableEncoding.fit(pandas.DataFrame({"zip": [10, 20]}), categories="zip")
    with pytest.raises(TypeError, match="X has 'A' in column 'zip'; expected numbers or truth values"):
        encoding.transform(pandas.DataFrame({"zip": ["10", None, "A"]}))
    with pytest.raises(TypeError, match="categories is None; expected names of columns of X"):
        TableEncoding.fit(pandas.DataFrame({"zip": [10, 20]}), categories=None)  # type: ignore[arg-type]


def test_a_column_of_names_is_warned_of() -> None:
    table = pandas.DataFrame({"name": [f"person {i}" for i in range(30)]})
    with pytest.warns(UserWarning, match="column 'name' has 30 different texts in 30 rows: if they identify the rows"):
        TableEncoding.fit(table)


def test_a_table_without_an_encoding_says_what_to_do() -> None:
    net = nnkit.Network([2, 2], seed=0)
    with pytest.raises(TypeError, match=r"such as 'a'; expected real numbers; nnkit.data.TableEncoding.fit"):
        net.fit(pandas.DataFrame({"x": [1.0, 2.0], "t": ["a", "b"]}), [0, 1], progress=False)
    with pytest.raises(ValueError, match=r"none missing; nnkit.data.TableEncoding.fit.X. fills them in"):
        net.fit(pandas.DataFrame({"x": [1.0, None], "t": [1.0, 2.0]}), [0, 1], progress=False)


@pytest.mark.parametrize("library", ["polars", "pyarrow", "Int64", "category", "object"])
def test_whole_numbers_that_float64_does_not_hold(library: str) -> None:
    """A missing value makes their column one of float64 in NumPy, in which 2⁵³ and 2⁵³ + 1 are one number."""
    codes: list[Any] = [2**53, 2**53 + 1, 2**60, 2**60 + 1]
    some: list[Any] = [*codes, None]

    def table(values: list[Any]) -> Any:
        if library in ("polars", "pyarrow"):
            made = pytest.importorskip(library)
            return made.DataFrame({"k": values}) if library == "polars" else made.table({"k": values})
        pandas = pytest.importorskip("pandas")
        kept = {"Int64": lambda: pandas.array(values, "Int64"), "category": lambda: pandas.Categorical(values, codes)}
        return pandas.DataFrame({"k": kept.get(library, lambda: pandas.Series(values, dtype=object))()})

    encoding = TableEncoding.fit(table(some), categories=["k"])
    assert encoding.categories == [tuple(codes)]
    assert encoding.transform(table(some)).tolist() == np.eye(5).tolist()
    whole = TableEncoding.fit(table(codes), categories=["k"])
    assert whole.transform(table(some)).tolist() == np.eye(5, 4).tolist()
    with pytest.raises(ValueError, match=r"column 'k' has codes of 2\*\*53 and more"):
        nnkit.Network([4, 2], preprocessing=whole).to_onnx()


@pytest.mark.parametrize("fitted", ["float16", "float32", "float64"])
@pytest.mark.parametrize("given", ["float16", "float32", "float64"])
def test_categories_that_are_decimal_numbers(fitted: str, given: str) -> None:
    values = [0.1, 0.25, 2.0, 0.7]
    encoding = TableEncoding.fit(pandas.DataFrame({"k": np.array(values, fitted)}), categories=["k"])
    assert encoding.categories == [tuple(sorted(values))]
    table = pandas.DataFrame({"k": np.array([*values, np.nan, 0.3], given)})
    order = np.argsort(np.argsort(values))
    expected = [*np.eye(4)[order].tolist(), [0.0] * 4, [0.0] * 4]
    assert encoding.transform(table).tolist() == expected
    if given != "float16":  # in float64, as a matrix of all columns has it
        assert encoding.transform(table.astype("float64")).tolist() == expected
        runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        net = nnkit.Network([4, 2], preprocessing=encoding, seed=0, dtype="float64")
        session = runtime.InferenceSession(net.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"])
        wide = table.astype("float64")
        (found,) = session.run(["probabilities"], {"k": wide.to_numpy()})
        np.testing.assert_allclose(found, net.predict_proba(wide), atol=1e-12)


def test_whole_codes_of_float32_are_exact() -> None:
    codes = [5.0, 2.0**27, 2.0**28]
    encoding = TableEncoding.fit(pandas.DataFrame({"k": np.array(codes, "float32")}), categories=["k"])
    assert encoding.categories == [tuple(map(int, codes))]
    assert encoding.transform(pandas.DataFrame({"k": np.array(codes, np.int64)})).tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("names", [["False", "True"], ["false", "true"], [False, True]])
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "objects", "categories"])
def test_truth_values_are_the_same_categories_beside_a_missing_one(names: list[Any], library: str) -> None:
    fitted = TableEncoding.fit(pandas.DataFrame({"x": pandas.Series([*names, None], dtype=object)}), categories=["x"])
    for values in ([False, True], [False, True, None], [None, True]):
        kinds = {"x": "truth or none"}
        if library == "categories":
            given = pandas.DataFrame({"x": pandas.Categorical(values)})
        else:
            given = objects({"x": values}) if library == "objects" else framed(kinds, {"x": values}, library)
        right = {False: [1, 0, 0], True: [0, 1, 0], None: [0, 0, 1]}
        if None not in values:
            assert fitted.transform(given).tolist() == [right[value] for value in values]
        assert fitted.transform(given)[-1].tolist() == right[values[-1]]
    assert fitted.output_names == [f"x {name}" for name in names] + ["x missing"]


def test_truth_values_that_two_texts_may_mean_are_refused() -> None:
    fitted = TableEncoding.fit(pandas.DataFrame({"x": ["TRUE", "true", "no"]}))
    with pytest.raises(ValueError, match=r"X has True in column 'x', where \['TRUE', 'true'\] differ; expected text"):
        fitted.transform(pandas.DataFrame({"x": [True, False]}))


def test_a_number_is_the_name_of_a_column_before_it_is_an_index() -> None:
    """As in files without a header, from which a column was dropped."""
    table = pandas.DataFrame({1: [10, 20, 10], 2: [0, 1, 2], 3: [0.5, 1.5, 2.5]})
    for categories, expected in (([1], [0]), ([2, 3], [1, 2]), ([0], [0]), ([0, 3], [0, 2])):
        fitted = TableEncoding.fit(table, categories=categories)
        assert [at for at, names in enumerate(fitted.categories) if names is not None] == expected
    with pytest.raises(ValueError, match="categories contains 4; expected names of columns of X"):
        TableEncoding.fit(table, categories=[4])
