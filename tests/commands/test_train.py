"""nnkit train: on the shipped digits and on files, against the same training by hand."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import label_metrics, metrics
from nnkit.cli import main
from nnkit.commands.arguments import _OF_CLASSES, OF_NUMBERS
from tests.commands.test_cli import nnkit_command
from tests.support.cli_files import SPECIES, flowers, houses

for _package in ("safetensors", "matplotlib"):
    pytest.importorskip(_package, reason=f"{_package} is not installed")

# Of being measured with what a network was trained on, which is printed.
pytestmark = pytest.mark.filterwarnings("default:.*was trained on.*:UserWarning")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_train_without_arguments_trains(tmp_path: Path) -> None:
    done = nnkit_command("train", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"seed 0, backend numpy: test accuracy (0\.\d+), cost 0\.\d+ after 30 epochs", done.stdout)
    assert found, done.stdout
    assert float(found[1]) >= 0.97
    assert re.search(r"epoch +30 of 30 +cost 0\.\d+ +accuracy [01]\.\d+ +validation cost 0\.\d+", done.stdout)
    assert names(tmp_path) == ["nnkit-curve.png", "nnkit-model.safetensors"]
    assert (tmp_path / "nnkit-curve.png").read_bytes().startswith(b"\x89PNG")
    _, _, X_test, y_test = nnkit.data.split(*nnkit.data.digits(), seed=0)
    loaded = nnkit.load(tmp_path / "nnkit-model.safetensors")
    assert loaded.evaluate(X_test, y_test)["accuracy"] == pytest.approx(float(found[1]), abs=1e-4)


def test_training_on_a_file_equals_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = flowers(here / "flowers.csv")
    options = (
        "--hidden 8 6 --activation tanh relu --dropout 0.1 --init he_uniform --optimizer adam --learning-rate 0.01 "
        "--l2 0.001 --clip-norm 2 --schedule cosine --label-smoothing 0.1 --epochs 4 --batch-size 7 "
        "--class-weight balanced --metrics top_2 --dtype float64 --seed 3 --json"
    )
    assert main(["train", "--data", "flowers.csv", "--target", "species", *options.split()]) == 0
    report = json.loads(capsys.readouterr().out)
    codes = np.searchsorted(SPECIES, y)
    assert (np.array(SPECIES)[codes] == y).all()
    X_train, train, X_test, test = nnkit.data.split(X, codes, seed=3)
    by_hand = nnkit.Network(
        [
            nnkit.Dense(4, 8, "tanh"),
            nnkit.Dropout(0.1),
            nnkit.Dense(8, 6, "relu"),
            nnkit.Dropout(0.1),
            nnkit.Dense(6, 3),
        ],
        cost=nnkit.get_cost("softmax_cross_entropy", label_smoothing=0.1),
        init="he_uniform",
        seed=3,
        dtype="float64",
        preprocessing=nnkit.data.Normalization.fit(X_train),
        classes=SPECIES,
    )
    by_hand.fit(
        X_train,
        np.array(SPECIES)[train],
        epochs=4,
        batch_size=7,
        optimizer=nnkit.Adam(0.01, l2=0.001, clip_norm=2),
        schedule="cosine",
        class_weight="balanced",
        progress=False,
    )
    loaded = nnkit.load("nnkit-model.safetensors")
    assert np.array_equal(loaded.parameters.flat, by_hand.parameters.flat)
    assert loaded.layers == by_hand.layers
    results = by_hand.evaluate(X_test, np.array(SPECIES)[test], metrics=["top_2"])
    assert report["runs"][0]["results"] == results
    assert report["samples"] == {"training": 45, "validation": 0, "test": 15}
    assert report["classes"] == SPECIES
    assert report["settings"]["optimizer"]["learning_rate"] == 0.01
    assert report["paths"]["model"] == "nnkit-model.safetensors"


def test_real_numbers_make_a_regression(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = houses(here / "houses.csv", 200)
    command = ["train", "--data", "houses.csv", "--target", "price", "--metrics", "r2", "mae", "--seed", "2", "--json"]
    assert main([*command, "--no-picture"]) == 0
    results = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    loaded = nnkit.load("nnkit-model.safetensors")
    assert (loaded.cost.name, loaded.predict(X).shape) == ("quadratic", (200,))
    _, _, X_test, y_test = nnkit.data.split(X, y, seed=2)
    error = np.asarray(loaded.forward(X_test), np.float64)[:, 0] - y_test
    assert results["cost"] == pytest.approx(np.mean(error**2) / 2, rel=1e-5)
    assert results["mae"] == pytest.approx(np.mean(abs(error)), rel=1e-5)
    assert results["r2"] == pytest.approx(1 - np.sum(error**2) / np.sum((y_test - y_test.mean()) ** 2), rel=1e-5)
    assert results["r2"] > 0.9
    assert results["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)


def test_a_regression_is_reported_in_the_units_of_its_target(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    houses(here / "houses.csv", 60)
    command = [
        "train",
        "--data",
        "houses.csv",
        "--target",
        "price",
        "--epochs",
        "2",
        "--no-picture",
        "--history",
        "h.json",
    ]
    assert main(command) == 0
    lines, history = capsys.readouterr().out.splitlines(), json.loads(Path("h.json").read_text())
    assert lines[2] == "RMSE and MAE are in the units of target 'price'"
    assert f"validation rmse {history['validation_rmse'][0]:.4f}" in lines[3]
    found = re.match(r"seed 0, backend numpy: test R² (\S+), RMSE (\S+), MAE (\S+), cost (\S+) after", lines[5])
    assert found is not None
    assert float(found[2]) == pytest.approx(history["validation_rmse"][-1], abs=6e-5)
    assert float(found[4]) == pytest.approx(float(found[2]) ** 2 / 2, rel=1e-3)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_arrays_in_files(here: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    X = rng.integers(0, 256, (40, 6)).astype(np.uint8)
    y = 10 * (X[:, 0] > 127) + 5  # labels that are not 0, 1, ...
    if suffix == "npz":
        np.savez("data.npz", X=X, label=y)
    else:
        np.save("data.npy", np.column_stack([X, y]))
    target = {"npz": "label", "npy": "-1"}[suffix]
    command = ["train", "--data", f"data.{suffix}", "--target", target, "--hidden", "--preprocessing", "pixels"]
    assert main([*command, "--epochs", "60", "--quiet", "--no-picture"]) == 0
    loaded = nnkit.load("nnkit-model.safetensors")
    assert len(loaded.layers) == 1
    found = loaded.predict(X)
    assert set(found.tolist()) == {5, 15}
    assert np.mean(found == y) > 0.9


@pytest.mark.parametrize("y", [np.arange(40) % 3, np.array(SPECIES)[np.arange(40) % 3], np.arange(40) / 7])
def test_a_column_of_targets_is_accepted(here: Path, y: Any, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.random.default_rng(3).normal(size=(40, 3))
    command = ["train", "--target", "y", "--epochs", "2", "--no-picture", "--quiet"]
    for name, answers in (("flat", y), ("column", y[:, None])):
        np.savez(f"{name}.npz", X=X, y=answers)
        assert main([*command, "--data", f"{name}.npz", "--model", f"{name}.safetensors"]) == 0
    flat, column = (nnkit.load(f"{name}.safetensors") for name in ("flat", "column"))
    assert (flat.classifies, repr(flat)) == (y.dtype.kind != "f", repr(column))
    assert np.array_equal(flat.parameters.flat, column.parameters.flat)
    told = []
    for name in ("flat", "column"):
        assert main(["evaluate", "flat.safetensors", f"{name}.npz", "--target", "y", "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out)["results"])
    assert told[0] == told[1]


def test_whitening_drops_constant_features(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.random.default_rng(3).normal(size=(40, 3))
    np.savez("data.npz", X=np.column_stack([X, X @ [1, 2, 3]]), y=(X[:, 0] > 0).astype(int))
    command = ["train", "--data", "data.npz", "--target", "y", "--preprocessing", "whitening", "--no-picture"]
    assert main(command) == 0
    assert "; whitening, 4 → 3 features\n" in capsys.readouterr().out
    loaded = nnkit.load("nnkit-model.safetensors")
    assert (loaded.width, loaded.dense[0].inputs) == (4, 3)
    train, *_ = nnkit.data.split(np.load("data.npz")["X"], np.load("data.npz")["y"], seed=0)
    assert loaded.preprocessing is not None
    assert np.allclose(loaded.preprocessing.arrays["mean"], train.mean(axis=0), rtol=1e-12, atol=1e-12)


def test_mnist_keeps_its_test_part(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    X, y = rng.integers(0, 256, (50, 784)).astype(np.uint8), np.arange(50) % 10
    asked: list[Any] = []

    def mnist(directory: Path | None, download: bool) -> nnkit.data.MNIST:
        asked.append((directory, download))
        return nnkit.data.MNIST(X[:30], y[:30], X[30:], y[30:])

    monkeypatch.setattr(nnkit.data, "mnist", mnist)
    command = ["train", "--data", "mnist", "--data-dir", "there", "--download", "--epochs", "1", "--json"]
    assert main([*command, "--no-picture"]) == 0
    assert asked == [(Path("there"), True)]
    report = json.loads(capsys.readouterr().out)
    assert report["samples"] == {"training": 30, "validation": 0, "test": 20}
    loaded = nnkit.load("nnkit-model.safetensors")
    assert loaded.preprocessing is not None
    assert np.array_equal(loaded.preprocessing.arrays["deviation"], np.full(784, 255.0))
    assert report["runs"][0]["results"] == loaded.evaluate(X[30:], y[30:])


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            1000.0 * np.arange(40) + 0.5,
            "has mean 1.95e\\+04 and standard deviation 1.15e\\+04; .* --scale-targets",
        ),
        (np.tile(np.arange(101), 2), "holds 101 different integers, .* give --cost quadratic"),
    ],
)
def test_ambiguous_targets_get_a_warning(
    here: Path, target: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("data.npz", X=np.random.default_rng(0).normal(size=(len(target), 2)), y=target)
    command = ["train", "--data", "data.npz", "--target", "y", "--quiet", "--epochs", "1", "--no-picture"]
    assert main([*command, "--learning-rate", "1e-9"]) == 0
    assert re.fullmatch(f"nnkit: warning: target 'y' {message}.*\n", capsys.readouterr().err)


def test_columns_of_time_stamps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds since 1970, within two minutes: float32 holds every 128th of them."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 2))
    X, y = 1.7e9 + 30 * z, np.where(z[:, 0] > 0, "late", "early")
    lines = [f"{a:.6f},{b:.6f},{label}" for (a, b), label in zip(X, y, strict=True)]
    (here / "times.csv").write_text("\n".join(["start,stop,kind", *lines]) + "\n")
    command = ["train", "--data", "times.csv", "--target", "kind", "--hidden", "8", "--epochs", "30", "--no-picture"]
    assert main([*command, "--optimizer", "adam", "--learning-rate", "0.02", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["results"]["accuracy"] > 0.95
    assert main(["evaluate", "nnkit-model.safetensors", "times.csv", "--target", "kind", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["accuracy"] > 0.95
    assert main(["predict", "nnkit-model.safetensors", "times.csv", "--target", "kind"]) == 0
    predicted = capsys.readouterr().out.splitlines()[1:]
    assert np.mean(np.array(predicted) == y) > 0.95


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_only_json_is_printed(quiet: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "1", "--no-model", "--no-picture", "--json", *quiet]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["runs"][0]["epochs"] == 1
    assert captured.err == ""


def test_metrics_must_fit_the_task(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Targets 0 and 1 are classes, though a cost of numbers learns them; whole numbers without one are."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 4, 40)
    np.savez("data.npz", X=X, rows=np.eye(4)[y], labels=y)
    np.savez("rows.npz", X=X, y=np.eye(4)[y])
    np.savez("labels.npz", X=X, y=y)
    shared = ["--target", "y", "--epochs", "1", "--no-model", "--no-picture", "--json"]
    for more in (["rows.npz", "--metrics", "accuracy", "top_2", "r2"], ["labels.npz", "--metrics", "top_2"]):
        assert main(["train", *shared, "--data", *more]) == 0
        assert set(more[2:]) <= set(json.loads(capsys.readouterr().out)["runs"][0]["results"])
    assert main(["train", *shared, "--data", "labels.npz", "--metrics", "accuracy", "--cost", "quadratic"]) == 2
    assert "--metrics accuracy is for classes, and target 'y' holds numbers" in capsys.readouterr().err
    assert set(_OF_CLASSES + OF_NUMBERS) == {*metrics._named, "top_5", *label_metrics.NAMES}


def test_counts_are_in_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.csv").write_text("x,y\n1,a\n2,b\n3,a\n")
    command = ["train", "--data", "one.csv", "--target", "y", "--test-fraction", "0.34", "--no-picture"]
    assert main([*command, "--epochs", "1", "--preprocessing", "none"]) == 0
    assert "after 1 epoch in" in capsys.readouterr().out
    assert main([*command, "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert "after 2 epochs in" in out
    assert "1 → 1 feature\n" in out


def test_a_checkpoint_of_another_network(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flowers(here / "flowers.csv")
    command = ["train", "--data", "flowers.csv", "--target", "species", "--no-picture", "--quiet"]
    command += ["--checkpoint", "run.safetensors"]
    assert main([*command, "--epochs", "1"]) == 0
    content = Path("run.safetensors").read_bytes()
    for other, layers in (
        (["--hidden", "5"], "4 → 5 relu → 3 softmax"),
        (["--activation", "tanh"], "4 → 100 tanh → 3 softmax"),
        (["--dropout", "0.5"], "4 → 100 relu → dropout 0.5 → 3 softmax"),
    ):
        assert main([*command, "--epochs", "2", "--resume", *other]) == 2
        expected = f"--resume: run.safetensors has the layers 4 → 100 relu → 3 softmax; this training has {layers}"
        assert capsys.readouterr().err == f"nnkit: error: {expected}\n"
        assert Path("run.safetensors").read_bytes() == content


def test_processes_started_together_need_mpi(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each would train, and write the same files; a launcher's variables for one process do not matter."""
    monkeypatch.setenv("PMI_SIZE", "2")
    assert main(["train", "--epochs", "1"]) == 2
    assert "2 processes were started together" in capsys.readouterr().err
    assert names(here) == []
    monkeypatch.setenv("PMI_SIZE", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")  # is set in the shell of salloc, too
    assert main(["train", "--epochs", "1", "--quiet", "--no-picture"]) == 0
