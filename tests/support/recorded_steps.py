"""What a test has done before each step of a training, however the step is replayed."""

from collections.abc import Callable
from typing import Any

import pytest

from nnkit.backends.recording import HostCall, Node
from nnkit.step import Step


def before_each_step(monkeypatch: pytest.MonkeyPatch, do: Callable[[Step], None]) -> None:
    """Call `do` with the step, whose batch is there, as the first call of each step that is recorded from now on."""
    make = Step.__init__

    def made(step: Step, *arguments: Any) -> None:
        make(step, *arguments)
        step._tape.nodes.insert(0, Node(HostCall(lambda: do(step))))

    monkeypatch.setattr(Step, "__init__", made)
