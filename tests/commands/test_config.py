"""Options from a TOML file, and the completion of commands by a shell."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.cli import main
from tests.commands.test_cli import needs
from tests.support.cli_files import flowers

OPTIONS = """
data = "flowers.csv"
target = "species"
hidden = [8, 6]
activation = "tanh"
learning_rate = 0.05
ema = 0.9
epochs = 2
metrics = ["top_2"]
no-picture = true
quiet = false
json = true
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    flowers(tmp_path / "flowers.csv")
    (tmp_path / "run.toml").write_text(OPTIONS)
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["train", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    for run in found["runs"]:
        del run["seconds"]
    del found["settings"]["config"]
    return found


def test_options_in_a_file_are_those_of_the_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("safetensors")
    found = report(capsys, "--config", "run.toml")
    network = nnkit.load("nnkit-model.safetensors")
    settings = found["settings"]
    for name, value in tomllib.loads(OPTIONS).items():
        told = settings["optimizer"] if name in ("learning_rate", "ema") else settings
        assert told.get(name, value) == ([value] if name == "activation" else value)
    words = "--data flowers.csv --target species --hidden 8 6 --activation tanh --learning-rate 0.05 --ema 0.9"
    again = report(capsys, *f"{words} --epochs 2 --metrics top_2 --no-picture --json".split())
    assert again == found
    assert np.array_equal(nnkit.load("nnkit-model.safetensors").parameters.flat, network.parameters.flat)


def test_the_command_line_wins(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("safetensors", "matplotlib")
    found = report(capsys, "--epochs", "3", "--hidden", "5", "--config=run.toml", "--picture", "p.svg")
    assert found["settings"]["epochs"] == 3
    assert found["network"].startswith("Network(4 → 5 tanh → 3 softmax")
    assert Path("p.svg").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epoch = 3", "run.toml: unknown option 'epoch'; did you mean 'epochs'?"),
        ("config = 'a.toml'", "run.toml: unknown option 'config'"),
        ("epochs = 0", "run.toml: argument --epochs: got '0'; expected a whole number of at least 1"),
        ("epochs = true", "run.toml: epochs is True; expected a number or text"),
        ("epochs = [1, 2]", "run.toml: epochs is [1, 2]; expected a single value"),
        ("quiet = 1", "run.toml: quiet is 1; expected true or false"),
        ("hidden = [[1]]", "run.toml: hidden is [[1]]; expected a number, text, or a list of them"),
        ("optimizer = 'adma'", "run.toml: argument --optimizer: unknown optimizer 'adma'; did you mean 'adam'"),
        ("[training]\nepochs = 3", "run.toml: unknown option 'training'"),
        ("epochs", "run.toml: not a TOML file: "),
    ],
)
def test_what_is_refused(here: Path, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    Path("run.toml").write_text(line)
    try:
        code: object = main(["train", "--config", "run.toml"])
    except SystemExit as error:
        code = error.code
    assert code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"nnkit: error: {message}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("option", ["model", "history", "checkpoint", "picture"])
def test_a_result_never_replaces_the_configuration(here: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    needs("safetensors", "matplotlib")
    text = OPTIONS.replace("no-picture = true", "") + f'{option} = "run.toml"\n'
    (here / "run.toml").write_text(text)
    assert main(["train", "--config", "./run.toml"]) == 2
    assert "run.toml is already another of this command's files" in capsys.readouterr().err
    assert (here / "run.toml").read_text() == text


def test_a_missing_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "no.toml"]) == 2
    assert "no.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nnkit", "tra"], {"train"}),
        (["nnkit", "train", "--early"], {"--early-stopping"}),
        (["nnkit", "train", "--optimizer", "ada"], {"adagrad", "adam", "adamw"}),
        (["nnkit", "train", "--data", "flo"], {"flowers.csv"}),
    ],
)
def test_bash_completes(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: set[str]) -> None:
    pytest.importorskip("shtab", reason="shtab is not installed")
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = f'COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _shtab_nnkit; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True, cwd=here)
    assert {*done.stdout.split()} == expected


def test_completion_without_shtab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["completion", "zsh"]) == 2
    assert capsys.readouterr().err == "nnkit: error: nnkit completion needs shtab: python -m pip install shtab\n"
    with pytest.raises(SystemExit):
        main(["completion", "fish"])
    assert "unknown shell 'fish'" in capsys.readouterr().err
