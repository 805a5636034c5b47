"""What every suite shares: the backend that NNKIT_BACKEND names, timed to the end of its work, and a short mode.

pytest bench/                                  everything
pytest bench/ --short                          each benchmark once, smallest size: that it runs
pytest bench/ -k sigmoid --benchmark-histogram pictures, by pytest-benchmark
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnkit.backends import Backend, get_backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="run each benchmark once, at its smallest size")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--short"):
        config.option.benchmark_disable = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the short mode, leave out the larger sizes of each benchmark."""
    if not config.getoption("--short"):
        return
    skip = pytest.mark.skip(reason="a larger size than the short mode needs")
    for item in items:
        size = getattr(item, "callspec", None) and item.callspec.params.get("size")  # type: ignore[attr-defined]
        if isinstance(size, int) and size > 1024:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def backend() -> Backend:
    """The selected backend; the error that says why, if it cannot work."""
    return get_backend()


@pytest.fixture
def random(backend: Backend) -> Callable[..., Any]:
    """Random arrays of the backend: `random((n, d), "float32")`, normal numbers of a fixed seed."""
    rng = np.random.default_rng(0)
    return lambda shape, dtype="float32": backend.asarray(rng.standard_normal(shape), dtype)


@pytest.fixture
def measure(benchmark: Any, backend: Backend) -> Callable[..., None]:
    """Time a function to the end of the device's work, in a named group of pytest-benchmark's tables."""

    def timed(group: str, function: Callable[..., object], *arguments: object) -> None:
        benchmark.group = f"{group} ({backend.name})"

        def call() -> None:
            function(*arguments)
            backend.synchronize()

        call()  # compile, allocate, record
        benchmark(call)

    return timed
