"""PyTorch on a GPU: eager, compiled, and each in a CUDA graph."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.contenders.pytorch import Eager, PyTorch
from bench.contenders.pytorch_compiled import Compiled
from bench.gpu.contenders.base import GpuContender, PlainLoop
from bench.problem import Problem


def captured(made: PyTorch, work: Callable[[], None]) -> Callable[[], None]:
    """Warm up with three runs, capture the work, and return a function that replays it; on the CPU, the work itself."""
    torch = made.torch
    if made.problem.device != "cuda":
        return work
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    replay: Callable[[], None] = graph.replay
    return replay


class OnDevice(PyTorch, GpuContender):
    """PyTorch's memory statistics."""

    def peak_bytes(self) -> int | None:
        return self.torch.cuda.max_memory_reserved() if self.problem.device == "cuda" else None

    def timed(self, count: int) -> float:
        if self.problem.device != "cuda":
            return super().timed(count)
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.steps(count)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def _giver(self) -> Callable[[], object]:
        torch, cuda = self.torch, self.problem.device == "cuda"

        def give_back() -> None:
            torch.compiler.reset()
            if cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()

        return give_back


class _Loop(OnDevice, PlainLoop):
    """Samples and their order as tensors."""

    def keep(self, X: np.ndarray, Y: np.ndarray) -> None:
        self.samples = len(X)
        self.all = self.tensor(X), self.tensor(Y)

    def on_device(self, order: np.ndarray) -> Any:
        return self.tensor(order)

    def gather(self, indices: Any, start: int, count: int) -> None:
        rows = indices[start : start + count]
        self.X, self.Y = (a[rows] for a in self.all)


class EagerOnDevice(_Loop, Eager):
    """As on the CPU."""


class CompiledOnDevice(_Loop, Compiled):
    """As on the CPU."""


class _Graph(_Loop):
    """A step that is captured once; a smaller last minibatch of an epoch runs without the graph."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._batch, first = (self.X, self.Y), self.parameters()
        self._replay = captured(self, super().step)  # type: ignore[safe-super]
        self._put_back(first or [])

    def step(self) -> None:
        if self.X is self._batch[0]:
            self._replay()
        else:
            super().step()  # type: ignore[safe-super]

    def gather(self, indices: Any, start: int, count: int) -> None:
        if count != self.problem.size.batch:
            super().gather(indices, start, count)
            return
        self.X, self.Y = self._batch
        for every, batch in zip(self.all, self._batch, strict=True):
            self.torch.index_select(every, 0, indices[start : start + count], out=batch)

    def _put_back(self, first: Any) -> None:
        """Restore the parameters from before the warm-up in the graph's tensors; descent has no other state."""
        tensors = self.weights if isinstance(self, Compiled) else list(self.net.parameters())  # type: ignore[attr-defined]
        with self.torch.no_grad():
            for tensor, array in zip(tensors, [a for pair in first for a in pair], strict=True):
                tensor.copy_(self.tensor(array))


class Graphed(_Graph, Eager):
    """zero_grad, backward and the optimizer's step in one graph."""

    label = "PyTorch in a CUDA graph"


class CompiledGraphed(_Graph, Compiled):
    """The compiled step in a graph."""

    label = "PyTorch compiled, in a CUDA graph"
