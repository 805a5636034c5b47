"""What a contender on a GPU does beside the step: an epoch over samples that lie there; it says what memory it took."""

import gc
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.contenders.base import Contender
from bench.gpu.samples import order_of
from bench.problem import Problem


class GpuContender(Contender):
    """A contender with an epoch; `problem` is what it was made for."""

    problem: Problem
    samples: int  # of an epoch
    epochs = 0  # that it has trained

    @abstractmethod
    def peak_bytes(self) -> int | None:
        """The most memory of the device that arrays took, as its library counts; None where it does not."""

    def close(self) -> None:
        """Give back all arrays, and what a library keeps after they are gone."""
        give_back = self._giver()
        vars(self).clear()
        gc.collect()
        give_back()

    def _giver(self) -> Callable[[], object]:
        """What gives back the memory that the library keeps; without a reference to this contender."""
        return lambda: None

    def keep(self, X: np.ndarray, Y: np.ndarray) -> None:
        """Put an epoch's samples (n, d_in) and targets (n, d_out) on the device."""
        raise ValueError(f"{self.label} trains no epochs")

    def epoch(self) -> float | None:
        """Train on all samples once, in minibatches, and wait; the seconds, if it measures them better itself."""
        self._pass(order_of(self.epochs, self.samples))
        self.epochs += 1
        self.wait()
        return None

    def way(self) -> str | None:
        """How it trains an epoch, where it has several ways to."""
        return None

    def _pass(self, order: np.ndarray) -> None:
        raise NotImplementedError


class PlainLoop(GpuContender):
    """An epoch as one writes it: for each minibatch gather its rows on the device, and do a step."""

    X: Any
    Y: Any

    def _pass(self, order: np.ndarray) -> None:
        indices, size = self.on_device(order), self.problem.size.batch
        for start in range(0, self.samples, size):
            self.gather(indices, start, min(size, self.samples - start))
            self.step()

    def on_device(self, order: np.ndarray) -> Any:
        """The order as an array of the device."""
        raise NotImplementedError

    def gather(self, indices: Any, start: int, count: int) -> None:
        """Let the next step be on these samples."""
        raise NotImplementedError
