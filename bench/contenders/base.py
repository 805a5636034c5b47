"""The base class of contenders, and the import of their packages."""

from abc import ABC, abstractmethod
from importlib import import_module
from time import perf_counter
from typing import Any, ClassVar

from bench.problem import Parameters, Problem
from bench.reference import STEPS


class Contender(ABC):
    """One implementation of the step, for one problem.

    The constructor raises ImportError if the package is missing, ValueError if it does not support the problem.

    Attributes:
        label: the name in tables and plots. distributions: the packages to install, the main one first.
        compared: the steps before its result is compared.
    """

    compared: ClassVar[int] = STEPS
    label: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __init__(self, problem: Problem) -> None: ...

    @abstractmethod
    def step(self) -> None:
        """Do one step on the batch."""

    def steps(self, count: int) -> None:
        """Do `count` steps, as in a training run."""
        step = self.step
        for _ in range(count):
            step()

    def wait(self) -> None:
        """Wait for the steps to finish, if `step` is asynchronous."""
        return

    def timed(self, count: int) -> float:
        """The seconds that `count` steps take until they have finished."""
        start = perf_counter()
        self.steps(count)
        self.wait()
        return perf_counter() - start

    @abstractmethod
    def parameters(self) -> Parameters | None:
        """The current pairs (W, b), (d_out, d_in) and (d_out,); None for the floor, which has no update."""


def peer(module: str, distribution: str) -> Any:
    """Import the module of a peer; raises ImportError with the install command."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"not installed; python -m pip install {distribution}") from error
