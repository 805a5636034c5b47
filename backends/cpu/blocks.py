"""Threads for elementwise work, only where measurements show a gain.

NumPy's ufuncs release the GIL, so blocks of rows can run in parallel. On two cores of an EPYC, sigmoid of 2¹⁷ float32
entries took 0.10 ms with one thread and 0.13 ms with two, of 2¹⁸ 0.26 and 0.15 ms, of 2²⁰ 1.03 and 0.62 ms; Adam's
update of 79 536 parameters 0.10 and 0.13 ms, of 234 000 0.31 and 0.22, in float64 0.73 and 0.47 ms. Formulas with
cheaper operations than roots and exponentials are memory-bound and hardly gain: ReLU of 2²⁰ took 0.39 and 0.42 ms.
"""

import ctypes
import math
import os
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from nnkit.backends.base import quiet
from nnkit.backends.formulas.program import Program
from nnkit.backends.recording import Call

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


Block = tuple[list[np.ndarray], list[np.ndarray]]  # operands and results


def can_be_cut(operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> bool:
    """Whether no block overwrites entries that another one still reads.

    An operand that overlaps a result must be identical to it, entry by entry.
    """
    return all(
        same_entries(operand, out) or not np.may_share_memory(operand, out) for operand in operands for out in outs
    )


def cut(operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], bounds: Sequence[int]) -> list[Block]:
    """The blocks between these row indices of the results; operands that are broadcast over rows are in each."""
    out = outs[0]
    return [
        ([_rows(a, out, start, stop) for a in operands], [o[start:stop] for o in outs])
        for start, stop in pairwise(bounds)
    ]


def same_entries(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same entries in memory, in the same order."""
    return a is b or (a.shape == b.shape and a.strides == b.strides and len({*locations((a, b))}) == 1)


HEAD = object.__basicsize__ // 8  # numbers of 64 bits before an array's address in NumPy's struct PyArrayObject
_number_at = ctypes.c_int64.from_address


def _head_is_known() -> bool:
    array = np.empty(1)
    return _number_at(id(array) + 8 * HEAD).value == array.ctypes.data


HEAD_IS_KNOWN = _head_is_known()


def locations(arrays: Sequence[np.ndarray]) -> list[int]:
    """The addresses of arrays' first entries; in their structs, in a fifth of the time of `array.ctypes.data`."""
    return [_number_at(id(a) + 8 * HEAD).value if HEAD_IS_KNOWN else a.ctypes.data for a in arrays]


def location(array: np.ndarray) -> int:
    """The address of an array's first entry."""
    return locations((array,))[0]


def _rows(operand: np.ndarray, out: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The rows of an operand for rows start to stop of the result; the whole operand if it is broadcast."""
    return operand[start:stop] if operand.ndim == out.ndim and operand.shape[0] == out.shape[0] else operand


BYTES = 1 << 20  # of results; smaller ones are finished before another thread wakes up
_COSTLY = {"exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "pow", "sqrt"}


def usable_cpus() -> int:
    """The number of CPUs that this process may use; in a container, fewer than the machine's."""
    affinity = getattr(os, "sched_getaffinity", None)
    return int(min(len(affinity(0)) if affinity else os.cpu_count() or 1, _quota()))


_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # of Linux's control groups, 2 and 1


def _quota(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """The CPUs' time that a container may use, in whole CPUs, at least 1; infinite without a limit."""
    for names in _QUOTAS:
        try:
            quota, period = map(float, " ".join((folder / name).read_text() for name in names).split())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0 < period:
            return max(quota // period, 1.0)
    return math.inf


@cache
def thread_count() -> int:
    """The number of CPUs that this process may use, or OMP_NUM_THREADS if that is less."""
    cpus = usable_cpus()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cpus, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else cpus


@cache
def pool() -> "ThreadPoolExecutor":
    """The threads beside this one, which start on first use."""
    from concurrent.futures import ThreadPoolExecutor  # takes milliseconds, so only for large arrays

    return ThreadPoolExecutor(thread_count() - 1, "nnkit-elementwise")


if hasattr(os, "register_at_fork"):  # a child process does not have its parent's threads
    os.register_at_fork(after_in_child=pool.cache_clear)


def thread_blocks(
    program: Program, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], faster: int = 1
) -> list[Block]:
    """Blocks of rows to compute in parallel, or an empty list if one thread is as fast.

    `faster` is how many times as fast as ufuncs the code is that computes them.
    """
    out = outs[0]
    if out.nbytes * len(outs) < faster * BYTES:  # of one shape
        return []
    count = thread_count()
    if count < 2 or out.ndim == 0 or out.shape[0] < count:
        return []
    if not any(value.op in _COSTLY for value in program.values) or not can_be_cut(operands, outs):
        return []
    return cut(operands, outs, [len(out) * i // count for i in range(count + 1)])


class SideBySide:
    """A call that runs lists of calls on different threads and waits for all of them.

    After an exception, too: no other thread writes any more when it ends.
    """

    def __init__(self, lists: Sequence[Sequence[Call]]) -> None:
        self.lists = lists

    def __call__(self) -> None:
        parts = [_Part(calls) for calls in self.lists[1:]]
        try:
            waiting = [pool().submit(part) for part in parts]
            _run(self.lists[0])
            for future in waiting:
                future.result()
        except BaseException:  # also that of a signal's handler, at any place
            _end(parts)
            raise


class _Part:
    """Calls for another thread, which holds the lock while it runs them."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls, self.lock = calls, Lock()

    def __call__(self) -> None:
        with self.lock:
            _run(self.calls)


def _end(parts: Sequence[_Part]) -> None:
    """Let no thread start these, and wait for those that run them."""
    try:
        for part in parts:
            part.calls = ()
        for part in parts:
            with part.lock:
                pass
    except BaseException:  # of another signal's handler
        _end(parts)
        raise


def _run(calls: Sequence[Call]) -> None:
    with quiet():  # NumPy's error handling is set per thread
        for call in calls:
            call()
