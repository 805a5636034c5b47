"""nnkit on a GPU: the recorded step, `train_step`, and epochs by `fit`, with and without one launch per epoch."""

import os

import numpy as np

import nnkit
from bench.contenders.nnkit_step import TrainStep
from bench.gpu.contenders.base import CupyContender
from bench.gpu.samples import SEED
from bench.problem import Problem
from nnkit.backends.cuda.graph import graphs_wanted
from nnkit.one_launch import epoch_kernel_for
from nnkit.step import step_for

PRECISIONS = {"float32": "highest", "tf32": "high", "bf16": "medium"}


class TrainStepOnDevice(CupyContender, TrainStep):
    """`train_step` on a batch on the device: it checks shapes and dtypes, and returns the cost."""

    def __init__(self, problem: Problem) -> None:
        set_precision(problem)
        self.problem = problem
        super().__init__(problem)
        self.backend = self.net.backend


class Replayed(TrainStepOnDevice):
    """The recorded step, replayed on a batch in place, as with the peers."""

    label = "nnkit"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.recorded = step_for(self.net, len(self.x), self.state)
        self.net.backend.copy(self.x, self.recorded.x)
        self.net.backend.copy(self.y, self.recorded.y)

    def step(self) -> None:
        self.recorded.replay()

    def steps(self, count: int) -> None:
        self.recorded.replay(count)

    def keep(self, X: np.ndarray, Y: np.ndarray) -> None:
        assert self.net.seed == SEED
        self.all = self.net.backend.asarray(X), self.net.backend.asarray(Y)

    def epoch(self) -> float | None:
        """Train by `fit`, which shuffles, and measures cost and accuracy; returns the seconds in its history.

        The first call, which is compared but not timed, trains one epoch, later calls two: the first epoch of a `fit`
        records and captures graphs, which peers do in their constructors.
        """
        count = 1 if self.epochs == 0 else 2
        history = self.net.fit(*self.all, epochs=count, batch_size=self.problem.size.batch, progress=False)
        self.epochs += count
        self.wait()
        return float(history["seconds"][-1])

    def way(self) -> str | None:
        """How `fit` trains an epoch: "one launch" or "graphs"; None for neither, as on the CPU."""
        if self.problem.device != "cuda":
            return None
        batch = min(self.problem.size.batch, len(self.all[0]))
        if epoch_kernel_for(self.net, self.net.optimizer_state(), batch) is not None:
            return "one launch"
        return "graphs" if graphs_wanted() else None


class WithoutOneLaunch(Replayed):
    """The same, but small networks, too, train an epoch with one graph per step."""

    label = "nnkit, a graph per step"

    def __init__(self, problem: Problem) -> None:
        os.environ["NNKIT_ONE_LAUNCH"] = "0"  # for this process
        super().__init__(problem)


def set_precision(problem: Problem) -> None:
    """Set nnkit's products to the problem's precision; raises ValueError if that is not supported."""
    choose = getattr(nnkit, "set_matmul_precision", None)
    if choose is not None and problem.device == "cuda":
        choose(PRECISIONS[problem.precision])
    elif problem.precision != "float32":
        where = "has no set_matmul_precision" if problem.device == "cuda" else "computes in float32 on the CPU"
        raise ValueError(f"nnkit {nnkit.__version__} {where}")
