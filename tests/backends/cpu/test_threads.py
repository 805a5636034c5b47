"""Elementwise work on several threads gives the bits of one thread, and large work is really divided."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnkit
from nnkit.backends.cpu import blocks
from nnkit.backends.cpu.calls import Scratch, ufunc_calls
from nnkit.backends.formulas.operations import OPERATIONS
from tests.backends.cpu import test_ufuncs
from tests.support.random_programs import EXACT, random_recipe

THREADS = 3


@pytest.fixture
def everything_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide even the smallest arrays, and formulas of any operations."""
    monkeypatch.setattr("nnkit.backends.cpu.calls.FEW_BYTES", -1)
    monkeypatch.setattr(blocks, "BYTES", 1)
    monkeypatch.setattr(blocks, "_COSTLY", set(OPERATIONS))
    monkeypatch.setattr(blocks, "thread_count", lambda: THREADS)
    blocks.pool.cache_clear()


RANDOM_PROGRAMS = pytest.mark.parametrize(
    "test",
    [
        test_ufuncs.test_random_programs,
        test_ufuncs.test_results_are_rounded_to_the_dtype_of_out,
        test_ufuncs.test_operands_and_outs_anywhere_in_one_memory,
    ],
)


@pytest.fixture(params=[8, 40])
def tiny_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute even the smallest arrays in blocks of rows, by operations whose bits do not depend on the loop.

    A block of one entry goes through another loop of NumPy's than many: its pow then differs in the last bit.
    """
    monkeypatch.setattr("nnkit.backends.cpu.calls.FEW_BYTES", -1)
    monkeypatch.setattr("nnkit.backends.cpu.calls.BLOCK", request.param)
    monkeypatch.setattr(test_ufuncs, "random_recipe", lambda choose, names=EXACT: random_recipe(choose, EXACT))


@pytest.mark.usefixtures("tiny_blocks")
@RANDOM_PROGRAMS
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_programs_in_blocks(test: Any, seed: int) -> None:
    test.hypothesis.inner_test(seed)


def test_large_work_with_intermediate_values_is_done_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnkit.backends.cpu.calls.BLOCK", 80)
    scratch = Scratch()
    z = np.linspace(-3.0, 3.0, 101)
    for formula, several in ((nnkit.gelu_tanh, True), (nnkit.relu, False)):
        out = np.empty_like(z)
        calls = ufunc_calls(formula.program(), [z], [out], scratch)
        outs = [call.keywords.get("out", call.args[-1]) for call in calls if isinstance(call, partial)]
        assert (max(o.size for o in outs) == 10) is several
        for call in calls:
            call()
        np.testing.assert_array_equal(out, formula(z))


@pytest.mark.usefixtures("everything_on_threads")
@RANDOM_PROGRAMS
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_programs_in_parallel(test: Any, seed: int) -> None:
    test.hypothesis.inner_test(seed)


@pytest.mark.usefixtures("everything_on_threads")
def test_blocks_run_on_different_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    # The blocks wait for each other, so that one thread cannot run them all.
    together = threading.Barrier(THREADS, timeout=30)
    run = blocks._run

    def noted(calls: Any) -> None:
        seen.add(threading.get_ident())
        together.wait()
        run(calls)

    monkeypatch.setattr(blocks, "_run", noted)
    z = np.linspace(-5, 5, 3 * THREADS)
    np.testing.assert_array_equal(nnkit.sigmoid(z), 1 / (1 + np.exp(-z)))
    assert len(seen) == THREADS


def test_only_large_costly_work_is_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "thread_count", lambda: THREADS)
    large, small = np.zeros(blocks.BYTES // 8), np.zeros(blocks.BYTES // 8 - 1)
    sigmoid, relu = nnkit.sigmoid.program(), nnkit.relu.program()
    assert [len(o) for _, (o,) in blocks.thread_blocks(sigmoid, [large], [large])] == [43690, 43691, 43691]
    assert blocks.thread_blocks(sigmoid, [small], [small]) == []
    assert blocks.thread_blocks(relu, [large], [large]) == []
    assert blocks.thread_blocks(sigmoid, [large.reshape(1, -1)], [large.reshape(1, -1)]) == []


def test_overflow_on_a_thread_is_quiet(everything_on_threads: None) -> None:
    assert nnkit.sigmoid(np.full(9, -1e4)).tolist() == [0.0] * 9


@pytest.mark.usefixtures("everything_on_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is not on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_creates_its_own_threads() -> None:
    together = threading.Barrier(THREADS - 1, timeout=30)
    for waiting in [blocks.pool().submit(together.wait) for _ in range(THREADS - 1)]:
        waiting.result()  # every thread has run, so that the child would wait for all of them
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if nnkit.sigmoid(np.zeros(9))[8] == 0.5 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of users are not on this system")
@pytest.mark.parametrize("signals", [1, 2])
def test_no_thread_writes_after_an_exception(signals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a signal's handler during the calls of its thread, and again while it waits for the others."""
    monkeypatch.setattr(blocks, "thread_count", lambda: 2)  # so that the third list waits for the second
    blocks.pool.cache_clear()
    written, raised = np.zeros(2), [0]
    running = threading.Event()

    def late(*_: Any) -> None:
        raised[0] += 1
        raise TimeoutError(f"signal {raised[0]}")

    def interrupted() -> None:
        running.wait(30)
        signal.raise_signal(signal.SIGUSR1)

    def slow() -> None:
        running.set()
        while raised[0] < signals:
            time.sleep(0.02)
            if raised[0] == 1 < signals:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        time.sleep(0.02)
        written[0] = 1

    before = signal.signal(signal.SIGUSR1, late)
    try:
        with pytest.raises(TimeoutError, match=f"signal {signals}"):
            blocks.SideBySide([[interrupted], [slow], [partial(written.fill, 3)]])()
        ended = written.copy()
        blocks.pool().submit(int).result()  # after all calls that came before it
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert written.tolist() == ended.tolist() == [1, 0]


@pytest.mark.parametrize(("wanted", "expected"), [("64", 2), ("2", 2), ("1", 1), ("0", 2), ("", 2), ("many", 2)])
def test_no_more_threads_than_cpus(monkeypatch: pytest.MonkeyPatch, wanted: str, expected: int) -> None:
    monkeypatch.setattr(blocks, "usable_cpus", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    blocks.thread_count.cache_clear()
    try:
        assert blocks.thread_count() == expected
    finally:
        blocks.thread_count.cache_clear()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "350000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, float("inf")),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_no_more_threads_than_a_container_may_use(files: dict[str, str], expected: float, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert blocks._quota(tmp_path) == expected
