"""What a contender is, and how it gets at the package that it stands for."""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar

from bench.problem import Parameters, Problem


class Contender(ABC):
    """One way to do the step, made for one problem; ImportError without its package, ValueError if it cannot do this.

    Attributes:
        label: its name in tables and pictures. distributions: what one installs for it, the main one first.
    """

    label: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __init__(self, problem: Problem) -> None: ...

    @abstractmethod
    def step(self) -> None:
        """Do one step on the batch."""

    def steps(self, count: int) -> None:
        """Do that many steps, as a training does them."""
        step = self.step
        for _ in range(count):
            step()

    def wait(self) -> None:
        """Return when the steps are done, where `step` only asks for them."""
        return

    @abstractmethod
    def parameters(self) -> Parameters | None:
        """The pairs (W, b), (d_out, d_in) and (d_out,), as they are now; None for the floor, which has no update."""


def peer(module: str, distribution: str) -> Any:
    """The module of a peer; ImportError with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"not installed; python -m pip install {distribution}") from error
