"""The arguments of nnkit train, in groups; the names come from the registries."""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnkit.commands.arguments import Parser, add_backend, at_least, known, number
from nnkit.commands.measures import add_metrics
from nnkit.initializers import initializer_names
from nnkit.kernels.activations import activation_names
from nnkit.kernels.costs import cost_names
from nnkit.optimizers import optimizer_names
from nnkit.schedules import schedule_names

TARGET = (
    "labels or targets: a column of a .csv file, by name or number; an array of a .npz file; for a .npy file, a "
    "column number or another .npy file"
)
PREPROCESSING = ("none", "normalization", "whitening", "pixels")


# Of options that may have no effect next to another one: filled in after the check of the given ones.
DEFAULTS: dict[str, Any] = {
    "test_fraction": 0.25,
    "activation": ["relu"],
    "dropout": 0.0,
    "model": Path("nnkit-model.safetensors"),
    "picture": Path("nnkit-curve.png"),
}


def settle(options: argparse.Namespace) -> None:
    """Fill in the defaults. Raises ValueError for an option that has no effect next to another one."""
    validated = options.early_stopping is not None or options.schedule == "reduce_on_plateau"
    for name, useless, reason in (
        ("activation", not options.hidden, "--hidden without a size: there is no hidden layer"),
        ("dropout", not options.hidden, "--hidden without a size: there is no hidden layer"),
        ("model", options.no_model, "--no-model"),
        ("picture", options.no_picture, "--no-picture"),
        ("test_fraction", options.data == "mnist" and not validated, "--data mnist, which has a separate test part"),
    ):
        if useless and getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} has no effect with {reason}")
        if getattr(options, name) is None:
            setattr(options, name, DEFAULTS[name])


def add_train_arguments(parser: Parser) -> None:
    """Add all options of nnkit train."""
    _add_data(parser.add_argument_group("data"))
    _add_network(parser.add_argument_group("network"))
    _add_training(parser.add_argument_group("training"))
    _add_output(parser.add_argument_group("output"))


def add_mnist(group: argparse._ActionsContainer) -> None:
    """Add the options for the location of MNIST."""
    group.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="folder of the MNIST files (default: NNKIT_DATA)"
    )
    group.add_argument("--download", action="store_true", help="download the MNIST files if they are missing")


def _add_data(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--data", default="digits", metavar="DATA",
        help="digits (shipped with nnkit), mnist, or a .csv, .npz or .npy file (default: digits)",
    )  # fmt: skip
    group.add_argument("--target", metavar="NAME", help=TARGET)
    group.add_argument(
        "--test-fraction", type=number(1, above=True), metavar="SHARE",
        help="fraction of the samples for testing (default: 0.25; MNIST has a separate test part)",
    )  # fmt: skip
    _add_named(
        group, "--preprocessing", "preprocessing", PREPROCESSING,
        "none, normalization, whitening (both fitted to the training part), or pixels, which divides by 255 "
        "(default: normalization for a file, pixels for mnist, none for digits)",
    )  # fmt: skip
    add_mnist(group)


def _add_network(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--hidden", type=at_least(1), nargs="*", default=[100], metavar="UNITS",
        help="sizes of the hidden layers, such as 256 128 (default: 100); no size for no hidden layer",
    )  # fmt: skip
    _add_named(
        group, "--activation", "activation", activation_names(),
        f"{_listed(activation_names())}; one, or one per hidden layer (default: relu)", nargs="+",
    )  # fmt: skip
    _add_number(group, "--dropout", "RATE", "fraction of hidden values dropped (default: 0)", end=1)
    names = initializer_names()
    _add_named(group, "--init", "initializer", names, f"{_listed(names)} (default: depends on the activation)")
    group.add_argument(
        "--dtype", type=known("dtype", ("float32", "float64")), default="float32", metavar="NAME",
        help="float32 or float64 (default: float32)",
    )  # fmt: skip


def _add_training(group: argparse._ActionsContainer) -> None:
    _add_named(
        group, "--cost", "cost", cost_names(),
        f"{_listed(cost_names())} (default: softmax_cross_entropy for classes, quadratic for real numbers)",
    )  # fmt: skip
    _add_number(group, "--label-smoothing", "SHARE", "fraction of each label spread over all classes", end=1)
    optimizers = optimizer_names()
    _add_named(
        group, "--optimizer", "optimizer", optimizers,
        f"{_listed(optimizers)} (default: sgd with momentum 0.9 for classes, "
        "adam with learning rate 0.01 for real numbers)",
    )  # fmt: skip
    text = "maximum over the training (default: the optimizer's, 0.1 for sgd)"
    _add_number(group, "--learning-rate", "RATE", text, above=True)
    _add_number(group, "--momentum", "SHARE", "of sgd and rmsprop", end=1)
    _add_number(group, "--l2", "LAMBDA", "penalty on the squared weights")
    _add_number(group, "--weight-decay", "LAMBDA", "weight decay (default: the optimizer's)")
    _add_number(group, "--clip-norm", "NORM", "maximum norm of the gradient", above=True)
    schedules = schedule_names()
    _add_named(group, "--schedule", "schedule", schedules, f"of the learning rate: {_listed(schedules)}")
    for option, default, purpose in (
        ("--epochs", 30, "passes over the training part"), ("--batch-size", 32, "samples per step")
    ):  # fmt: skip
        group.add_argument(
            option, type=at_least(1), default=default, metavar="N", help=f"{purpose} (default: {default})"
        )
    group.add_argument(
        "--early-stopping", type=at_least(1), metavar="PATIENCE",
        help="stop when the cost on a validation part, split from the training part, has not improved for PATIENCE "
        "epochs, and keep the best epoch",
    )  # fmt: skip
    _add_named(group, "--class-weight", "class weight", ("balanced",), "balanced: all classes have equal total weight")
    add_metrics(group)
    group.add_argument(
        "--seed", type=at_least(0), default=0, help="of the split, the initial weights and the batches (default: 0)"
    )
    group.add_argument(
        "--seeds", type=at_least(1), default=1, metavar="N",
        help="train N times, with seeds SEED, SEED + 1, ..., and report the mean and the standard deviation; "
        "the picture shows the median and quartiles, or with fewer than 4 runs the minimum and maximum (default: 1)",
    )  # fmt: skip
    add_backend(group)


def _add_output(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--model", type=Path, metavar="FILE",
        help=f"file for the network, with --seeds that of the first seed (default: {DEFAULTS['model']})",
    )  # fmt: skip
    group.add_argument(
        "--picture", type=Path, metavar="FILE",
        help="the learning curve, with --seeds the spread of the runs: .png, .svg or .pdf "
        f"(default: {DEFAULTS['picture']})",
    )  # fmt: skip
    group.add_argument("--no-model", action="store_true", help="do not save the network")
    group.add_argument("--no-picture", action="store_true", help="do not draw a picture")
    group.add_argument("--history", type=Path, metavar="FILE", help="write the history as JSON, with --seeds a list")
    group.add_argument("--checkpoint", type=Path, metavar="FILE", help="save the training state after each epoch")
    group.add_argument("--resume", action="store_true", help="resume from the checkpoint, if it exists")
    group.add_argument("--quiet", action="store_true", help="print only errors, warnings and --json output")
    group.add_argument("--json", action="store_true", help="print one JSON object: settings, seeds, results, paths")


def _add_named(
    group: argparse._ActionsContainer, option: str, kind: str, names: Iterable[str], text: str, **more: object
) -> None:
    group.add_argument(option, type=known(kind, names), metavar="NAME", help=text, **more)  # type: ignore[arg-type]


def _add_number(
    group: argparse._ActionsContainer, option: str, unit: str, text: str, end: float = math.inf, above: bool = False
) -> None:
    group.add_argument(option, type=number(end, above=above), metavar=unit, help=text)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
