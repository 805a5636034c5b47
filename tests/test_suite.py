"""The suite itself: its files in any order, its tests with the same names in each process."""

import os
import re
import subprocess
import sys

import pytest

from tests.support import ROOT


def run(*arguments: str) -> str:
    """The output of another pytest over the suite, which must pass."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_test_file_can_be_collected_first() -> None:
    """pytest imports it by its path; the package's function of that name must stay."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    files = ["nnkit/plots/confusion_matrix.py", "nnkit/data/mnist.py"]
    files += ["tests/plots/test_files.py", "tests/training/test_interrupt.py"]
    run(*files, "-k", "confusion_matrix or mnist or handler")


def test_test_ids_contain_no_addresses(request: pytest.FixtureRequest) -> None:
    """It would be another one in each process of pytest-xdist, which then refuses to run."""
    names = [item.nodeid for item in request.session.items]
    assert [name for name in names if re.search(r" at 0x[0-9a-f]{6,}", name)] == []


def test_campaigns_run_only_if_selected() -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    campaign = "tests/training/test_resume.py::test_resuming_after_kills_at_random_moments"
    assert f"{campaign}[200]" not in run("--collect-only", "-q", campaign)
    assert f"{campaign}[200]" in run("--collect-only", "-q", campaign, "-m", "campaign")
