"""The floor on a GPU: only the matrix products of a step, with preallocated results, in one CUDA graph."""

import numpy as np

from bench.contenders.floor import products
from bench.gpu.contenders.base import CupyContender
from bench.gpu.contenders.nnkit_gpu import set_precision
from bench.problem import Problem
from nnkit.backends import get_backend


class GraphedProducts(CupyContender):
    """By cuBLAS; bfloat16 operands have bfloat16 results. All operands are random."""

    label = "products alone"

    def __init__(self, problem: Problem) -> None:
        set_precision(problem)
        self.problem = problem
        backend = self.backend = get_backend("cupy" if problem.device == "cuda" else "numpy")
        dtype = "bfloat16" if problem.precision == "bf16" else "float32"
        rng, n, widths = np.random.default_rng(4), problem.size.batch, problem.size.widths

        X, *W = (backend.asarray(a, dtype) for a in (problem.batch()[0], *(pair[0] for pair in problem.parameters())))
        outputs, deltas = (
            [backend.asarray(rng.standard_normal((n, width), np.float32), dtype) for width in widths[1:]]
            for _ in range(2)
        )
        self.products = products(X, W, outputs, deltas, [backend.empty(w.shape, dtype) for w in W])
        with backend.recording() as self.tape:
            for a, b, out in self.products:
                backend.matmul(a, b, out=out)

    def step(self) -> None:
        self.tape.replay()

    def steps(self, count: int) -> None:
        self.tape.replay(count)

    def parameters(self) -> None:
        return None
