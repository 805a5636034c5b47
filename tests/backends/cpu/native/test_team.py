"""Nodes whose parts several threads compute: the results of one thread, also if a helper is late, gone or missing."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends.cpu import blocks
from nnkit.training import blas_threads

pytest.importorskip("numba", reason="compiles")
pytest.importorskip("threadpoolctl", reason="counts the threads of BLAS")
from threadpoolctl import threadpool_info, threadpool_limits

from nnkit.backends.cpu.native import formulas, nodes, products, team
from nnkit.backends.cpu.native.calls import NativeCall, node
from nnkit.backends.cpu.native.runs import NativeRun
from nnkit.backends.cpu.native.team import Shared, team_of
from nnkit.backends.cpu.native.tiling import has_tiles
from tests.backends.cpu.native import test_formulas, test_nodes

pytestmark = pytest.mark.skipif(not has_tiles(), reason="the CPU has no AVX-512")
THREADS = 3
RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Shared]]:
    """Divide the smallest nodes among three threads, and call helpers for the shortest runs; the nodes that are."""
    made, of = list[Shared](), Shared.of

    def noted(parts: Any, work: float) -> Shared:
        made.append(of(parts, work))
        return made[-1]

    monkeypatch.setattr(Shared, "of", noted)
    monkeypatch.setattr(team, "_WORTH", 0.0)
    for module in (formulas, nodes, products):
        monkeypatch.setattr(module, "part_count", lambda work: team.part_count(1e6 * work))
    monkeypatch.setattr(blas_threads, "TEAM", 0)
    for module in (blocks, blas_threads):
        monkeypatch.setattr(module, "thread_count", lambda: THREADS)
    blocks.pool.cache_clear()
    with threadpool_limits(THREADS, "blas"):
        yield made
    blocks.pool().shutdown()
    blocks.pool.cache_clear()


ORDERS = ("CCC", "CFC", "FCC", "FCF")  # which tiles compute
CASES: dict[str, Callable[[Any], object]] = {
    **{f"product {o}": lambda d, o=o: test_nodes.test_products(d, (33, 64, 65), o) for o in ORDERS},  # type: ignore[misc]
    "stacks": lambda d: test_nodes.test_products_of_members_side_by_side(d, (4, 10, 30, 20)),
    "sums": lambda d: test_nodes.test_column_sums(d, (67, 13)),
    "long sums": lambda d: test_nodes.test_column_sums_of_many_rows_keep_their_digits(d, 5000),
    "gather": lambda d: test_nodes.test_rows_at_a_counter("uint8", d, True),
    "take": lambda d: test_nodes.test_rows_at_a_counter("float64", d, False),
    "rows": lambda d: test_formulas.test_rows_and_updates_in_place("C", d),
    "columns": lambda d: test_formulas.test_rows_and_updates_in_place("F", d),
}


@pytest.mark.parametrize("size", [2, THREADS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_shared_nodes(case: str, dtype: str, size: int, made: list[Shared], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of nodes, against NumPy, pass for a team; tiles compute the product of either order."""
    monkeypatch.setattr("nnkit.backends.cpu.native.tiling.fewest", lambda: 0)
    monkeypatch.setattr("nnkit.backends.cpu.native.tiling._narrow", lambda: True)
    with threadpool_limits(1, "blas"), team_of(size):
        CASES[case](dtype)
    assert made
    assert {len(each.parts) for each in made} <= {*range(2, size + 1)}


def test_shared_formulas(made: list[Shared]) -> None:
    with team_of(THREADS):
        for seed in range(60):
            test_formulas.random_case(seed)
    assert made


def counting(counter: np.ndarray, add: int) -> NativeCall:
    return node("def f(arguments):\n    int64s(arguments[1])[0] += arguments[0]\n", [add], [counter])


def helped(shared: Shared) -> bool:
    """Whether a helper computed a part when the node was made last."""
    return bool(shared.keep[1][0])


def test_helpers_compute_parts_and_go() -> None:
    counters = np.zeros((THREADS, 8), np.int64)
    shared = Shared.of([counting(counter, 1) for counter in counters], 1.0)
    run, times, end = NativeRun([shared]), 0, time.monotonic() + 60
    with team_of(THREADS):
        while not helped(shared) and time.monotonic() < end:
            assert run.repeat(100) == 100
            times += 100
        assert helped(shared)
    assert counters[:, 0].tolist() == [times] * THREADS
    blocks.pool().submit(int).result(60)  # whose threads are free again
    run()  # outside, this thread makes all
    assert counters[:, 0].tolist() == [times + 1] * THREADS
    assert not helped(shared)


def test_a_helper_that_goes_while_this_thread_computes() -> None:
    """It has computed its part, waited in vain for the next one, and left: its word is not what it was before."""
    done = np.zeros(1, np.int64)
    slow = node("def f(arguments):\n    for i in range(arguments[0]):\n        pause()\n", [10_000_000], [])
    shared = Shared.of([slow, counting(done, 1)], 1.0)
    with team_of(2):
        for _ in range(3):
            NativeRun([shared])()
    assert done.tolist() == [3]


def test_helpers_that_cost_more_than_they_save_are_sent_away() -> None:
    """As on a CPU that another program uses; the nodes are computed, the next ones alone."""
    done, end = np.zeros(2, np.int64), time.monotonic() + 60
    slow = "def f(arguments):\n    for i in range(arguments[0]):\n        pause()\n    int64s(arguments[1])[0] += 1\n"
    shared, times = Shared.of([counting(done[:1], 1), node(slow, [10_000_000], [done[1:]])], 1.0), 0
    run = NativeRun([shared])
    with team_of(2):
        words = team.current.get().words  # type: ignore[union-attr]
        while words[0] == 0 and time.monotonic() < end:
            run()
            times += 1
        assert words[0] == 64
        run()
        assert not helped(shared)
        assert words[0] == 63
    assert done.tolist() == [times + 1] * 2


def test_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(team, "pool", none)
    counters = np.zeros((2, 1), np.int64)
    with team_of(2):
        NativeRun([Shared.of([counting(counter, 2) for counter in counters], 1.0)])()
    assert counters.tolist() == [[2], [2]]


# --- trainings -----------------------------------------------------------------------------------------------------

X, Y = RNG.normal(size=(100, 40)), RNG.integers(0, 10, 100)


def network(dtype: Any = "float64") -> nnkit.Network:
    layers = [nnkit.Dense(40, 33, "relu"), nnkit.Dropout(0.2), nnkit.Dense(33, 10, "softmax")]
    return nnkit.Network(layers, seed=0, dtype=dtype)


def trained(net: nnkit.Network, **options: Any) -> bytes:
    arguments: dict[str, Any] = {"epochs": 3, "batch_size": 32, "optimizer": "adam", "progress": False}
    net.fit(X, Y, **(arguments | options))
    return net.parameters.vector.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["adam", nnkit.SGD(0.1, momentum=0.9)])
def test_a_training_has_the_bits_of_one_thread(dtype: Any, optimizer: Any, made: list[Shared]) -> None:
    validation = {"validation_data": (X, Y)}
    several = trained(network(dtype), optimizer=optimizer, **validation)
    assert made
    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {THREADS}
    with threadpool_limits(1, "blas"):
        made.clear()
        assert trained(network(dtype), optimizer=optimizer, **validation) == several
        assert not made


def test_an_ensemble_has_the_bits_of_one_thread(made: list[Shared]) -> None:
    def bits() -> list[bytes]:
        ensemble = nnkit.Ensemble([40, 33, 10], "relu", seeds=range(4))
        ensemble.fit(X, Y, epochs=2, optimizer="adam", progress=False)
        return [member.parameters.vector.tobytes() for member in ensemble.members]

    several = bits()
    assert made
    with threadpool_limits(1, "blas"):
        assert bits() == several


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is not on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_goes_on_alone() -> None:
    """It has the words of helpers, who are not there."""
    codes = list[int]()

    def forks(net: Any, history: Any) -> None:
        if len(history["cost"]) == 2:
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                codes.append(0)
            else:
                codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    expected = trained(network())
    parent, net = os.getpid(), network()
    try:
        found = trained(net, callbacks=[forks])
    finally:
        if os.getpid() != parent:
            os._exit(0 if net.parameters.vector.tobytes() == expected else 1)
    assert found == expected
    assert codes == [0]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="signal.alarm is not on this system")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a finalizer
def test_no_helper_stays_after_an_exception() -> None:
    def late(*_: Any) -> None:
        raise TimeoutError("late")

    def trained_until(delay: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, delay, 2.0)
        trained(network(), epochs=100_000)

    trained(network())  # starts the threads: an exception in `Thread.start` itself becomes a KeyError of Python's
    before = signal.signal(signal.SIGALRM, late)
    try:
        for delay in np.linspace(0.001, 0.05, 20):
            with pytest.raises(TimeoutError, match="late"):
                trained_until(delay)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for waiting in [blocks.pool().submit(int) for _ in range(THREADS)]:
        waiting.result(60)
    assert trained(network()) == trained(network())


def test_trainings_at_once(made: list[Shared]) -> None:
    """One of them has a team; all have the bits of a training alone."""
    expected, found = trained(network()), list[bytes]()
    together = threading.Barrier(4, timeout=60)

    def train() -> None:
        together.wait()
        found.extend(trained(network()) for _ in range(5))

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 20
