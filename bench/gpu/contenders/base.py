"""The base class of contenders on a GPU: besides the step, an epoch over samples on the device, and peak memory."""

import gc
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.contenders.base import Contender
from bench.gpu.samples import order_of
from bench.problem import Problem


class GpuContender(Contender):
    """A contender that can train an epoch; `problem` is the argument of the constructor."""

    problem: Problem
    samples: int  # per epoch
    epochs = 0  # trained so far

    @abstractmethod
    def peak_bytes(self) -> int | None:
        """The peak memory of arrays on the device, as counted by the library; None if it does not count."""

    def close(self) -> None:
        """Release all arrays, and memory that the library has cached."""
        give_back = self._giver()
        vars(self).clear()
        gc.collect()
        give_back()

    def _giver(self) -> Callable[[], object]:
        """A function that releases the library's cached memory, without a reference to this contender."""
        return lambda: None

    def keep(self, X: np.ndarray, Y: np.ndarray) -> None:
        """Put an epoch's samples (n, d_in) and targets (n, d_out) on the device."""
        raise ValueError(f"{self.label} does not train epochs")

    def epoch(self) -> float | None:
        """Train on all samples once, in minibatches, and wait; returns the seconds if it measures them itself."""
        self._pass(order_of(self.epochs, self.samples))
        self.epochs += 1
        self.wait()
        return None

    def way(self) -> str | None:
        """How it trains an epoch, if it has several ways."""
        return None

    def _pass(self, order: np.ndarray) -> None:
        raise NotImplementedError


class PlainLoop(GpuContender):
    """A plain loop: for each minibatch, gather its rows on the device and do a step."""

    X: Any
    Y: Any

    def _pass(self, order: np.ndarray) -> None:
        indices, size = self.on_device(order), self.problem.size.batch
        for start in range(0, self.samples, size):
            self.gather(indices, start, min(size, self.samples - start))
            self.step()

    def on_device(self, order: np.ndarray) -> Any:
        """The order as an array on the device."""
        raise NotImplementedError

    def gather(self, indices: Any, start: int, count: int) -> None:
        """Select these samples for the next step."""
        raise NotImplementedError
