"""The base class of contenders on a GPU: besides the step, an epoch over samples on the device, and peak memory."""

import gc
from abc import abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from bench.contenders.base import Contender
from bench.gpu.samples import order_of
from bench.problem import Problem
from nnkit.backends import Backend


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


class CupyContender(GpuContender):
    """The base class of contenders with nnkit's backend, on the CPU NumPy's."""

    backend: Backend

    def wait(self) -> None:
        self.backend.synchronize()

    def timed(self, count: int) -> float:
        return device_seconds(self.backend, lambda: self.steps(count))

    def peak_bytes(self) -> int | None:
        if self.problem.device != "cuda":
            return None
        return int(self.backend.xp.get_default_memory_pool().total_bytes())

    def _giver(self) -> Callable[[], object]:
        return self.backend.release


def device_seconds(backend: Backend, work: Callable[[], object]) -> float:
    """The seconds of some work, by CUDA's events on a GPU, by the host's clock on the CPU."""
    backend.synchronize()
    if not backend.name.startswith("cupy"):
        start = perf_counter()
        work()
        return perf_counter() - start
    cuda = backend.xp.cuda
    start, end = cuda.Event(), cuda.Event()
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(cuda.get_elapsed_time(start, end)) / 1e3


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
