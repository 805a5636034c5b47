"""Which backend: argument > using_backend() > use_backend() > NNKIT_BACKEND > numpy, and who sees a selection."""

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import nnkit
from nnkit.backends import (
    BackendUnavailableError,
    UnknownBackendError,
    backend_names,
    get_backend,
    use_backend,
    using_backend,
)

STRICT = "standard:array_api_strict"
DEVICE1 = f"{STRICT}:device1"
DEVICE2 = f"{STRICT}:device2"


@pytest.fixture(autouse=True)
def _nothing_selected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NNKIT_BACKEND", raising=False)
    use_backend(None)
    yield
    use_backend(None)


def selected() -> str:
    return get_backend().name


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selected() == "numpy"
    monkeypatch.setenv("NNKIT_BACKEND", f" {STRICT} ")
    assert selected() == STRICT
    use_backend(DEVICE1)
    assert selected() == DEVICE1
    with using_backend(DEVICE2) as backend:
        assert backend is get_backend()
        assert selected() == DEVICE2
        assert get_backend("numpy").name == "numpy"
        assert selected() == DEVICE2
    assert selected() == DEVICE1
    use_backend(None)
    assert selected() == STRICT
    monkeypatch.setenv("NNKIT_BACKEND", "")
    assert selected() == "numpy"


def test_use_backend_inside_using_backend_takes_effect_afterwards() -> None:
    with using_backend(DEVICE1):
        use_backend(DEVICE2)
        assert selected() == DEVICE1
    assert selected() == DEVICE2


def test_blocks_nest_and_end_with_an_exception() -> None:
    with using_backend(DEVICE1):
        with pytest.raises(KeyError, match="numpy"), using_backend(DEVICE2), using_backend("numpy"):
            raise KeyError(selected())
        assert selected() == DEVICE1
    assert selected() == "numpy"


def test_numbers_and_lists_use_the_selected_backend() -> None:
    with using_backend(DEVICE1) as backend:
        assert nnkit.sigmoid([0.0]).device == backend.empty((), "float64").device
        assert nnkit.softmax([[0.0]]).device == backend.empty((), "float64").device


def test_a_backend_is_created_once() -> None:
    backend = get_backend(DEVICE1)
    assert get_backend(DEVICE1) is backend
    assert get_backend(backend) is backend
    assert get_backend("standard") is get_backend(STRICT)
    use_backend(backend)
    assert get_backend() is backend


@pytest.mark.parametrize("name", ["nump", "NumPy", "", "cuda:0", "standrd:torch"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownBackendError, match=f"unknown backend '{name}'") as caught:
        get_backend(name)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, BackendUnavailableError)
    assert all(known in str(caught.value) for known in [*backend_names(), "auto"])


@pytest.mark.parametrize("name", [3, b"numpy", ["numpy"]])
def test_a_name_is_a_string(name: object) -> None:
    with pytest.raises(TypeError, match=f"name is {re.escape(repr(name))}; expected the name of a backend"):
        get_backend(name)  # type: ignore[arg-type]
    for select in (use_backend, using_backend):  # at once, and not only in the `with` statement
        with pytest.raises(TypeError, match="; expected the name of a backend"):
            select(name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name is None; expected the name of a backend"):
        using_backend(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("numpy:1", "NumPy has one device"),
        ("cupy:first", "expected a device number"),
        ("standard:no_such_module", "namespace 'no_such_module' cannot be imported"),
        ("standard:json", "'json' is not an array API namespace"),
        (f"{STRICT}:nowhere", "has no device 'nowhere'; known: CPU_DEVICE, device1, device2"),
    ],
)
def test_an_unavailable_backend_says_why(name: str, message: str) -> None:
    with pytest.raises(BackendUnavailableError, match=message):
        get_backend(name)


@pytest.mark.parametrize(("name", "message"), [("nump", "unknown backend 'nump'; known: "), ("numpy:1", "one device")])
def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setenv("NNKIT_BACKEND", name)
    with pytest.raises(BackendUnavailableError, match=f"^NNKIT_BACKEND: .*{message}") as caught:
        get_backend()
    assert isinstance(caught.value, UnknownBackendError) == (name == "nump")
    with using_backend("numpy"):  # what is selected otherwise does not look at it
        assert selected() == "numpy"
    with pytest.raises(BackendUnavailableError, match=r"^numpy:1: NumPy has one device"):
        get_backend("numpy:1")  # asked for by argument: the variable is not to blame


def test_a_failed_selection_changes_nothing() -> None:
    use_backend(DEVICE1)
    with pytest.raises(UnknownBackendError):
        use_backend("nump")
    assert selected() == DEVICE1
    with pytest.raises(UnknownBackendError), using_backend("nump"):
        pytest.fail("the block must not run")
    assert selected() == DEVICE1


def test_threads_select_for_themselves() -> None:
    """Both are inside their blocks at the same time, and see the process-wide selection before and after."""
    use_backend(STRICT)
    barrier = threading.Barrier(2, timeout=10)
    seen: dict[str, list[str]] = {}

    def work(name: str) -> None:
        seen[name] = [selected()]
        with using_backend(name):
            barrier.wait()
            seen[name].append(selected())
            barrier.wait()
        seen[name].append(selected())

    with using_backend("numpy"):
        threads = [threading.Thread(target=work, args=(name,)) for name in (DEVICE1, DEVICE2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert selected() == "numpy"
    assert seen == {name: [STRICT, name, STRICT] for name in (DEVICE1, DEVICE2)}


def test_tasks_select_for_themselves() -> None:
    log: list[tuple[str, str]] = []

    async def work(name: str, mine: asyncio.Event, others: asyncio.Event) -> None:
        with using_backend(name):
            log.append((name, selected()))
            mine.set()
            await others.wait()  # until the other task is inside its block too
            log.append((name, selected()))
            await asyncio.sleep(0)
        log.append((name, selected()))

    async def main() -> None:
        a, b = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work(DEVICE1, a, b), work(DEVICE2, b, a))
        assert selected() == "numpy"

    asyncio.run(main())
    assert [name for name, _ in log[:2]] == [DEVICE1, DEVICE2]  # both entered before either left
    assert log[:2] == [(DEVICE1, DEVICE1), (DEVICE2, DEVICE2)]
    assert sorted(log[2:]) == sorted([(n, s) for n in (DEVICE1, DEVICE2) for s in (n, "numpy")])


AUTO = """
import sys, threading, warnings
sys.modules["cupy"] = None  # as if it were not installed
import nnkit
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    thread = threading.Thread(target=nnkit.get_backend, args=("auto",))
    thread.start(); thread.join()
    names = [nnkit.get_backend({asked}).name for _ in range(3)]
nnkit.use_backend("auto")
print(names, nnkit.get_backend().name, len(caught), caught[0].category.__name__, caught[0].message)
"""


@pytest.mark.parametrize(("asked", "variable"), [("'auto'", ""), ("", "auto")])
def test_auto_falls_back_and_says_so_once(asked: str, variable: str) -> None:
    environment = os.environ | {"NNKIT_BACKEND": variable}
    script = AUTO.format(asked=asked)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['numpy', 'numpy', 'numpy'] numpy 1 BackendFallbackWarning")
    assert "CuPy is not installed: python -m pip install" in done.stdout
