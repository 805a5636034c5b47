"""nnkit evaluate: the cost, accuracy and other metrics of a network on labelled samples."""

import argparse
from pathlib import Path

import numpy as np

from nnkit import data
from nnkit.commands.arguments import (
    TARGET,
    Commands,
    add_backend,
    add_command,
    add_flag,
    add_id,
    add_metrics,
    add_mnist,
    add_model,
    add_option,
    check_metrics,
    counted,
    known,
    measured,
    number,
    show,
)
from nnkit.commands.dataset import Dataset, load_dataset, whole_labels
from nnkit.commands.models import TrainedOn, encoding_of, in_order, new_share, trained_on, warn_of_known_samples
from nnkit.commands.outputs import as_json, check_packages, inputs, output_path, picture_title, placing
from nnkit.commands.runs import heading, in_digits
from nnkit.commands.train_arguments import DEFAULTS
from nnkit.inputs import on_host
from nnkit.network import Network, load
from nnkit.plots.figure import picture_path
from nnkit.version import __version__

_DESCRIPTION = """
On all samples of a file, or on the test part of digits or mnist, split with the seed of the training."""
_EPILOG = """examples:
  nnkit evaluate nnkit-model.safetensors flowers.csv --target species --confusion mistakes.png
  nnkit evaluate nnkit-model.safetensors --data digits"""


def add(commands: Commands) -> None:
    """Add the command and its arguments."""
    purpose = "measure how good a network is"
    parser = add_command(commands, "evaluate", purpose, run, _DESCRIPTION, _EPILOG)
    add_model(parser)
    add_option(parser, "file", "FILE", str, "the samples with their targets: .csv, .parquet, .npz or .npy", nargs="?")
    add_option(parser, "--target", "NAME", str, TARGET)
    add_id(parser)
    add_option(parser, "--data", "NAME", known("data", ("digits", "mnist")), "digits or mnist instead of FILE")
    share = "of the digits, as in training (default: as recorded in MODEL, or 0.25)"
    add_option(parser, "--test-fraction", "SHARE", number(1, above=True), share)
    add_mnist(parser)
    add_metrics(parser)
    add_option(parser, "--confusion", "FILE", Path, "draw a confusion matrix: .png, .svg or .pdf")
    add_flag(parser, "--json", "print one JSON object: samples, results, paths")
    add_backend(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate, plot and print."""
    if (options.file is None) == (options.data is None):
        raise ValueError("give either FILE or --data")
    source, picture = options.data if options.file is None else options.file, options.confusion
    check_packages({"MODEL": "safetensors"} | ({} if picture is None else {"--confusion": "matplotlib"}))
    if picture is not None:
        picture_path(output_path(picture, "--confusion", inputs(options.model, source, options.target)), "--confusion")
    network = load(options.model, options.backend)
    known = trained_on(options.model)
    dataset = _samples(source, options, network, known)
    name, X, y = dataset.name, in_order(network, options.model, dataset.X, dataset.features, dataset.name), dataset.y
    warn_of_known_samples(known, options.model, source, network.checked(X) if encoding_of(network) else dataset.X)
    if network.classifies:
        y = whole_labels(y)
        if network.classes is not None and network.classes.dtype == bool and set(np.unique(y)) <= {"False", "True"}:
            y = y == "True"  # text in a CSV file
    labels = network.classifies and y.ndim == 1 and y.dtype.kind != "f"
    check_metrics(options.metrics, y, "the target", network.cost, network.d_out, labels)
    if picture is not None and not (network.classifies and y.ndim == 1):
        raise ValueError("--confusion requires labels and a network that classifies")
    with placing({"": dataset.place}):
        results = network.evaluate(X, y, metrics=measured(options.metrics, network.classifies))
    if picture is not None:
        from nnkit.plots import confusion_matrix

        title = picture_title(f"{name[0].upper()}{name[1:]}" if dataset.path is None else name)
        confusion_matrix(y, on_host(network.predict(X)), network.classes, picture, title)
    if options.json:
        about = {"nnkit": __version__, "model": options.model, "network": repr(network), "seed": network.seed}
        about |= {"data": name, "samples": X.shape[0], "results": results, "paths": {"confusion": picture}}
        print(as_json(about))
        return 0
    show(f"{name}: {counted(X.shape[0], 'sample')}\n{network}")
    for metric, value in results.items():
        print(f"{heading(metric):<9} {in_digits(value)}")
    if not network.classifies:
        print("RMSE and MAE are in the units of the target")
    if picture is not None:
        show(f"confusion matrix written to {picture}")
    return 0


def _samples(source: str, options: argparse.Namespace, network: Network, known: TrainedOn | None) -> Dataset:
    """The samples for the evaluation."""
    fraction = options.test_fraction
    if fraction is not None and source != "digits":
        raise ValueError(f"--test-fraction is for digits, not for {source}")
    # A file with only the classes 1 and 2 of 1, 2 and 3a would be read as numbers, 01 as 1.
    text = network.classes is not None and all(isinstance(name, str) for name in network.classes.tolist())
    dataset = load_dataset(options, source, text, network.features, encoding_of(network))
    if source == "mnist" and dataset.test is not None:
        return Dataset("test part of mnist", *dataset.test)
    if source == "digits":
        share = new_share(known, options.model, dataset.X, fraction, default=DEFAULTS["test_fraction"])
        _, _, X, y = data.split(dataset.X, dataset.y, share, network.seed)
        return Dataset(f"test part of digits by seed {network.seed}", X, y)
    return dataset
