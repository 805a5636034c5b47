"""The command line where its output goes somewhere difficult: closed pipes, full disks, few characters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnkit
from tests.test_cli import needs, nnkit_command


def into(file: int, *arguments: str, unbuffered: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command whose output goes to an open file."""
    return subprocess.run(
        [sys.executable, "-m", "nnkit", *arguments],
        cwd=cwd, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}, stdout=file, stderr=subprocess.PIPE,
        text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("arguments", "code"), [(["formulas"], 141), (["formulas", "all"], 141), (["--help"], 0)])
def test_a_reader_that_has_gone_is_no_error(tmp_path: Path, arguments: list[str], code: int, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = into(writer, *arguments, unbuffered=unbuffered, cwd=tmp_path)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line_and_code_2(tmp_path: Path, unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = into(full.fileno(), "formulas", unbuffered=unbuffered, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "nnkit: error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_encoding_will_do(tmp_path: Path, encoding: str) -> None:
    needs("safetensors")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    np.savez(tmp_path / "data.npz", X=X, y=np.where(X[:, 0] > 0, "φ", "é"))

    def printed(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "nnkit", *arguments],
            cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding}, encoding=encoding,
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    train = ["train", "--data", "data.npz", "--target", "y", "--epochs", "1", "--no-picture"]
    assert "Network(3 ? 100 relu ? 2 softmax" in printed(*train)
    assert json.loads(printed(*train, "--json"))["classes"] == ["é", "φ"]
    assert printed("evaluate", "nnkit-model.safetensors", "data.npz", "--target", "y").startswith(
        "data.npz: 40 samples\n"
    )
    assert "within the bound of" in printed("verify")


def test_predictions_are_never_written_otherwise_than_they_are(tmp_path: Path) -> None:
    nnkit.Network([2, 2], seed=0, classes=["φ", "ψ"]).save(tmp_path / "net.safetensors")
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    done = nnkit_command("predict", "net.safetensors", "x.npy", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr.startswith("nnkit: error: 'ascii' codec can't encode character")
    assert done.stderr.count("\n") == 1
    done = nnkit_command("predict", "net.safetensors", "x.npy", "--output", "out.csv", cwd=tmp_path)
    assert done.returncode == 0
    assert set((tmp_path / "out.csv").read_text("utf-8").split()[1:]) <= {"φ", "ψ"}
