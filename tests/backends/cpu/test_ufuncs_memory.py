"""Formulas on NumPy: no memory is asked for again, and no scratch is shared between threads."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import get_backend
from nnkit.backends.cpu import calls
from nnkit.backends.cpu.allocation import signature_of
from nnkit.backends.cpu.calls import Plan, Scratch, ufunc_calls
from nnkit.backends.formula import Formula, list_formulas
from tests.support.random_programs import DTYPES

numpy = get_backend("numpy")
KERNELS = {name: f for name, f in list_formulas().items() if name.startswith("nnkit.kernels.")}
SIZE = 2**20  # bytes of each operand


@pytest.fixture(autouse=True)
def _tracing() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak(function: Callable[[], object]) -> int:
    """The most bytes that a call holds at once, beyond what there was before."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    function()
    return tracemalloc.get_traced_memory()[1] - before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_second_run_allocates_nothing(name: str, dtype: str) -> None:
    formula = KERNELS[name]
    shape = (256, SIZE // 256 // np.dtype(DTYPES[dtype]).itemsize)
    operands = [np.full(shape, 0.5, DTYPES[dtype]) for _ in formula.operands]
    outs = tuple(np.empty_like(operands[0]) for _ in formula.program().outputs)
    out = outs if len(outs) > 1 else outs[0]
    assert peak(lambda: formula(*operands)) >= SIZE  # tracemalloc sees NumPy's arrays
    formula(*operands, out=out)
    assert peak(lambda: formula(*operands, out=out)) < 64 * 1024


def test_updates_in_place_allocate_nothing() -> None:
    p, g, mean, square = (np.full(SIZE // 8, 0.5) for _ in range(4))

    def update() -> None:
        nnkit.kernels.updates.adam(p, g, mean, square, 0.1, 0.5, 0.5, out=(p, mean, square))

    update()
    assert peak(update) < 64 * 1024


def test_scratch_grows_and_is_used_again() -> None:
    scratch = Scratch()
    small = scratch.array(1, (4,), np.dtype(np.float32))
    small[...] = 7
    large = scratch.array(1, (100, 3), np.dtype(np.float64))
    large[...] = 8
    assert (small == 7).all()  # handed out before, still valid
    again = scratch.array(1, (2, 5), np.dtype(np.float32))
    assert np.shares_memory(again, large)
    assert again.shape == (2, 5)
    assert again.dtype == np.float32
    assert not np.shares_memory(again, scratch.array(2, (2, 5), np.dtype(np.float32)))


def test_threads_in_lockstep_do_not_meet_in_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread makes its every call right after the other's: shared scratch would hold the other's values."""
    barrier = threading.Barrier(2, timeout=10)
    made: list[int] = []

    def in_lockstep(*arguments: Any) -> Iterator[Callable[[], None]]:
        for call in ufunc_calls(*arguments):

            def wait_and_call(call: Callable[[], object] = call) -> None:
                barrier.wait()
                call()
                made.append(threading.get_ident())

            yield wait_and_call

    monkeypatch.setattr(calls, "ufunc_calls", in_lockstep)
    monkeypatch.setattr(calls, "FEW_BYTES", -1)
    formula = Formula(lambda xp, x, row: xp.floor(x * row) + xp.sqrt(x + row) * row, "f", ["x", "row"])
    operands = [np.random.default_rng(i).uniform(1, 9, (40, 30)) for i in range(2)]
    results: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        results[i] = numpy.elementwise(formula, (operands[i], operands[i][0]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(operands):
        np.testing.assert_array_equal(results[i], np.floor(x * x[0]) + np.sqrt(x + x[0]) * x[0])
    assert made
    assert all(made[i] != made[i + 1] for i in range(0, len(made), 2))  # they did take turns


def test_each_thread_has_its_own_scratch() -> None:
    formula = Formula(lambda xp, x: xp.floor(x) * xp.sqrt(x), "f", ["x"])
    x = np.ones(3)
    signature = signature_of([x], [x.copy()])

    def plan() -> Plan:
        return calls._thread.plan(formula.program(), signature)

    found: list[Plan] = []
    thread = threading.Thread(target=lambda: found.append(plan()))
    thread.start()
    thread.join()
    assert found[0].scratch is not plan().scratch
    assert plan() is plan()
    (theirs,), (own,) = found[0].fixed, plan().fixed
    assert not np.shares_memory(theirs, own)


@pytest.mark.parametrize(("dtype", "columns"), [("float32", 4), ("float64", 8), ("float64", 3)])
def test_a_column_in_place(dtype: str, columns: int) -> None:
    """NumPy 2.4's own np.negative(a, a) is wrong at some of these strides."""
    values = np.random.default_rng(0).normal(size=(20, columns)).astype(dtype)
    column, wanted = values[:, :1], 1 / (1 + np.exp(-values[:, :1].copy()))
    nnkit.sigmoid(column, out=column)
    np.testing.assert_array_equal(column, wanted)
