"""A contender's process, `python -m bench.gpu.worker NAME`, which answers requests about one problem after another.

("make", problem, steps) creates the contender, does some steps and returns its parameters, or None for the floor.
("chunk", seconds), ("time", steps, chunks) and ("parameters",) are those of `bench.serving`. ("host", steps, times)
returns the seconds that a call of `step` occupies the host, without waiting for the device; ("memory",) the peak bytes
on the device; ("finite",) checks that the parameters are finite. ("keep", count, real) puts the samples of an epoch on
the device, ("epoch",) trains it, and ("way",) says how, or None. ("drop",) releases everything. Answers are those of
`bench.serving`, but only "ok" keeps the problem; the process continues.
"""

import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

from bench.contenders import contender
from bench.gpu.contenders import CLASSES
from bench.gpu.contenders.base import GpuContender
from bench.gpu.samples import samples
from bench.problem import Problem
from bench.serving import parameters, send, steps_in, time_chunks


class Server:
    """The contender with this name, for the requested problem."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.made: GpuContender | None = None

    def answer(self, what: str, *arguments: Any) -> Any:
        """Answer a request."""
        if what == "make":
            return self.make(*arguments)
        if what == "drop":
            return self.drop()
        assert self.made is not None
        return _REQUESTS[what](self.made, *arguments)

    def make(self, problem: Problem, steps: int) -> Any:
        """Create a contender and return its parameters after some steps."""
        self.drop()
        kind = contender(self.name, CLASSES)
        assert issubclass(kind, GpuContender)
        self.made = kind(problem)
        for _ in range(steps):
            self.made.step()
        self.made.wait()
        return parameters(self.made)

    def drop(self) -> None:
        """Release the resources of the last contender."""
        if self.made is not None:
            self.made.close()
        self.made = None


def host(made: GpuContender, steps: int, times: int) -> list[float]:
    """Seconds of the host per step, several times: each the mean of `steps` steps, which must fit into the queue."""
    found = []
    for _ in range(times):
        made.wait()
        start = perf_counter()
        for _ in range(steps):
            made.step()
        found.append((perf_counter() - start) / steps)
    made.wait()
    return found


def keep(made: GpuContender, count: int, real: bool) -> None:
    """Put the samples of an epoch on the device."""
    made.keep(*samples(count, real))


def epoch(made: GpuContender) -> tuple[float, float]:
    """Train an epoch; returns its seconds, and those of the whole call."""
    made.wait()
    start = perf_counter()
    own = made.epoch()
    whole = perf_counter() - start
    return whole if own is None else own, whole


def way(made: GpuContender) -> str | None:
    """How an epoch is trained, if there are several ways."""
    return made.way()


def finite(made: GpuContender) -> None:
    """Raise FloatingPointError if the parameters are not finite, as NaN changes the time."""
    parameters(made)


def memory(made: GpuContender) -> int | None:
    """The peak memory on the device in bytes."""
    return made.peak_bytes()


_REQUESTS: dict[str, Callable[..., Any]] = {
    "parameters": parameters, "chunk": steps_in, "time": time_chunks, "host": host, "keep": keep, "epoch": epoch,
    "way": way, "memory": memory, "finite": finite,
}  # fmt: skip


def serve(name: str) -> None:
    """Answer requests until the input ends."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # printed output of packages must not mix with answers
        warnings.simplefilter("ignore")
        server = Server(name)
        while True:
            try:
                request = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                send(answers, "ok", server.answer(*request))
            except (ImportError, ValueError) as error:
                send(answers, "left_out", str(error))
            except Exception:  # from any package; the parent reports it
                send(answers, "failed", traceback.format_exc())


if __name__ == "__main__":
    serve(sys.argv[1])
