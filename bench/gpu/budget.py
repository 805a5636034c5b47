"""The time budget of the command, and its progress messages."""

import sys
import time


class Budget:
    """A budget in seconds from now on; `left` is the remainder without the time kept by `reserve`."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start, self._reserved = seconds, self.clock(), 0.0
        self.skipped: list[str] = []

    def spent(self) -> float:
        """The elapsed seconds."""
        return self.clock() - self._start

    def left(self) -> float:
        """The seconds that are still available."""
        return self.seconds - self._reserved - self.spent()

    def end(self) -> float:
        """The seconds until the end of the budget, at least a few, to allow for a last answer."""
        return max(5.0, self.seconds - self.spent())

    def reserve(self, seconds: float) -> None:
        """Reserve this many seconds for later; 0 releases them."""
        self._reserved = seconds

    def allows(self, what: str, seconds: float) -> bool:
        """Announce the next measurement, or record it as skipped if it takes longer than the time left."""
        if self.left() >= seconds:
            print(f"[{self.spent():4.0f} s] {what}", file=sys.stderr, flush=True)
            return True
        self.skipped.append(what)
        return False
