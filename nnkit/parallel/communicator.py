"""What a training asks of the processes beside it: sums of gradients at each step, and agreements on the host.

No path may wait for ever, so each follows one order: local work, which may fail; an agreement whether it failed on any
rank (`Communicator.agreed`); then an exchange, which cannot fail.
"""

import os
import pickle
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.base import Array, Backend
from nnkit.backends.recording import Break, perform

T = TypeVar("T")
_NOTHING = nullcontext()


class RankError(RuntimeError):
    """Another rank has failed; the message names it and its error. This rank's network is as after an own error."""


class Communicator(ABC):
    """Ranks 0 to size − 1 that train one network together; all call the same methods in the same order.

    Attributes:
        rank, size: the number of this one, and of all.
        stopped: whether a rank wanted to stop at the last sum: all ranks know it after the same step.
    """

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.stopped = self._wish = False
        self._known: BaseException | None = None  # the error that all ranks know

    # --- small values, on the host ------------------------------------------------------------------------------

    @abstractmethod
    def everyone(self, value: T) -> list[T]:
        """The values of all ranks, in their order: small objects that can be pickled."""

    def total(self, numbers: Sequence[float]) -> NDArray[np.float64]:
        """Sums over the ranks, (k,) in float64, added in the order of the ranks: the same bits everywhere."""
        found: NDArray[np.float64] = np.sum([np.asarray(n, np.float64) for n in self.everyone(list(numbers))], axis=0)
        return found

    def broadcast(self, make: Callable[[], T]) -> T:
        """What a function returns on rank 0, on all ranks; its exception, too."""
        if self.size == 1:
            return make()
        with self.agreed():  # also that it can be pickled
            found = pickle.dumps(make()) if self.rank == 0 else b""
        result: T = pickle.loads(self.everyone(found)[0])
        return result

    def agreed(self) -> AbstractContextManager[None]:
        """Local work in a `with` block: if it fails on one rank, all ranks raise at its end.

        The rank that failed raises its own error, the others RankError; Ctrl-C on one is KeyboardInterrupt on all.
        """
        return _NOTHING if self.size == 1 else self._agreed()

    @contextmanager
    def _agreed(self) -> Iterator[None]:
        mine: BaseException | None = None
        try:
            yield
        except BaseException as error:
            mine = error
        self._conclude(mine)

    def _conclude(self, mine: BaseException | None) -> None:
        texts = self.everyone(None if mine is None else f"{type(mine).__name__}: {mine}".removesuffix(": "))
        if mine is None:
            failed = [(rank, text) for rank, text in enumerate(texts) if text is not None]
            if not failed:
                return
            rank, text = failed[0]
            mine = KeyboardInterrupt() if text == "KeyboardInterrupt" else RankError(f"rank {rank}: {text}")
        self._known = mine
        raise mine

    @contextmanager
    def ending_together(self, *known: type[BaseException]) -> Iterator[None]:
        """An exception in the `with` block that only this rank knows ends all ranks, which would wait for this one.

        `known` are types that all ranks raise alike.
        """
        try:
            yield
        except BaseException as error:
            if self.size > 1 and not self.knows(error) and not isinstance(error, known):
                self.abort(error)
            raise

    def knows(self, error: BaseException) -> bool:
        """Whether all ranks have raised because of this error."""
        return error is self._known

    def abort(self, error: BaseException) -> None:  # noqa: B027
        """End all ranks because of an error that the others cannot know."""

    def cores(self) -> int:
        """How many cores are this rank's: those of its machine that ranks there may use, in equal shares."""
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        here = [cores for node, cores in self.everyone((platform.node(), [*allowed])) if node == platform.node()]
        return max(1, len({core for cores in here for core in cores}) // len(here))

    def local_rank(self) -> int:
        """The number of this rank among those of its machine."""
        return self.everyone(platform.node())[: self.rank].count(platform.node())

    # --- arrays ---------------------------------------------------------------------------------------------------

    def add_up(self, backend: Backend, message: Array) -> None:
        """Write the sum over the ranks to a vector, recorded where a tape records; its last word is the wish to stop.

        All ranks get the same bits.
        """
        self._exchange(backend, message, message[-1:], self._sum)

    def gather(self, backend: Backend, rows: Array, counts: Sequence[int]) -> None:
        """Fill in the rows (k, words) of all ranks, which have counts[0], counts[1], ...; otherwise like `add_up`."""
        first = sum(counts[: self.rank])
        words = rows[first : first + counts[self.rank], -1]
        self._exchange(backend, rows, words, partial(self._gather, counts=counts))

    def stops(self, wish: bool) -> bool:
        """Whether to stop after this step; all ranks get the same answer. `wish` is sent with the next sum."""
        self._wish = wish
        return self.stopped

    def _exchange(self, backend: Backend, array: Array, words: Array, do: Callable[[Any], None]) -> None:
        def call() -> None:
            words[...] = float(self._wish)
            host = backend.to_numpy(array)
            do(host)
            if host is not array:
                backend.copy(backend.asarray(host), array)
            self.stopped = bool((host[..., -1] > 0).any())

        perform(Break(call), (array,), (array,), "add_up")

    def _sum(self, message: Any) -> None:  # noqa: B027
        """Replace a vector on the host by its sum over the ranks."""

    def _gather(self, rows: Any, counts: Sequence[int]) -> None:  # noqa: B027
        """Fill in the rows of other ranks, on the host."""

    def close(self) -> None:  # noqa: B027
        """Release what the communicator holds, at the end of a training."""


class Alone(Communicator):
    """A single process."""

    def everyone(self, value: T) -> list[T]:
        return [value]

    def stops(self, wish: bool) -> bool:
        return wish


ALONE = Alone()
