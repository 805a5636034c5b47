"""The time that the whole command may take, and what is said while it runs."""

import sys
import time


class Budget:
    """Seconds from now on; `left` is what remains, less what `reserve` keeps for later."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start, self._reserved = seconds, time.perf_counter(), 0.0
        self.skipped: list[str] = []

    def spent(self) -> float:
        """The seconds that have passed."""
        return time.perf_counter() - self._start

    def left(self) -> float:
        """The seconds that may still be used."""
        return self.seconds - self._reserved - self.spent()

    def end(self) -> float:
        """The seconds until everything must have ended, at least a few, so that a last answer can come."""
        return max(5.0, self.seconds - self.spent())

    def reserve(self, seconds: float) -> None:
        """Keep so many seconds for what comes later; 0 frees them."""
        self._reserved = seconds

    def allows(self, what: str, seconds: float) -> bool:
        """Say what comes next; or note that it is left out, if it takes longer than what is left."""
        if self.left() >= seconds:
            print(f"[{self.spent():4.0f} s] {what}", file=sys.stderr, flush=True)
            return True
        self.skipped.append(what)
        return False
