"""The command line where its output goes somewhere difficult: closed pipes, full disks, few characters."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nnkit
from tests.commands.test_cli import before, needs, nnkit_command


def into(file: int, *arguments: str, unbuffered: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command whose output goes to an open file."""
    return subprocess.run(
        [sys.executable, "-m", "nnkit", *arguments],
        cwd=cwd, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}, stdout=file, stderr=subprocess.PIPE,
        text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("arguments", "code"), [(["formulas"], 141), (["formulas", "all"], 141), (["--help"], 0)])
def test_a_closed_pipe_is_not_an_error(tmp_path: Path, arguments: list[str], code: int, unbuffered: str) -> None:
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
def test_every_encoding_works(tmp_path: Path, encoding: str) -> None:
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
        assert done.returncode == 0
        assert done.stderr == "" or done.stderr.startswith(
            "nnkit: warning: nnkit-model.safetensors was trained on 75% of"
        )
        return done.stdout

    train = ["train", "--data", "data.npz", "--target", "y", "--epochs", "1", "--no-picture"]
    assert "Network(3 ? 100 relu ? 2 softmax" in printed(*train)
    assert json.loads(printed(*train, "--json"))["classes"] == ["é", "φ"]
    assert printed("evaluate", "nnkit-model.safetensors", "data.npz", "--target", "y").startswith(
        "data.npz: 40 samples\n"
    )
    assert "within the bound of" in printed("verify")


def test_predictions_are_never_altered_by_the_encoding(tmp_path: Path) -> None:
    nnkit.Network([2, 2], seed=0, classes=["φ", "ψ"]).save(tmp_path / "net.safetensors")
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    done = nnkit_command("predict", "net.safetensors", "x.npy", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr.startswith("nnkit: error: 'ascii' codec can't encode character")
    assert done.stderr.count("\n") == 1
    done = nnkit_command("predict", "net.safetensors", "x.npy", "--output", "out.csv", cwd=tmp_path)
    assert done.returncode == 0
    assert set((tmp_path / "out.csv").read_text("utf-8").split()[1:]) <= {"φ", "ψ"}


WITHOUT = {"error": "2>&-", "output": ">&-", "any": "<&- >&- 2>&-"}


TRAIN = "train --epochs 1 --model new.safetensors --history new.json --picture new.png"
PREDICT = "predict net.safetensors x.npy --output new.csv"
EVALUATE = "evaluate net.safetensors xy.npz --target y"
WRONG = ["evaluate nothing.safetensors xy.npz", "train --epochs many"]


@pytest.mark.skipif(os.name != "posix", reason="files are closed as in POSIX's shell")
@pytest.mark.parametrize(
    ("closed", "arguments"),
    [("any", each) for each in (TRAIN, PREDICT, EVALUATE, WRONG[0], "verify", "doctor", "--help")]
    + [("error", each) for each in (TRAIN, WRONG[1])]
    + [("output", each) for each in (PREDICT, "formulas all")],
)
def test_standard_files_may_be_missing(tmp_path: Path, closed: str, arguments: str) -> None:
    """As in a service. What is written has none of what was to be seen."""
    code = 2 if arguments in WRONG else 0
    needs("safetensors", "matplotlib")
    nnkit.Network([2, 2], seed=0).save(tmp_path / "net.safetensors")
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    np.savez(tmp_path / "xy.npz", X=np.ones((3, 2)), y=[0, 1, 0])
    command = f'"{sys.executable}" -m nnkit {arguments} {WITHOUT[closed]}'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    if closed == "error":
        assert (done.stdout == "") == (code == 2)
    assert "Traceback" not in done.stderr
    if arguments == TRAIN:
        assert nnkit.load(tmp_path / "new.safetensors").epochs_trained == 1
        assert json.loads((tmp_path / "new.json").read_text())["accuracy"]
        assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")
    if arguments == PREDICT:
        assert (tmp_path / "new.csv").read_text().startswith("prediction\n")


@pytest.mark.parametrize("where", ["a reader that has gone", "a full disk"])
def test_a_training_is_saved_if_its_output_is_closed(tmp_path: Path, where: str) -> None:
    needs("safetensors")
    reader, writer = os.pipe()
    os.close(reader)
    if where == "a full disk":
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full here")
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    try:
        done = into(writer, "train", "--epochs", "3", "--no-picture", unbuffered="", cwd=tmp_path)
    finally:
        os.close(writer)
    expected = (2, "nnkit: error: [Errno 28] No space left on device\n") if where == "a full disk" else (141, "")
    assert (done.returncode, done.stderr) == expected
    assert nnkit.load(tmp_path / "nnkit-model.safetensors").epochs_trained == 3


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_ctrl_c_during_startup_prints_no_traceback(tmp_path: Path) -> None:
    """At each import that there is: the module that is imported then sends the signal."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Press:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == os.environ['PRESSED']: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
    )
    for name in ("numpy", "nnkit.backends", "nnkit.network", "nnkit.cli", "nnkit.commands", "nnkit.commands.reports"):
        done = nnkit_command("--version", cwd=tmp_path, PYTHONPATH=before(tmp_path), PRESSED=name)
        assert done.returncode == 130, name
        assert done.stderr in ("", "nnkit: interrupted\n"), name
        assert done.stdout == ""


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("presses", [1, 2, 50])
def test_repeated_ctrl_c_ends_once(tmp_path: Path, presses: int) -> None:
    """Whether the process starts, trains or ends: 130, and a line at most."""
    (tmp_path / "sitecustomize.py").write_text("import atexit, time\natexit.register(time.sleep, 0.2)\n")
    command = [sys.executable, "-m", "nnkit", "train", "--epochs", "100000", "--no-model", "--no-picture"]
    environment = os.environ | {"PYTHONPATH": before(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("digits: ")  # it is about to train
        for _ in range(presses):
            running.send_signal(signal.SIGINT)
            time.sleep(0.01)
        assert running.wait(60) == 130
        assert running.stderr is not None
        assert running.stderr.read() in ("", "nnkit: interrupted\n")


@pytest.mark.parametrize("arguments", ["train --epochs 1", "evaluate net.safetensors --data digits --confusion a.png"])
def test_an_invalid_mplbackend_is_refused_first(tmp_path: Path, arguments: str) -> None:
    needs("safetensors", "matplotlib")
    done = nnkit_command(*arguments.split(), cwd=tmp_path, MPLBACKEND="nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nnkit: error: Matplotlib does not start with MPLBACKEND='nonsense': ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        ("train --epochs 1 --quiet --no-picture --model /dev/full", "[Errno 28] No space left on device: '/dev/full'"),
        ("train --epochs 1 --quiet --no-picture --history /dev/full --no-model", "device: '/dev/full'"),
        ("train --epochs 1 --quiet --no-picture --no-model --checkpoint /dev/full", "device: '/dev/full'"),
        ("predict net.safetensors x.npy --output /dev/full", "device: '/dev/full'"),
        ("predict net.safetensors x.npy --output out.csv", "[Errno 27] File too large: 'out.csv'"),
        ("predict net.safetensors x.npy --output out.npy", "out.npy: 9000 requested and "),
        ("train --epochs 1 --quiet --no-picture", "[Errno 27] File too large: 'nnkit-model.safetensors'"),
        ("train --epochs 1 --quiet --no-model", "[Errno 27] File too large: 'nnkit-curve.png'"),
    ],
)
def test_a_full_disk_names_the_file_and_leaves_none(tmp_path: Path, arguments: str, file: str) -> None:
    needs("safetensors", "matplotlib")
    nnkit.Network([2, 2], seed=0).save(tmp_path / "net.safetensors")
    np.save(tmp_path / "x.npy", np.ones((9000, 2)))
    names = sorted(path.name for path in tmp_path.iterdir())
    command = f'ulimit -f 8; "{sys.executable}" -m nnkit {arguments}'
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nnkit: error: ")
    assert file in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.skipif(os.name != "posix", reason="ulimit is of POSIX shells")
def test_a_history_is_written_if_there_is_no_room_for_the_model(tmp_path: Path) -> None:
    needs("safetensors")
    command = f'ulimit -f 8; "{sys.executable}" -m nnkit train --epochs 2 --quiet --no-picture --history h.json'
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "nnkit-model.safetensors" in done.stderr
    assert len(json.loads((tmp_path / "h.json").read_text())["cost"]) == 2
