"""The requests that a contender's process answers, pickled over its standard input and output.

The first is a Problem. Then ("parameters",) gives the pairs (W, b); ("chunk", seconds) a number of steps that take so
long, after as much of warming up; ("time", steps, chunks) the seconds a step took, one number for each chunk of steps.
An answer is ("ok", value), or ("left_out", why) or ("failed", traceback) and the end.
"""

import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from bench.contenders import contender
from bench.contenders.base import Contender
from bench.problem import Problem
from bench.reference import STEPS


def serve(name: str) -> None:
    """Answer requests until the input ends."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what a package prints is no answer
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
        except Exception:  # of any package; the parent says which
            send(answers, "failed", traceback.format_exc())


def _start(name: str, problem: Problem) -> tuple[Contender, int]:
    """The contender after the steps that are compared, and the process's peak memory in bytes until then."""
    made = contender(name)(problem)
    for _ in range(STEPS):
        made.step()
    made.wait()
    return made, peak_memory()


def peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    try:
        with open("/proc/self/status") as status:  # getrusage knows the parent's too, from before exec
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def steps_in(made: Contender, seconds: float) -> int:
    """How many steps take at least so long, found by doubling."""
    steps = 1
    while (needed := time_chunks(made, steps, 1)[0] * steps) < seconds:
        steps = max(2 * steps, min(int(steps * seconds / needed), 10 * steps))
    return steps


def time_chunks(made: Contender, steps: int, chunks: int) -> list[float]:
    """The seconds of a step, in each of some chunks."""
    seconds = []
    for _ in range(chunks):
        start = perf_counter()
        made.steps(steps)
        made.wait()
        seconds.append((perf_counter() - start) / steps)
    return seconds


def parameters(made: Contender) -> Any:
    """The parameters now; FloatingPointError if they are not finite, as NaN takes another time."""
    pairs = made.parameters()
    for pair in pairs or ():
        if not all(np.isfinite(a).all() for a in pair):
            raise FloatingPointError("the parameters are not finite")
    return pairs


def send(answers: Any, *answer: Any) -> None:
    """Give an answer."""
    pickle.dump(answer, answers)
    answers.flush()


_REQUESTS: dict[str, Callable[..., Any]] = {"parameters": parameters, "chunk": steps_in, "time": time_chunks}
