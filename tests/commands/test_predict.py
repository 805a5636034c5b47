"""nnkit predict: what it writes is what the network says."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnkit
from nnkit.cli import main
from tests.support.cli_files import SPECIES, flowers, houses
from tests.test_failed_saves import nobody

for _package in ("safetensors", "matplotlib"):
    pytest.importorskip(_package, reason=f"{_package} is not installed")

# Of being measured with what a network was trained on, which is printed.
pytestmark = pytest.mark.filterwarnings("default:.*was trained on.*:UserWarning")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(file: str, target: str, *more: str) -> nnkit.Network:
    """The network that `nnkit train` makes of a file."""
    command = ["train", "--data", file, "--target", target, "--epochs", "5", "--quiet", "--no-picture"]
    assert main([*command, "--model", "net.safetensors", *more]) == 0
    return nnkit.load("net.safetensors")


def printed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    captured = capsys.readouterr()
    assert captured.err == ""
    return list(csv.reader(io.StringIO(captured.out)))


def test_classes_by_their_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = flowers(here / "flowers.csv")
    network = trained("flowers.csv", "species")
    assert main(["predict", "net.safetensors", "flowers.csv", "--target", "species"]) == 0
    header, *rows = printed(capsys)
    assert header == ["prediction"]
    assert [row[0] for row in rows] == network.predict(X).tolist()
    assert np.mean([row[0] for row in rows] == y) > 0.7
    Path("new.csv").write_text("\n".join(",".join(map(str, x)) for x in X.tolist()))  # neither header nor answers
    assert main(["predict", "net.safetensors", "new.csv"]) == 0
    assert printed(capsys)[1:] == rows


def test_the_name_of_a_target_may_be_longer_than_that_of_a_file(here: Path) -> None:
    target = "n" * 300
    Path("x.csv").write_text(f"a,b,{target}\n" + "1,2,0\n3,4,1\n" * 9)
    network = trained("x.csv", target)
    assert main(["predict", "net.safetensors", "x.csv", "--target", target, "--output", "out.csv"]) == 0
    expected = network.predict(np.array([[1, 2], [3, 4]] * 9)).tolist()
    assert Path("out.csv").read_text().split() == ["prediction", *map(str, expected)]


def test_probabilities(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, _ = flowers(here / "flowers.csv")
    network = trained("flowers.csv", "species")
    command = ["predict", "net.safetensors", "flowers.csv", "--target", "species", "--probabilities"]
    assert main(command) == 0
    header, *rows = printed(capsys)
    assert header == SPECIES
    assert np.array_equal(np.array(rows, np.float32), network.predict_proba(X))  # all digits are there
    assert main([*command, "--output", "shares.npy"]) == 0
    assert np.array_equal(np.load("shares.npy"), network.predict_proba(X))


def test_the_probabilities_of_a_single_output_are_two(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = nnkit.Network([3, 1], seed=0)
    network.save("one.safetensors")
    X = np.random.default_rng(0).normal(size=(5, 3))
    np.save("x.npy", X)
    assert main(["predict", "one.safetensors", "x.npy", "--probabilities"]) == 0
    header, *rows = printed(capsys)
    assert header == ["0", "1"]
    shares = np.array(rows, np.float64)
    assert np.allclose(shares.sum(axis=1), 1, rtol=0, atol=1e-6)
    assert np.array_equal(shares[:, 1].astype(np.float32), network.predict_proba(X)[:, 0])
    assert main(["predict", "one.safetensors", "x.npy"]) == 0
    assert [int(row[0]) for row in printed(capsys)[1:]] == (shares[:, 1] > 0.5).astype(int).tolist()


def test_numbers_of_a_regression(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, _ = houses(here / "houses.csv")
    network = trained("houses.csv", "price")
    assert main(["predict", "net.safetensors", "houses.csv", "--target", "price", "--output", "out.csv"]) == 0
    assert printed(capsys) == []
    header, *rows = csv.reader(io.StringIO(Path("out.csv").read_text()))
    assert header == ["prediction"]
    assert np.array_equal(np.array(rows, np.float32), network.forward(X))
    nnkit.Network([2, 2], cost="quadratic", seed=0).save("two.safetensors")
    assert main(["predict", "two.safetensors", "houses.csv", "--target", "price"]) == 0
    assert printed(capsys)[0] == ["prediction_0", "prediction_1"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("output", ["out.csv", "out.npy"])
def test_a_large_file_is_predicted_in_parts(here: Path, order: str, output: str) -> None:
    X = np.random.default_rng(3).normal(size=(9001, 4)).astype(np.float32)
    np.save("x.npy", X if order == "C" else np.asfortranarray(X))
    nnkit.Network([4, 3], seed=0, classes=["a", "b", "c"]).save("net.safetensors")
    assert main(["predict", "net.safetensors", "x.npy", "--output", output]) == 0
    found = np.load(output) if output == "out.npy" else np.array(Path(output).read_text().split()[1:])
    assert np.array_equal(found, nnkit.load("net.safetensors").predict(X))


def test_a_reader_that_exits_early_is_not_an_error(here: Path) -> None:
    np.save("x.npy", np.ones((100000, 2)))
    nnkit.Network([2, 3], seed=0).save("net.safetensors")
    command = [sys.executable, "-m", "nnkit", "predict", "net.safetensors", "x.npy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"prediction\n"
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 141


def test_rows_that_are_not_finite_are_named_and_no_file_is_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.ones((9001, 2))
    X[8500, 1] = np.nan
    np.save("x.npy", X)
    nnkit.Network([2, 3], seed=0).save("net.safetensors")
    assert main(["predict", "net.safetensors", "x.npy", "--output", "out.csv"]) == 2
    assert capsys.readouterr().err == "nnkit: error: x.npy: holds nan at [8500, 1]; expected finite numbers\n"
    assert sorted(path.name for path in here.iterdir()) == ["net.safetensors", "x.npy"]
    np.save("x.npy", X[8000:])
    assert main(["predict", "net.safetensors", "x.npy"]) == 2
    assert capsys.readouterr().out == ""  # not even a header


def test_large_whole_class_names_are_exact_in_an_array(here: Path) -> None:
    """Such as hashes; beyond int64, pairs of them are one number in float64."""
    names = np.array([5, 2**63 + 1, 2**63 + 2], np.uint64)
    net, X = nnkit.Network([2, 3], seed=0, classes=names), np.random.default_rng(0).normal(size=(50, 2))
    net.save("net.safetensors")
    np.save("x.npy", X)
    assert main(["predict", "net.safetensors", "x.npy", "--output", "out.npy"]) == 0
    assert np.load("out.npy").tolist() == np.asarray(net.predict(X)).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.safetensors", "x.npy"], "nothing.safetensors: no such file"),
        (["net.safetensors", "nothing.npy"], "nothing.npy: no such file"),
        (["net.safetensors", "nothing.csv"], "nothing.csv: no such file"),
        (["net.safetensors", "wide.npy"], "wide.npy has 3 features; net.safetensors expects 2; if one is the target"),
        (["net.safetensors", "x.txt"], "the suffix is '.txt'; expected .csv, .npz or .npy"),
        (["net.safetensors", "x.npy", "--output", "x.npy"], "x.npy is already another of this command's files"),
        (["net.safetensors", "x.npy", "--target", "y.npy", "--output", "y.npy"], "--output: y.npy is already another"),
        (["net.safetensors", "x.npy", "--output", "out.txt"], "out.txt ends in '.txt'; expected .csv or .npy"),
        (["net.safetensors", "x.npy", "--output", "no/out.csv"], "--output: the directory no does not exist"),
        (["net.safetensors", "x.npy", "--target", "7"], "no column 7"),
        (["real.safetensors", "x.npy", "--probabilities"], "a network with the cost quadratic has none"),
        (["hinge.safetensors", "x.npy", "--probabilities"], "a network with the cost hinge has none"),
        (["damaged.safetensors", "x.npy"], "damaged.safetensors: not a complete safetensors file"),
        (["net.safetensors", "damaged.npy"], "damaged.npy: not a complete .npy file of numbers"),
    ],
)
def test_wrong_arguments(here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, cost in (("net", "cross_entropy"), ("real", "quadratic"), ("hinge", "hinge")):
        nnkit.Network([2, 3], cost=cost, seed=0).save(f"{name}.safetensors")
    np.save("x.npy", np.ones((4, 2)))
    np.save("y.npy", np.arange(4))
    np.save("wide.npy", np.ones((4, 3)))
    Path("x.txt").write_text("1,2\n")
    Path("damaged.safetensors").write_bytes(Path("net.safetensors").read_bytes()[:100])
    Path("damaged.npy").write_bytes(Path("x.npy").read_bytes()[:140])
    before = {path: path.read_bytes() for path in here.iterdir()}
    assert main(["predict", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nnkit: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_columns_are_taken_by_their_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In another order they mean the same; one that is missing or that the network does not know is named."""
    X, y = flowers(here / "flowers.csv")
    options = ["--target", "species", "--epochs", "2", "--no-picture", "--quiet"]
    assert main(["train", "--data", "flowers.csv", *options]) == 0
    assert nnkit.load(here / "nnkit-model.safetensors").features == ["a", "b", "c", "d"]
    table = {"d": X[:, 3], "b": X[:, 1], "c": X[:, 2], "a": X[:, 0], "species": y}

    def write(name: str, columns: list[str]) -> None:
        with open(here / name, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(table[column] for column in columns), strict=True))

    write("mixed.csv", ["d", "b", "species", "c", "a"])
    write("short.csv", ["d", "b", "c"])
    capsys.readouterr()
    found = []
    for file in ("flowers.csv", "mixed.csv"):
        assert main(["predict", "nnkit-model.safetensors", file, "--target", "species"]) == 0
        found.append(capsys.readouterr().out)
        assert main(["evaluate", "nnkit-model.safetensors", file, "--target", "species", "--json"]) == 0
        found.append(str(json.loads(capsys.readouterr().out)["results"]))
    assert found[:2] == found[2:]
    assert main(["predict", "nnkit-model.safetensors", "short.csv"]) == 2
    assert "short.csv has no column 'a', which nnkit-model.safetensors needs" in capsys.readouterr().err
    table["species"] = table["a"]
    write("more.csv", ["d", "b", "c", "a", "species"])
    assert main(["predict", "nnkit-model.safetensors", "more.csv"]) == 2
    assert "nnkit-model.safetensors was not trained with column 'species'; if it is the" in capsys.readouterr().err


HOSTILE = ["=cmd|' /C calc'!A0", "\x1b[31mred\x07", "-1", "a\nb", "\u202egnp.exe"]


def test_a_header_of_numbers_is_recognized_by_the_networks_features(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Years as columns: without its target, the file's first line is all numbers, and was the first sample."""
    X = np.random.default_rng(0).normal(size=(40, 3)).round(3)
    kinds = np.where(X[:, 0] > 0, "grows", "falls")
    columns = {"2019": X[:, 0], "2020": X[:, 1], "2021": X[:, 2], "kind": kinds}

    def write(file: str, *names: str) -> None:
        rows = zip(*(columns[name] for name in names), strict=True)
        Path(file).write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]))

    write("years.csv", "2019", "2020", "2021", "kind")
    expected = trained("years.csv", "kind").predict(X).tolist()
    write("new.csv", "2019", "2020", "2021")
    write("reordered.csv", "2021", "2019", "2020")
    for file in ("new.csv", "reordered.csv"):
        assert main(["predict", "net.safetensors", file]) == 0
        assert [row for [row] in printed(capsys)[1:]] == expected
    columns["2022"] = (kinds == "grows").astype(int)
    write("houses.csv", "2022", "2021", "2020", "2019")
    network = trained("years.csv", "kind")
    network.classes = None
    network.save("numbers.safetensors")
    assert main(["evaluate", "numbers.safetensors", "houses.csv", "--target", "2022", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results == pytest.approx(network.evaluate(X, columns["2022"]))


def test_a_first_line_with_some_of_the_names_is_asked_about(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A header without a column would be the first sample; a sample would be a header."""
    X = np.random.default_rng(0).normal(size=(40, 3)).round(3)
    rows = [",".join(map(str, row)) for row in X]
    labels = ["up" if x > 0 else "down" for x in X[:, 0]]
    Path("named.csv").write_text("\n".join(["2019,2020,2021,kind", *map(",".join, zip(rows, labels, strict=True))]))
    expected = trained("named.csv", "kind").predict(X).tolist()
    Path("new.csv").write_text("\n".join(["2020,2018,2019", *rows]))
    for command in (
        ["predict", "net.safetensors", "new.csv"],
        ["evaluate", "net.safetensors", "new.csv", "--target", "2018"],
    ):
        capsys.readouterr()
        assert main(command) == 2
        message = "new.csv, line 1: the network has a column '2019', as here, but also '2021': if this is a header, "
        assert message in capsys.readouterr().err
    # A header has no name twice, and a sample with none of the names is one.
    for first in ("2019,2019,2020", "1,2,3"):
        Path("new.csv").write_text("\n".join([first, *rows]))
        assert main(["predict", "net.safetensors", "new.csv"]) == 0
        assert [row for [row] in printed(capsys)[2:]] == expected


def test_numbers_from_0_are_asked_about_in_any_order(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As names by pandas, or as a sample: which of the two cannot be seen."""
    X = np.random.default_rng(0).normal(size=(40, 3)).round(3)
    rows = [",".join(map(str, row)) for row in X]
    labels = ["up" if x > 0 else "down" for x in X[:, 0]]
    Path("named.csv").write_text("\n".join(["0,1,2,kind", *map(",".join, zip(rows, labels, strict=True))]))
    trained("named.csv", "kind")
    capsys.readouterr()
    for names in ("0,1,2", "2,0,1"):
        Path("new.csv").write_text("\n".join([names, *rows]))
        assert main(["predict", "net.safetensors", "new.csv"]) == 2
        assert "if this is a header of column numbers" in capsys.readouterr().err
    Path("new.csv").write_text("\n".join(rows))
    assert main(["predict", "net.safetensors", "new.csv"]) == 0
    assert len(printed(capsys)) == 41


@pytest.mark.filterwarnings("default")
def test_names_are_escaped_only_on_terminals(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed name would be another class; a spreadsheet's formula gets a warning instead."""
    X = np.eye(5)
    net = nnkit.Network([nnkit.Dense(5, 5)], cost="softmax_cross_entropy", seed=0, classes=HOSTILE)
    net.parameters.W[0][...], net.parameters.b[0][...] = 9 * np.eye(5), 0
    net.save("net.safetensors")
    np.save("x.npy", X)
    assert main(["predict", "net.safetensors", "x.npy", "--output", "out.csv"]) == 0
    assert list(csv.reader(io.StringIO((here / "out.csv").read_text("utf-8")))) == [
        ["prediction"],
        *([n] for n in HOSTILE),
    ]
    error = capsys.readouterr().err
    assert error.startswith(
        "nnkit: warning: classes holds \"=cmd|' /C calc'!A0\", which a spreadsheet treats as a formula"
    )
    assert error.count("\n") == 1
    assert main(["predict", "net.safetensors", "x.npy", "--output", "-"]) == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:] == [[n] for n in HOSTILE]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["predict", "net.safetensors", "x.npy"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["\\x1b[31mred\\x07", "-1", "a\\nb", "\\u202egnp.exe"]
    # Predictions are labels again: all of them right.
    with open("back.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*"abcde", "species"])
        writer.writerows([*row, name] for row, name in zip(X.tolist(), HOSTILE, strict=True))
    assert main(["evaluate", "net.safetensors", "back.csv", "--target", "species", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["accuracy"] == 1


def test_names_that_look_like_formulas_are_escaped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nnkit.Network([2, 2], seed=0, classes=["-1", "+1"]).save("net.safetensors")
    np.save("x.npy", np.ones((1, 2)))
    assert main(["predict", "net.safetensors", "x.npy"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("net.safetensors nope.csv", "nope.csv: no such file"),
        ("net.safetensors .", ". is a directory; expected a file"),
        ("nope x.npy", "nope: no such file"),
        (". x.npy", ". is a directory; expected a file"),
        ("x.npy x.npy", "x.npy: not a complete safetensors file"),
        ("net.safetensors net.safetensors", "the suffix is '.safetensors'; expected .csv, .npz or .npy"),
        ("net.safetensors broken.npy", "broken.npy: not a complete .npy file"),
        ("net.safetensors pipe.npy", "pipe.npy is a device or a pipe; expected a file"),
        ("pipe.npy x.npy", "pipe.npy is a device or a pipe; expected a file"),
        ("net.safetensors x.npy/x.npy", "x.npy/x.npy: no such file"),
        ("net.safetensors x.npy --output out.txt", "out.txt ends in '.txt'; expected .csv or .npy"),
        ("net.safetensors x.npy --output .", "--output: . is a directory; expected a file"),
        ("net.safetensors x.npy --output nowhere/out.csv", "--output: the directory nowhere does not exist"),
        ("net.safetensors x.npy --output x.npy", "x.npy is already another of this command's files"),
        (f"net.safetensors x.npy --output {'n' * 256}.csv", "File name too long"),
        ("net.safetensors \x1b[2J.csv", "\\x1b[2J.csv: no such file"),
    ],
)
def test_invalid_files_cannot_be_predicted(
    here: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nnkit.Network([2, 2], seed=0).save("net.safetensors")
    np.save("x.npy", np.ones((3, 2)))
    (here / "broken.npy").write_bytes(b"\x93NUMPY\x01")
    os.mkfifo(here / "pipe.npy")
    assert main(["predict", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nnkit: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_writing_to_other_than_files(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nnkit.Network([2, 2], seed=0).save("net.safetensors")
    np.save("x.npy", np.ones((3, 2)))
    assert main(["predict", "net.safetensors", "x.npy"]) == 0
    printed = capfd.readouterr().out
    (here / "link.npy").symlink_to("target.npy")
    for output in ("-", "/dev/stdout"):
        assert main(["predict", "net.safetensors", "x.npy", "--output", output]) == 0
        assert capfd.readouterr().out == printed
    assert main(["predict", "net.safetensors", "x.npy", "--output", "link.npy"]) == 0
    assert np.load("target.npy").tolist() == [int(line) for line in printed.splitlines()[1:]]
    assert (here / "link.npy").is_symlink()


def test_names_that_are_not_utf8(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = os.fsdecode(b"folder-\xff")
    os.mkdir(folder)
    nnkit.Network([2, 2], seed=0).save(f"{folder}/net.safetensors")
    np.save(f"{folder}/x.npy", np.ones((3, 2)))
    files = [f"{folder}/net.safetensors", f"{folder}/x.npy"]
    assert main(["predict", *files, "--output", f"{folder}/out.csv"]) == 0
    assert os.path.exists(f"{folder}/out.csv")
    assert main(["predict", f"{folder}/nope", files[1]]) == 2
    assert capsys.readouterr().err == "nnkit: error: folder-\\udcff/nope: no such file\n"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become somebody else")
def test_unreadable_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nnkit.Network([2, 2], seed=0).save("net.safetensors")
    np.save("x.npy", np.ones((3, 2)))
    with nobody(here / "x.npy"):
        for file in ("x.npy", "net.safetensors"):
            os.seteuid(0)
            os.chmod(file, 0)
            os.seteuid(65534)
            assert main(["predict", "net.safetensors", "x.npy"]) == 2
            assert capsys.readouterr().err == f"nnkit: error: {file} is not readable\n"


def far(path: Path, count: int, at: int) -> None:
    """A CSV file of two blank lines, a header and samples, one of which no network of small numbers can take."""
    rows = [f"{1e-30 * (i % 7):g},{i % 5},{'ab'[i % 2]}" for i in range(count)]
    if at >= 0:
        rows[at] = "1e10,3,a"
    path.write_text("\n".join(["", "", "x,z,kind", *rows]) + "\n")


@pytest.mark.parametrize("more", [[], ["--early-stopping", "3"]])
def test_a_sample_that_a_network_cannot_take_is_named_by_its_line(
    here: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is: in the part to train on, to validate or to test with, in a later part of a file to predict."""
    far(here / "near.csv", 60, -1)
    train = ["train", "--target", "kind", "--epochs", "1", "--no-picture", "--quiet", "--hidden", "3", *more]
    assert main([*train, "--data", "near.csv"]) == 0
    far(here / "far.csv", 9000, 8800)
    capsys.readouterr()
    expected = "nnkit: error: far.csv, line 8804: the normalization of this sample holds inf; expected finite numbers"
    model = ["nnkit-model.safetensors", "far.csv", "--target", "kind"]
    assert main(["evaluate", *model]) == 2
    assert capsys.readouterr().err.startswith(expected)
    assert main(["predict", *model, "--output", "out.csv"]) == 2
    assert capsys.readouterr().err.startswith(expected)
    assert not Path("out.csv").exists()
    told = set()
    for at in range(0, 60, 4):
        far(here / "far.csv", 60, at)
        code = main([*train, "--data", "far.csv", "--no-model"])
        error = capsys.readouterr().err
        told.add(code)
        assert code == 0 or error.startswith(f"nnkit: error: far.csv, line {at + 4}: the normalization of this sample")
    assert told == {0, 2}  # normalization adapts to what is in the part to train on


def test_a_target_that_a_cost_cannot_take_is_named_by_its_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i % 3},{i % 2 / 2}" for i in range(40)]
    rows[7] = "1,3.5"
    Path("shares.csv").write_text("\n".join(["x,share", *rows]))
    command = ["train", "--data", "shares.csv", "--target", "share", "--cost", "cross_entropy", "--quiet"]
    for seed in range(4):
        assert main([*command, "--seed", str(seed)]) == 2
        assert capsys.readouterr().err == (
            "nnkit: error: shares.csv, line 9: y holds 3.5; expected targets in [0, 1] for cross_entropy; "
            "for real-valued targets, give the network --cost quadratic\n"
        )
