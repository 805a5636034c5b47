"""Files with text, categories and empty cells on the command line, against pandas and a network trained by hand."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.cli import main
from nnkit.data import mixed_files

pandas = pytest.importorskip("pandas")
encoders = pytest.importorskip("sklearn.preprocessing")
for _package in ("safetensors", "matplotlib"):
    pytest.importorskip(_package, reason=f"{_package} is not installed")

pytestmark = pytest.mark.filterwarnings("default:.*was trained on.*:UserWarning")
TRAIN = ["--epochs", "5", "--quiet", "--no-picture", "--model", "net.safetensors"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["csv", "parquet"])
def files(request: pytest.FixtureRequest) -> tuple[str, str, Any]:
    """A file with targets, one without, and its table as pandas reads it."""
    rng = np.random.default_rng(0)
    n = 60
    kind, size = rng.choice(["x", "y, z", "n"], n), rng.normal(size=n).round(3)
    table = pandas.DataFrame({
        "who": [f"{i // 2:03d}" + " " * (i % 2) for i in range(n)],
        "size": np.where(np.arange(n) % 7 == 0, np.nan, size),
        "kind": [None if i % 11 == 0 else str(kind[i]) for i in range(n)], "member": rng.uniform(size=n) < 0.5,
        "code": rng.choice([10, 20], n), "label": np.where(kind == "x", "yes", "no"),
    })  # fmt: skip
    names = [f"all.{request.param}", f"new.{request.param}"]
    for name, part in zip(names, (table, table.drop(columns="label").iloc[::-1]), strict=True):
        if request.param == "csv":
            part.to_csv(name, index=False)
        else:
            pytest.importorskip("pyarrow")
            part.to_parquet(name)
    return *names, table


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert main(["predict", "net.safetensors", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return list(csv.reader(io.StringIO(captured.out)))


def test_a_mixed_file_is_encoded_and_its_ids_carried_through(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    known, new, table = files
    options = ["--target", "label", "--id", "who", "--categories", "code"]
    assert main(["train", "--data", known, *options, *TRAIN]) == 0
    net = nnkit.load("net.safetensors")
    X = table[["size", "kind", "member", "code"]]
    assert net.features == list(X)
    encoding = net.preprocessing
    assert isinstance(encoding, nnkit.data.TableEncoding)
    found = [None if names is None else list(names) for names in encoding.categories]
    assert found == [None, ["n", "x", "y, z"], None, [10, 20]]
    header, *rows = predicted(capsys, new, "--id", "who", "--probabilities")
    assert header == ["who", "no", "yes"]
    assert [row[0] for row in rows] == table["who"].tolist()[::-1]
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float), net.predict_proba(X.iloc[::-1]), rtol=1e-6)
    other = pandas.DataFrame({"kind": ["new"], "code": [10], "size": [None], "member": [True], "who": ["a"]})
    other.to_csv("other.csv", index=False)
    assert len(predicted(capsys, "other.csv", "--id", "who")) == 2  # an unknown category is no error
    assert main(["evaluate", "net.safetensors", known, "--target", "label", "--id", "who", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results["accuracy"] == pytest.approx(net.evaluate(X, table["label"])["accuracy"])


@pytest.mark.parametrize("name", [None, "who"])
def test_the_index_of_a_data_frame_is_not_a_feature(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """pandas writes one that is not the number of the row as a column, and reads it as the index."""
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"a": rng.normal(size=40), "b": rng.normal(size=40), "y": np.repeat(["n", "p"], 20)})
    table.index = pandas.Index([f"{i:02d}" for i in range(40)] if name else np.arange(40), name=name)
    table = table.sample(frac=1, random_state=0)
    table.to_parquet("all.parquet")
    table.drop(columns="y").to_parquet("new.parquet")
    options = ["--target", "-1", "--epochs", "1", "--no-picture", "--model", "net.safetensors"]
    assert main(["train", "--data", "all.parquet", *options]) == 0
    capsys.readouterr()
    net = nnkit.load("net.safetensors")
    assert (net.features, net.classes.tolist()) == (["a", "b"], ["n", "p"])  # type: ignore[union-attr]
    rows = predicted(capsys, "new.parquet", *(["--id", name] if name else []))
    place = rows[0].index("prediction")
    assert [row[place] for row in rows[1:]] == net.predict(table[["a", "b"]]).tolist()
    assert name is None or [row[0] for row in rows] == ["who", *table.index]


@pytest.mark.parametrize("trained", ["train.csv", "gaps.csv", "train.parquet"])
def test_codes_are_compared_as_the_numbers_that_pandas_reads(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    zips = rng.choice([1067, 10115, 53111], 60)
    table = pandas.DataFrame(
        {"zip": zips, "y": np.array(["Dresden", "Berlin", "Bonn"])[np.argsort(zips.argsort()) % 3]}
    )
    table.to_csv("train.csv", index=False)
    table.to_parquet("train.parquet")
    gaps = table.astype({"zip": float})
    gaps.loc[0, "zip"] = np.nan
    gaps.to_csv("gaps.csv", index=False)
    assert "10115.0" in Path("gaps.csv").read_text()
    gaps.to_parquet("gaps.parquet")
    table.astype({"zip": str}).to_parquet("text.parquet")
    spelled = {1067: "01067", 10115: "1.0115e4", 53111: "+53111"}
    table.assign(zip=table["zip"].map(spelled)).to_csv("spelled.csv", index=False)
    assert main(["train", "--data", trained, "--target", "y", "--categories", "zip", *TRAIN]) == 0
    net = nnkit.load("net.safetensors")
    assert isinstance(net.preprocessing, nnkit.data.TableEncoding)
    assert net.preprocessing.categories == [(1067, 10115, 53111)]
    reference = encoders.OneHotEncoder(sparse_output=False).fit(table[["zip"]])
    for name in ("train.csv", "gaps.csv", "spelled.csv", "train.parquet", "gaps.parquet", "text.parquet"):
        read = pandas.read_csv if name.endswith("csv") else pandas.read_parquet
        numbers = read(name)[["zip"]].astype(float)
        expected = reference.set_params(handle_unknown="ignore").transform(numbers)
        assert expected.sum() == (59 if name.startswith("gaps") else 60)
        X = mixed_files.read_mixed(Path(name), mixed_files.Wanted("y", encoding=net.preprocessing)).table.X
        np.testing.assert_array_equal(net.preprocessing.transform(X)[:, :3], expected)
        assert main(["evaluate", "net.safetensors", name, "--target", "y", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["results"]["accuracy"]
        assert found == pytest.approx(net.evaluate(numbers, table["y"])["accuracy"])
    Path("bad.csv").write_text("zip,y\n10115,Berlin\nA1,Bonn\n")
    assert main(["evaluate", "net.safetensors", "bad.csv", "--target", "y"]) == 2
    assert "bad.csv, line 3, column 'zip': 'A1' is not a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ("01067 10115 01067.0", (1067, 10115)),
        ("01067 1067", ("01067", "1067")),
        ("00 0", ("0", "00")),
        (".5 0.50 NA 2", (0.5, 2)),
        ("A1 7 07", ("07", "7", "A1")),
        ("9007199254740992 9007199254740993", ("9007199254740992", "9007199254740993")),
        ("inf 1", ("1", "inf")),
    ],
)
def test_codes_that_numbers_would_confuse_stay_text(cells: str, names: Any) -> None:
    Path("f.csv").write_text("".join(f"{cell},1\n" for cell in ["zip", *cells.split()]).replace("zip,1", "zip,y"))
    X = mixed_files.read_mixed(Path("f.csv"), mixed_files.Wanted("y", categories=["zip"])).table.X
    assert nnkit.data.TableEncoding.fit(X, categories=["zip"]).categories == [names]


@pytest.mark.parametrize(
    ("fitted", "cells", "expected"),
    [
        (["10115", "53111"], ["10115.0", "NA", "+53111"], [[1, 0], [0, 0], [0, 1]]),
        (["007", "7"], ["7", "007", "7.0"], [[0, 1], [1, 0], [0, 0]]),
        (["7", "A"], ["A", "7", "B"], [[0, 1], [1, 0], [0, 0]]),
        (["01", "02"], ["1", "1A", "2.0", "NA", "01", "inf"], [[1, 0], [0, 0], [0, 1], [0, 0], [1, 0], [0, 0]]),
        (["1", "1.0"], ["1.0", "1", "x"], [[0, 1], [1, 0], [0, 0]]),
        ([2**60, 2**60 + 1], [str(2**60 + 1), str(2**60), "1"], [[0, 1], [1, 0], [0, 0]]),
    ],
)
def test_a_file_for_an_encoding_of_a_table(fitted: Any, cells: list[str], expected: Any) -> None:
    """The categories of a row do not depend on the other rows."""
    encoding = nnkit.data.TableEncoding.fit(pandas.DataFrame({"zip": fitted}), categories=["zip"])

    def encoded(cells: list[str]) -> Any:
        Path("f.csv").write_text("\n".join(["zip,y", *(f"{cell},1" for cell in cells)]))
        X = mixed_files.read_mixed(Path("f.csv"), mixed_files.Wanted("y", encoding=encoding)).table.X
        return encoding.transform(X).tolist()

    assert encoded(cells) == expected
    assert [row for cell in cells for row in encoded([cell])] == expected


def test_categories_without_a_header_are_named_by_the_number_of_their_column(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [f"{i % 2},{i % 7},{['1', '2', '1A', '2'][i % 4]}" for i in range(40)]
    Path("f.csv").write_text("\n".join(rows))
    arguments = ["train", "--data", "f.csv", "--target", "0", *TRAIN]
    assert main(arguments) == 2
    hint = capsys.readouterr().err.partition("give ")[2].split()
    assert hint == ["--categories", "2"]
    assert main([*arguments, *hint]) == 0
    encoding = nnkit.load("net.safetensors").preprocessing
    assert isinstance(encoding, nnkit.data.TableEncoding)
    assert encoding.categories == [None, ("1", "1A", "2")]
    assert main(["predict", "net.safetensors", "f.csv", "--target", "0", "--output", "out.csv"]) == 0
    assert main([*arguments, "--categories", "2", "3"]) == 2
    assert "no column '3'; there are 0, 1, 2" in capsys.readouterr().err


@pytest.mark.parametrize("trained", ["text.csv", "quoted.csv", "text.parquet"])
def test_outer_spaces_of_categories_do_not_count(here: Path, trained: str) -> None:
    """Cells of CSV files have none, as in " Private" of UCI's adult; those of pandas and Parquet files may."""
    pytest.importorskip("pyarrow")
    kinds = np.tile([" Bonn", "Köln ", "A", "A b"], 20)
    table = pandas.DataFrame({"kind": kinds, "size": np.linspace(-1, 1, 80), "y": np.char.strip(kinds)})
    table.to_csv("text.csv", index=False)
    table.to_csv("quoted.csv", index=False, quoting=csv.QUOTE_ALL)
    table.to_parquet("text.parquet")
    options = ["--target", "y", "--epochs", "60", "--learning-rate", "0.05", "--quiet", "--no-picture", "--seed", "0"]
    assert main(["train", "--data", trained, *options]) == 0
    net = nnkit.load("nnkit-model.safetensors")
    assert isinstance(net.preprocessing, nnkit.data.TableEncoding)
    assert net.preprocessing.categories[0] == ("A", "A b", "Bonn", "Köln")
    for file in ("text.csv", "quoted.csv"):
        assert net.score(pandas.read_csv(file)[["kind", "size"]], np.char.strip(kinds)) == 1.0
    assert net.score(pandas.read_parquet("text.parquet")[["kind", "size"]], np.char.strip(kinds)) == 1.0


def test_a_network_for_true_and_false_reads_its_own_file(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i % 7},{i % 2 == 0},{'yes' if i % 2 else 'no'}" for i in range(40)]
    Path("all.csv").write_text("\n".join(["size,member,y", *rows]) + "\n")
    assert main(["train", "--data", "all.csv", "--target", "y", *TRAIN]) == 0
    assert main(["evaluate", "net.safetensors", "all.csv", "--target", "y"]) == 0
    capsys.readouterr()
    assert len(predicted(capsys, "all.csv", "--target", "y")) == 41
    Path("bad.csv").write_text("size,member\n1,perhaps\n")
    assert main(["predict", "net.safetensors", "bad.csv"]) == 2
    assert "line 2, column 'member': 'perhaps' is not a number" in capsys.readouterr().err


def test_the_preset(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    known, _, table = files
    command = [
        "train",
        "--data",
        known,
        "--target",
        "size",
        "--id",
        "who",
        "--preset",
        "tabular",
        "--json",
        "--no-picture",
    ]
    pandas_written = table[table["size"].notna()]
    write = pandas_written.to_csv if known.endswith("csv") else pandas_written.to_parquet
    write(known, index=False)
    assert main([*command, "--hidden", "8", "8", "--epochs", "3", "--model", "net.safetensors"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert "scaling" in about["network"]
    assert about["network"].count("8 mish") == 2
    assert (about["settings"]["schedule"], about["settings"]["batch_size"]) == ("coslog", 256)
    assert about["settings"]["optimizer"]["beta2"] == 0.95
    assert set(about["samples"]) == {"training", "validation", "test"}
    assert about["samples"]["validation"] > 0
    net = nnkit.load("net.safetensors")
    assert net.target_scaling is not None
    assert net.dense[0].rate == pytest.approx(net.dense[0].inputs ** -0.5)


def test_targets_are_scaled_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.linspace(0, 1, 40)
    pandas.DataFrame({"x": x, "y": 1e6 + 1e5 * x}).to_csv("big.csv", index=False)
    options = ["--epochs", "200", "--hidden", "8", "--json", "--no-picture", "--no-model"]
    assert main(["train", "--data", "big.csv", "--target", "y", "--scale-targets", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["runs"][0]["results"]["r2"] > 0.8


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b,y\n1,x,0\n2,3,1\n,x,0\n", [], "line 2, column 'b': 'x' is not a number; if this column contains "
         "categories, give --categories b"),
        ("a,b,y\n1,x,0\n2,z,1\n", ["--categories", "c"], "--categories: no column 'c'; there are a, b, y"),
        ("a,b,y\n1,x,0\n2,inf,1\n", ["--id", "b", "--categories", "a"], None),
        ("a,b,y\n1,x,0\ninf,z,1\n1,x,1\n", [], "line 3, column 'a': 'inf' is not finite"),
        ("a,b,y\n1,x,0\n2,z,\n", [], "line 3, column 'y': no value"),
        ("a,b,y\n1,x,0\n2,z,NULL\n", [], "line 3, column 'y': 'NULL' means no value"),
        ("a,b,y\n1,x,0\n2,z\n", [], "line 3: 2 cells; expected 3"),
        ("a,b,y\n1,x,0\n2,z,1\n", ["--id", "w"], "unknown column 'w'; known: a, b, y"),
        ("a,b,y\n1,,0\n2,3,1\n1,3,1\n", ["--preprocessing", "whitening"], "--preprocessing whitening is for numbers"),
    ],
)  # fmt: skip
def test_what_is_refused_says_where(
    text: str, options: list[str], message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("f.csv").write_text(text)
    code = main(["train", "--data", "f.csv", "--target", "y", "--test-fraction", "0.5", *options, *TRAIN])
    err = capsys.readouterr().err
    assert (code == 0) if message is None else (code == 2 and message in err)


def test_ids_need_a_file_with_columns(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.eye(4))
    Path("y.parquet").write_bytes(b"PAR1")
    for options, message in (
        (["--data", "x.npy", "--target", "0", "--id", "1"], "x.npy: --id is for .csv and .parquet files"),
        (["--id", "1"], "--id is for files"),
        (["--data", "y.parquet", "--target", "y"], "y.parquet: not a complete Parquet file"),
        (["--preset", "tabular", "--init", "zeros"], "--init has no effect with --preset"),
    ):
        assert main(["train", *options, *TRAIN]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--categories", "member"]])
@pytest.mark.parametrize("trained", ["polars.csv", "pandas.csv", "all.parquet"])
def test_truth_values_are_the_same_in_files_of_any_kind(
    trained: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """polars writes true and false into CSV files, pandas True and False; Parquet files have truth values."""
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"x": rng.normal(size=60), "member": rng.uniform(size=60) < 0.5})
    table["y"] = np.where(table["member"], "yes", "no")
    table.to_csv("pandas.csv", index=False)
    table.assign(member=table["member"].astype(str).str.lower()).to_csv("polars.csv", index=False)
    table.to_parquet("all.parquet")
    more = ["--learning-rate", "0.5", "--epochs", "30"]
    assert main(["train", "--data", trained, "--target", "y", *TRAIN, *more, *options]) == 0
    for file in ("polars.csv", "pandas.csv", "all.parquet"):
        assert predicted(capsys, file, "--target", "y")[1:] == [[label] for label in table["y"]]


def test_large_codes_beside_a_missing_one_in_a_parquet_file_are_exact() -> None:
    """float64, which pandas and NumPy use where a number is missing, cannot tell them apart."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    codes = [1_400_000_000_000_000_000 + i % 4 for i in range(40)]
    table = pyarrow.table({"code": pyarrow.array([None, *codes[1:]], pyarrow.int64()), "y": ["odd", "even"] * 20})
    parquet.write_table(table, "codes.parquet")
    assert main(["train", "--data", "codes.parquet", "--target", "y", "--categories", "code", *TRAIN]) == 0
    encoding: Any = nnkit.load("net.safetensors").preprocessing
    assert encoding.output_names == [f"code {code}" for code in sorted(set(codes))] + ["code missing"]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("identity", ["north\r1", 'a "b"', "x,y", "two\nlines", " a ", "ü"])
def test_ids_are_read_back_as_they_are(identity: str, binary: bool) -> None:
    pytest.importorskip("pyarrow")
    nnkit.Network([1, 1], cost="quadratic", seed=0, features=["x"]).save("net.safetensors")
    ids = [name.encode() if binary else name for name in ("plain", identity)]
    pandas.DataFrame({"who": ids, "x": [1.0, 2.0]}).to_parquet("new.parquet")
    assert main(["predict", "net.safetensors", "new.parquet", "--id", "who", "--output", "out.csv"]) == 0
    with open("out.csv", encoding="utf-8", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["who", "plain", identity]
