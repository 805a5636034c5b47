"""nnkit evaluate: its numbers against those computed by hand from the network's outputs."""

import json
from pathlib import Path

import numpy as np
import pytest

import nnkit
from nnkit import checkpoint
from nnkit.cli import main
from tests.support.cli_files import SPECIES, flowers, houses

for _package in ("safetensors", "matplotlib"):
    pytest.importorskip(_package, reason=f"{_package} is not installed")

pytestmark = pytest.mark.filterwarnings("default:.*was trained on.*:UserWarning")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    """The results that --json gives; they are also those of the text."""
    assert main(["evaluate", *arguments, "--json"]) == 0
    results: dict[str, float] = json.loads(capsys.readouterr().out)["results"]
    assert main(["evaluate", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line.rsplit(maxsplit=1) for line in lines[2 : 2 + len(results)]]
    names = {"R²": "r2", "RMSE": "rmse", "MAE": "mae"}
    told_by_name = {names.get(name.strip(), name.strip().replace(" ", "_")): float(value) for name, value in told}
    assert told_by_name == pytest.approx(results, abs=6e-5)
    return results


def test_a_file_with_classes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = flowers(here / "flowers.csv")
    assert main(["train", "--data", "flowers.csv", "--target", "species", "--epochs", "3", "--quiet"]) == 0
    arguments = ["nnkit-model.safetensors", "flowers.csv", "--target", "species", "--metrics", "top_2"]
    results = measured(capsys, *arguments, "--confusion", "confusion.svg")
    p = np.asarray(nnkit.load("nnkit-model.safetensors").forward(X), np.float64)
    codes = np.searchsorted(SPECIES, y)
    assert results["cost"] == pytest.approx(-np.mean(np.log(p[np.arange(len(y)), codes])), rel=1e-5)
    assert results["accuracy"] == np.mean(p.argmax(axis=1) == codes)
    assert results["top_2"] == np.mean([code in row.argsort()[-2:] for code, row in zip(codes, p, strict=True)])
    assert Path("confusion.svg").read_text().startswith("<?xml")


def test_a_file_with_real_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = houses(here / "houses.csv")
    assert main(["train", "--data", "houses.csv", "--target", "price", "--epochs", "3", "--quiet"]) == 0
    results = measured(capsys, "nnkit-model.safetensors", "houses.csv", "--target", "price", "--metrics", "mae")
    error = np.asarray(nnkit.load("nnkit-model.safetensors").forward(X), np.float64)[:, 0] - y
    rmse, r2 = np.sqrt(np.mean(error**2)), 1 - np.mean(error**2) / np.var(y)
    assert results == pytest.approx({"cost": rmse**2 / 2, "r2": r2, "rmse": rmse, "mae": np.mean(abs(error))}, rel=1e-5)


@pytest.mark.parametrize("named", [["digits"], ["--data", "digits"]])
def test_digits_are_evaluated_on_the_test_part(named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--epochs", "1", "--seed", "3", "--test-fraction", "0.1", "--no-picture", "--json"]
    assert main(command) == 0
    trained = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert main(["evaluate", "nnkit-model.safetensors", *named, "--test-fraction", "0.1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["results"] == trained
    assert report["data"] == "test part of digits by seed 3"
    assert report["samples"] == 180


def test_mnist_is_evaluated_on_its_test_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = np.random.default_rng(2).integers(0, 256, (20, 784)).astype(np.uint8), np.arange(20) % 10
    monkeypatch.setattr(nnkit.data, "mnist", lambda *_, **__: nnkit.data.MNIST(X[:15], y[:15], X[15:], y[15:]))
    network = nnkit.Network([784, 10], seed=0, preprocessing=nnkit.data.Normalization.pixels(784))
    network.save("net.safetensors")
    assert main(["evaluate", "net.safetensors", "--data", "mnist", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["samples"], report["results"]) == (5, network.evaluate(X[15:], y[15:]))


def test_labels_that_are_whole_numbers_of_a_float_type(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.random.default_rng(4).normal(size=(20, 2))
    np.savez("data.npz", X=X, y=(X[:, 0] > 0) * 2.0 + 1)
    arguments = ["--data", "data.npz", "--target", "y", "--cost", "cross_entropy", "--quiet", "--no-picture"]
    assert main(["train", *arguments]) == 0
    results = measured(capsys, "nnkit-model.safetensors", "data.npz", "--target", "y", "--confusion", "confusion.png")
    found = nnkit.load("nnkit-model.safetensors").predict(X)
    assert set(found.tolist()) == {1, 3}
    assert results["accuracy"] == np.mean(found == (X[:, 0] > 0) * 2 + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either FILE or --data"),
        (["flowers.csv", "--data", "digits"], "give either FILE or --data"),
        (["flowers.csv"], "flowers.csv: --target must name the labels or targets"),
        (["flowers.csv", "--target", "specie"], "unknown column 'specie'; did you mean 'species'?"),
        (["houses.csv", "--target", "price"], "houses.csv has 2 features; net.safetensors expects 4"),
        (["digits"], "test part of digits by seed 0 has 64 features; net.safetensors expects 4"),
        (
            ["other.csv", "--target", "species"],
            "other.csv, line 3: y holds 'rose'; expected 'iris setosa', 'iris, versicolor', ",
        ),
        (
            ["flowers.csv", "--target", "species", "--metrics", "top_4"],
            "--metrics top_4: expected top_1 or more, below the number of outputs, 3",
        ),
        (["flowers.csv", "--target", "species", "--confusion", "c.jpg"], "--confusion is 'c.jpg'; expected a name"),
        (["flowers.csv", "--target", "species", "--confusion", "no/c.png"], "--confusion: the directory no does not"),
        (["flowers.csv", "--target", "species", "--data-dir", "x"], "--data-dir is for --data mnist"),
        (
            ["flowers.csv", "--target", "species", "--test-fraction", "0.1"],
            "--test-fraction is for digits, not for flo",
        ),
        (["digits", "--target", "species"], "--target is for files; digits has its labels"),
    ],
)
def test_wrong_arguments(here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    flowers(here / "flowers.csv")
    houses(here / "houses.csv")
    Path("other.csv").write_text("a,b,c,d,species\n1,2,3,4,virginica\n1,2,3,4,rose\n")
    nnkit.Network([4, 3], seed=0, classes=SPECIES).save("net.safetensors")
    before = sorted(here.iterdir())
    assert main(["evaluate", "net.safetensors", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nnkit: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(here.iterdir()) == before


def test_a_confusion_needs_classes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    houses(here / "houses.csv")
    nnkit.Network([2, 1], cost="quadratic", seed=0).save("net.safetensors")
    command = ["evaluate", "net.safetensors", "houses.csv", "--target", "price", "--confusion", "c.png"]
    assert main(command) == 2
    assert capsys.readouterr().err == "nnkit: error: --confusion requires labels and a network that classifies\n"


def test_classes_of_a_part_are_read_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, part, model = tmp_path / "a.csv", tmp_path / "b.csv", str(tmp_path / "net.safetensors")
    for names in (["1", "2", "3a"], ["01", "02", "3a"]):
        rows = [f"{i % 5},{i % 3},{names[i % 3]}" for i in range(60)]
        whole.write_text("\n".join(["a,b,y", *rows]), "utf-8")
        part.write_text("\n".join(["a,b,y", *(row for row in rows if row[-1] != "a")]), "utf-8")
        train = ["train", "--data", str(whole), "--target", "y", "--epochs", "1", "--no-picture", "--model", model]
        assert main(train) == 0
        capsys.readouterr()
        assert main(["evaluate", model, str(part), "--target", "y", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["samples"] == 40
        assert main(["predict", model, str(whole)]) == 2
        told = capsys.readouterr().err
        assert (
            "column 'y': '3a' is not a number; if this column contains the labels, name it as the target, with --target"
            in told
        )


def test_training_samples_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file of a network says which share was new to it; where it does not, evaluate says so."""
    train = ["train", "--epochs", "1", "--no-picture", "--quiet", "--seed", "3", "--test-fraction", "0.1"]
    assert main(train) == 0
    for fraction in ("0.5", "0.25", "0.05"):
        assert main(["evaluate", "nnkit-model.safetensors", "digits", "--test-fraction", fraction]) == 2
        captured = capsys.readouterr()
        told = f"--test-fraction {fraction}: nnkit-model.safetensors was trained with --test-fraction 0.1; any other"
        assert captured.err.startswith(f"nnkit: error: {told}")
        assert captured.out == ""
    results = measured(capsys, "nnkit-model.safetensors", "digits")
    assert results == measured(capsys, "nnkit-model.safetensors", "digits", "--test-fraction", "0.1")
    network = nnkit.load("nnkit-model.safetensors")
    _, _, X, y = nnkit.data.split(*nnkit.data.digits(), test_fraction=0.1, seed=3)
    assert results == network.evaluate(X, y)
    network.save("again.safetensors")  # without nnkit train, nothing is known of its samples
    assert main(["evaluate", "again.safetensors", "digits", "--test-fraction", "0.5"]) == 0
    assert capsys.readouterr().err.startswith("nnkit: warning: again.safetensors does not record what it was trained")


def test_a_training_file_gets_a_warning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = flowers(here / "flowers.csv")
    rows = [f'{",".join(map(str, x))},"{kind}"' for x, kind in zip(X.tolist(), y.tolist(), strict=True)]
    Path("new.csv").write_text("\n".join(["a,b,c,d,species", *rows[::2]]))
    Path("same.csv").write_bytes(Path("flowers.csv").read_bytes())
    command = ["--target", "species", "--epochs", "1", "--quiet", "--no-picture", "--test-fraction", "0.2"]
    assert main(["train", "--data", "flowers.csv", *command]) == 0
    for file, known in (("flowers.csv", True), ("same.csv", True), ("new.csv", False)):
        assert main(["evaluate", "nnkit-model.safetensors", file, "--target", "species"]) == 0
        told = f"nnkit: warning: nnkit-model.safetensors was trained on 80% of the samples in {file}: these results are"
        assert capsys.readouterr().err.startswith(told) == known


@pytest.mark.parametrize(
    "text",
    [
        *("", "3", "{", "[]", '{"samples": 3, "test_fraction": 0.5, "drawn": "systematic"}', '{"samples": "a"}', "nul"),
        '{"samples": "a", "test_fraction": 0.5}',  # of an older nnkit, which drew other test parts
    ],
)
def test_a_damaged_record_of_training_files(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    network = nnkit.Network([64, 10], seed=0)
    checkpoint.save(network, "net.safetensors", samples=text)
    assert repr(nnkit.load("net.safetensors")) == repr(network)
    assert main(["evaluate", "net.safetensors", "digits"]) == 0
    assert "does not record what it was trained on" in capsys.readouterr().err


def test_names_of_files_and_classes_are_as_they_are_in_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No capitals that are not theirs, and what no font has as Python writes it. SVG has its text in comments."""
    rows = [f'{i % 7},{i % 5},"{"ab"[i % 2]}\x1b[31m\nc$x$"' for i in range(40)]
    name = "ok\x1b[2m\nnew.csv"
    Path(name).write_text("\n".join(["a,b,y", *rows]))
    assert main(["train", "--data", name, "--target", "y", "--epochs", "1", "--picture", "p.svg", "--quiet"]) == 0
    assert main(["evaluate", "nnkit-model.safetensors", name, "--target", "y", "--confusion", "c.svg"]) == 0
    assert "Glyph" not in capsys.readouterr().err
    assert r"<!-- ok\x1b[2m new.csv -->" in Path("c.svg").read_text()
    assert r"<!-- ok\x1b[2m new.csv, 2-100-2, seed 0 -->" in Path("p.svg").read_text()
    assert r"<!-- a\x1b[31m\nc$x$ -->" in Path("c.svg").read_text()
    assert main(["train", "--epochs", "1", "--quiet", "--no-picture"]) == 0
    assert main(["evaluate", "nnkit-model.safetensors", "digits", "--confusion", "c.svg"]) == 0
    assert "<!-- Test part of digits by seed 0 -->" in Path("c.svg").read_text()


def test_truth_values_as_class_names_are_text_in_a_csv_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    net = nnkit.Network([2, 2], seed=0)
    net.fit(X, X[:, 0] > 0, epochs=2, progress=False)
    net.save("net.safetensors")
    np.savetxt("d.csv", np.column_stack([X.astype(str), X[:, 0] > 0]), "%s", ",", header="a,b,y", comments="")
    assert main(["evaluate", "net.safetensors", "d.csv", "--target", "y", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results == pytest.approx(net.evaluate(X, X[:, 0] > 0), rel=1e-6)
