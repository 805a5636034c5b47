"""Tests of what is not installed are skipped, and the end of a run tells why in a line for each reason."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

NEEDY = '''
import pytest
def test_hint():
    """
    >>> raise ImportError("models are kept in files: python -m pip install safetensors")
    """
    raise ImportError("models are kept in files: python -m pip install safetensors")
@pytest.mark.skip(reason="a reason of its own")
def test_skipped(): pass
def test_passes(): pass
'''
FAULTY = """
def test_not_optional(): import nowhere
def test_installed(): raise ImportError("python -m pip install numpy")
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A pytest of its own in a folder with this project's conftest.py, where safetensors is missing."""
    shutil.copy(ROOT / "conftest.py", folder)
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['safetensors'] = None\n")
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder, folder, *options],
        cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_missing_packages_skip(tmp_path: Path) -> None:
    (tmp_path / "test_import.py").write_text("import safetensors.numpy\ndef test_never(): assert False\n")
    (tmp_path / "test_half.py").write_text("import json\nfrom test_import import test_never\n")
    (tmp_path / "test_needy.py").write_text(NEEDY)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    # Both modules, each collected for its tests and for its examples; a test and an example.
    assert "    6  safetensors is not installed\n    1  a reason of its own\n" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].count("1 passed, 7 skipped") == 1
    assert "SKIPPED [" not in done.stdout
    assert "SKIPPED [" in run(tmp_path, "-rs").stdout


def test_other_errors_fail(tmp_path: Path) -> None:
    (tmp_path / "test_faulty.py").write_text(FAULTY)
    done = run(tmp_path)
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    assert "FAILED test_faulty.py::test_not_optional - ModuleNotFoundError" in done.stdout


def test_benchmarks_without_their_plugin_are_skipped() -> None:
    command = [sys.executable, "-m", "pytest", "bench/test_formulas.py", "-q", "--short", "-p", "no:benchmark"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d  pytest-benchmark is not installed: python -m pip install pytest-benchmark\n", done.stdout)
    assert " error" not in done.stdout
