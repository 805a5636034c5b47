"""`python -m bench.gpu`: the limits of this GPU, and how close nnkit and its peers come, as JSON and Markdown."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.contenders import contender
from bench.gpu.absent import failures
from bench.gpu.budget import Budget
from bench.gpu.contenders import CLASSES, EPOCHS, NAMES, ONLY_EPOCHS
from bench.gpu.device import Device
from bench.gpu.epochs import measure_epochs
from bench.gpu.kernels import measure_copy, measure_kernels
from bench.gpu.samples import has_mnist
from bench.gpu.steps import PRECISIONS, TOLERANCES, Contestant, Plan, measure_steps
from bench.gpu.tables import markdown
from bench.problem import Size, parse_sizes
from bench.reference import STEPS
from nnkit.backends import BackendUnavailableError
from nnkit.files import replacing

SIZES = [
    "784-30-10x10,32,128", "784-100-10x32,128", "784-256-128-10x256", "784-512-512-10x1024",
    "4096-4096-4096-4096x8192",
]  # fmt: skip
MNIST = ["784-30-10x10", "784-100-10x128"]
SECTIONS = ("ceilings", "kernels", "steps", "epochs")
_FULL = {"budget": 450.0, "seconds": 0.3, "entries": 1 << 26, "width": 8192, "copied": 1 << 31, "count": 60000}
_SHORT = {"budget": 60.0, "seconds": 0.01, "entries": 1 << 14, "width": 64, "copied": 1 << 16, "count": 300}
_RESERVE = 100.0  # of the budget, for the epochs


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; returns 1 if a contender failed or computes a different result, 2 without a GPU."""
    options = _options(arguments)
    try:
        device = Device(options.device)
    except BackendUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    budget, numbers = Budget(options.budget), _SHORT if options.short else _FULL
    settings = {
        "short": options.short, "device": options.device, "budget": options.budget, "rounds": 3,
        "seconds": numbers["seconds"], "precisions": options.precisions, "compared_steps": STEPS,
        "tolerances": {name: TOLERANCES[name] for name in options.precisions}, "kernel_entries": numbers["entries"],
    }  # fmt: skip
    result: dict[str, Any] = {"machine": device.describe(), "settings": settings, "kernels": []}
    result["contenders"] = {name: contender(name, CLASSES).label for name in options.contenders}
    contestants = {name: Contestant(name, device, budget) for name in options.contenders}
    path = options.output / device.file_name()

    def save() -> None:  # after each section, as the process may be killed in the next one
        result.update(skipped=budget.skipped, seconds=budget.spent())
        _write(result, path)

    try:
        _measure(result, options, contestants, device, budget, numbers, save)
    except KeyboardInterrupt:
        result["stopped"] = "by Ctrl-C"
    finally:
        for contestant in contestants.values():
            contestant.close()
        save()
    print(markdown(result), f"written: {path}.json, {path.name}.md", sep="\n")
    return int("stopped" in result or bool(failures(result)))


def _measure(
    result: dict[str, Any], options: argparse.Namespace, contestants: dict[str, Contestant], device: Device,
    budget: Budget, numbers: dict[str, Any], save: Callable[[], None],
) -> None:  # fmt: skip
    """Measure the requested sections as far as the budget allows, and save after each."""
    plan, everyone = Plan(3, numbers["seconds"]), list(contestants.values())
    budget.reserve(_RESERVE if "epochs" in options.sections and not options.short else 0)
    calls = 2 if options.short else 20
    if "ceilings" in options.sections and budget.allows("ceilings: copy", 5):
        ceilings = result["ceilings"] = {"copy": measure_copy(device, numbers["copied"], calls), "products": {}}
        square = Size((numbers["width"],) * 2, numbers["width"])
        floor = [contestants["floor"]] if "floor" in contestants else []
        found = measure_steps([square], tuple(options.precisions), floor, plan, budget) if floor else {}
        for precision, rows in found.get(str(square), {}).items():  # a step of one layer is two products
            about = {"width": numbers["width"], "flops": 4 * numbers["width"] ** 3}
            ceilings["products"][precision] = rows["floor"] | about
        save()
    if "kernels" in options.sections:
        result["kernels"] = measure_kernels(device, numbers["entries"], calls, budget)
        save()
    if "steps" in options.sections:
        sizes = [size for text in options.sizes for size in parse_sizes(text)]
        timed = [contestant for contestant in everyone if contestant.name not in ONLY_EPOCHS]
        result["steps"] = measure_steps(sizes, tuple(options.precisions), timed, plan, budget)
        save()
    budget.reserve(0)
    if "epochs" in options.sections:
        sizes = [size for text in options.epochs for size in parse_sizes(text)]
        trained = [contestant for contestant in everyone if contestant.name in EPOCHS]
        result["epochs"] = measure_epochs(sizes, numbers["count"], has_mnist(), trained, budget)


def _write(result: dict[str, Any], path: Path) -> None:
    contents = {".json": json.dumps(result, indent=1, ensure_ascii=False) + "\n", ".md": markdown(result)}
    for suffix, content in contents.items():
        with replacing(path.with_name(path.name + suffix)) as file:
            file.write(content.encode())


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.gpu", description=__doc__)
    parser.add_argument("--sizes", nargs="+", metavar="SIZE", default=SIZES, help=f"default: {' '.join(SIZES)}")
    parser.add_argument("--epochs", nargs="+", metavar="SIZE", default=MNIST, help=f"default: {' '.join(MNIST)}")
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), metavar="PRECISION")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="total time (default: 450)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to check the arithmetic")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results", metavar="FOLDER")
    parser.add_argument("--short", action="store_true", help="tiny sizes and times, to check that everything runs")
    options = parser.parse_args(arguments)
    if options.short and options.sizes is SIZES:
        options.sizes, options.epochs = ["20-10-5x4", "32-32-32-32x8"], ["784-12-10x64"]
    if options.budget is None:
        options.budget = (_SHORT if options.short else _FULL)["budget"]
    try:
        for text in options.sizes + options.epochs:
            parse_sizes(text)
    except ValueError as error:
        parser.error(str(error))
    if not options.output.is_dir():
        parser.error(f"--output: directory {options.output} does not exist")
    return options


if __name__ == "__main__":
    sys.exit(main())
