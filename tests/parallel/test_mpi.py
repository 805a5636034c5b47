"""Trainings by MPI: `python -m pytest -m mpi`, where mpi4py and an MPI library are installed. None may hang."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import working_backend
from tests.support import ROOT
from tests.support.parallel_cases import CASES

pytestmark = pytest.mark.mpi
pytest.importorskip("mpi4py", reason="mpi4py is not installed")
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
LIMIT = 240.0  # seconds, after which a test has hung


def start(ranks: int, scenario: str, folder: Path, *options: str, after: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    assert MPIEXEC is not None, "mpiexec is missing: python -m pip install mpich"
    command = [MPIEXEC, "-n", str(ranks), sys.executable, *options, "-m", "tests.support.parallel_program"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, scenario, str(folder), *after], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(ranks: int, scenario: str, folder: Path, *options: str) -> tuple[int, list[str], str]:
    """The exit code, the sorted lines of standard output, and standard error."""
    process = start(ranks, scenario, folder, *options)
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, sorted(out.splitlines()), err


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_train_what_one_process_trains(ranks: int, tmp_path: Path) -> None:
    code, lines, err = run(ranks, "cases", tmp_path)
    assert (code, lines) == (0, [f"{len(CASES)} cases"] * ranks), err


def test_shards_have_one_digest(tmp_path: Path) -> None:
    found = {line for ranks in (1, 2, 3, 4, 5, 8) for line in run(ranks, "shards", tmp_path)[1]}
    assert len(found) == 3, found


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize(("scenario", "own", "others"), [
    ("nan", "ValueError: X holds nan at [5, 2]", "RankError: rank {last}: ValueError: X holds nan at [5, 2]"),
    ("exception", "KeyError: 'of one rank'", "RankError: rank {last}: KeyError: 'of one rank'"),
    ("batch_size", "ValueError: batch_size is 17 on rank 1 and 16 on rank 0", "ValueError: batch_size is 17 on rank 1"),
])  # fmt: skip
def test_an_error_of_one_rank_is_one_of_all(scenario: str, own: str, others: str, ranks: int, tmp_path: Path) -> None:
    code, lines, err = run(ranks, scenario, tmp_path)
    assert code == 3, err
    last = ranks - 1
    for rank, line in enumerate(lines):
        assert line.startswith(f"rank {rank}: {own if rank == last else others.format(last=last)}")


def test_an_unexpected_error_ends_all(tmp_path: Path) -> None:
    """With plain python, where the other ranks would wait for ever."""
    started = time.monotonic()
    code, _, err = run(2, "alone", tmp_path)
    assert code != 0
    assert "MemoryError: unexpected" in err
    assert "nnkit: rank 1 of 2 failed alone; all ranks end" in err
    assert time.monotonic() - started < LIMIT / 4


def test_an_error_before_the_training_with_mpi4py_as_the_main_module(tmp_path: Path) -> None:
    code, _, err = run(2, "before", tmp_path, "-m", "mpi4py")
    assert code != 0
    assert "ValueError: before the training" in err


def test_an_overflow_of_one_rank(tmp_path: Path) -> None:
    code, lines, err = run(3, "overflow", tmp_path)
    assert code == 0, err
    assert len(lines) == 3
    assert len({*lines}) == 1
    assert "in epoch 1, step" in lines[0]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_rank_that_is_killed_ends_all(how: signal.Signals, tmp_path: Path) -> None:
    process = start(3, "endless", tmp_path)
    until = time.monotonic() + LIMIT
    while not (tmp_path / "epoch-2").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    pids = [int((tmp_path / f"rank-{rank}").read_text()) for rank in range(3)]
    os.kill(pids[1], how)
    killed = time.monotonic()
    assert process.wait(timeout=20) != 0
    while any(map(_alive, pids)):
        assert time.monotonic() - killed < 20
        time.sleep(0.01)
    process.communicate()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("ranks", [2, 3])
def test_ctrl_c_on_one_rank(ranks: int, tmp_path: Path) -> None:
    code, lines, err = run(ranks, "interrupted", tmp_path)
    assert (code, len(lines)) == (0, ranks), err
    assert len({*lines}) == 1
    assert lines[0].startswith("interrupted after 4 epochs: ")


def test_a_stopped_training_resumes(tmp_path: Path) -> None:
    """Bit for bit on as many ranks, to rounding on 1, 3 and 5."""
    assert run(2, "resumed", tmp_path)[1][0].startswith("3 epochs")
    shutil.copytree(tmp_path, tmp_path / "copy")
    whole = run(2, "whole", tmp_path)[1]
    assert run(2, "resumed", tmp_path)[1] == whole
    wanted = np.load(tmp_path / "state-2-6.npz")
    for ranks in (1, 3, 5):
        folder = tmp_path / str(ranks)
        shutil.copytree(tmp_path / "copy", folder)
        code, lines, err = run(ranks, "resumed", folder)
        assert (code, len({*lines})) == (0, 1), err
        found = np.load(folder / f"state-{ranks}-6.npz")
        for name in wanted:
            if wanted[name].dtype.kind == "f":
                np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-13, err_msg=name)


def test_messages_of_the_program_do_not_meet_those_of_the_training(tmp_path: Path) -> None:
    code, lines, err = run(2, "other_library", tmp_path)
    assert (code, lines) == (0, ["('mine', 0)", "('mine', 1)"]), err


def nnkit_train(ranks: int, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert MPIEXEC is not None
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "nnkit", "train", *options], cwd=folder, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip


def test_the_command_trains_on_all_processes(tmp_path: Path) -> None:
    """Rank 0 alone prints and writes; the numbers are those of one process."""
    options = ["--epochs", "3", "--dtype", "float64", "--history", "history.json", "--checkpoint", "run.safetensors"]
    for folder, ranks in (("one", 1), ("three", 3)):
        (tmp_path / folder).mkdir()
        done = nnkit_train(ranks, tmp_path / folder, "--mpi", *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 3 of 3") == done.stdout.count("model written to") == 1
    files = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("one", "three")]
    assert files == [["history.json", "nnkit-curve.png", "nnkit-model.safetensors", "run.safetensors"]] * 2
    one, three = (json.loads((tmp_path / folder / "history.json").read_text()) for folder in ("one", "three"))
    assert one.keys() == three.keys()
    for name in one.keys() - {"seconds"}:
        np.testing.assert_allclose(three[name], one[name], rtol=0, atol=1e-12)
    resumed = nnkit_train(2, tmp_path / "three", "--mpi", "--resume", *options, "--epochs", "4")
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 4 of 4" in resumed.stdout


def test_the_command_without_mpi_is_refused(tmp_path: Path) -> None:
    """Each process would train, and write the same files."""
    done = nnkit_train(2, tmp_path, "--epochs", "1")
    assert done.returncode != 0
    assert "2 processes were started together, and each would train, and write the same files; --mpi" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "code", "said"), [
    (["--data", "nothing.csv"], 2, "nothing.csv does not exist"),
    (["--learning-rate", "1e30", "--optimizer", "sgd"], 1, "in epoch 1, step 2"),
    (["--model", "missing/folder/model.safetensors"], 2, "missing"),
])  # fmt: skip
def test_errors_of_the_command_are_told_once(options: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = nnkit_train(2, tmp_path, "--mpi", "--epochs", "2", *options)
    assert done.returncode == code
    assert done.stderr.count("nnkit: error: ") == 1
    assert said in done.stderr


def test_nccl_adds_inside_the_graph_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sum is called once by itself, and once in a capture of the step; then graphs call it."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    monkeypatch.setenv("EMULATED_CACHE", str(tmp_path))
    code, lines, err = run(2, "nccl", tmp_path)
    assert code == 0, err
    sums = {
        "{}": ["AllReduce"] * 4,
        "{'shards': 3}": ["Broadcast"] * 8,
        "{'gradient_accumulation_steps': 2}": ["AllReduce"] * 2,
    }
    assert lines == sorted(2 * [f"{options}: {', '.join(calls)}" for options, calls in sums.items()])


def test_all_ranks_capture_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    monkeypatch.setenv("EMULATED_CACHE", str(tmp_path))
    process = start(2, "nccl", tmp_path, after=("refused",))
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    assert "RuntimeError: a recording did not become a CUDA graph on every rank; set NNKIT_CUDA_GRAPHS=0" in err


@pytest.mark.gpu
def test_ranks_with_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By NCCL on GPUs of their own, through the host on one GPU."""
    working_backend("cupy")
    monkeypatch.setenv("NNKIT_BACKEND", "cupy")
    code, lines, err = run(2, "cases", tmp_path)
    assert (code, lines) == (0, [f"{len(CASES)} cases"] * 2), err
