"""`python -m bench --epochs`: epochs with shuffling and gathering, predictions, small fits, and the first run's cost.

Each peer trains in its fastest way: JAX by one `lax.scan` over an epoch, PyTorch with fused optimizers, eager and
compiled. All do the same arithmetic, which is checked: they start from the same parameters, take the samples in the
same orders, and are compared with float64 after the first epochs. Peers whose steps take long are in the first table
only. It takes about 25 minutes, and writes the tables to `bench/results/`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.problem import BETA1, BETA2, Parameters, Problem, Size, parse_sizes
from bench.process import ROOT
from bench.reference import errors
from bench.rounds import Check, Plan, choose_cores, measure
from nnkit.files import replacing

CHUNK = 0.05  # seconds: of several epochs, as fits are
EPOCHS = 2  # before a contender is compared and timed
# Of parameters, relative to their change. In float64 it proves the arithmetic to be the same. In float32 Adam turns the
# rounding errors of small gradients into whole steps: nnkit's differed by 0.064 at 784-100-10 with ReLU, and by 0.14
# scikit-learn's, which adds ε elsewhere.
TOLERANCES = {"float32": 0.2, "float64": 1e-8}
SIZES = [
    "784-30-10x10", "20-64-2x32", "20-64-64-2x32", "784-100-10x32,128", "784-256-128-10x256", "784-512-512-10x1024",
    "13-7-3x5", "300-64-64-64-2x48", "2048-333-77x200", "50-2000-50x400",
]  # fmt: skip
WORK = 4 * 10**10  # multiplications of an epoch, at most
SERVED = ["784-30-10x1,32,4096", "784-100-10x1,32,4096", "20-64-64-2x1,32,4096"]
FITS = ["4-100-3x32,150", "20-100-2x32"]
COMPILED = ("20-64-64-2x32", "784-100-10x32", "784-256-128-10x256")  # by PyTorch, which takes a minute at each size
FAST = ("epoch-products", "epoch-nnkit", "epoch-jax")
CONTENDERS = {
    "epoch": (
        *FAST, "epoch-nnkit-without-numba", "epoch-torch", "epoch-torch-compiled", "epoch-scikit-learn", "epoch-numpy",
    ),
    "fit": ("fit-network", "fit-estimator", "fit-scikit-learn"),
    "serve": ("serve-nnkit", "serve-onnx", "serve-scikit-learn"),
}  # fmt: skip


@dataclass(frozen=True)
class Epochs(Problem):
    """Epochs over `samples` samples; outputs are softmax with cross-entropy, the mean over the minibatch.

    Adam's ε is the usual 1e-8. scikit-learn adds it before the correction of the bias, which shows in float64.
    """

    samples: int = 2048
    epsilon: float = 1e-8

    @property
    def steps(self) -> int:
        """Steps of an epoch; the last minibatch is whole."""
        return self.samples // self.size.batch

    @property
    def learning_rate(self) -> float:
        return {"sgd": 0.002, "adam": 1e-4}[self.optimizer] if self.rate is None else self.rate

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """X (samples, d_in) in [0, 1) and labels (samples,) of a random linear classifier."""
        widths = self.size.widths
        X = np.random.default_rng(1).random((self.samples, widths[0]), np.float32)
        W = np.random.default_rng(2).standard_normal((widths[0], widths[-1]))
        return X.astype(self.dtype), ((X - 0.5) @ W).argmax(axis=1)

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        X, labels = self.data
        n = self.size.batch
        return X[:n], np.eye(self.size.widths[-1], dtype=self.dtype)[labels[:n]]

    def order(self, epoch: int, seed: int = 0) -> np.ndarray:
        """The order of the samples in an epoch, from 0, that of a network with this seed."""
        order = np.arange(self.samples)
        np.random.default_rng([seed, 1, epoch]).shuffle(order)
        return order

    def check(self) -> Check:
        expected = _expected(replace(self, dtype="float32"))  # which has the same parameters and samples
        return lambda found: max(errors(self, expected, found)), TOLERANCES[self.dtype]

    def expected(self, seed: int = 0, order: int = 0) -> Parameters:
        """The parameters after `EPOCHS` epochs, in float64, by the lecture's equations; `seed` is that of the start."""
        X, labels = self.data
        X, Y = X.astype(np.float64), np.eye(self.size.widths[-1])[labels]
        parameters = [a.astype(np.float64) for pair in self.parameters(seed) for a in pair]
        mean, square = [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters]
        t = 0
        for epoch in range(EPOCHS):
            for rows in self.order(epoch, order).reshape(self.steps, -1):
                t += 1
                gradient = _gradients(self.activation, parameters, X[rows], Y[rows])
                for p, g, m, v in zip(parameters, gradient, mean, square, strict=True):
                    if self.optimizer == "sgd":
                        p -= self.learning_rate * g
                        continue
                    m += (1 - BETA1) * (g - m)
                    v += (1 - BETA2) * (g * g - v)
                    p -= self.learning_rate * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + self.epsilon)
        return list(zip(parameters[::2], parameters[1::2], strict=True))


@cache
def _expected(problem: Epochs) -> Parameters:
    return problem.expected()


@dataclass(frozen=True)
class Fitting(Problem):
    """Twenty epochs from new parameters, on a few rows; an answer is the probabilities of these."""

    steps: int = 1
    samples: int = 150

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """X (samples, d_in) and labels, each class equally often."""
        labels = np.arange(self.samples) % self.size.widths[-1]
        X = np.random.default_rng(0).standard_normal((self.samples, self.size.widths[0])) + labels[:, None]
        return X.astype(self.dtype), labels

    def check(self) -> Check:
        return lambda found: float(abs(found[0][0].sum(axis=1) - 1).max()), 1e-5


@dataclass(frozen=True)
class Serving(Problem):
    """Probabilities of `size.batch` samples from memory, by a network with the initial parameters."""

    steps: int = 1

    def probabilities(self) -> np.ndarray:
        """The expected answer, in float64."""
        h = self.batch()[0].astype(np.float64)
        pairs = self.parameters()
        for i, (W, b) in enumerate(pairs):
            h = h @ W.T.astype(np.float64) + b
            if i < len(pairs) - 1:
                h = _activated(self.activation, h)
        return _softmax(h)

    def check(self) -> Check:
        expected = self.probabilities()
        return lambda found: float(abs(found[0][0] - expected).max()), 1e-5


def _activated(activation: str, z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0) if activation == "relu" else 0.5 * (1 + np.tanh(z / 2))


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _gradients(activation: str, parameters: list[np.ndarray], X: np.ndarray, Y: np.ndarray) -> list[np.ndarray]:
    inputs, h, last = [], X, len(parameters) // 2 - 1
    for i in range(last + 1):
        inputs.append(h)
        z = h @ parameters[2 * i].T + parameters[2 * i + 1]
        h = _activated(activation, z) if i < last else _softmax(z)
    delta, gradient = (h - Y) / len(X), list[np.ndarray]()
    for i in range(last, -1, -1):
        gradient += [delta.sum(axis=0), delta.T @ inputs[i]]
        if i:
            slope = inputs[i] > 0 if activation == "relu" else inputs[i] * (1 - inputs[i])
            delta = (delta @ parameters[2 * i]) * slope
    return gradient[::-1]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; returns 1 if a contender failed or computes a different result."""
    options = _options(arguments)
    plan = Plan(options.threads, choose_cores(options.threads), options.rounds, options.seconds)
    result: dict[str, Any] = {"machine": machine.describe(), "settings": settings(options, plan)}
    report = _Report(replace(plan, chunk=CHUNK), result, options.skip)
    report.say(head("Epochs, predictions and small fits", result["machine"], plan))
    names = CONTENDERS["epoch"]
    for dtype, activation, optimizer in [text.split("-") for text in options.tables]:
        title = f"An epoch, {optimizer}, {dtype}, {activation}: µs a step"
        problems = [_epochs(size, activation, optimizer, dtype, options.steps) for size in _sizes(options.sizes)]
        report.table(title, problems, names)
        names = FAST
    report.plan = plan
    served = [Serving(size, "relu") for size in _sizes(options.served)]
    report.table("predict_proba, float32: µs a call", served, CONTENDERS["serve"])
    fits = [Fitting(size, "relu", "adam") for size in _sizes(options.fits)]
    report.table("fit, 150 rows, 20 epochs, Adam, ReLU, float32: µs", fits, CONTENDERS["fit"])
    if options.first:
        result["first run"] = first_run()
        report.say("\n## First run\n\n| | seconds |\n|---|---|")
        report.say(*(f"| {what} | {seconds:.2f} |" for what, seconds in result["first run"].items()))
    write(options.results, "epochs", plan, result, report.lines)
    return int(report.failed)


def write(folder: Path, what: str, plan: Plan, result: dict[str, Any], lines: list[str]) -> None:
    """Write a result as JSON, and its tables as Markdown, to files with the name of the CPU."""
    name = re.sub("[^a-z0-9]+", "-", re.sub(r"\(r\)|family|model", "", result["machine"]["cpu"].lower())).strip("-")
    path = folder / f"cpu-{name}-{what}{'' if plan.threads == 1 else f'-{plan.threads}-threads'}"
    text = json.dumps(result, indent=1, ensure_ascii=False, default=str)
    for suffix, content in ((".json", text), (".md", "\n".join(lines))):
        with replacing(path.with_name(path.name + suffix)) as file:
            file.write((content + "\n").encode())
        print(f"written: {path}{suffix}")


def settings(options: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    """The options of a run and its cores, without the folder of its results."""
    return {name: value for name, value in vars(options).items() if name != "results"} | {"cores": plan.cores}


def head(title: str, about: dict[str, Any], plan: Plan) -> str:
    """The first lines of the tables: a title, the machine, and how they were measured."""
    return (
        f"# {title}\n\n{about['cpu']}, {about['os']}, Python {about['python']}, "
        f"NumPy {about['numpy']} with {', '.join(about['blas'])}; nnkit {about['commit']}, {about['date']}. "
        f"Minima of {plan.rounds} interleaved rounds with {plan.threads} thread{'s' * (plan.threads > 1)}."
    )


class _Report:
    """Measures problems, and prints and keeps tables of microseconds a step."""

    def __init__(self, plan: Plan, result: dict[str, Any], skip: list[str]) -> None:
        self.plan, self.result, self.skip = plan, result, skip
        self.lines, self.failed = list[str](), False

    def say(self, *lines: str) -> None:
        self.lines += lines
        print(*lines, sep="\n", flush=True)

    def table(self, title: str, problems: list[Any], names: tuple[str, ...]) -> None:
        """Measure some problems and print a table."""
        names = tuple(name for name in names if name not in self.skip)
        if not problems:
            return
        head = " | ".join(name.partition("-")[2] for name in names)
        self.say(f"\n## {title}\n\n| | {head} |\n|{'---|' * (len(names) + 1)}")
        rows, notes = self.result.setdefault(title, {}), dict[str, list[str]]()
        for problem in problems:
            self._row(problem, names, rows, notes)
        self.say(*(f"\n{note} ({', '.join(sizes)})" for note, sizes in notes.items()))

    def _row(self, problem: Any, names: tuple[str, ...], rows: dict[str, Any], notes: dict[str, list[str]]) -> None:
        size = str(problem.size)
        asked = [name for name in names if name != "epoch-torch-compiled" or size in COMPILED]
        found = rows[size] = measure(problem, asked, self.plan, lambda _: None, problem.check())
        for name, row in found.items():
            for kind in ("left_out", "failed"):
                if kind in row:
                    self.failed |= kind == "failed"
                    notes.setdefault(f"{name} {kind}: {row[kind].strip().splitlines()[-1]}", []).append(size)
        times = {name: row["minimum"] / problem.steps * 1e6 for name, row in found.items() if "minimum" in row}
        cells = [f"{times[name]:.4g}" if name in times else "–" for name in names]
        self.say(f"| {size} | {' | '.join(cells)} |")


_FIRST = """\
import time; start = time.perf_counter()
import numpy as np; at = time.perf_counter() - start
import nnkit; imported = time.perf_counter() - start - at
X, y = np.random.default_rng(0).random((320, 20), np.float32), np.arange(320) % 2
start = time.perf_counter()
nnkit.Network([20, 64, 2], seed=0).fit(X, y, epochs=1, batch_size=32, optimizer="adam")
print(imported, time.perf_counter() - start)
"""


def first_run() -> dict[str, float]:
    """Seconds of `import nnkit` after NumPy and of a first small `fit`: compiling, with compiled code, and without."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for what, native in (("compiling", "1"), ("from the cache", "1"), ("NNKIT_NATIVE=0", "0")):
            environment = os.environ | {"XDG_CACHE_HOME": cache, "NNKIT_NATIVE": native, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                [sys.executable, "-c", _FIRST], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
            )
            found[f"import nnkit, {what}"], found[f"first fit, {what}"] = map(float, done.stdout.split()[-2:])
    return found


def _epochs(size: Size, activation: str, optimizer: str, dtype: str, steps: int) -> Epochs:
    work = 3 * size.batch * sum(a * b for a, b in pairwise(size.widths))
    count = max(4, min(steps, 30_000 // size.batch, WORK // work))
    return Epochs(size, activation, optimizer, dtype, samples=count * size.batch)


def _sizes(texts: list[str]) -> list[Size]:
    return [size for text in texts for size in parse_sizes(text)]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench --epochs", description=__doc__)
    parser.add_argument("--epochs", action="store_true", help="these tables instead of single steps")
    parser.add_argument("--sizes", nargs="*", metavar="SIZE", default=SIZES)
    parser.add_argument("--served", nargs="*", metavar="SIZE", default=SERVED, help="networks x samples of a call")
    parser.add_argument("--fits", nargs="*", metavar="SIZE", default=FITS, help="networks x batch of a fit")
    tables = ["float32-relu-adam", "float32-relu-sgd", "float64-relu-adam", "float32-sigmoid-adam"]
    parser.add_argument("--tables", nargs="*", metavar="DTYPE-ACTIVATION-OPTIMIZER", default=tables)
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME", help="contenders to leave out")
    parser.add_argument("--steps", type=int, default=400, help="of an epoch, at most (default: 400)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.6, help="per contender and size, in all rounds")
    parser.add_argument("--no-first", dest="first", action="store_false", help="leave out the cost of a first run")
    parser.add_argument("--results", type=machine.folder, metavar="FOLDER", default=machine.RESULTS)
    return parser.parse_args(arguments)
