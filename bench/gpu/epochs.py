"""An epoch of MNIST by `fit`, compared with each peer's loop over the same minibatches, which are on the device."""

from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from bench.gpu.budget import Budget
from bench.gpu.samples import order_of, samples
from bench.gpu.steps import Contestant, problem_of
from bench.problem import Parameters, Problem, Size
from bench.process import Failed, LeftOut
from bench.reference import errors, gradients

TOLERANCE = 1e-2  # relative to the change of an array in an epoch of thousands of steps in float32
TIMED = 3  # epochs after the compared one


def measure_epochs(
    sizes: list[Size], count: int, real: bool, contestants: list[Contestant], budget: Budget
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(size, {"samples", "steps", "data", "contenders": {name: result}}), in float32."""
    for size in sizes if contestants else []:
        if not budget.allows(f"epoch: {size}", 8.0):
            continue
        problem = problem_of(size, "float32", contestants[0].device.kind)
        expected = after_epochs(problem, count, real)
        rows: dict[str, Any] = {}
        for contestant in contestants:
            if budget.allows(f"epoch: {size} {contestant.name}", 5.0):
                try:
                    rows[contestant.name] = _measure(problem, contestant, expected, (count, real), budget)
                except (LeftOut, Failed) as error:
                    kind = "left_out" if isinstance(error, LeftOut) else "failed"
                    rows[contestant.name] = {kind: str(error)}
                contestant.drop()
        data = "MNIST" if real else "random bytes instead of MNIST"
        steps = -(-count // size.batch)
        yield str(size), {"samples": count, "steps": steps, "data": data, "contenders": rows}


def _measure(
    problem: Problem, contestant: Contestant, expected: Parameters, data: tuple[int, bool], budget: Budget
) -> dict[str, Any]:
    contestant.ask("make", problem, 0)
    contestant.ask("keep", *data)
    contestant.ask("epoch")
    error = max(errors(problem, expected, contestant.ask("parameters")))
    if not error <= TOLERANCE:
        raise Failed(f"computes something else: its parameters are {error:.1e} off, more than {TOLERANCE:.0e}")
    seconds: list[float] = []
    whole: list[float] = []
    while len(seconds) < TIMED and (not seconds or budget.left() > 2 * whole[-1] + 2):
        own, call = contestant.ask("epoch")
        seconds.append(own)
        whole.append(call)
    row = {"minimum": min(seconds), "median": median(seconds), "epochs": len(seconds), "error": float(error)}
    way = contestant.ask("way")
    return row | {"call": median(whole)} | ({} if way is None else {"way": way})


def after_epochs(problem: Problem, count: int, real: bool, epochs: int = 1) -> Parameters:
    """The parameters after some epochs in nnkit's order, in float64 with plain NumPy."""
    X, Y = (a.astype(np.float64) for a in samples(count, real))
    parameters = [a.astype(np.float64) for pair in problem.parameters() for a in pair]
    for epoch in range(epochs):
        order, size = order_of(epoch, count), problem.size.batch
        for start in range(0, count, size):
            rows = order[start : start + size]
            found = gradients(problem.activation, parameters, X[rows], Y[rows])
            for p, g in zip(parameters, found, strict=True):
                p -= problem.learning_rate * g
    return list(zip(parameters[::2], parameters[1::2], strict=True))
