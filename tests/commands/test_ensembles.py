"""nnkit train --ensemble and --jobs, nnkit predict --ensemble."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnkit
from nnkit.cli import main
from tests.commands.test_cli import needs

QUICK = ["--epochs", "2", "--hidden", "8", "--no-picture", "--quiet"]


def test_an_ensemble_is_trained_saved_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("safetensors", "matplotlib")
    model, samples = tmp_path / "ensemble.safetensors", tmp_path / "x.npy"
    picture, curve = tmp_path / "sure.svg", tmp_path / "curve.svg"
    code = main(["train", "--ensemble", "3", "--seed", "5", "--model", str(model), "--json", "--epochs", "2",
                 "--hidden", "8", "--picture", str(curve)])  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    ensemble = nnkit.Ensemble.load(model)
    assert [member.seed for member in ensemble.members] == [5, 6, 7]
    assert report["settings"]["ensemble"] == 3
    X = nnkit.data.digits()[0]
    np.save(samples, X[:50])
    assert main(["predict", str(model), str(samples), "--ensemble", "--picture", str(picture)]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["prediction", "disagreement"]
    assert [int(row[0]) for row in rows[1:]] == ensemble.predict(X[:50]).tolist()
    assert [np.float32(row[1]) for row in rows[1:]] == ensemble.disagreement(X[:50]).tolist()
    assert picture.exists()
    assert curve.exists()
    found = tmp_path / "p.npy"
    assert main(["predict", str(model), str(samples), "--ensemble", "--probabilities", "--output", str(found)]) == 0
    np.testing.assert_allclose(np.load(found)[:, :10], ensemble.predict_proba(X[:50]), rtol=1e-6)
    assert main(["predict", str(model), str(samples)]) == 2
    assert "contains an ensemble; load it with" in capsys.readouterr().err


def test_the_spread_of_numbers_has_a_column_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = nnkit.Ensemble([2, 2], seeds=range(3), cost="quadratic", dtype="float64")
    model, samples, X = tmp_path / "e.safetensors", tmp_path / "x.npy", np.eye(2)
    ensemble.save(model)
    np.save(samples, X)
    assert main(["predict", str(model), str(samples), "--ensemble", "--picture", str(tmp_path / "p.svg")]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["prediction_0", "prediction_1", "spread_0", "spread_1"]
    expected = np.hstack([ensemble.predict(X), ensemble.spread(X)])
    np.testing.assert_array_equal(np.array(rows[1:], float), expected)


def test_jobs_have_the_results_of_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("safetensors")
    found = []
    for number, jobs in enumerate(([], ["--jobs", "2"])):
        model = tmp_path / f"{number}.safetensors"
        assert main(["train", "--seeds", "3", *jobs, *QUICK, "--model", str(model), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        for run in report["runs"]:
            del run["seconds"]
        found.append((report["runs"], report["mean"], model.read_bytes()))
    assert found[0] == found[1]


WAITING = """
import time
from nnkit.cli import main
from nnkit.commands import runs

def wait(*arguments):
    print("started", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    runs.run_of_seed = wait
    main(["train", "--seeds", "2", "--jobs", "2", "--no-model", "--no-picture"])
"""


def test_jobs_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as started:
        assert started.stdout is not None
        said = started.stdout.read(2 * len(b"started\n"))
        started.kill()
        assert said.count(b"started") == 2
        started.communicate(timeout=40)  # until nobody can write to the pipe any more


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "--ensemble", "2", "--seeds", "2"], "--seeds cannot be combined with --ensemble"),
        (["train", "--ensemble", "2", "--checkpoint", "c.safetensors"], "--checkpoint cannot be combined"),
        (["train", "--jobs", "2"], "--jobs 2 has no effect with one training; give --seeds N"),
        (["predict", "a", "b", "--picture", "c.png"], "--picture has no effect without --ensemble"),
    ],
)
def test_options_without_effect(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert text in capsys.readouterr().err
