"""`python -m bench --ensembles`: several networks in one pass, the same one after the other, and JAX's vmap.

Each `step` is one epoch of all networks. They start from the same parameters and take the samples in the same orders,
and are compared with float64 after the first epochs. Times are those of a network and a step.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.epochs import TOLERANCES, Epochs
from bench.problem import Parameters, parse_sizes
from bench.reference import errors
from bench.rounds import Check, Plan, choose_cores, measure
from nnkit.files import replacing

SIZES = ["784-30-10x10", "64-100-10x10", "13-7-3x10"]
CONTENDERS = ("ensemble-alone", "ensemble-nnkit", "ensemble-jax")


@dataclass(frozen=True)
class Together(Epochs):
    """Epochs of several networks, in the order of seed 0 or each in its own."""

    members: int = 16
    own: bool = False

    def check(self) -> Check:
        starts = [pair for k in range(self.members) for pair in self.parameters(k)]
        expected = [pair for k in range(self.members) for pair in self.expected(k, k if self.own else 0)]

        def error(found: Parameters) -> float:
            return max(errors(self, expected, found, starts))

        return error, TOLERANCES[self.dtype]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; returns 1 if a contender failed or computes a different result."""
    options = _options(arguments)
    plan = Plan(options.threads, choose_cores(options.threads), options.rounds, options.seconds)
    result: dict[str, Any] = {"machine": machine.describe(), "settings": vars(options) | {"cores": plan.cores}}
    names, failed = [name for name in CONTENDERS if name not in options.skip], False
    for own in options.orders:
        for optimizer in options.optimizers:
            title = f"{optimizer}, {options.dtype}, {own} minibatches: µs a network and step"
            rows = result[title] = {}
            print(f"## {title}\n\n| | members | {' | '.join(n.partition('-')[2] for n in names)} |")
            print(f"|{'---|' * (len(names) + 2)}")
            for size in (size for text in options.sizes for size in parse_sizes(text)):
                for count in options.members:
                    problem = Together(size, "sigmoid", optimizer, options.dtype, samples=options.steps * size.batch,
                                       members=count, own=own == "own")  # fmt: skip
                    found = rows[f"{size} {count}"] = measure(problem, names, plan, lambda _: None, problem.check())
                    failed |= any("failed" in row for row in found.values())
                    steps = problem.steps * count
                    cells = (f"{r['minimum'] / steps * 1e6:.3g}" if "minimum" in r else "–" for r in found.values())
                    print(f"| {size} | {count} | {' | '.join(cells)} |", flush=True)
                    for name, row in found.items():
                        print(*(f"\n{name}: {row[kind]}" for kind in ("left_out", "failed") if kind in row), end="")
    if options.json is not None:
        with replacing(options.json) as file:
            file.write((json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n").encode())
    return int(failed)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench --ensembles", description=__doc__)
    parser.add_argument("--ensembles", action="store_true", help="these tables instead of single steps")
    parser.add_argument("--sizes", nargs="*", metavar="SIZE", default=SIZES)
    parser.add_argument("--members", nargs="+", type=int, default=[16])
    parser.add_argument("--orders", nargs="+", choices=("shared", "own"), default=["shared", "own"])
    parser.add_argument("--optimizers", nargs="+", choices=("adam", "sgd"), default=["sgd", "adam"])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME", help="contenders to leave out")
    parser.add_argument("--steps", type=int, default=400, help="of an epoch (default: 400)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="per contender and size, in all rounds (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file")
    return parser.parse_args(arguments)
