"""The parent process: starts the contenders' processes, compares their results and times one at a time, in rounds."""

import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.problem import Parameters, Problem
from bench.process import Failed, LeftOut, Process
from bench.reference import TOLERANCES, errors, reference

CHUNK = 0.004  # seconds: long compared with the clock's resolution, short compared with disturbances


@dataclass(frozen=True)
class Plan:
    """How to measure: threads per contender, the cores, rounds, and seconds per contender in all rounds together.

    Steps are timed in chunks of at least `chunk` seconds.
    """

    threads: int
    cores: tuple[int, ...]
    rounds: int
    seconds: float
    chunk: float = CHUNK


def choose_cores(threads: int) -> tuple[int, ...]:
    """The last cores that this process may use, as the first handle interrupts; empty if the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    usable = sorted(os.sched_getaffinity(0))
    if threads > len(usable):
        raise ValueError(f"threads is {threads}; expected at most {len(usable)}, the cores of this process")
    return tuple(usable[-threads:])


class Worker(Process):
    """One contender, for one problem, in a separate process, which ends with `close`."""

    def __init__(self, name: str, problem: Problem, plan: Plan) -> None:
        command = [sys.executable, "-m", "bench.worker", name, ",".join(map(str, plan.cores))]
        super().__init__(command, os.environ | _thread_variables(plan.threads))
        try:
            self.peak_bytes: int = self.ask(problem)
        except BaseException:
            self.close()
            raise


Check = tuple[Callable[[Parameters], float], float]


def measure(
    problem: Problem, names: list[str], plan: Plan, say: Callable[[str], None], check: Check | None = None
) -> dict[str, dict[str, Any]]:
    """For each contender, its times, the error of its parameters and its memory, or why it is left out or failed.

    `check` is the error of a contender's result and its tolerance; by default that of the parameters after some steps.
    `say` is called `len(names) * (plan.rounds + 2)` times with the current activity.
    """
    results: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    times: dict[str, list[float]] = {name: [] for name in names}
    steps: dict[str, int] = {}
    off, tolerance = check or (partial(_error, problem, reference(problem)), TOLERANCES[problem.dtype])

    def start(name: str) -> None:
        worker = workers[name] = Worker(name, problem, plan)
        results[name] = {"peak_bytes": worker.peak_bytes, "error": _compared(worker, off, tolerance)}
        steps[name] = worker.ask(("chunk", plan.chunk))

    def go_on(name: str) -> None:
        # A step may take a whole second: three times are enough then.
        spent = len(times[name]) >= 3 and sum(times[name]) * steps[name] > plan.seconds
        if name in workers and not spent:
            times[name] += _round(workers[name], steps[name], plan, times[name])

    def end(name: str) -> None:
        if name in workers:
            workers[name].ask(("parameters",))  # checks that they are still finite
            results[name] |= summary(times[name]) | {"steps_in_a_chunk": steps[name]}

    turns = [("start", start), *((f"round {i + 1}", go_on) for i in range(plan.rounds)), ("end", end)]
    try:
        for what, turn in turns:
            for name in names:
                say(f"{problem.size} {name}: {what}")
                try:
                    turn(name)
                except (LeftOut, Failed) as error:  # drop this one and continue with the others
                    results[name] = {"left_out" if isinstance(error, LeftOut) else "failed": str(error)}
                    if name in workers:
                        workers.pop(name).close()
    finally:
        for worker in workers.values():
            worker.close()
    return results


def _error(problem: Problem, expected: Parameters, found: Parameters) -> float:
    return max(errors(problem, expected, found))


def _compared(worker: Worker, error: Callable[[Parameters], float], tolerance: float) -> float | None:
    """The error of the result, None for the floor; raises Failed if it exceeds the tolerance."""
    found = worker.ask(("parameters",))
    if found is None:
        return None
    off = error(found)
    if not off <= tolerance:
        raise Failed(f"computes something else: its results are {off:.1e} off, more than {tolerance:.0e}")
    return off


def _round(worker: Worker, steps: int, plan: Plan, before: list[float]) -> list[float]:
    """The times of one round: as many chunks as fit into its share of the seconds, at least one."""
    chunk = steps * min(before) if before else plan.chunk
    found: list[float] = worker.ask(("time", steps, max(1, round(plan.seconds / plan.rounds / chunk))))
    return found


def summary(times: list[float]) -> dict[str, Any]:
    """The minimum, the quartiles and the number of the times."""
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    found = {"minimum": min(times), "lower_quartile": low, "median": median, "upper_quartile": high}
    return found | {"chunks": len(times)}


def _thread_variables(threads: int) -> dict[str, str]:
    """The environment variables for the number of threads of BLAS, OpenMP and XLA, which read them when loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    several = "true" if threads > 1 else "false"
    return dict.fromkeys(names, str(threads)) | {
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={several} intra_op_parallelism_threads={threads}",
        "JAX_PLATFORMS": "cpu",
        "NNKIT_BACKEND": "numpy",
    }
