"""The parent process: compares the contenders' processes with float64 and times them in turn, one at a time."""

import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.gpu.absent import line_of
from bench.gpu.budget import Budget
from bench.gpu.device import Device
from bench.problem import Parameters, Problem, Size
from bench.process import Failed, LeftOut, Process
from bench.reference import STEPS, errors, reference
from bench.rounds import summary

PRECISIONS = ("float32", "tf32", "bf16")
# Relative to the change of an array in these steps. The operands of a product are rounded to 24, 11 and 8 bits, and a
# gradient is the result of about ten consecutive products.
TOLERANCES = {"float32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}
QUEUE = 0.02  # seconds of work, at most 20 steps, that are queued at once to time the host
ANSWER = 120.0  # seconds per request, at most
GIVEN_UP = 3  # consecutive failures after which a contender is not tried again


@dataclass(frozen=True)
class Plan:
    """How to time: the number of rounds, and seconds per contender, size and precision in all rounds together."""

    rounds: int
    seconds: float


class Contestant:
    """A contender's process, started on demand and, up to a limit, again after a failure."""

    def __init__(self, name: str, device: Device, budget: Budget) -> None:
        self.name, self.device, self.budget = name, device, budget
        self.bytes = 0  # device memory held by the process
        self._process: Process | None = None
        self._failures: list[str] = []  # consecutive ones

    def ask(self, *request: Any) -> Any:
        """Return the answer to a request; raises LeftOut, or Failed after ending the process."""
        if len(self._failures) >= GIVEN_UP:
            raise Failed(f"not tried again: {self._failures[-1]}")
        before = self.device.free_bytes()
        if self._process is None:
            command = [sys.executable, "-m", "bench.gpu.worker", self.name]
            self._process, self.bytes = Process(command, _environment(self.device.kind)), 0
        try:
            answer = self._process.ask(request, min(ANSWER, self.budget.end()))
        except Failed as error:
            self._failures.append((str(error).strip().splitlines() or [""])[-1])
            self.close()
            raise
        finally:
            self.bytes += before - self.device.free_bytes()
        if request[0] == "memory":  # sent after its results were found correct
            self._failures.clear()
        return answer

    def drop(self) -> None:
        """Let the process, if there is one, release the resources of its problem."""
        if self._process is not None:
            try:
                self.ask("drop")
            except (LeftOut, Failed):
                self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
        self._process = None


def problem_of(size: Size, precision: str, device: str) -> Problem:
    """The problem for a size; with a smaller learning rate for wide layers, where gradients sum over many outputs."""
    rate = 1e-3 if max(size.widths[1:]) > 1024 else None
    return Problem(size, device=device, precision=precision, rate=rate)


Rows = dict[str, dict[str, Any]]


def measure_steps(
    sizes: list[Size], precisions: Sequence[str], contestants: list[Contestant], plan: Plan, budget: Budget
) -> Iterator[tuple[str, str, Rows]]:
    """(size, precision, {contender: result}).

    Measures the first precision at all sizes, then the others, widest network first: narrow ones gain least from them.
    """
    order = [(size, precisions[0]) for size in sizes]
    order += [(size, precision) for size in reversed(sizes) for precision in precisions[1:]]
    for size, precision in order if contestants else []:
        try:
            rows = _measure(size, precision, contestants, plan, budget)
        except Exception as error:  # of the comparison, in this process
            rows = {contestant.name: {"failed": line_of(error)} for contestant in contestants}
        if rows:
            yield str(size), precision, rows


def _measure(size: Size, precision: str, contestants: list[Contestant], plan: Plan, budget: Budget) -> Rows:
    problem = problem_of(size, precision, contestants[0].device.kind)
    rows: Rows = {}
    times: dict[str, list[float]] = {}
    steps: dict[str, int] = {}
    needed = 3 + 3 * plan.seconds
    if not budget.allows(f"steps: {size} {precision}", needed):
        return {}
    first = expected = None
    if any(contestant.name != "floor" for contestant in contestants):  # the floor has no parameters
        expected, first = expected_parameters(size, contestants[0].device), problem.parameters()

    def start(contestant: Contestant) -> None:
        name = contestant.name
        if budget.allows(f"steps: {size} {precision} {name}", needed):
            error = compare(problem, expected, contestant.ask("make", problem, STEPS), first)
            rows[name] = {"error": error, "device_bytes": contestant.bytes}
            rows[name]["peak_bytes"] = contestant.ask("memory")
            steps[name] = contestant.ask("chunk", plan.seconds / plan.rounds / 2)
            times[name] = []

    def go_on(contestant: Contestant) -> None:
        name = contestant.name
        if name in times:
            times[name] += contestant.ask("time", steps[name], 2)

    def end(contestant: Contestant) -> None:
        name = contestant.name
        if name in times:
            rows[name] |= summary(times[name]) | {"steps_in_a_chunk": steps[name]}
            queued = int(min(20, max(1, QUEUE / rows[name]["minimum"])))
            rows[name]["host"] = median(contestant.ask("host", queued, 5))
            contestant.ask("finite")

    for turn in (start, *[go_on] * plan.rounds, end):
        for contestant in contestants:
            try:
                turn(contestant)
            except (LeftOut, Failed) as error:  # drop this one and continue with the others
                rows[contestant.name] = {_kind(error): str(error)}
                times.pop(contestant.name, None)
    for contestant in contestants:
        contestant.drop()
    return rows


@functools.cache
def expected_parameters(size: Size, device: Device) -> Parameters:
    """The parameters after the compared steps, in float64, computed on the device for speed."""
    problem = problem_of(size, "float32", device.kind)
    try:
        found = reference(problem, STEPS, device.xp)
    except Exception:  # whatever CuPy lacks: NumPy gives the same numbers, and the contenders can still be compared
        return reference(problem, STEPS)
    return [(device.backend.to_numpy(W), device.backend.to_numpy(b)) for W, b in found]


def compare(
    problem: Problem, expected: Parameters | None, found: Parameters | None, first: Parameters | None = None
) -> float | None:
    """The largest error of the parameters, None for the floor; raises Failed if it exceeds the tolerance."""
    if found is None:
        return None
    assert expected is not None
    error, tolerance = max(errors(problem, expected, found, first)), TOLERANCES[problem.precision]
    if not error <= tolerance:
        raise Failed(f"computes something else: its parameters are {error:.1e} off, more than {tolerance:.0e}")
    return float(error)


def _kind(error: Exception) -> str:
    return "left_out" if isinstance(error, LeftOut) else "failed"


def _environment(device: str) -> Mapping[str, str]:
    """The environment: one host thread, no preallocation of GPU memory, the same device for all."""
    given = {
        "OMP_NUM_THREADS": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_PLATFORMS": device,
        "NNKIT_BACKEND": "numpy",
    }  # fmt: skip
    return os.environ | given
