"""`python -m bench.gpu`: the limits of this GPU, and how close nnkit and its peers come, as JSON and Markdown."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import machine
from bench.contenders import contender
from bench.gpu.absent import failures, line_of
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
_FULL: dict[str, Any] = {
    "budget": 450.0,
    "seconds": 0.3,
    "entries": 1 << 26,
    "width": 8192,
    "copied": 1 << 31,
    "count": 60000,
}
_SHORT: dict[str, Any] = {
    "budget": 60.0,
    "seconds": 0.01,
    "entries": 1 << 14,
    "width": 64,
    "copied": 1 << 16,
    "count": 300,
}
_FIRST = 110.0  # seconds, of the budget, for a first result of everything
_RESERVE = 100.0  # for the epochs of all contenders


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; returns 1 if a contender failed or computes a different result, 2 without a GPU."""
    options = _options(arguments)
    try:
        device = Device(options.device)
    except BackendUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    run = Run(options, device)
    try:
        run.first()
        run.rest()
    except KeyboardInterrupt:
        run.result["stopped"] = "by Ctrl-C"
    finally:
        run.close()
    print(markdown(run.result), f"written: {run.path}.json, {run.path.name}.md", sep="\n")
    return int("stopped" in run.result or bool(failures(run.result)))


class Run:
    """A measurement; after each part of it, its result is on the disk, as the process may be killed in the next one."""

    def __init__(self, options: argparse.Namespace, device: Device) -> None:
        self.options, self.device, self.budget = options, device, Budget(options.budget)
        self.numbers = _SHORT if options.short else _FULL
        self.plan, self.calls = Plan(3, self.numbers["seconds"]), 2 if options.short else 20
        self.sizes, self.epochs = (
            [size for text in texts for size in parse_sizes(text)] for texts in (options.sizes, options.epochs)
        )
        self.contestants = {name: Contestant(name, device, self.budget) for name in options.contenders}
        self.path = options.output / device.file_name()
        self.result: dict[str, Any] = {
            "machine": device.describe(),
            "settings": {
                "short": options.short, "device": options.device, "budget": options.budget, "rounds": self.plan.rounds,
                "seconds": self.plan.seconds, "precisions": options.precisions, "compared_steps": STEPS,
                "tolerances": {name: TOLERANCES[name] for name in options.precisions},
                "kernel_entries": self.numbers["entries"],
            },
            "contenders": {name: contender(name, CLASSES).label for name in options.contenders},
            "clocks": {}, "ceilings": {}, "kernels": [], "steps": {}, "epochs": {}, "failed": {},
        }  # fmt: skip

    def first(self) -> None:
        """The copy, and of nnkit alone two steps, an epoch and all kernels."""
        self.budget.reserve(max(0.0, self.options.budget - _FIRST))
        few = [*dict.fromkeys([self.sizes[0], self.sizes[-2:][0]])]  # the narrowest, and the widest but one
        precision = self.options.precisions[:1]
        self._part("copy", "ceilings", self._copy)
        self._part("first steps", "steps", lambda: self._steps(few, precision, self._named("floor", "nnkit")))
        self._part("first epochs", "epochs", lambda: self._epochs(self.epochs[:1], self._named("nnkit")))
        self._part("kernels", "kernels", self._kernels)

    def rest(self) -> None:
        """What the first result lacks: the products, and all contenders at all sizes in all precisions."""
        again, self.budget.skipped = " ".join(self.budget.skipped), []
        self.budget.reserve(_RESERVE if "epochs" in self.options.sections and not self.options.short else 0)
        every, precisions = list(self.contestants.values()), self.options.precisions
        steps = [contestant for contestant in every if contestant.name not in ONLY_EPOCHS]
        trained = [contestant for contestant in every if contestant.name in EPOCHS]
        if "copy" in again:
            self._part("copy", "ceilings", self._copy)
        self._part("products", "ceilings", self._products)
        if "kernels" in again:
            self._part("kernels", "kernels", self._kernels)
        self._part("steps", "steps", lambda: self._steps(self.sizes, precisions, steps))
        self.budget.reserve(0)
        self._part("epochs", "epochs", lambda: self._epochs(self.epochs, trained))

    def close(self) -> None:
        """End the contenders' processes, and save."""
        for contestant in self.contestants.values():
            contestant.close()
        self._save()

    def _part(self, name: str, section: str, measure: Callable[[], None]) -> None:
        """Measure, if the section is wanted; an error ends this part only."""
        if section not in self.options.sections:
            return
        try:
            measure()
        except Exception as error:
            self.result["failed"][name] = line_of(error)
        self.result["clocks"][name] = self.device.clocks()
        self._save()

    def _save(self) -> None:
        self.result.update(skipped=self.budget.skipped, seconds=self.budget.spent())
        _write(self.result, self.path)

    def _named(self, *names: str) -> list[Contestant]:
        return [self.contestants[name] for name in names if name in self.contestants]

    def _copy(self) -> None:
        if self.budget.allows("ceilings: copy", 5):
            size = self._fitting(self.numbers["copied"], 4)
            self.result["ceilings"]["copy"] = measure_copy(self.device, size, self.calls)

    def _kernels(self) -> None:
        entries, found = self._fitting(self.numbers["entries"], 64), self.result["kernels"]
        done = {(row["kind"], row["name"]) for row in found}
        for row in measure_kernels(self.device, entries, self.calls, self.budget, done):
            found.append(row)
            self._save()

    def _fitting(self, size: int, parts: int) -> int:
        """A size, or less, a power of two, where `parts` of it do not fit into the device's memory."""
        free = self.device.free_bytes() // parts
        return min(size, 1 << free.bit_length() - 1) if free else size

    def _products(self) -> None:
        width = self.numbers["width"]
        about, floor = {"width": width, "flops": 4 * width**3}, self._named("floor")
        found = self.result["ceilings"]["products"] = {}
        square = [Size((width,) * 2, width)]
        for _, precision, rows in measure_steps(square, self.options.precisions, floor, self.plan, self.budget):
            found[precision] = rows["floor"] | about  # a step of one layer is two products
            self._save()

    def _steps(self, sizes: list[Size], precisions: list[str], contestants: list[Contestant]) -> None:
        for size, precision, rows in measure_steps(sizes, precisions, contestants, self.plan, self.budget):
            self.result["steps"].setdefault(size, {})[precision] = rows
            self._save()

    def _epochs(self, sizes: list[Size], contestants: list[Contestant]) -> None:
        count = self.numbers["count"]
        for size, found in measure_epochs(sizes, count, has_mnist(), contestants, self.budget):
            self.result["epochs"][size] = found
            self._save()


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
    parser.add_argument("--output", type=machine.folder, default=machine.RESULTS, metavar="FOLDER")
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
    return options


if __name__ == "__main__":
    sys.exit(main())
