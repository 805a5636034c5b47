"""Ranks that are threads of one process: to test on any machine, without MPI, what is trained on several."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from nnkit.parallel.communicator import Communicator, RankError

T = TypeVar("T")
_PATIENCE = 60.0  # seconds for which a rank waits for the others


class ThreadCommunicator(Communicator):
    """One of several threads, which meet at a barrier; a rank that fails breaks it, so that no other waits for ever."""

    def __init__(self, rank: int, barrier: threading.Barrier, values: list[Any]) -> None:
        super().__init__()
        self.rank, self.size, self._barrier, self._values = rank, len(values), barrier, values

    def everyone(self, value: T) -> list[T]:
        self._values[self.rank] = value
        self._meet()
        found = list(self._values)
        self._meet()
        return found

    def abort(self, error: BaseException) -> None:
        self._barrier.abort()

    def _meet(self) -> None:
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            self._known = RankError("another rank has failed, or did not come for a minute")
            raise self._known from None

    def _sum(self, message: Any) -> None:
        first, *others = self.everyone(message)
        result = first.copy()
        for other in others:
            result += other
        self._meet()  # before anyone overwrites what others still read
        message[...] = result

    def _gather(self, rows: Any, counts: Sequence[int]) -> None:
        start = 0
        for theirs, count in zip(self.everyone(rows), counts, strict=True):
            rows[start : start + count] = theirs[start : start + count]
            start += count
        self._meet()


def run(size: int, task: Callable[[Communicator], T]) -> list[T]:
    """What a function returns on each of `size` ranks, which are threads; raises the first rank's error that has one.

    After an exception of the caller's thread, such as Ctrl-C, the ranks end at their next exchange.

    >>> nnkit.parallel.run(3, lambda comm: comm.total([comm.rank]).tolist())
    [[3.0], [3.0], [3.0]]
    """
    barrier, values = threading.Barrier(size, timeout=_PATIENCE), [None] * size
    results: list[Any] = [None] * size
    errors: dict[int, BaseException] = {}

    def one(rank: int) -> None:
        try:
            results[rank] = task(ThreadCommunicator(rank, barrier, values))
        except BaseException as error:
            barrier.abort()
            errors[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:  # no rank trains on behind the caller's back
        barrier.abort()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    if errors:
        raise next((e for _, e in sorted(errors.items()) if not isinstance(e, RankError)), errors[min(errors)])
    return results
