"""nnkit on a GPU: the recorded step, `train_step`, and epochs by `fit`, with and without one launch for each."""

import os
from collections.abc import Callable

import numpy as np

import nnkit
from bench.contenders.nnkit_step import TrainStep
from bench.gpu.contenders.base import GpuContender
from bench.gpu.samples import SEED
from bench.problem import Problem
from nnkit.backends.cuda.graph import graphs_wanted
from nnkit.one_launch import epoch_kernel_for
from nnkit.step import step_for

PRECISIONS = {"float32": "highest", "tf32": "high", "bf16": "medium"}


class TrainStepOnDevice(TrainStep, GpuContender):
    """`train_step` on a batch that lies on the device: it checks shapes and types, and gives the cost."""

    def __init__(self, problem: Problem) -> None:
        set_precision(problem)
        self.problem = problem
        super().__init__(problem)

    def peak_bytes(self) -> int | None:
        if self.problem.device != "cuda":
            return None
        return int(self.net.backend.xp.get_default_memory_pool().total_bytes())

    def _giver(self) -> Callable[[], object]:
        return self.net.backend.release


class Replayed(TrainStepOnDevice):
    """The recorded step, replayed on a batch that is where it reads, as those of the peers are."""

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
        """By `fit`, which shuffles, trains, and measures cost and accuracy; the seconds are those of its history.

        After the first, which is compared and not timed, it is two: the first one of a `fit` records, and captures its
        graphs, as a peer does when it is made.
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
    """The same, but that small networks too train an epoch by a graph a step."""

    label = "nnkit, a graph a step"

    def __init__(self, problem: Problem) -> None:
        os.environ["NNKIT_ONE_LAUNCH"] = "0"  # from now on in this process
        super().__init__(problem)


def set_precision(problem: Problem) -> None:
    """Let nnkit's products be of the problem's precision; ValueError where it cannot do that."""
    choose = getattr(nnkit, "set_matmul_precision", None)
    if choose is not None and problem.device == "cuda":
        choose(PRECISIONS[problem.precision])
    elif problem.precision != "float32":
        where = "has no set_matmul_precision" if problem.device == "cuda" else "computes in float32 on the CPU"
        raise ValueError(f"nnkit {nnkit.__version__} {where}")
