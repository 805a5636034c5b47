"""`python -m bench --ensembles`: several networks in one pass, the same one after the other, and JAX's vmap.

Each `step` is one epoch of all networks, and each fit has as many as take a twentieth of a second. They start from the
same parameters and take the samples in the same orders, and are compared with float64 after the first epochs. Times are
those of a network and a step; `ufuncs` are with NNKIT_NATIVE=0. It takes about four minutes, and writes the tables to
`bench/results/`.
"""

import argparse
from dataclasses import dataclass
from typing import Any

from bench import machine
from bench.epochs import CHUNK, TOLERANCES, Epochs, head, settings, write
from bench.problem import Parameters, Size, parse_sizes
from bench.reference import errors
from bench.rounds import Check, Plan, choose_cores, measure

SIZES = ["784-30-10x10", "64-100-10x10", "13-7-3x10"]
CONTENDERS = ("ensemble-alone", "ensemble-nnkit", "ensemble-alone-ufuncs", "ensemble-nnkit-ufuncs", "ensemble-jax")


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
    plan = Plan(options.threads, choose_cores(options.threads), options.rounds, options.seconds, CHUNK)
    result: dict[str, Any] = {"machine": machine.describe(), "settings": settings(options, plan)}
    names, lines, failed = [name for name in CONTENDERS if name not in options.skip], list[str](), False

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say(head("Networks in one pass, and one after the other", result["machine"], plan))
    for optimizer, own in ((optimizer, own) for optimizer in options.optimizers for own in options.orders):
        title = f"{optimizer}, {options.dtype}, {own} minibatches: µs a network and step"
        say(f"\n## {title}\n\n| | members | {' | '.join(name.partition('-')[2] for name in names)} |")
        say(f"|{'---|' * (len(names) + 2)}")
        rows, notes = result.setdefault(title, {}), list[str]()
        for size in (size for text in options.sizes for size in parse_sizes(text)):
            for count in options.members:
                found = rows[f"{size} {count}"] = _measured(size, count, own == "own", optimizer, names, plan, options)
                cells = [f"{row['microseconds']:.3g}" if "microseconds" in row else "–" for row in found.values()]
                say(f"| {size} | {count} | {' | '.join(cells)} |")
                failed |= any("failed" in row for row in found.values())
                notes += [f"\n{name} {kind}: {row[kind].strip().splitlines()[-1]} ({size})"
                          for name, row in found.items() for kind in ("left_out", "failed") if kind in row]  # fmt: skip
        for note in notes:
            say(note)
    write(options.results, "ensembles", plan, result, lines)
    return int(failed)


def _measured(
    size: Size, count: int, own: bool, optimizer: str, names: list[str], plan: Plan, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """What `measure` finds, with the `microseconds` of a network and step."""
    samples = options.steps * size.batch
    problem = Together(size, "sigmoid", optimizer, options.dtype, samples=samples, members=count, own=own)
    found = measure(problem, names, plan, lambda _: None, problem.check())
    for row in found.values():
        if "minimum" in row:
            row["microseconds"] = row["minimum"] / problem.steps / count * 1e6
    return found


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench --ensembles", description=__doc__)
    parser.add_argument("--ensembles", action="store_true", help="these tables instead of single steps")
    parser.add_argument("--sizes", nargs="*", metavar="SIZE", default=SIZES)
    parser.add_argument("--members", nargs="+", type=int, default=[16])
    parser.add_argument("--orders", nargs="+", choices=("shared", "own"), default=["shared", "own"])
    parser.add_argument("--optimizers", nargs="+", choices=("adam", "sgd"), default=["sgd", "adam"])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME", help="contenders to leave out")
    parser.add_argument("--steps", type=int, default=200, help="of an epoch (default: 200)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.0, help="per contender and size, in all rounds (default: 1)")
    parser.add_argument("--results", type=machine.folder, metavar="FOLDER", default=machine.RESULTS)
    return parser.parse_args(arguments)
