"""What a person sees of a training while it runs."""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from threading import RLock
from types import TracebackType
from typing import Any

_LINES = 10  # of progress in a log file
_UPDATES = 50  # of a bar in an epoch

# Held while a bar is drawn, and by whoever forks: a child would wait for ever for a lock of tqdm's if a thread had it
# that the child does not have.
_showing = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_showing.acquire, after_in_parent=_showing.release, after_in_child=_showing.release)


class Progress:
    """A bar of steps on a terminal or in a notebook; with "lines" about ten lines of text; with False nothing.

    A bar is drawn only where somebody watches: not in a file or a pipe; and only with tqdm, if it is installed.
    """

    def __init__(self, how: bool | str, epochs: int, steps: int | None, done: int) -> None:
        self.how, self.epochs, self.steps = how, epochs, steps
        self._every = max(1, (steps or 1000) // _UPDATES)
        self._waiting = 0
        self._bar: Any = None
        if how is True:
            total = None if steps is None else steps * epochs
            self._bar = _bar(total, 0 if steps is None else steps * done)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._shown(self._bar.close)

    def step(self) -> None:
        """A step is done."""
        self._waiting += 1
        if self._waiting >= self._every:
            self._show()

    def epoch(self, epoch: int, measured: Mapping[str, float]) -> None:
        """Epoch number `epoch`, from 1, is done."""
        numbers = {name: f"{value:.4f}" for name, value in measured.items()}
        if self._bar is not None:
            self._bar.set_postfix({"epoch": f"{epoch}/{self.epochs}", **numbers}, refresh=False)
        self._show()
        if self.how == "lines" and (epoch % max(1, self.epochs // _LINES) == 0 or epoch == self.epochs):
            text = "   ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())
            line = f"epoch {epoch:>{len(str(self.epochs))}} of {self.epochs}   {text}"
            self._shown(partial(print, line, flush=True))

    @classmethod
    def unseen(cls) -> "Progress":
        """Of what was shown before."""
        return cls(False, 0, None, 0)

    def _show(self) -> None:
        if self._bar is not None:
            self._shown(partial(self._bar.update, self._waiting))
        self._waiting = 0

    def _shown(self, show: Callable[[], object]) -> None:
        """Show something; where nobody can see it any more, as a terminal was closed or a disk is full, never again."""
        try:
            with _showing:
                show()
        except OSError:
            if self._bar is not None:
                self._bar.disable = True
            self.how, self._bar = False, None


def check_progress(how: bool | str) -> None:
    """ValueError for what `Progress` does not know."""
    if how not in (True, False, "lines"):
        raise ValueError(f"progress is {how!r}; expected True, False or 'lines'")


def _bar(total: int | None, initial: int) -> Any:
    """A bar of tqdm's; None where it is not installed, or there is no standard error, as in a service."""
    if sys.stderr is None or getattr(sys.stderr, "closed", False):
        return None
    # In a notebook a bar of its own, if ipywidgets is there; this import costs time that only a notebook should pay.
    try:
        if "IPython" in sys.modules:
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
    except ImportError:
        return None
    notebook = tqdm.__module__.endswith("notebook")
    # disable=None leaves the bar out where standard error is no terminal.
    options = {"total": total, "initial": initial, "desc": "training", "unit": "step"}
    with _showing:
        return tqdm(**options, disable=False if notebook else None)
