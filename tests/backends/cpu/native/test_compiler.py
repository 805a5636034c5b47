"""Native text becomes machine code, kept on disk; native nodes run alone, in runs, and from many threads."""

import gc
import os
import platform
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from nnkit.backends.cpu.native import compiler
from nnkit.backends.cpu.native.calls import NativeCall
from nnkit.backends.cpu.native.runs import NativeRun

pytest.importorskip("numba")

COUNT = """\
def f(arguments):
    counter, step = int64s(arguments[0]), arguments[1]
    counter[0] += step
"""


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_addresses", {})


def counting(counter: np.ndarray, step: int) -> NativeCall:
    block = np.array([counter.ctypes.data, step], np.int64)
    return NativeCall(compiler.address_of(COUNT), block, [counter])


def test_calls_alone_and_in_runs() -> None:
    counter = np.zeros(1, np.int64)
    one, ten = counting(counter, 1), counting(counter, 10)
    one()
    assert counter[0] == 1
    run = NativeRun([one, ten, one])
    run()
    assert counter[0] == 13
    assert run.repeat(100) == 100
    assert counter[0] == 1213
    assert run.repeat(0) == NativeRun([]).repeat(0) == 0
    assert counter[0] == 1213


def test_a_flag_stops_repetitions() -> None:
    counter = np.zeros(1, np.int64)
    run = NativeRun([counting(counter, 1)], stop=counter)  # the node sets the flag itself
    assert run.repeat(50) == 1
    assert run.repeat(50) == 0
    run()
    assert counter[0] == 1


def test_another_thread_runs_meanwhile_and_stops_it() -> None:
    counter = np.zeros(1, np.int64)
    run = NativeRun([counting(counter, 1)])

    def stop() -> None:
        while counter[0] == 0:
            time.sleep(0.001)
        run.stop[0] = 1

    thread = threading.Thread(target=stop)
    thread.start()
    done = run.repeat(1 << 60)  # would take centuries; a thread that held the GIL would never be stopped
    thread.join()
    assert done == counter[0] > 0


def test_arithmetic_is_not_contracted() -> None:
    """A fused multiply-add would give the rounding error of the product instead of 0."""
    text = """\
def f(arguments):
    x = float64s(arguments[0])
    for i in range(arguments[1]):
        x[i] = x[i] * x[i] - x[16 + i]
"""
    x = np.full(32, 1 + 2.0**-30)
    x[16:] *= x[16:]
    NativeCall(compiler.address_of(text), np.array([x.ctypes.data, 16]), [x])()
    np.testing.assert_array_equal(x[:16], 0)


PROGRAM = """
import sys
from nnkit.backends.cpu.native import compiler
from nnkit.backends.cpu.native.calls import NativeCall
import numpy as np
x = np.zeros(1, np.int64)
NativeCall(compiler.address_of({text!r}), np.array([x.ctypes.data, 7]))()
assert x[0] == 7
print("numba" in sys.modules)
"""


def another_process(cache: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(Path(__file__).parents[4])}
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(text=COUNT)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the cache directory is set by XDG_CACHE_HOME")
def test_the_cache_of_several_processes(tmp_path: Path) -> None:
    """Two processes write it at once; a third loads it without numba; what is damaged is compiled again."""
    both = [another_process(tmp_path) for _ in range(2)]
    compiled = [p.communicate()[0] for p in both]  # on a busy machine, one may end before the other looks
    assert "True\n" in compiled
    assert set(compiled) <= {"True\n", "False\n"}
    assert another_process(tmp_path).communicate()[0] == "False\n"
    (file,) = (tmp_path / "nnkit" / "native").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    assert another_process(tmp_path).communicate()[0] == "True\n"
    assert len(file.read_bytes()) == len(whole)


def test_without_a_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setattr(compiler, "cache_folder", lambda: tmp_path / "file")
    counter = np.zeros(1, np.int64)
    counting(counter, 3)()
    assert counter[0] == 3


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNKIT_NATIVE", raising=False)
    assert compiler.enabled()
    monkeypatch.setenv("NNKIT_NATIVE", "0")
    assert not compiler.enabled()
    monkeypatch.setenv("NNKIT_NATIVE", "yes")
    with pytest.raises(ValueError, match="NNKIT_NATIVE is 'yes'; expected 0 or 1"):
        compiler.enabled()


def test_repetitions_flush_subnormal_numbers_and_leave_the_mode_as_it_was() -> None:
    text = "def f(arguments):\n    float32s(arguments[0])[0] *= float32(0.5)\n"
    x, tiny = np.array([2e-38], np.float32), np.float32(1e-38)
    run = NativeRun([NativeCall(compiler.address_of(text), np.array([x.ctypes.data], np.int64), [x])])
    run()
    assert 0 < x[0] < np.finfo(np.float32).tiny
    assert run.repeat(3) == 3
    assert platform.machine() not in ("x86_64", "AMD64") or x[0] == 0
    assert tiny * np.float32(0.5) > 0


def test_code_that_nobody_uses_is_unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "LOADED", 2)
    counter, calls = np.zeros(1, np.int64), []
    for step in range(4):
        text = COUNT.replace("step = int64s(arguments[0]), arguments[1]", f"step = int64s(arguments[0]), {step}")
        calls.append(NativeCall(compiler.address_of(text), np.array([counter.ctypes.data]), [counter]))
    engines = [weakref.ref(call.address.engine) for call in calls]
    del calls[1]
    gc.collect()
    assert [engine() is None for engine in engines] == [False, True, False, False]
    for call in calls:  # the first one, which is loaded no more, too
        call()
    assert counter[0] == 0 + 2 + 3
    assert len(compiler._addresses) == 2


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "KEPT", 8)
    for age in range(12):
        compiler._write(tmp_path / f"{age}.o", b"code")
        os.utime(tmp_path / f"{age}.o", (1000 + age, 1000 + age))
    names = sorted(int(file.stem) for file in tmp_path.iterdir())
    assert names[-4:] == [8, 9, 10, 11]
    assert len(names) <= 8
    assert compiler._read(tmp_path / "11.o") == b"code"
