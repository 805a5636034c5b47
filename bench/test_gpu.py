"""`python -m bench.gpu` without a GPU: its contenders' arithmetic on the CPU, its tables, and complete runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.contenders import contender
from bench.gpu import epochs, steps
from bench.gpu.budget import Budget
from bench.gpu.contenders import CLASSES, EPOCHS, NAMES, ONLY_EPOCHS
from bench.gpu.contenders.base import GpuContender
from bench.gpu.device import Device
from bench.gpu.samples import samples
from bench.gpu.tables import markdown
from bench.problem import Problem, parse_sizes
from bench.process import Failed, LeftOut
from bench.reference import STEPS, errors, reference
from bench.test_runner import FLOOR_OF_6_5_4_3
from nnkit.backends import BackendUnavailableError

ROOT = Path(__file__).parent.parent
QUICK = tuple(name for name in NAMES if "compiled" not in name)  # the others need a compiler and 10 s


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NNKIT_ONE_LAUNCH", "1")  # a contender may turn it off in its process


def made(name: str, problem: Problem) -> GpuContender:
    kind = contender(name, CLASSES)
    assert issubclass(kind, GpuContender)
    try:
        return kind(problem)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("precision", steps.PRECISIONS)
@pytest.mark.parametrize("name", QUICK)
def test_same_arithmetic(name: str, precision: str) -> None:
    problem = Problem(parse_sizes("30-20-10-5x40")[0], precision=precision)
    if not name.startswith(("torch", "jax")) and precision != "float32":
        with pytest.raises(ValueError, match="computes in float32 on the CPU"):
            made(name, problem)
        return
    found = made(name, problem)
    for _ in range(STEPS):
        found.step()
    found.wait()
    parameters = found.parameters()
    assert (parameters is None) == (name == "floor")
    if parameters is not None:
        error = max(errors(problem, reference(problem), parameters))
        assert error <= steps.TOLERANCES[precision]
        if precision == "bf16":
            assert error > 1e-4  # its products are not in float32
    found.close()


@pytest.mark.parametrize("name", [name for name in EPOCHS if name in QUICK])
def test_an_epoch_has_the_same_minibatches(name: str) -> None:
    problem = Problem(parse_sizes("784-7-10x16")[0])
    found = made(name, problem)
    found.keep(*samples(50, real=False))  # the last minibatch has 2 samples
    for _ in range(2):
        found.epoch()
    parameters = found.parameters()
    assert parameters is not None
    one, all_of_them = (epochs.after_epochs(problem, 50, False, number) for number in (1, found.epochs))
    assert found.epochs >= 2
    assert found.way() is None  # on the CPU
    assert max(errors(problem, all_of_them, parameters)) < 1e-4
    assert max(errors(problem, one, parameters)) > 1e-2


@pytest.mark.gpu
def test_the_ways_of_an_epoch() -> None:
    try:
        device = Device("cuda")
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    size, budget = parse_sizes("784-30-10x10")[0], Budget(120)
    contestants = [steps.Contestant(name, device, budget) for name in ("nnkit", "nnkit-graph")]
    try:
        found = dict(epochs.measure_epochs([size], 1005, False, contestants, budget))[str(size)]
    finally:
        for contestant in contestants:
            contestant.close()
    assert found["steps"] == 101
    ways = {name: row.get("way", row) for name, row in found["contenders"].items()}
    assert ways == {"nnkit": "one launch", "nnkit-graph": "graphs"}


def test_a_contender_with_wrong_results_is_not_timed() -> None:
    problem = Problem(parse_sizes("6-5-3x7")[0], precision="bf16")
    expected = reference(problem)
    rounded = [(W.astype(np.float32), b.astype(np.float32)) for W, b in expected]
    assert steps.compare(problem, expected, None) is None
    error = steps.compare(problem, expected, rounded)
    assert error is not None
    assert error < 1e-5
    other = [(W.astype(np.float32), b.astype(np.float32)) for W, b in reference(problem, STEPS + 1)]
    with pytest.raises(Failed, match=r"computes something else: its parameters are .* off, more than 5e-02"):
        steps.compare(problem, expected, other)


def test_the_floor_is_products_of_random_numbers() -> None:
    floor: Any = made("floor", Problem(parse_sizes("6-5-4-3x7")[0]))
    shapes = [(tuple(a.shape), tuple(b.shape), tuple(out.shape)) for a, b, out in floor.products]
    assert shapes == FLOOR_OF_6_5_4_3
    assert all(a.dtype == np.float32 and bool((a != 0).all()) for a, _, _ in floor.products)
    a, b, out = floor.products[0]
    floor.step()
    np.testing.assert_allclose(out, a @ b, rtol=1e-5, atol=1e-5)


def test_a_process_answers_about_one_problem_after_another() -> None:
    one = steps.Contestant("nnkit", Device("cpu"), Budget(60))
    try:
        for text in ("6-5-3x7", "4-3x2"):
            problem = Problem(parse_sizes(text)[0])
            steps.compare(problem, reference(problem), one.ask("make", problem, STEPS))
            assert one.ask("memory") is None
        with pytest.raises(LeftOut, match="computes in float32 on the CPU"):
            one.ask("make", Problem(problem.size, precision="tf32"), 1)
        assert one.ask("make", problem, 0) is not None
        for _ in range(steps.GIVEN_UP):
            with pytest.raises(Failed, match="AttributeError"):
                one.ask("make", "no problem", 1)
        with pytest.raises(Failed, match=r"not tried again: .*AttributeError"):
            one.ask("make", problem, 1)
    finally:
        one.close()


def test_a_contender_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "ANSWER", 2.0)
    one = steps.Contestant("nnkit", Device("cpu"), Budget(60))
    try:
        problem = Problem(parse_sizes("784-512-10x512")[0])
        one.ask("make", problem, 0)
        with pytest.raises(Failed, match="was ended, as it gave no answer in 2 s"):
            one.ask("time", 10**6, 1)
    finally:
        one.close()


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.gpu", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": ""})


@pytest.mark.full
def test_short_run(tmp_path: Path) -> None:
    names = [name for name in QUICK if name != "torch-graph"]  # the same as eager PyTorch here
    done = run("--short", "--device", "cpu", "--output", str(tmp_path), "--contenders", *names)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "cpu.json").read_text())
    assert list(result["steps"]) == ["20-10-5x4", "32-32-32-32x8"]
    for by_precision in result["steps"].values():
        assert list(by_precision) == list(steps.PRECISIONS)
        for precision, rows in by_precision.items():
            assert list(rows) == [name for name in names if name not in ONLY_EPOCHS]
            for name, row in rows.items():
                if "left_out" in row:
                    assert "python -m pip install" in row["left_out"] or precision != "float32"
                    continue
                assert 0 < row["minimum"] <= row["median"] < 1
                assert 0 < row["host"] < 1
                assert name == "floor" or row["error"] <= steps.TOLERANCES[precision]
    (epoch,) = result["epochs"].values()
    assert (epoch["samples"], epoch["steps"]) == (300, 5)
    for name in ("nnkit", "nnkit-graph"):
        assert epoch["contenders"][name]["error"] < 1e-4
        assert "way" not in epoch["contenders"][name]  # on the CPU
    kinds = [row["kind"] for row in result["kernels"]]
    assert set(kinds) == {"activation", "gradient", "output delta", "update"}
    assert all(row["minimum"] > 0 for row in result["kernels"])
    text = (tmp_path / "cpu.md").read_text()
    assert text == markdown(result)
    assert text in done.stdout
    assert "its numbers mean nothing" in text
    assert {"gpu", "driver", "cuda_runtime", "cupy", "torch", "jax", "nnkit", "commit", "date"} <= result[
        "machine"
    ].keys()


@pytest.mark.full
def test_sections_without_contenders(tmp_path: Path) -> None:
    options = ("--short", "--device", "cpu", "--output", str(tmp_path), "--sections", "steps", "epochs")
    for name, empty in (("floor", "epochs"), ("nnkit-graph", "steps")):
        done = run(*options, "--contenders", name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads((tmp_path / "cpu.json").read_text())[empty] == {}


def test_the_run_keeps_to_its_budget(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--budget", "1", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "cpu.json").read_text())
    assert result["seconds"] < 10
    assert {"ceilings: copy", "kernels: activations", "steps: 784-30-10x10 float32"} <= set(result["skipped"])
    assert "left out, as the budget is 1 s: ceilings: copy" in (tmp_path / "cpu.md").read_text()


def test_without_a_gpu(tmp_path: Path) -> None:
    try:
        Device("cuda")
    except BackendUnavailableError as error:
        why = str(error)
    else:
        pytest.skip("there is a GPU")
    done = run("--output", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{why}\n")
    assert not list(tmp_path.iterdir())


def test_arguments_are_refused_at_once() -> None:
    for wrong in (["--sizes", "784"], ["--precisions", "fp8"], ["--output", "no folder"], ["--epochs", "784-1x2"]):
        done = run("--device", "cpu", *wrong)
        assert done.returncode == 2
        assert "error:" in done.stderr
