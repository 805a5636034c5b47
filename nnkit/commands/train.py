"""nnkit train: train and test networks on the digits, MNIST or a file; save the first network and a picture."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from nnkit.backends import Backend, get_backend
from nnkit.commands.arguments import Commands, add_command, counted, show
from nnkit.commands.dataset import Dataset, Parts, load_dataset, targets_of
from nnkit.commands.measures import check_metrics
from nnkit.commands.models import as_text
from nnkit.commands.outputs import as_json
from nnkit.commands.runs import NUMBERS, Run, build_optimizer, in_words, prepare, summarize, train, widths
from nnkit.commands.train_arguments import add_train_arguments, settle
from nnkit.commands.train_files import Files, check_resumed, files_of, write_files
from nnkit.kernels.costs import get_cost
from nnkit.network import Network
from nnkit.version import __version__

_DESCRIPTION = """
Without options, trains on the handwritten digits shipped with nnkit."""
_EPILOG = """examples:
  nnkit train
  nnkit train --data flowers.csv --target species --hidden 32 16 --epochs 100 --seeds 5

The model file contains the preprocessing and the class names: nnkit predict needs nothing else.
Exit codes: 0 success, 1 training diverged, 2 wrong usage or missing input, 130 interrupted by Ctrl-C."""

# Not in the settings: options for running, and those reported under paths, cost and optimizer.
_UNTOLD = {"run", "parser", "debug", "quiet", "json", "no_model", "no_picture", "label_smoothing"}
_UNTOLD |= {*Files._fields, *NUMBERS}

Say = Callable[[str], None]


def add(commands: Commands) -> None:
    """Add the command and its arguments."""
    purpose = "train a network on digits, MNIST or a file"
    parser = add_command(commands, "train", purpose, run, _DESCRIPTION, _EPILOG, "nnkit train [options]")
    add_train_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Check everything, train once per seed, write and print the requested output."""
    settle(options)
    files = files_of(options)
    build_optimizer(options, classifies=True)  # to raise its errors before the data are loaded
    backend = get_backend(options.backend)
    dataset = load_dataset(options.data, options.target, options.data_dir, options.download)
    unseen: list[OSError] = []

    def say(text: str) -> None:
        try:
            if not (options.quiet or options.json):
                show(text)
        except OSError as error:  # such as a closed pipe: no reason to lose a training
            unseen.append(error)

    runs, interrupted = _train_all(options, dataset, backend, say)
    if len(runs) > 1:
        summary = summarize(runs)
        say(f"{len(runs)} runs, mean ± standard deviation: {in_words(summary['mean'], summary['standard_deviation'])}")
    samples = as_text(dataset.X, options.test_fraction) if dataset.test is None else None
    title = f"{_heading(dataset)}, {widths(runs[0].network)}"
    write_files(files, runs, title, options.metrics, samples, say)
    if options.json:
        print(as_json(_report(options, dataset, runs, files)))
    if unseen:
        raise unseen[0]
    return 130 if interrupted else 0


def _train_all(options: argparse.Namespace, dataset: Dataset, backend: Backend, say: Say) -> tuple[list[Run], bool]:
    """A run per seed, and whether Ctrl-C interrupted: then the finished runs, or the unfinished first one.

    Raises KeyboardInterrupt if there is no result yet.
    """
    targets = targets_of(dataset.y, options.cost, dataset.target)
    cost, labels = get_cost(targets.cost), targets.classes is not None
    check_metrics(options.metrics, targets.y, dataset.target, cost, targets.outputs, labels)
    runs: list[Run] = []
    try:
        for seed in range(options.seed, options.seed + options.seeds):
            network, parts = prepare(options, dataset, targets, backend, seed)
            if not runs:
                check_resumed(options, network)
                say(f"{dataset.name}: {_in_words(parts, network)}\n{network}")
            done = train(options, network, dataset, parts, _progress(options))
            interrupted = done.history.interrupted
            if not interrupted or not runs:
                runs.append(done)
                took = f"after {counted(done.history.epochs, 'epoch')} in {sum(done.history.get('seconds', [])):.1f} s"
                say(f"seed {seed}, backend {backend.name}: test {in_words(done.results)} {took}")
            if interrupted:
                return runs, True
    except KeyboardInterrupt:
        if not runs:
            raise
        return runs, True
    return runs, False


def _progress(options: argparse.Namespace) -> bool | str:
    """A progress bar on a terminal, otherwise lines of text for a single run, unless output is reduced."""
    if sys.stderr.isatty() and not options.quiet:
        return True
    return False if options.quiet or options.json or options.seeds > 1 else "lines"


def _heading(dataset: Dataset) -> str:
    return {"digits": "Digits", "mnist": "MNIST"}.get(dataset.name, dataset.name)


def _in_words(parts: Parts, network: Network) -> str:
    counts, fitted = parts.counts(), network.preprocessing
    validation = f"{counts['validation']} for validation, " if parts.validation is not None else ""
    test = f"{counts['test']} for testing{'' if validation else ', also after each epoch, as validation'}"
    preprocessing = "" if fitted is None else f"; {fitted.kind}, {fitted.inputs} → {counted(fitted.outputs, 'feature')}"
    return f"{counted(counts['training'], 'sample')} for training, {validation}{test}{preprocessing}"


def _report(options: argparse.Namespace, dataset: Dataset, runs: Sequence[Run], files: Files) -> dict[str, Any]:
    """The output of --json."""
    first = runs[0].network
    settings = {name: value for name, value in vars(options).items() if name not in _UNTOLD}
    settings |= {
        "preprocessing": options.preprocessing or dataset.preprocessing,
        "cost": first.cost.describe(),
        "optimizer": first.optimizer.describe(),
        "backend": first.backend.name,
    }
    return {
        "nnkit": __version__,
        "settings": settings,
        "network": repr(first),
        "classes": None if first.classes is None else first.classes.tolist(),
        "samples": runs[0].samples,
        "seeds": [run.network.seed for run in runs],
        "runs": [
            {
                "seed": run.network.seed,
                "epochs": run.history.epochs,
                "interrupted": run.history.interrupted,
                "seconds": sum(run.history.get("seconds", [])),
                "results": run.results,
            }
            for run in runs
        ],
        **summarize(runs),
        "paths": files._asdict(),
    }
