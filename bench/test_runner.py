"""`python -m bench` in its short form, and that no contender with different results is timed."""

import json
import math
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from bench import machine, rounds
from bench.contenders import NAMES, contender
from bench.contenders.floor import Floor
from bench.epochs import main as epochs
from bench.problem import ACTIVATIONS, LEARNING_RATES, Parameters, Problem, parse_sizes
from bench.process import Failed
from bench.reference import STEPS, TOLERANCES, errors, reference

ROOT = Path(__file__).parent.parent
PLAN = rounds.Plan(threads=1, cores=(), rounds=2, seconds=0.01)
INSIDE = ("nnkit", "nnkit-train-step", "numpy")


def problem(activation: str = "sigmoid", optimizer: str = "sgd", dtype: str = "float64") -> Problem:
    return Problem(parse_sizes("6-5-4-3x7")[0], activation, optimizer, dtype)


def test_epochs_are_written(tmp_path: Path) -> None:
    for package in ("sklearn", "onnxruntime", "onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    few = [
        "--rounds",
        "1",
        "--seconds",
        "0.01",
        "--steps",
        "4",
        "--no-first",
        "--skip",
        "epoch-torch",
        "epoch-jax",
        "epoch-scikit-learn",
    ]
    sizes = ["--sizes", "5-4-3x4", "--served", "5-4-3x2", "--fits", "4-3-3x40", "--tables", "float64-relu-sgd"]
    assert epochs([*few, *sizes, "--results", str(tmp_path)]) == 0
    (written,) = tmp_path.glob("cpu-*-epochs.json")
    result = json.loads(written.read_text())
    tables = [rows for title, rows in result.items() if title.startswith(("An epoch", "predict", "fit"))]
    assert len(tables) == 3
    for (row,) in (table.values() for table in tables):
        assert all(found["minimum"] > 0 for found in row.values())
    assert written.with_suffix(".md").read_text().count("| 5-4-3x") == 2


@pytest.mark.full
def test_short_run(tmp_path: Path) -> None:
    for package in ("matplotlib", "packaging", "tqdm"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    names = [name for name in NAMES if name != "torch-compiled"]  # takes 10 s and needs a compiler
    command = [sys.executable, "-m", "bench", "--short", "--contenders", *names]
    command += ["--json", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "a.json").read_text())
    assert list(result["sizes"]) == ["20-10-5x4", "20-10-5x1"]
    for size in result["sizes"].values():
        assert list(size["contenders"]) == names
        for name, row in size["contenders"].items():
            about = result["contenders"][name]
            if about["version"] is None:
                assert f"python -m pip install {about['distributions'][0]}" in row["left_out"]
                assert f"{about['label']} left out: not installed" in done.stdout
                continue
            assert 0 < row["minimum"] <= row["lower_quartile"] <= row["median"] <= row["upper_quartile"] < 1
            assert row["peak_bytes"] > 1e7
            assert about["install_bytes"] > 1e6
            assert name == "floor" or row["error"] <= result["settings"]["tolerance"]
    assert {"cpu", "cores", "os", "python", "numpy", "blas", "commit", "date"} <= result["machine"].keys()
    for picture in ("a.png", "a-batches.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert "| floor |" in done.stdout


@pytest.mark.full
def test_short_epochs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--epochs", "--sizes", "6-5-3x4", "--served", "6-5-3x4", "--steps", "8"]
    command += ["--rounds", "2", "--seconds", "0.02", "--no-first", "--results", str(tmp_path), "--fits"]
    command += ["--skip", "epoch-torch-compiled"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("cpu-*-epochs.json")
    result = json.loads(file.read_text())
    assert len([title for title in result if title.startswith("An epoch")]) == 4
    assert (
        sum("epoch-numpy" in row for table in result.values() for row in table.values() if isinstance(row, dict)) == 1
    )
    for title in result.keys() - {"machine", "settings"}:
        (row,) = result[title].values()
        assert "epoch-nnkit" in row or "serve-nnkit" in row
        for measured in row.values():
            assert "left_out" in measured or 0 < measured["minimum"] <= measured["median"] < 10


def test_the_arithmetic_of_an_epoch_is_checked() -> None:
    from bench.epochs import _epochs

    given = _epochs(parse_sizes("6-5-3x4")[0], "relu", "adam", "float64", 8)
    error, tolerance = given.check()
    for name in ("epoch-nnkit", "epoch-numpy"):
        made: Any = contender(name)(given)
        for _ in range(made.compared):
            made.step()
        assert error(made.parameters()) < tolerance
        made.step()
        assert error(made.parameters()) > 1e-3


@pytest.mark.parametrize("sizes", [1, 4, 6])
def test_bars_start_at_1(sizes: int) -> None:
    pytest.importorskip("matplotlib", reason="draws a picture")
    from bench.pictures import by_contender

    result = json.loads((ROOT / "bench" / "results" / "cpu-amd-epyc-zen4.json").read_text())
    figure = by_contender(result, list(result["sizes"])[:sizes])
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == sizes
    for axes, size in zip(panels, result["sizes"].values(), strict=False):
        times = {name: row["minimum"] for name, row in size["contenders"].items() if "minimum" in row}
        ends = [time / times["floor"] for name, time in times.items() if name != "floor"]
        bars: Any = axes.patches
        assert {bar.get_x() for bar in bars} == {1}
        assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx(ends)
        assert axes.get_xlim()[0] < min(1.0, *ends)  # the shortest bar is completely visible
    # The lowest panel of each column has the axis.
    assert [bool(axes.get_xlabel()) for axes in panels] == [place >= sizes - 3 for place in range(sizes)]
    assert panels[-1].get_xlabel() == "time / floor; bars start at 1"


@pytest.mark.parametrize("optimizer", LEARNING_RATES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", INSIDE)
def test_same_arithmetic(name: str, dtype: str, activation: str, optimizer: str) -> None:
    given = problem(activation, optimizer, dtype)
    made = contender(name)(given)
    for _ in range(STEPS):
        made.step()
    found = made.parameters()
    assert found is not None
    assert max(errors(given, reference(given), found)) <= TOLERANCES[dtype]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_reference_descends_the_cost(activation: str) -> None:
    given = problem(activation)
    X, Y = given.batch()
    flat = np.concatenate([a.ravel() for pair in given.parameters() for a in pair])

    def cost(numbers: np.ndarray) -> float:
        h, at, last = X, 0, given.size.widths[-1]
        for d_in, d_out in zip(given.size.widths, given.size.widths[1:], strict=False):
            W, b = numbers[at : at + d_in * d_out].reshape(d_out, d_in), numbers[at + d_in * d_out :][:d_out]
            at += d_in * d_out + d_out
            z = h @ W.T + b
            h = z * (z > 0) if activation == "relu" and d_out != last else 1 / (1 + np.exp(-z))
        return -math.fsum((Y * np.log(h) + (1 - Y) * np.log1p(-h)).ravel()) / len(X)

    slopes = [(cost(flat + 1e-5 * e) - cost(flat - 1e-5 * e)) / 2e-5 for e in np.eye(flat.size)]
    stepped = np.concatenate([a.ravel() for pair in reference(given, 1) for a in pair])
    np.testing.assert_allclose((flat - stepped) / given.learning_rate, slopes, atol=1e-8)


def _other_bias(found: Parameters) -> None:
    found[0][1][...] *= 1 + 1e-6


def _nan(found: Parameters) -> None:
    found[1][0][2, 1] = np.nan


def _rounded(found: Parameters) -> None:
    found[2] = (found[2][0].astype(np.float32), found[2][1])


def _transposed(found: Parameters) -> None:
    found[0] = (found[0][0].T, found[0][1])


@pytest.mark.parametrize("damage", [_other_bias, _nan, _rounded, _transposed])
def test_errors_are_seen(damage: object) -> None:
    given = problem()
    found = reference(given)
    assert max(errors(given, reference(given), found)) == 0
    assert callable(damage)
    damage(found)
    assert max(errors(given, reference(given), found)) > TOLERANCES["float64"]


@pytest.mark.parametrize("steps", [STEPS - 1, STEPS + 1])
def test_a_contender_with_another_result_is_not_timed(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(rounds, "reference", lambda problem: reference(problem, steps))
    found = rounds.measure(problem(dtype="float32"), ["floor", "nnkit"], PLAN, lambda what: None)
    assert found["nnkit"].keys() == {"failed"}
    assert found["nnkit"]["failed"].startswith("computes something else")
    assert found["floor"]["minimum"] > 0


def test_measure_reports_its_progress() -> None:
    said: list[str] = []
    found = rounds.measure(problem(), ["floor", "numpy"], PLAN, said.append)
    assert len(said) == 2 * (PLAN.rounds + 2)
    assert said[-2:] == ["6-5-4-3x7 floor: end", "6-5-4-3x7 numpy: end"]
    assert found["numpy"]["chunks"] >= PLAN.rounds


def test_a_crash_is_reported() -> None:
    with pytest.raises(Failed, match="AttributeError"):
        rounds.Worker("nnkit", "no problem", PLAN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "module"),
    [("torch", "torch"), ("jax", "jax"), ("thinc", "thinc.api"), ("scikit-learn", "sklearn.neural_network")],
)
def test_missing_peer(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"not installed; python -m pip install {name}$"):
        contender(name)(problem())


# The products of one step of 6-5-4-3 with 7 samples: the shapes of both factors and of the result.
FLOOR_OF_6_5_4_3 = [
    ((7, 6), (6, 5), (7, 5)), ((7, 5), (5, 4), (7, 4)), ((7, 4), (4, 3), (7, 3)),
    ((3, 7), (7, 4), (3, 4)), ((7, 3), (3, 4), (7, 4)),
    ((4, 7), (7, 5), (4, 5)), ((7, 4), (4, 5), (7, 5)),
    ((5, 7), (7, 6), (5, 6)),
]  # fmt: skip


def test_products_of_the_floor() -> None:
    shapes = [(a.shape, b.shape, out.shape) for a, b, out in Floor(problem()).products]
    assert shapes == FLOOR_OF_6_5_4_3


@pytest.mark.parametrize(
    "text", ["", "784", "784-10", "784-10x", "784x5", "784-10x0", "-1-10x5", "784-1x5", "a-bx1", "3-2x1,"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size|has one output"):
        parse_sizes(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--sizes 784", "'784' is not a size"),
        ("--threads 4096", "threads"),
        ("--rounds 0", "--rounds is 0"),
        ("--picture a.txt", "--picture"),
        ("--json no/a.json", "--json: the directory no does not exist"),
        ("--json .", "--json: . is a directory"),
        ("--epochs --results no", "--results: the directory no does not exist"),
        ("--ensembles --results no", "--results: the directory no does not exist"),
    ],
)
def test_arguments_are_refused_at_once(wrong: str, message: str) -> None:
    done = subprocess.run([sys.executable, "-m", "bench", *wrong.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    of = next((f" {table}" for table in ("--epochs", "--ensembles") if table in wrong), "")
    assert last.startswith(f"python -m bench{of}: error: ")
    assert message in last


def test_missing_packages_are_named_before_measuring(tmp_path: Path) -> None:
    hidden = "import sys\nsys.modules |= {'packaging': None, 'tqdm': None}\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--short"], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    told = "python -m bench: error: needs packaging tqdm: python -m pip install packaging tqdm\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_an_nnkit_that_is_not_installed_has_a_version_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "distribution", missing)
    found = machine.installed(("nnkit", "numpy"))
    assert found is not None
    assert found["version"] == nnkit.__version__
    assert found["install_bytes"] > 500_000
    assert machine.installed(("jax",)) is None


def test_an_ensemble_computes_what_its_networks_compute_alone(tmp_path: Path) -> None:
    from bench.ensembles import main as ensembles

    sizes = ["--ensembles", "--sizes", "5-4-3x4", "--members", "2", "--steps", "4", "--optimizers", "adam"]
    sizes += ["--rounds", "1", "--seconds", "0.01", "--dtype", "float64", "--orders", "own", "--skip", "ensemble-jax"]
    assert ensembles([*sizes, "--results", str(tmp_path)]) == 0
    (written,) = tmp_path.glob("cpu-*-ensembles.json")
    ((row,),) = (table.values() for title, table in json.loads(written.read_text()).items() if title.startswith("adam"))
    assert len(row) == 4
    assert all(0 < found["microseconds"] < 1e6 for found in row.values())
    assert "| 5-4-3x4 | 2 |" in written.with_suffix(".md").read_text()
