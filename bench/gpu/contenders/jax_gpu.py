"""JAX on a GPU: the jitted step, and epochs that gather minibatches with a second jitted function."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.contenders.jax_jit import Jax
from bench.gpu.contenders.base import PlainLoop
from bench.problem import Problem


class JaxOnDevice(Jax, PlainLoop):
    """As on the CPU, with products in the problem's precision."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem)
        device, jax = self.X.devices().pop(), self.jax
        if device.platform != ("gpu" if problem.device == "cuda" else "cpu"):
            raise ValueError(f"JAX sees no GPU: it computes on {device}")

        def rows(every: Any, indices: Any, start: Any, count: int) -> Any:
            places = jax.lax.dynamic_slice_in_dim(indices, start, count)
            return tuple(a[places] for a in every)

        self._rows = jax.jit(rows, static_argnums=3)

    def peak_bytes(self) -> int | None:
        return (self.X.devices().pop().memory_stats() or {}).get("peak_bytes_in_use")

    def _giver(self) -> Callable[[], object]:
        clear: Callable[[], object] = self.jax.clear_caches
        return clear

    def keep(self, X: np.ndarray, Y: np.ndarray) -> None:
        self.samples = len(X)
        self.all = self.jax.device_put(X), self.jax.device_put(Y)

    def on_device(self, order: np.ndarray) -> Any:
        return self.jax.device_put(order.astype(np.int32))

    def gather(self, indices: Any, start: int, count: int) -> None:
        self.X, self.Y = self._rows(self.all, indices, start, count)
