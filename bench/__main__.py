"""`python -m bench`: a training step of nnkit compared with its floor and peers, as a table, JSON and two plots."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from bench import machine, pictures, report
from bench.contenders import NAMES, contender
from bench.problem import ACTIVATIONS, DTYPES, LEARNING_RATES, Problem, Size, parse_sizes
from bench.reference import STEPS, TOLERANCES
from bench.rounds import Plan, choose_cores, measure
from nnkit.files import replacing, writable
from nnkit.plots.figure import picture_path, write_picture

SIZES = ["784-30-10x10", "784-100-10x32,128", "784-256-128-10x256", "784-512-512-10x1024", "1024-1024-1024-1024x512"]
BATCHES = ["784-100-10x1,8,32,128,512,2048"]
SHORT = {"sizes": ["20-10-5x4"], "batches": ["20-10-5x1,4"], "rounds": 2, "seconds": 0.02}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; returns 1 if a contender failed or computes a different result."""
    if "--epochs" in (sys.argv[1:] if arguments is None else arguments):
        from bench.epochs import main as epochs

        return epochs(arguments)
    if "--ensembles" in (sys.argv[1:] if arguments is None else arguments):
        from bench.ensembles import main as ensembles

        return ensembles(arguments)
    options = _options(arguments)
    missing = [name for name in ("packaging", "tqdm") if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        print(f"python -m bench: error: needs {names}: python -m pip install {names}", file=sys.stderr)
        return 2
    by_contender = _sizes(options.sizes)
    by_batch = _sizes(options.batches)
    plan = Plan(options.threads, choose_cores(options.threads), options.rounds, options.seconds)
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "settings": {
            "dtype": options.dtype, "optimizer": options.optimizer, "activation": options.activation,
            "threads": plan.threads, "cores": list(plan.cores), "rounds": plan.rounds, "seconds": plan.seconds,
            "compared_steps": STEPS, "tolerance": TOLERANCES[options.dtype],
        },
        "contenders": {name: _about(name) for name in options.contenders},
        "sizes": {},
    }  # fmt: skip
    sizes = list(dict.fromkeys([*by_contender, *by_batch]))
    _measure(result, sizes, options, plan)
    print(report.describe(result), report.table(result, [str(size) for size in by_contender]), sep="\n\n", end="\n\n")
    print(*report.absent(result), sep="\n")
    _write(result, by_contender, by_batch, options)
    return int(any("failed" in row for size in result["sizes"].values() for row in size["contenders"].values()))


def _measure(result: dict[str, Any], sizes: list[Size], options: argparse.Namespace, plan: Plan) -> None:
    """Measure all sizes, with a progress bar on standard error."""
    from tqdm import tqdm

    names = options.contenders
    with tqdm(total=len(sizes) * len(names) * (plan.rounds + 2), unit="", leave=False) as bar:

        def say(what: str) -> None:
            bar.set_description(what, refresh=False)
            bar.update()

        for size in sizes:
            problem = Problem(size, options.activation, options.optimizer, options.dtype)
            measured = measure(problem, names, plan, say)
            result["sizes"][str(size)] = {"widths": size.widths, "batch": size.batch, "contenders": measured}


def _write(result: dict[str, Any], sizes: list[Size], batches: list[Size], options: argparse.Namespace) -> None:
    if options.json is not None:
        with replacing(options.json) as file:
            file.write((json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
        print(f"written: {options.json}")
    if options.picture is not None:
        other = options.picture.with_stem(options.picture.stem + "-batches")
        write_picture(pictures.by_contender(result, [str(size) for size in sizes]), options.picture)
        print(f"written: {options.picture}")
        if batches:
            write_picture(pictures.by_batch(result, [str(size) for size in batches]), other)
            print(f"written: {other}")


def _about(name: str) -> dict[str, Any]:
    kind = contender(name)
    found = machine.installed(kind.distributions) or {"version": None, "install_bytes": 0, "packages": []}
    return {"label": kind.label, "distributions": kind.distributions, **found}


def _sizes(texts: list[str]) -> list[Size]:
    return [size for text in texts for size in parse_sizes(text)]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("--epochs", action="store_true", help="whole epochs and predictions; see --epochs --help")
    parser.add_argument("--sizes", nargs="+", metavar="SIZE", help=f"of the table (default: {' '.join(SIZES)})")
    parser.add_argument("--batches", nargs="*", metavar="SIZE", help=f"of the second plot (default: {BATCHES[0]})")
    parser.add_argument("--contenders", nargs="+", choices=NAMES, metavar="NAME", help=f"among {', '.join(NAMES)}")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--optimizer", choices=LEARNING_RATES, default="sgd")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="sigmoid")
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of each contender (default: 1)")
    parser.add_argument("--rounds", type=int, help="in which contenders are timed in turn (default: 10)")
    parser.add_argument("--seconds", type=float, help="seconds per contender and size, in all rounds (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file")
    parser.add_argument("--picture", metavar="FILE.png", help="write plots to this file and FILE-batches.png")
    parser.add_argument("--short", action="store_true", help="tiny sizes and times, to check that everything runs")
    options = parser.parse_args(arguments)
    full = {"sizes": SIZES, "batches": BATCHES, "rounds": 10, "seconds": 2.0, "contenders": list(NAMES)}
    for name, value in (full | SHORT if options.short else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.contenders = list(dict.fromkeys(["floor", *options.contenders]))  # the floor is always measured
    try:
        _sizes(options.sizes + options.batches)
        choose_cores(options.threads)
        options.picture = picture_path(options.picture, "--picture")
        if options.json is not None:
            writable(options.json, "--json")
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    for name in ("threads", "rounds", "seconds"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} is {getattr(options, name)}; expected a positive number")
    return options


if __name__ == "__main__":
    sys.exit(main())
