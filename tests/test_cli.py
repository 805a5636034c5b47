"""The command line as its user meets it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnkit
from nnkit.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nnkit_command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nnkit", *arguments],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_train_without_arguments_does_its_job(tmp_path: Path) -> None:
    done = nnkit_command("train", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"seed 0, backend numpy: test accuracy (0\.\d+) after 30 epochs", done.stdout)
    assert found, done.stdout
    assert float(found[1]) >= 0.97
    assert re.search(r"epoch +30 of 30 +cost 0\.\d+ +accuracy [01]\.\d+ +test accuracy 0\.\d+", done.stdout)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nnkit-curve.png", "nnkit-model.safetensors"]
    assert (tmp_path / "nnkit-curve.png").read_bytes().startswith(b"\x89PNG")
    X, y = nnkit.data.digits()
    _, _, X_test, y_test = nnkit.data.split(X, y, seed=0)
    loaded = nnkit.load(tmp_path / "nnkit-model.safetensors")
    assert loaded.evaluate(X_test, y_test)["accuracy"] == pytest.approx(float(found[1]), abs=1e-4)


def test_one_seed_gives_one_model(here: Path) -> None:
    for name in ("a", "b"):
        assert main(["train", "--epochs", "2", "--seed", "5", "--model", f"{name}.safetensors", "--no-picture"]) == 0
    a, b = nnkit.load(here / "a.safetensors"), nnkit.load(here / "b.safetensors")
    assert np.array_equal(a.parameters.flat, b.parameters.flat)


def test_train_on_another_backend(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "1", "--backend", "standard", "--no-model", "--no-picture"]) == 0
    assert "backend standard:array_api_strict: test accuracy 0." in capsys.readouterr().out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--epochs", "0"], "epochs is 0; expected a whole number of at least 1"),
        (["train", "--seed", "-1"], "seed"),
        (["train", "--backend", "cupyy"], "unknown backend 'cupyy'; known: numpy, cupy, standard, auto"),
        (["train", "--model", "nowhere/a.safetensors"], "--model: the folder nowhere does not exist"),
        (["train", "--picture", "curve.jpg"], "path must end in .png, .svg, .pdf, got 'curve.jpg'"),
        (["verify", "--backend", "numpy:3"], "NumPy has one device"),
        (["formulas", "sigmoidd"], "unknown formula 'sigmoidd'"),
    ],
)
def test_an_error_is_one_line_and_code_2(
    here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("nnkit: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["train", "--epochs", "two"], ["verify", "--json", "--markdown"], []]
)
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: nnkit" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["train"], ["verify"], ["doctor"], ["formulas"]])
def test_help_says_what_a_command_does(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_debug_shows_the_traceback(here: Path) -> None:
    with pytest.raises(ValueError, match="unknown backend"):
        main(["train", "--backend", "nonsense", "--debug"])


def test_a_missing_package_is_told_before_the_training(here: Path) -> None:
    done = nnkit_command("train", cwd=here, PYTHONPATH=str(_without("matplotlib", here / "path")))
    assert done.returncode == 2
    assert done.stderr == (
        "nnkit: error: --picture needs matplotlib: python -m pip install matplotlib   (or give --no-picture)\n"
    )
    assert not (here / "nnkit-model.safetensors").exists()


def _without(package: str, folder: Path) -> Path:
    """A folder for PYTHONPATH that makes Python start without a package, as if it were not installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    return folder


def test_doctor_tells_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "backend numpy works" in out
    assert re.search(r"backend cupy (works: .*GPU|does not work: )", out)
    assert re.search(r"\d+ CPUs usable", out)


def test_formulas_prints_cuda_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas"]) == 0
    assert "sigmoid_grad(s, delta)" in capsys.readouterr().out.splitlines()
    assert main(["formulas", "sigmoid_grad", "--dtype", "float64"]) == 0
    assert "__global__ void nnkit_sigmoid_grad(const double *" in capsys.readouterr().out
    assert main(["formulas", "all"]) == 0
    assert capsys.readouterr().out.count("__global__") > 30
