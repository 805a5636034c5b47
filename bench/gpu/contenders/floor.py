"""The floor on a GPU: only the matrix products of a step, with preallocated results, in one CUDA graph."""

from typing import Any

import numpy as np

from bench.contenders.floor import products
from bench.gpu.contenders.pytorch_gpu import OnDevice, captured
from bench.problem import Problem


class GraphedProducts(OnDevice):
    """By PyTorch, which uses cuBLAS; bfloat16 operands have bfloat16 results. All operands are random."""

    label = "products alone"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        dtype = self.torch.bfloat16 if problem.precision == "bf16" else self.X.dtype
        rng, n = np.random.default_rng(4), problem.size.batch

        def random(*shape: int) -> Any:
            return self.tensor(rng.standard_normal(shape, np.float32)).to(dtype)

        W = [self.tensor(pair[0]).to(dtype) for pair in problem.parameters()]
        outputs, deltas = ([random(n, width) for width in problem.size.widths[1:]] for _ in range(2))
        self.products = products(self.X.to(dtype), W, outputs, deltas, [self.torch.empty_like(w) for w in W])
        self._replay = captured(self, self._multiply)

    def step(self) -> None:
        self._replay()

    def parameters(self) -> None:
        return None

    def _multiply(self) -> None:
        for a, b, out in self.products:
            self.torch.mm(a, b, out=out)
