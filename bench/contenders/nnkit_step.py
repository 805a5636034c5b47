"""nnkit: `train_step`, the recorded step that `fit` replays, and the same without SciPy."""

import sys
from typing import ClassVar

import numpy as np

import nnkit
from bench.contenders.base import Contender
from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem
from nnkit.step import step_for
from nnkit.training.blas_threads import threads_for


class TrainStep(Contender):
    """`train_step`, for custom training loops: it checks the batch and returns the cost."""

    label = "nnkit train_step"
    distributions: ClassVar[tuple[str, ...]] = ("nnkit", "scipy")

    def __init__(self, problem: Problem) -> None:
        self.net = nnkit.Network(
            list(problem.size.widths), activation=problem.activation, cost="cross_entropy", seed=0,
            dtype=problem.dtype, backend="cupy" if problem.device == "cuda" else "numpy",
        )  # fmt: skip
        self.x, self.y = map(self.net.backend.asarray, problem.batch())
        self.net.parameters.assign(problem.parameters())
        rate = problem.learning_rate
        self.state = self.net.optimizer_state(
            nnkit.SGD(rate) if problem.optimizer == "sgd" else nnkit.Adam(rate, BETA1, BETA2, EPSILON)
        )

    def step(self) -> None:
        self.net.train_step(self.x, self.y)

    def wait(self) -> None:
        self.net.backend.synchronize()

    def parameters(self) -> Parameters:
        to_numpy, found = self.net.backend.to_numpy, self.net.parameters
        return [(to_numpy(W).copy(), to_numpy(b).copy()) for W, b in zip(found.W, found.b, strict=True)]


class RecordedStep(TrainStep):
    """The work of `fit` for a minibatch: replay the recorded step on a batch in place, as with every contender."""

    label = "nnkit"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.threads = threads_for(self.net, len(self.x))  # kept until the contender ends
        self.threads.__enter__()
        self.recorded = step_for(self.net, len(self.x), self.state)
        np.copyto(self.recorded.x, self.x)
        np.copyto(self.recorded.y, self.y)

    def step(self) -> None:
        self.recorded.replay()

    def steps(self, count: int) -> None:
        self.recorded.replay(count)


class WithoutSciPy(RecordedStep):
    """The recorded step of an installation without extras."""

    label = "nnkit without SciPy"
    distributions = ("nnkit",)

    def __init__(self, problem: Problem) -> None:
        sys.modules["scipy"] = None  # type: ignore[assignment]  # makes its import fail in this process
        super().__init__(problem)
