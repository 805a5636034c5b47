"""One fixture runs a test on every backend; GPU tests are skipped, with the reason, where there is no GPU.

The whole suite runs on every core where pytest-xdist is installed; campaigns only where `-m campaign` asks for them.
"""

import gc
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import Backend, BackendUnavailableError, get_backend, selection, using_backend
from nnkit.backends.dtypes import dtype_name

try:
    import array_api_strict
except ImportError:  # the tests that need it are skipped
    pass
else:
    # The strictest settings: nothing that some namespace of the standard might lack.
    array_api_strict.set_array_api_strict_flags(
        boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    from hypothesis import settings
except ImportError:
    pass
else:
    settings.register_profile("suite", deadline=None)  # how long an example takes depends on the machine's load
    settings.load_profile("suite")

SUITE = {Path(__file__).parent, Path(__file__).parents[1] / "nnkit"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Whole folders run on every core, a file in one process; selected files, -m gpu, --pdb and -s in this process."""
    option = config.option
    if not hasattr(option, "numprocesses") or hasattr(config, "workerinput"):
        return  # pytest-xdist is not there, or this is one of its processes
    alone = option.usepdb or option.trace or option.capture == "no" or option.collectonly or option.markexpr == "gpu"
    whole = all(Path(argument).resolve() in SUITE for argument in config.args)
    if option.numprocesses is None and option.tx == [] and whole and not alone:
        cores = config.hook.pytest_xdist_auto_num_workers(config=config)
        option.numprocesses = cores if cores > 1 else 0
    if option.numprocesses and option.dist == "no" and whole:
        option.dist = "loadfile"  # what a file's tests share is made once
        option.loadscopereorder = False  # files of few tests may be long ones: short docstrings come last


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave campaigns and programs of several processes out unless they are asked for."""
    for marker in ("campaign", "mpi"):
        left_out = [item for item in items if item.get_closest_marker(marker)]
        if left_out and marker not in config.option.markexpr:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker(marker)]


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """What other files imported and made stays: the garbage collector, which some tests start often, leaves it out."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Arrays:
    """How a test makes arrays of one backend, and gets them back as NumPy's after checking where they are."""

    backend: Backend
    read_only: bool = False

    def __call__(self, values: Any, dtype: str = "float64") -> Any:
        array = self.backend.asarray(np.array(values), dtype)
        if self.read_only:
            array.flags.writeable = False
        return array

    def numpy(self, result: Any, dtype: str | None = None) -> np.ndarray:
        """The values of a result, which must be an array of this backend, on its device, of this dtype."""
        example = self.backend.empty((1,), "float64")
        assert type(result) is type(example), f"{type(result)} came from {self.backend.name}"
        assert getattr(result, "device", "cpu") == getattr(example, "device", "cpu")
        if dtype is not None:
            assert dtype_name(result.dtype) == dtype
        return np.array(self.backend.to_numpy(result))


@pytest.fixture
def ufuncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formulas are computed by NumPy's functions, also where numba is: compiling each takes longer than the test."""
    monkeypatch.setenv("NNKIT_NATIVE", "0")


def gpu_backend() -> Backend:
    """The CuPy backend; skips the test, with what is missing, where it cannot work."""
    return working_backend("cupy")


def working_backend(name: str) -> Backend:
    """The backend of this name; skips the test, with what is missing, where it cannot work."""
    missing = what_is_missing(name)
    if missing:
        pytest.skip(missing)
    return get_backend(name)


@cache
def what_is_missing(name: str) -> str:
    """Why the backend of this name cannot work, looked for once; empty where it can."""
    try:
        get_backend(name)
    except BackendUnavailableError as error:
        return str(error)
    return ""


@pytest.fixture(
    params=[
        "numpy",
        "numpy-read-only",
        "standard:array_api_strict",
        "standard:array_api_strict:device1",
        pytest.param("cupy", marks=pytest.mark.gpu),
    ]
)
def arrays(request: pytest.FixtureRequest) -> Iterator[Arrays]:
    """Makes arrays of each backend in turn; that backend is also the selected one."""
    name = request.param
    if name == "cupy":
        made = Arrays(gpu_backend())
    else:
        made = Arrays(working_backend(name.removesuffix("-read-only")), name.endswith("-read-only"))
    with using_backend(made.backend):
        yield made


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A CuPy backend over the host's memory, in the place of the real one."""
    from tests.support.host_device import HostDevice

    made = HostDevice(pytest.importorskip("cupy", reason="CuPy is not installed"))
    monkeypatch.setitem(selection._made, "cupy", made)
    yield made
    nnkit.set_matmul_precision("highest")
