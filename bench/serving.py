"""The requests that a contender's process answers, pickled over its standard input and output.

The first request is a Problem. Then ("parameters",) returns the pairs (W, b); ("chunk", seconds) the number of steps
that take this long, after an equal warm-up; ("time", steps, chunks) the seconds per step, one number for each chunk of
steps. An answer is ("ok", value); the process ends after ("left_out", reason) or ("failed", traceback).
"""

import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.contenders import contender
from bench.contenders.base import Contender
from bench.problem import Problem


def serve(name: str) -> None:
    """Answer requests until the input ends."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # printed output of packages must not mix with answers
        warnings.simplefilter("ignore")
        try:
            made, peak = _start(name, pickle.load(sys.stdin.buffer))
            send(answers, "ok", peak)
            while True:
                what, *arguments = pickle.load(sys.stdin.buffer)
                send(answers, "ok", _REQUESTS[what](made, *arguments))
        except EOFError:
            return
        except (ImportError, ValueError) as error:
            send(answers, "left_out", str(error))
        except Exception:  # from any package; the parent reports it
            send(answers, "failed", traceback.format_exc())


def _start(name: str, problem: Problem) -> tuple[Contender, int]:
    """The contender after the steps to compare, and the peak memory of the process in bytes until then."""
    made = contender(name)(problem)
    for _ in range(made.compared):
        made.step()
    made.wait()
    return made, peak_memory()


def peak_memory() -> int:
    """The peak memory of this process in bytes."""
    try:
        with open("/proc/self/status") as status:  # getrusage includes the parent's memory from before exec
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def steps_in(made: Contender, seconds: float) -> int:
    """The number of steps that take at least `seconds`, found by doubling."""
    steps = 1
    while (needed := time_chunks(made, steps, 1)[0] * steps) < seconds:
        steps = max(2 * steps, min(int(steps * seconds / needed), 10 * steps))
    return steps


def time_chunks(made: Contender, steps: int, chunks: int) -> list[float]:
    """The seconds per step in each chunk."""
    return [made.timed(steps) / steps for _ in range(chunks)]


def parameters(made: Contender) -> Any:
    """The current parameters; raises FloatingPointError if they are not finite, as NaN changes the time."""
    pairs = made.parameters()
    for pair in pairs or ():
        if not all(np.isfinite(a).all() for a in pair):
            raise FloatingPointError("the parameters are not finite")
    return pairs


def send(answers: Any, *answer: Any) -> None:
    """Send an answer."""
    pickle.dump(answer, answers)
    answers.flush()


_REQUESTS: dict[str, Callable[..., Any]] = {"parameters": parameters, "chunk": steps_in, "time": time_chunks}
