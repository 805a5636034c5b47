"""Names that docstrings' examples may use; and what is missing here skips tests, told in a line for each reason."""

import doctest
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit

# Before pytest imports a file of them, which would put the module `first_layer` in the place of its function.
import nnkit.data
import nnkit.plots
from nnkit.backends import BackendUnavailableError

# What tests and benchmarks may lack, as it is imported, and what pip calls it. nnkit itself needs NumPy only.
_OPTIONAL = {
    "array_api_compat": "array-api-compat", "array_api_strict": "array-api-strict", "cuda": "cuda-bindings",
    "cupy": "cupy", "h5py": "h5py", "hypothesis": "hypothesis", "jax": "jax", "joblib": "joblib",
    "llvmlite": "llvmlite", "matplotlib": "matplotlib", "ml_dtypes": "ml_dtypes", "mpi4py": "mpi4py",
    "nbclient": "nbclient", "nbformat": "nbformat", "numba": "numba", "nvmath": "nvmath-python", "onnx": "onnx",
    "onnxruntime": "onnxruntime", "packaging": "packaging", "pandas": "pandas", "polars": "polars",
    "pooch": "pooch", "pyarrow": "pyarrow", "safetensors": "safetensors", "scipy": "scipy", "skl2onnx": "skl2onnx",
    "sklearn": "scikit-learn", "skops": "skops", "threadpoolctl": "threadpoolctl", "torch": "torch", "tqdm": "tqdm",
}  # fmt: skip


def pytest_configure() -> None:
    """Processes that tests start find this checkout too, wherever they start and whether it is installed or not."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(np=np, nnkit=nnkit)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Skip a module that imports what is not installed, instead of ending the whole run."""
    report: Any = yield
    call = getattr(report, "call", None)
    if report.failed and call is not None:
        _skip_if_missing(report, call.excinfo.value, collector.path)
        if report.skipped:  # or what imports this module, too, would find the half of it that was run
            for name in [
                name for name, m in sys.modules.items() if getattr(m, "__file__", None) == str(collector.path)
            ]:
                del sys.modules[name]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    """Skip a test that ends in the ImportError of something that is not installed."""
    report: Any = yield
    if report.failed and call.excinfo is not None:
        _skip_if_missing(report, call.excinfo.value, item.path)
    return report


def _skip_if_missing(report: Any, error: BaseException, path: object) -> None:
    """Turn a failure into a skip, if an optional package that is not installed is its cause."""
    for cause in _causes(error):
        # Python names the module; nnkit's own errors tell how to install it.
        module = (getattr(cause, "name", None) or "").partition(".")[0]
        hinted = str(cause).rpartition("python -m pip install ")[2]
        for name, package in _OPTIONAL.items():
            if (module == name or hinted == package) and importlib.util.find_spec(name) is None:
                report.outcome = "skipped"
                report.longrepr = (str(path), 0, f"Skipped: {package} is not installed")
                return


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The errors about something missing that led to an error, in the examples of a docstring too."""
    for failure in getattr(error, "failures", [error]):
        cause = failure.exc_info[1] if isinstance(failure, doctest.UnexpectedException) else failure
        while cause is not None:
            if isinstance(cause, ImportError | BackendUnavailableError):
                yield cause
            cause = cause.__cause__ or cause.__context__


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Why tests were skipped: a line for each reason, not for each place. `-rs` tells the places."""
    if set(terminalreporter.reportchars) & set("saA"):
        return
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped, and why", yellow=True)
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {' '.join(reason.split())}")
