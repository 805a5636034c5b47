"""Networks built from a command's options and trained with one seed each, and a summary of the runs."""

import argparse
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nnkit import data
from nnkit.backends import Backend, get_backend
from nnkit.commands.arguments import OF_NUMBERS, counted, measured
from nnkit.commands.dataset import Dataset, Parts, Targets, divide
from nnkit.commands.outputs import placing
from nnkit.ensembles.ensemble import Ensemble
from nnkit.history import History
from nnkit.kernels.costs import get_cost
from nnkit.layers import Dense, Dropout, Layer, dense_layers
from nnkit.network import Network
from nnkit.optimizers import Optimizer, get_optimizer, optimizer_names
from nnkit.parallel.communicator import ALONE, Communicator
from nnkit.presets import ACTIVATIONS, RATES, SMOOTHED, SMOOTHING, tabular_layers
from nnkit.tables import column_names, is_table
from nnkit.training.divergence import DivergenceError
from nnkit.training.stopping import EarlyStopping

NUMBERS = ("learning_rate", "momentum", "l2", "weight_decay", "clip_norm", "ema")
_MOST = 2**48  # parameters; NumPy cannot even be asked for more


def build_optimizer(options: argparse.Namespace, classifies: bool) -> Optimizer:
    """A new optimizer with the given hyperparameters; without a name, one suitable for the cost."""
    # Regression gradients scale with the targets, to which Adam adapts; those of classification are bounded.
    suits: dict[str, Any] = {"name": "sgd", "momentum": 0.9}
    if options.preset is not None:
        suits = {"name": "adam", "learning_rate": RATES[classifies], "beta2": 0.95}
    elif not classifies:
        suits = {"name": "adam", "learning_rate": 0.01}
    given = {name: getattr(options, name) for name in NUMBERS if getattr(options, name) is not None}
    numbers = ({"name": options.optimizer} if options.optimizer else suits) | given
    for name in given:
        having = [each for each in optimizer_names() if hasattr(get_optimizer(each), name)]
        if numbers["name"] not in having:
            option, only = f"--{name.replace('_', '-')}", ", ".join(having)
            raise ValueError(f"{option} has no effect with --optimizer {numbers['name']}, only with {only}")
    return get_optimizer(**numbers)


def widths(network: Network) -> str:
    """The layer widths of a network, such as 64-100-10."""
    return "-".join(map(str, [network.width, *(layer.units for layer in network.dense)]))


def _layers(options: argparse.Namespace, inputs: int, outputs: int, classifies: bool) -> list[Layer]:
    hidden = options.hidden
    activations = options.activation or ["relu" if options.preset is None else ACTIVATIONS[classifies]]
    if len(activations) == 1:
        activations = activations * len(hidden)
    if len(activations) != len(hidden):
        sizes = counted(len(hidden), "size")
        raise ValueError(
            f"--activation has {len(activations)} names and --hidden {sizes}; expected one name, or one per size"
        )
    if options.preset is not None:
        return tabular_layers(inputs, outputs, hidden, activations, options.dropout)
    layers: list[Layer] = []
    for units, activation in zip(hidden, activations, strict=True):
        layers.append(Dense(inputs, units, activation))
        if options.dropout:
            layers.append(Dropout(options.dropout))
        inputs = units
    return [*layers, Dense(inputs, outputs)]


def _fitted(preprocessing: str, X: Any, options: argparse.Namespace) -> Any:
    if preprocessing == "table":
        scaling: Any = "standard" if options.preset is None else "robust"
        names = {str(name): name for name in column_names(X)} if is_table(X) else {}  # numbers without a header
        return data.TableEncoding.fit(X, scaling, [names.get(name, name) for name in options.categories or ()])
    if is_table(X):
        kind = f"--preprocessing {preprocessing} is for numbers, and there is text or a missing value"
        raise ValueError(f"{kind}; leave it out, or give --preprocessing table")
    if preprocessing == "normalization":
        return data.Normalization.fit(X)
    if preprocessing == "whitening":
        return data.Whitening.fit(X)
    return data.Normalization.pixels(X.shape[1]) if preprocessing == "pixels" else None


class Run(NamedTuple):
    """A trained network, its history, its results on the test part, and the number of samples in each part.

    With an ensemble, the network is its first member.
    """

    network: Network
    history: History
    results: dict[str, float]
    samples: dict[str, int]
    ensemble: Ensemble | None = None


def prepare(
    options: argparse.Namespace, dataset: Dataset, targets: Targets, backend: Backend, seed: int
) -> tuple[Network | Ensemble, Parts]:
    """An untrained network, its preprocessing fitted to the training part, and its samples, determined by the seed.

    With --ensemble, several networks, of which the first is that of the seed.
    """
    chooses = options.early_stopping is not None or options.schedule == "reduce_on_plateau"
    parts = divide(dataset, targets, options.test_fraction, seed, chooses)
    X = parts.training[0]
    try:
        fitted = _fitted(options.preprocessing or dataset.preprocessing, X, options)
    except (TypeError, ValueError) as error:
        error.add_note(str(dataset.path or dataset.name))
        raise
    smoothing = options.label_smoothing
    if smoothing is None:
        smoothing = SMOOTHING if options.preset and targets.cost in SMOOTHED else 0.0
    try:
        cost = get_cost(targets.cost, label_smoothing=smoothing)
    except ValueError as error:
        raise ValueError(f"--label-smoothing: {error}") from None
    inputs = X.shape[1] if fitted is None else fitted.outputs
    layers = _layers(options, inputs, targets.outputs, cost.classifies)
    count = sum(layer.units * (layer.inputs + 1) for layer in dense_layers(layers))
    about: dict[str, Any] = {"init": options.init, "dtype": options.dtype, "seed": seed, "backend": backend}
    about |= {"preprocessing": fitted, "classes": targets.classes, "features": dataset.features}
    if options.scale_targets and cost.classifies:
        raise ValueError(f"--scale-targets is for a regression, and {targets.cost} classifies {dataset.target}")
    if options.scale_targets or (options.preset is not None and not cost.classifies and cost.domain == "any"):
        y = parts.training[1]
        about["target_scaling"] = data.Normalization.fit(y.reshape(len(y), -1))
    try:
        if count >= _MOST:
            raise MemoryError("no machine has enough memory")
        if options.ensemble is not None:
            seeds = range(about.pop("seed"), seed + options.ensemble)
            return Ensemble(layers, cost=cost, seeds=seeds, **about), parts
        network = Network(layers, cost=cost, **about)
    except MemoryError as error:
        error.add_note(f"--hidden: {count} parameters")
        raise
    return network, parts


def train(
    options: argparse.Namespace,
    made: Network | Ensemble,
    dataset: Dataset,
    parts: Parts,
    progress: bool | str,
    communicator: Communicator = ALONE,
) -> Run:
    """Train a network or an ensemble and test it.

    Raises DivergenceError with a note that names the seed. Its `run`, and that of exceptions of the test, also of
    Ctrl-C, is what there is then: the network and the history, without results.
    """
    rule = None if options.early_stopping is None else EarlyStopping(patience=options.early_stopping)
    training, validation, test = parts.places(dataset)
    network = first_of(made)
    given: dict[str, Any] = {
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "optimizer": build_optimizer(options, network.classifies),
        "schedule": options.schedule,
        "validation_data": parts.validation or parts.test,
        "metrics": measured(options.metrics, network.classifies, ("rmse",)),
        "class_weight": options.class_weight,
        "early_stopping": rule,
        "progress": progress,
    }
    if isinstance(made, Network):
        given |= {"checkpoint": options.checkpoint, "resume": options.resume, "comm": communicator}

    def run(history: History, results: dict[str, float]) -> Run:
        return Run(network, history, results, parts.counts(), made if isinstance(made, Ensemble) else None)

    if parts.validation is not None:
        with placing({"": test}):
            made.evaluate(*parts.test)  # raises its errors before the training
    try:
        with placing({"validation ": validation, "": training}):
            history = made.fit(*parts.training, **given)
    except DivergenceError as error:
        error.add_note(f"seed {network.seed}")
        if error.history is not None and error.history.epochs:
            vars(error)["run"] = run(error.history, {})
        raise
    try:
        with placing({"": test}):
            results = made.evaluate(*parts.test, metrics=measured(options.metrics, network.classifies))
    except BaseException as error:
        vars(error)["run"] = run(history, {})
        raise
    return run(history, results)


def first_of(made: Network | Ensemble) -> Network:
    """The network, or the first one of an ensemble."""
    return made.members[0] if isinstance(made, Ensemble) else made


# --- seeds at once ------------------------------------------------------------------------------------------------

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_of_seed(options: argparse.Namespace, dataset: Dataset, targets: Targets, backend: str, seed: int) -> Run:
    """The run of a seed, in this or another process."""
    made, parts = prepare(options, dataset, targets, get_backend(backend), seed)
    return train(options, made, dataset, parts, False)


_work: list[Callable[[int], Run]] = []  # in a process of `in_processes`: what runs a seed


def _begin(work: Callable[..., Run], *given: Any) -> None:
    """Begin a process, which ends when the one that started it ends, however that happens."""
    from multiprocessing import parent_process

    def wait(parent: Any) -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, args=[parent_process()], daemon=True).start()
    _work[:] = [partial(work, *given)]


def _in_process(seed: int) -> Run:
    return _work[0](seed)


def in_processes(options: argparse.Namespace, dataset: Dataset, targets: Targets, backend: str) -> Iterator[Run]:
    """The runs of all seeds, in order, `options.jobs` at once, each with its share of the cores for BLAS threads."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = int(os.environ.get("OMP_NUM_THREADS") or cores)
    threads = str(max(1, min(given, cores // options.jobs)))
    plain = argparse.Namespace(
        **{name: value for name, value in vars(options).items() if name not in ("run", "parser")}
    )
    seeds = range(options.seed, options.seed + options.seeds)
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, threads))  # the processes start with these
    try:
        count, context = min(options.jobs, len(seeds)), get_context("spawn")
        # The data go to each process as it begins: a queue of them would block when the processes are ended.
        with ProcessPoolExecutor(count, context, _begin, (run_of_seed, plain, dataset, targets, backend)) as pool:
            futures = [pool.submit(_in_process, seed) for seed in seeds]
            left = list(futures)
            try:
                while left:
                    yield left[0].result()
                    del left[0]
            except BaseException as error:  # such as Ctrl-C, or a divergence: the others end, but for the finished ones
                done = [future for future in left if future.done()]
                pool.shutdown(wait=False, cancel_futures=True)
                for child in active_children():
                    child.terminate()
                if not isinstance(error, GeneratorExit):
                    yield from (future.result() for future in done if future.exception() is None)
                raise
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """The mean and the sample standard deviation √(Σ (v − v̄)²/(n − 1)) of each result; None for a single run."""
    columns = {name: [run.results[name] for run in runs] for name in runs[0].results}
    several = len(runs) > 1
    with np.errstate(all="ignore"):  # a metric may be NaN, such as the AUC of a single class
        mean = {name: float(np.mean(values)) for name, values in columns.items()}
        deviation = {name: float(np.std(values, ddof=1)) if several else None for name, values in columns.items()}
    return {"mean": mean, "standard_deviation": deviation}


def in_words(results: Mapping[str, float], spread: Mapping[str, float] | None = None) -> str:
    """Results as text, starting with the accuracy, or with R² and the errors in the units of the target.

    >>> in_words({"cost": 0.123456, "accuracy": 0.98765})
    'accuracy 0.9877, cost 0.1235'
    >>> in_words({"cost": 123.4567, "r2": 0.5}, {"cost": 1, "r2": 0.1})
    'R² 0.5000 ± 0.1000, cost 123.5 ± 1.0000'
    """
    names = sorted(results, key=lambda name: name not in ("accuracy", *OF_NUMBERS))
    texts = [f"{heading(name)} {in_digits(results[name])}" for name in names]
    if spread is not None:
        texts = [f"{text} ± {in_digits(spread[name])}" for text, name in zip(texts, names, strict=True)]
    return ", ".join(texts)


def heading(metric: str) -> str:
    """The name of a result in text."""
    return {"r2": "R²", "rmse": "RMSE", "mae": "MAE"}.get(metric, metric.replace("_", " "))


def in_digits(value: float) -> str:
    """A number with four decimals, or with four significant digits if it is small or large."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.4g}"
