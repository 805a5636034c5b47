"""Fixtures and options of all suites: the backend from NNKIT_BACKEND, synchronized timing, and the selection.

pytest bench/                                  a selection of everything: kernels, steps, epochs, predictions
pytest bench/ --full                           every size, dtype and cost
pytest bench/ --short                          each benchmark once at its smallest size, untimed, to check that it runs
pytest bench/ -k sigmoid --benchmark-histogram plots, by pytest-benchmark
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from nnkit.backends import Backend, get_backend

# Limits of pytest-benchmark per benchmark, unless given as options: with its defaults of one second and 5 rounds, the
# 1 400 benchmarks take more than an hour.
LIMITS = {"benchmark_max_time": Decimal("0.25"), "benchmark_min_rounds": 3}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run every benchmark: all sizes, dtypes and costs")
    parser.addoption("--short", action="store_true", help="run each benchmark once, at its smallest size, untimed")


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        config.pluginmanager.register(_WithoutBenchmark())
    config.addinivalue_line("markers", "full: left out unless --full or --short is given")
    if config.getoption("--short"):
        config.option.benchmark_disable = True
    for name, limit in LIMITS.items():
        if not any(argument.startswith("--" + name.replace("_", "-")) for argument in config.invocation_params.args):
            setattr(config.option, name, limit)


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.getoption("--short") or config.getoption("--full"):
        return None
    return "bench: a selection of the benchmarks; --full runs all of them"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect benchmarks of the full mode; in the short mode, skip the larger sizes of each benchmark."""
    if config.getoption("--short"):
        skip = pytest.mark.skip(reason="larger than the sizes of the short mode")
        for item in items:
            size = getattr(item, "callspec", None) and item.callspec.params.get("size")  # type: ignore[attr-defined]
            if isinstance(size, int) and size > 1024:
                item.add_marker(skip)
    elif not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


class _WithoutBenchmark:
    @pytest.fixture
    def benchmark(self) -> None:
        """In the place of pytest-benchmark's."""
        pytest.skip("pytest-benchmark is not installed: python -m pip install pytest-benchmark")


@pytest.fixture(scope="session")
def backend() -> Backend:
    """The selected backend; an error if it is not available."""
    return get_backend()


@pytest.fixture
def random(backend: Backend) -> Callable[..., Any]:
    """Normally distributed arrays of the backend with a fixed seed: `random((n, d), "float32")`."""
    rng = np.random.default_rng(0)
    return lambda shape, dtype="float32": backend.asarray(rng.standard_normal(shape), dtype)


@pytest.fixture
def measure(benchmark: Any, backend: Backend) -> Callable[..., None]:
    """Time a function until the device has finished, in a named group of pytest-benchmark's tables."""

    def timed(group: str, function: Callable[..., object], *arguments: object) -> None:
        benchmark.group = f"{group} ({backend.name})"

        def call() -> None:
            function(*arguments)
            backend.synchronize()

        call()  # compile, allocate, record
        benchmark(call)

    return timed
