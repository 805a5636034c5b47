"""Metadata of a result: the machine, the versions, and the sizes of the installed packages."""

import argparse
import datetime
import os
import platform
import re
import subprocess
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

import nnkit

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def folder(text: str) -> Path:
    """An existing folder for results, as an argument's type: a missing one is an error before they are measured."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"the directory {text} does not exist")
    return Path(text)


def describe() -> dict[str, Any]:
    """The machine and the basic software, for JSON; `blas` is empty without threadpoolctl."""
    try:
        from threadpoolctl import threadpool_info

        blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    except ImportError:
        blas = []
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": memory(),
        "os": " ".join((platform.system(), platform.machine(), *platform.libc_ver())).strip(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": [f"{b['internal_api']} {b.get('version')} {b.get('architecture', '')}".strip() for b in blas],
        "nnkit": nnkit.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def cpu_model() -> str:
    """The processor's name, with family and model on Linux, as one name covers many processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = known.get("model name", platform.machine())
    return f"{name}, family {known['cpu family']}, model {known['model']}" if "cpu family" in known else name


def memory() -> int | None:
    """The machine's memory in bytes, or None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def commit() -> str | None:
    """The commit of this checkout, with + if there are uncommitted changes; None without git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--dirty=+"], cwd=ROOT, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def installed(distributions: tuple[str, ...]) -> dict[str, Any] | None:
    """The first distribution's version, and the bytes of all with their dependencies; None if it is not installed.

    Other missing distributions and bytecode are not counted.
    """
    try:
        version, own = distribution(distributions[0]).version, 0
    except PackageNotFoundError:
        if distributions[0] != "nnkit":
            return None
        version, own, distributions = nnkit.__version__, _own_bytes(), ("numpy", *distributions)  # a bare checkout
    found: dict[str, Distribution] = {}
    for name in distributions:
        _collect(name, found)
    return {"version": version, "install_bytes": own + sum(map(_bytes, found.values())), "packages": sorted(found)}


def _collect(name: str, found: dict[str, Distribution]) -> None:
    """Add a distribution and its dependencies on this system, without extras."""
    from packaging.requirements import Requirement

    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found:
        return
    try:
        found[key] = distribution(name)
    except PackageNotFoundError:
        return
    for text in found[key].requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            _collect(requirement.name, found)


def _bytes(installed: Distribution) -> int:
    """The bytes of a distribution's files; for nnkit, which may be installed from a checkout, of its packages."""
    if installed.name == "nnkit":
        return _own_bytes()
    paths = [Path(str(file.locate())) for file in installed.files or () if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _own_bytes() -> int:
    folders = [Path(nnkit.__file__).parent, ROOT / "backends"]
    files = [file for folder in folders for file in folder.rglob("*") if "__pycache__" not in file.parts]
    return sum(file.stat().st_size for file in files if file.is_file())
