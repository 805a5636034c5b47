"""Sweeps have the bits of a loop on each engine of the example, and end bad trainings early with Optuna."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.support import ROOT

EXAMPLE = ROOT / "examples" / "sweeps.py"
NEEDS = {"joblib": "joblib", "processes": "concurrent", "dask": "dask", "ray": "ray", "mpi": "mpi4py"}


def printed(engine: str, *launcher: str) -> list[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    done = subprocess.run(
        [*launcher, *([] if launcher else [sys.executable]), EXAMPLE, engine],
        check=True, capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "engine",
    ["joblib", *(pytest.param(name, marks=pytest.mark.campaign) for name in ("processes", "dask", "ray", "mpi"))],
)
def test_a_sweep_has_the_bits_of_a_loop(engine: str) -> None:
    if importlib.util.find_spec(NEEDS[engine]) is None:
        pytest.skip(f"{NEEDS[engine]} is not installed")
    launcher = ["mpiexec", "-n", "3", sys.executable, "-m", "mpi4py.futures"] if engine == "mpi" else []
    lines = printed(engine, *launcher)
    assert len(lines) == 6
    assert lines == printed("loop")
    assert len({line.split()[-1] for line in lines}) == 6


def test_optuna_ends_trainings_that_are_worse_than_others() -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    (line,) = printed("optuna")
    assert float(line.split("accuracy ")[1].split(";")[0]) > 0.9
    assert 1 <= int(line.split("; ")[1].split()[0]) <= 7
