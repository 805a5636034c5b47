"""A process that answers pickled requests over standard input and output; its printed output is kept for errors."""

import pickle
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class LeftOut(Exception):  # noqa: N818 - not an error: the contender is not available
    """The reason why a contender does not take part."""


class Failed(RuntimeError):  # noqa: N818
    """A contender ended with an error or computes a different result."""


class Process:
    """One contender in a separate process, which ends with `close`."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.printed
        )

    def ask(self, request: Any, seconds: float | None = None) -> Any:
        """Send a request and return its answer; raises LeftOut, or Failed, also if it takes more than `seconds`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        late = threading.Event()
        timer = None if seconds is None else threading.Timer(seconds, self._end, [late])
        try:
            if timer is not None:
                timer.start()
            pickle.dump(request, self.process.stdin)
            self.process.stdin.flush()
            kind, value = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            status = self.process.wait()
            if late.is_set():
                raise Failed(f"was ended, as it gave no answer in {seconds:.0f} s") from error
            self.printed.seek(0)
            raise Failed(f"ended with status {status}: {self.printed.read().decode(errors='replace')}") from error
        finally:
            if timer is not None:
                timer.cancel()
        if kind == "ok":
            return value
        raise LeftOut(value) if kind == "left_out" else Failed(value)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.printed.close()

    def _end(self, late: threading.Event) -> None:
        late.set()
        self.process.kill()
