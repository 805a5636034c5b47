"""The README says what is true: its examples give its output, its links and the commands of the guide work."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnkit
from nnkit.verify.equations import equations
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = (ROOT / "docs" / "guide" / "command-line.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def _run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_the_network_prints_what_the_readme_shows(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    shown = re.search(r"```python\n([^`]*)```\n\n```text\n([^`]*)```", README)
    assert shown is not None
    assert _run(shown[1], tmp_path) == shown[2]
    assert (tmp_path / "digits.onnx").exists()


def test_an_estimator_and_a_network_are_five_lines() -> None:
    assert [sum(map(bool, code.splitlines())) for code in EXAMPLES[:2]] == [5, 6]  # and the export


@pytest.mark.parametrize("code", [code for code in EXAMPLES if "to_onnx" not in code])
def test_every_other_example_runs(code: str, tmp_path: Path) -> None:
    if "checkpoint=" in code:
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    if "nnkit.sklearn" in code:
        pytest.importorskip("sklearn", minversion="1.9", reason="needs scikit-learn 1.9 or newer")
    assert _run(code, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="the block is for a POSIX shell")
def test_the_commands_of_the_guide_run(tmp_path: Path) -> None:
    for package in ("safetensors", "matplotlib"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    commands = tmp_path / "commands"  # as a normal install has them
    commands.mkdir()
    for name, module in (("python", ""), ("nnkit", "-m nnkit ")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        (commands / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    block = re.search(r"```sh\n(.*?)```", COMMANDS, re.DOTALL)
    assert block is not None
    done = subprocess.run(
        ["sh", "-e", "-c", block[1]], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = re.search(r"^accuracy +(0\.\d+|1\.0+)$", done.stdout, re.MULTILINE)
    assert found is not None
    assert float(found[1]) > 0.9
    predicted = (tmp_path / "predicted.csv").read_text().splitlines()
    assert predicted[0] == "prediction"
    assert len(predicted) == 151
    assert (tmp_path / "mistakes.png").read_bytes().startswith(b"\x89PNG")


def test_the_lecture_has_every_equation() -> None:
    """Each directive makes the rows of its number; the build ends if one of nnkit verify is on no page."""
    shown = re.findall(
        r"^```\{equation\} ([\d, ]+)$", (ROOT / "docs" / "lecture" / "index.md").read_text(), re.MULTILINE
    )
    assert sorted(shown) == sorted({e.number for e in equations()})


def test_the_speeds_are_those_of_the_results() -> None:
    results = (ROOT / "bench" / "results" / "cpu-intel-xeon-processor-6-167-epochs.md").read_text()
    lines = results.partition("## An epoch, adam, float32, relu: µs a step\n")[2].partition("\n## ")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    measured = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    table = re.search(r"\| µs a step \|.*?\n\n", README, re.DOTALL)
    assert table is not None
    sizes, _, *shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].split("\n")[:-2]]
    names = {
        "nnkit, with numba": "nnkit", "nnkit, NumPy only": "nnkit-without-numba", "JAX, one `lax.scan` an epoch": "jax",
        "PyTorch, compiled": "torch-compiled", "PyTorch": "torch", "scikit-learn's MLP": "scikit-learn",
        "plain NumPy": "numpy", "matrix products alone, by BLAS": "products",
    }  # fmt: skip
    assert [row[0] for row in shown] == list(names)
    for label, *cells in shown:
        for size, cell in zip(sizes[1:], cells, strict=True):
            found = measured[size.replace(", ", "x")][names[label]]
            assert (cell == "–") == (found == "–")
            if cell != "–":
                assert float(cell.replace(" ", "")) == float(f"{float(found):.3g}")
    others = (ROOT / "bench" / "results" / "cpu-amd-epyc-zen4.md").read_text()
    installed = {row[0]: row[-1] for row in (line.split(" | ") for line in others.splitlines()) if len(row) == 9}
    for name, size in (("JAX jit 0.10.2", "544"), ("PyTorch compiled", "741"), ("nnkit without SciPy", "59")):
        assert installed[f"| {name}"] == f"{size} |"
        assert size in README


def test_links_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_files_named_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    quoted = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    files = [name for name in quoted if re.fullmatch(r"(nnkit|tests|bench)/[\w/.]*", name)]
    assert len(files) > 10
    assert [name for name in files if not (ROOT / name).exists()] == []
    names = [name for name in quoted if re.fullmatch(r"nnkit(\.\w+)+", name)]
    assert len(names) > 5
    for name in names:
        found: object = nnkit
        for part in name.split(".")[1:]:
            found = getattr(found, part)


def test_no_figure_is_said_to_be_of_a_gpu_before_there_is_one() -> None:
    results = [json.loads(file.read_text()) for file in (ROOT / "bench" / "results").glob("*.json")]
    measured = any(result["machine"].get("compute_capability") for result in results)
    first = README.partition("\n## ")[0].split("\n\n")[1]
    assert ("nothing has been measured on a GPU yet" in first) != measured
