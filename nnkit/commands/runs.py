"""Trainings with one seed each, and what they give together."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nnkit.backends import Backend
from nnkit.commands.building import build_network, build_optimizer
from nnkit.commands.dataset import Dataset
from nnkit.commands.parts import Parts, divide
from nnkit.commands.places import placing
from nnkit.commands.targets import Targets
from nnkit.history import History
from nnkit.network import Network
from nnkit.training.divergence import DivergenceError
from nnkit.training.early_stopping import EarlyStopping


class Run(NamedTuple):
    """A trained network, its history, its results with the test part, and how many samples each part has."""

    network: Network
    history: History
    results: dict[str, float]
    samples: dict[str, int]


def prepare(
    options: argparse.Namespace, dataset: Dataset, targets: Targets, backend: Backend, seed: int
) -> tuple[Network, Parts]:
    """A network that is not trained yet, and its samples, all by one seed."""
    chooses = options.early_stopping is not None or options.schedule == "reduce_on_plateau"
    parts = divide(dataset, targets, options.test_fraction, seed, chooses)
    preprocessing = options.preprocessing or dataset.preprocessing
    X = parts.training[0]
    try:
        return build_network(options, targets, X, dataset.features, preprocessing, backend, seed), parts
    except ValueError as error:
        if str(error).startswith("X "):
            error.add_note(str(dataset.path or dataset.name))
        raise


def train(options: argparse.Namespace, network: Network, dataset: Dataset, parts: Parts, progress: bool | str) -> Run:
    """Train a network and test it. Raises DivergenceError with a note that names the seed."""
    rule = None if options.early_stopping is None else EarlyStopping(patience=options.early_stopping)
    training, validation, test = parts.places(dataset)
    try:
        with placing({"validation ": validation, "": training}):
            history = network.fit(
                *parts.training,
                epochs=options.epochs,
                batch_size=options.batch_size,
                optimizer=build_optimizer(options, network.classifies),
                schedule=options.schedule,
                validation_data=parts.validation or parts.test,
                metrics=options.metrics,
                class_weight=options.class_weight,
                early_stopping=rule,
                checkpoint=options.checkpoint,
                resume=options.resume,
                progress=progress,
            )
    except DivergenceError as error:
        error.add_note(f"seed {network.seed}")
        raise
    with placing({"": test}):
        results = network.evaluate(*parts.test, metrics=options.metrics)
    return Run(network, history, results, parts.counts())


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """The mean of each result over the runs, and the standard deviation of a sample, √(Σ (v − v̄)²/(n − 1)).

    None, for no standard deviation, where there is one run.
    """
    columns = {name: [run.results[name] for run in runs] for name in runs[0].results}
    mean = {name: statistics.fmean(values) for name, values in columns.items()}
    several = len(runs) > 1
    deviation = {name: statistics.stdev(values) if several else None for name, values in columns.items()}
    return {"mean": mean, "standard_deviation": deviation}


def in_words(results: Mapping[str, float], spread: Mapping[str, float] | None = None) -> str:
    """Results as text, the accuracy first.

    >>> in_words({"cost": 0.123456, "accuracy": 0.98765}), in_words({"cost": 123.4567}, {"cost": 1.23})
    ('accuracy 0.9877, cost 0.1235', 'cost 123.5 ± 1.2300')
    """
    names = sorted(results, key=lambda name: name != "accuracy")
    texts = [f"{name.replace('_', ' ')} {in_digits(results[name])}" for name in names]
    if spread is not None:
        texts = [f"{text} ± {in_digits(spread[name])}" for text, name in zip(texts, names, strict=True)]
    return ", ".join(texts)


def in_digits(value: float) -> str:
    """A number with four decimals, or four digits where these would not do."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.4g}"
