"""The display of a training's progress."""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from threading import RLock
from types import TracebackType
from typing import Any

import numpy as np

_LINES = 10  # of progress in a log file
_UPDATES = 50  # of a bar in an epoch

# Held while a bar is drawn and during a fork: otherwise a child could wait forever for a lock of tqdm's that was held
# by a thread of its parent.
_showing = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_showing.acquire, after_in_parent=_showing.release, after_in_child=_showing.release)


class Progress:
    """A bar of steps on a terminal or in a notebook; about ten lines of text for "lines"; nothing for False.

    A bar is drawn only on a terminal or in a notebook, not in a file or a pipe, and only if tqdm is installed.
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

    def add(self, steps: int) -> None:
        """Count steps."""
        self._waiting += steps
        if self._waiting >= self._every:
            self._show()

    def epoch(self, epoch: int, measured: Mapping[str, float]) -> None:
        """Show the numbers of epoch `epoch`, from 1."""
        if self._bar is None and self.how != "lines":
            return
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
        """A silent progress bar, for an epoch that is repeated."""
        return cls(False, 0, None, 0)

    def _show(self) -> None:
        if self._bar is not None:
            self._shown(partial(self._bar.update, self._waiting))
        self._waiting = 0

    def _shown(self, show: Callable[[], object]) -> None:
        """Call `show`; after an error, such as for a closed terminal, file or a full disk, show nothing any more."""
        try:
            with _showing:
                show()
        except (OSError, ValueError):  # ValueError for a file that is closed, or cannot write a metric's name
            if self._bar is not None:
                self._bar.disable = True
            self.how, self._bar = False, None


def checked_progress(how: bool | str) -> bool | str:
    """An option of `Progress`; ValueError for another text, TypeError for anything else."""
    if isinstance(how, bool | np.bool_):
        return bool(how)
    if not isinstance(how, str) or how != "lines":
        kind = ValueError if isinstance(how, str) else TypeError
        raise kind(f"progress is {how!r}; expected True, False or 'lines'")
    return how


# Whether tqdm has been looked for in vain: a process that is forked during an import would wait for its lock forever.
_missing: list[str] = []


def _bar(total: int | None, initial: int) -> Any:
    """A tqdm bar; None if tqdm is not installed, or there is no standard error, as in a service."""
    if sys.stderr is None or getattr(sys.stderr, "closed", False):
        return None
    if _missing:
        return None
    try:
        if "IPython" in sys.modules:  # a notebook's own bar, if ipywidgets is installed; a slow import
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
    except ImportError:
        _missing.append("tqdm")
        return None
    notebook = tqdm.__module__.endswith("notebook")
    # disable=None omits the bar if standard error is not a terminal.
    options = {"total": total, "initial": initial, "desc": "training", "unit": "step"}
    with _showing:
        return tqdm(**options, disable=False if notebook else None)
