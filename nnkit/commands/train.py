"""nnkit train: train and test networks on the digits, MNIST or a file; save the first network and a picture."""

import argparse
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from nnkit import checkpoint
from nnkit.backends import Backend
from nnkit.commands.arguments import Commands, add_command, check_metrics, counted, show
from nnkit.commands.dataset import Dataset, load_dataset, targets_of
from nnkit.commands.models import as_text
from nnkit.commands.outputs import as_json, check_packages, inputs, output_path, picture_title, write_json
from nnkit.commands.ranks import backend_of, on_all_ranks
from nnkit.commands.runs import (
    NUMBERS,
    Run,
    build_optimizer,
    first_of,
    in_processes,
    in_words,
    prepare,
    summarize,
    train,
    widths,
)  # fmt: skip
from nnkit.commands.train_arguments import add_train_arguments, settle
from nnkit.data.mnist import is_on_disk
from nnkit.ensembles.fit import EnsembleHistory
from nnkit.kernels.costs import get_cost
from nnkit.layers import chain
from nnkit.network import Network
from nnkit.parallel.communicator import Communicator
from nnkit.plots.figure import picture_path
from nnkit.tables import is_table
from nnkit.training.divergence import DivergenceError
from nnkit.training.stopping import interruptible, press
from nnkit.version import __version__

_DESCRIPTION = """
Without options, trains on the handwritten digits shipped with nnkit."""
_EPILOG = """examples:
  nnkit train
  mpiexec -n 4 nnkit train --mpi
  nnkit train --data flowers.csv --target species --hidden 32 16 --epochs 100 --seeds 5
  nnkit train --data customers.parquet --target spends --id customer --preset tabular

The model file contains the preprocessing and the class names: nnkit predict needs nothing else.
Exit codes: 0 success, 1 training diverged, 2 wrong usage or missing input, 130 Ctrl-C, 143 SIGTERM,
129 the terminal was closed."""
_INTERRUPTED = 130

# Options for output files, and the package that writes each.
_FILES = {"model": "safetensors", "picture": "matplotlib", "history": "json", "checkpoint": "safetensors"}
# Not in the settings: options for running, and those reported under paths, cost and optimizer.
_UNTOLD = {"run", "parser", "debug", "quiet", "json", "no_model", "no_picture", "label_smoothing", *_FILES, *NUMBERS}

Say = Callable[[str], None]


def add(commands: Commands) -> None:
    """Add the command and its arguments."""
    purpose = "train a network on digits, MNIST or a file"
    parser = add_command(commands, "train", purpose, run, _DESCRIPTION, _EPILOG, "nnkit train [options]")
    add_train_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Check everything, train once per seed, write and print the requested output."""
    with _signals_as_ctrl_c() as received:
        try:
            code = on_all_ranks(options, _run)
        except KeyboardInterrupt:
            if not received:
                raise
            code = _INTERRUPTED
    return 128 + received[0] if received and code == _INTERRUPTED else code


_ENDS = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


@contextmanager
def _signals_as_ctrl_c() -> Iterator[list[int]]:
    """Let signals that end a process keep what Ctrl-C keeps; yields those received.

    SIGTERM is that of services and schedulers, SIGHUP that of a closed terminal.
    """
    received: list[int] = []
    terminals = [file for file in (1, 2) if os.isatty(file)]

    def end(number: int, _: Any) -> None:
        received.append(number)
        if number != signal.SIGTERM:  # what is printed would be an error of the closed terminal
            with open(os.devnull, "w") as nothing:
                for file in terminals:
                    os.dup2(nothing.fileno(), file)
        press()

    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in _ENDS if main and signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield received
    finally:
        for number in ours:
            if signal.getsignal(number) is end:
                signal.signal(number, signal.SIG_DFL)


def _run(options: argparse.Namespace, communicator: Communicator) -> int:
    agreed, speaks = communicator.agreed, communicator.rank == 0
    with agreed():
        settle(options)
        if speaks:
            _check_files(options)
        build_optimizer(options, classifies=True)  # to raise its errors before the data are loaded
    backend = backend_of(options.backend, communicator)
    for first in (True, False):  # what rank 0 downloads, the others find
        with agreed():
            if speaks == first:
                dataset = load_dataset(options, options.data, mixed=True)
    unseen: list[OSError] = []

    def say(text: str) -> None:
        try:
            if speaks and not (options.quiet or options.json):
                show(text)
        except OSError as error:  # such as a closed pipe: no reason to lose a training
            unseen.append(error)

    runs, ended_by = _train_all(options, dataset, backend, say, communicator)
    with interruptible() as interrupt, agreed():  # Ctrl-C waits for the files, but a second one does not
        interrupt.presses = int(isinstance(ended_by, KeyboardInterrupt))
        if speaks:
            with interrupt.at_once:
                _write_files(options, dataset, runs, say)
    if len(runs) > 1:
        summary = summarize(runs)
        say(f"{len(runs)} runs, mean ± standard deviation: {in_words(summary['mean'], summary['standard_deviation'])}")
    if options.json and speaks:
        print(as_json(_report(options, dataset, runs)))
    if unseen:
        raise unseen[0]
    if interrupt.presses:
        return _INTERRUPTED
    if ended_by is not None:  # a later seed's, such as DivergenceError: the finished ones are written
        raise ended_by
    return 0


def _check_files(options: argparse.Namespace) -> None:
    """Raise ImportError, OSError or ValueError if an output file cannot be written."""
    if options.resume and options.checkpoint is None:
        raise ValueError("--resume needs --checkpoint FILE")
    if options.checkpoint is not None and options.seeds > 1:
        raise ValueError(f"--checkpoint is for a single training, but --seeds is {options.seeds}")
    given = [name for name in _FILES if getattr(options, name) is not None]
    packages = {f"--{name}": _FILES[name] for name in given}
    if options.data == "mnist" and options.download and not is_on_disk(options.data_dir):
        packages["--download"] = "pooch"
    check_packages(packages)
    others = inputs(options.data, options.target, options.config)
    for name in given:
        others.append(output_path(getattr(options, name), f"--{name}", others))
    picture_path(options.picture, "--picture")


def _train_all(
    options: argparse.Namespace, dataset: Dataset, backend: Backend, say: Say, communicator: Communicator
) -> tuple[list[Run], BaseException | None]:
    """A run per seed; or those before an exception, and this. An unfinished first run is kept, if it has epochs.

    Raises exceptions before the first result.
    """
    with communicator.agreed():
        scaled = options.scale_targets or options.preset is not None
        targets = targets_of(dataset.y, options.cost, dataset.target, scaled)
        cost, labels = get_cost(targets.cost), targets.classes is not None
        check_metrics(options.metrics, targets.y, dataset.target, cost, targets.outputs, labels)
    runs: list[Run] = []
    try:
        if options.jobs > 1:
            for done in in_processes(options, dataset, targets, backend.name):
                if not runs:
                    _announce(say, dataset, done.samples, done.network, str(done.network))
                runs.append(done)
                _report_run(say, done)
            return runs, None
        for seed in range(options.seed, options.seed + options.seeds):
            with communicator.agreed():
                made, parts = prepare(options, dataset, targets, backend, seed)
                if not runs and communicator.rank == 0:
                    _check_resumed(options, first_of(made))
            if not runs:
                _announce(say, dataset, parts.counts(), first_of(made), str(made))
            done = train(options, made, dataset, parts, _progress(options), communicator)
            interrupted = done.history.interrupted
            if interrupted and not runs and not done.history.epochs:
                raise KeyboardInterrupt  # files keep the results of earlier trainings
            if not interrupted or not runs:
                runs.append(done)
                _report_run(say, done)
            if interrupted:
                return runs, KeyboardInterrupt()
    except (KeyboardInterrupt, Exception) as error:
        on_all = isinstance(error, KeyboardInterrupt | DivergenceError) or communicator.knows(error)
        if not runs and hasattr(error, "run"):
            runs = [error.run]
        if not runs or (communicator.size > 1 and not on_all):
            raise
        return runs, error
    return runs, None


def _announce(say: Say, dataset: Dataset, counts: Mapping[str, int], network: Network, made: str) -> None:
    say(f"{dataset.name}: {_in_words(counts, network)}\n{made}")
    if not network.classifies:
        say(f"RMSE and MAE are in the units of {dataset.target}")


def _report_run(say: Say, done: Run) -> None:
    took = f"after {counted(done.history.epochs, 'epoch')} in {sum(done.history.get('seconds', [])):.1f} s"
    count = "" if done.ensemble is None else f"mean of {len(done.ensemble)} networks from "
    say(f"{count}seed {done.network.seed}, backend {done.network.backend.name}: test {in_words(done.results)} {took}")


def _check_resumed(options: argparse.Namespace, network: Network) -> None:
    """Raise ValueError if --checkpoint is not a checkpoint or its seed, layers or preprocessing differ."""
    if not options.resume or not options.checkpoint.exists():
        return
    saved = checkpoint.read(options.checkpoint)
    if saved.training is None:
        raise ValueError(f"--resume: {options.checkpoint} is a trained network, not a training checkpoint")
    about = saved.arguments
    if about["seed"] != network.seed:
        raise ValueError(f"--resume: {options.checkpoint} has seed {about['seed']}; give --seed {about['seed']}")
    was, now = map(chain, (about["layers"], network.layers))
    if was != now:
        raise ValueError(f"--resume: {options.checkpoint} has the layers {was}; this training has {now}")
    there, here = ({} if p is None else p.arrays for p in (about["preprocessing"], network.preprocessing))
    if there.keys() != here.keys() or not all(np.array_equal(there[name], here[name]) for name in here):
        raise ValueError(f"--resume: {options.checkpoint} is for other samples, --early-stopping or --preprocessing")


def _progress(options: argparse.Namespace) -> bool | str:
    """A progress bar on a terminal, otherwise lines of text for a single run, unless output is reduced."""
    if sys.stderr.isatty() and not options.quiet:
        return True
    return False if options.quiet or options.json or options.seeds > 1 else "lines"


def _in_words(counts: Mapping[str, int], network: Network) -> str:
    fitted = network.preprocessing
    validation = f"{counts['validation']} for validation, " if counts.get("validation") else ""
    test = f"{counts['test']} for testing{'' if validation else ', also after each epoch, as validation'}"
    preprocessing = "" if fitted is None else f"; {fitted.kind}, {fitted.inputs} → {counted(fitted.outputs, 'feature')}"
    return f"{counted(counts['training'], 'sample')} for training, {validation}{test}{preprocessing}"


def _write_files(options: argparse.Namespace, dataset: Dataset, runs: Sequence[Run], say: Say) -> None:
    """Write the first run's network, the histories and a picture, each also if another cannot be written.

    The network of a training that has diverged is written if it is that of the best epoch.
    """
    errors: list[Exception] = []
    for write in (_write_model, _write_history, _write_picture):
        try:
            write(options, dataset, runs, say)
        except Exception as error:  # of any kind: there is more to write
            errors.append(error)
    if errors:
        raise errors[0]


def _write_model(options: argparse.Namespace, dataset: Dataset, runs: Sequence[Run], say: Say) -> None:
    if options.model is None or (runs[0].history.stopped == "diverged" and options.early_stopping is None):
        return
    first, ensemble = runs[0].network, runs[0].ensemble
    X = first.checked(dataset.X) if is_table(dataset.X) else dataset.X
    samples = as_text(X, options.test_fraction) if dataset.test is None else None
    save = partial(checkpoint.save, first.snapshot()) if ensemble is None else ensemble.save
    try:
        save(options.model, samples=samples)
    except OSError as error:  # such as a full disk: the training is not lost
        other = os.path.join(tempfile.mkdtemp(prefix="nnkit-"), os.path.basename(options.model))
        try:
            save(other, samples=samples)
        except OSError:
            raise error from None
        raise OSError(f"{error}; the model is in {other} instead") from error
    say(f"model {f'of seed {first.seed} ' if len(runs) > 1 else ''}written to {options.model}")


def _write_history(options: argparse.Namespace, _: Dataset, runs: Sequence[Run], say: Say) -> None:
    if options.history is None:
        return
    histories = [run.history for run in runs]
    write_json(options.history, histories if options.seeds > 1 else histories[0])
    say(f"history written to {options.history}")


def _write_picture(options: argparse.Namespace, dataset: Dataset, runs: Sequence[Run], say: Say) -> None:
    """The learning curve of one run, or the spread of several."""
    first, histories = runs[0].network, [run.history for run in runs]
    if options.picture is None or not histories[0].epochs:
        return
    from nnkit import plots

    name = {"digits": "Digits", "mnist": "MNIST"}.get(dataset.name, dataset.name)
    title, members = f"{picture_title(name)}, {widths(first)}", histories[0]
    if isinstance(members, EnsembleHistory):
        histories = list(members.members)
    several = len(runs) > 1 or isinstance(members, EnsembleHistory)
    if several:
        plots.seed_spread(histories, options.picture, title=f"{title}, {len(histories)} seeds")
    else:
        plots.learning_curve(histories[0], options.picture, f"{title}, seed {first.seed}", metrics=options.metrics)
    say(f"{'spread of the runs' if several else 'learning curve'} written to {options.picture}")


def _report(options: argparse.Namespace, dataset: Dataset, runs: Sequence[Run]) -> dict[str, Any]:
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
        "paths": {name: getattr(options, name) for name in _FILES},
    }
