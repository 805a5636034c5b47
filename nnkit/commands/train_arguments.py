"""The arguments of nnkit train, in groups; the names come from the registries."""

import argparse
from pathlib import Path
from typing import Any

from nnkit.commands.arguments import (
    TARGET,
    Parser,
    add_backend,
    add_flag,
    add_id,
    add_metrics,
    add_mnist,
    add_option,
    at_least,
    known,
    number,
)
from nnkit.initializers import initializer_names
from nnkit.kernels.activations import activation_names
from nnkit.kernels.costs import cost_names
from nnkit.optimizers import optimizer_names
from nnkit.presets import BATCH_SIZE, EPOCHS, HIDDEN
from nnkit.schedules import schedule_names

# Of options that may have no effect next to another one: filled in after the check of the given ones.
DEFAULTS: dict[str, Any] = {
    "test_fraction": 0.25,
    "activation": ["relu"],
    "hidden": [100],
    "epochs": 30,
    "batch_size": 32,
    "dropout": 0.0,
    "model": Path("nnkit-model.safetensors"),
    "picture": Path("nnkit-curve.png"),
}


def settle(options: argparse.Namespace) -> None:
    """Fill in the defaults; model and picture stay None if there is none.

    Raises ValueError for an option that has no effect next to another one.
    """
    if options.mpi and options.jobs > 1:
        raise ValueError("--mpi cannot be combined with --jobs")
    for name, value in (
        ("seeds", options.seeds > 1),
        ("checkpoint", options.checkpoint),
        ("mpi", options.mpi),
        ("preset", options.preset),
    ):
        if options.ensemble is not None and value:
            raise ValueError(f"--{name} cannot be combined with --ensemble")
    if options.jobs > 1 and options.seeds == 1:
        raise ValueError(f"--jobs {options.jobs} has no effect with one training; give --seeds N")
    if options.preset is not None:
        epochs = EPOCHS if options.epochs is None else options.epochs
        for name, value in (
            ("hidden", list(HIDDEN)), ("epochs", epochs), ("batch_size", BATCH_SIZE), ("schedule", "coslog"),
            ("early_stopping", epochs), ("preprocessing", "table"),
        ):  # fmt: skip
            if getattr(options, name) is None:
                setattr(options, name, value)
        if options.init is not None:
            raise ValueError("--init has no effect with --preset, which has its own")
    defaults = {name: value for name, value in DEFAULTS.items() if options.preset is None or name != "activation"}
    for name in ("hidden", "epochs", "batch_size"):
        if getattr(options, name) is None:
            setattr(options, name, DEFAULTS[name])
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
        if name in defaults and getattr(options, name) is None and not (useless and name in ("model", "picture")):
            setattr(options, name, defaults[name])


def add_train_arguments(parser: Parser) -> None:
    """Add all options of nnkit train."""
    _add_data(parser.add_argument_group("data"))
    _add_network(parser.add_argument_group("network"))
    _add_training(parser.add_argument_group("training"))
    _add_output(parser.add_argument_group("output"))


def _add_data(group: argparse._ActionsContainer) -> None:
    kinds = "digits (shipped with nnkit), mnist, or a .csv, .parquet, .npz or .npy file (default: digits)"
    add_option(group, "--data", "DATA", str, kinds, default="digits")
    add_option(group, "--target", "NAME", str, TARGET)
    share = "fraction of the samples for testing (default: 0.25; MNIST has a separate test part)"
    add_option(group, "--test-fraction", "SHARE", number(1, above=True), share)
    add_id(group)
    add_option(group, "--categories", "NAME", str, "columns of numbers that are categories, such as codes", nargs="+")
    add_flag(group, "--scale-targets", "train a regression on targets of mean 0 and standard deviation 1")
    preprocessing = known("preprocessing", ("none", "normalization", "whitening", "pixels", "table"))
    add_option(
        group, "--preprocessing", "NAME", preprocessing,
        "none, normalization, whitening (both fitted to the training part), pixels, which divides by 255, or table: "
        "numbers normalized, missing values filled in and flagged, categories one-hot (default: table for a file with "
        "text or empty cells, normalization for another, pixels for mnist, none for digits)",
    )  # fmt: skip
    add_mnist(group)


def _add_network(group: argparse._ActionsContainer) -> None:
    preset = "tabular: all the following, and the training, for good results on tables without tuning (nnkit.tabular)"
    add_option(group, "--preset", "NAME", known("preset", ("tabular",)), preset)
    sizes = "sizes of the hidden layers, such as 256 128 (default: 100); no size for no hidden layer"
    add_option(group, "--hidden", "UNITS", at_least(1), sizes, nargs="*")
    _add_named(group, "activation", activation_names(), "; one, or one per hidden layer (default: relu)", nargs="+")
    rate = "fraction of hidden values dropped (default: 0)"
    add_option(group, "--dropout", "RATE", number(1), rate)
    _add_named(group, "initializer", initializer_names(), " (default: depends on the activation)", "--init")
    dtypes = known("dtype", ("float32", "float64"))
    add_option(group, "--dtype", "NAME", dtypes, "float32 or float64 (default: float32)", default="float32")


def _add_training(group: argparse._ActionsContainer) -> None:
    _add_named(group, "cost", cost_names(), " (default: softmax_cross_entropy for classes, quadratic for real numbers)")
    add_option(group, "--label-smoothing", "SHARE", number(1), "fraction of each label spread over all classes")
    suits = " (default: sgd with momentum 0.9 for classes, adam with learning rate 0.01 for real numbers)"
    _add_named(group, "optimizer", optimizer_names(), suits)
    rate = "maximum over the training (default: the optimizer's, 0.1 for sgd)"
    add_option(group, "--learning-rate", "RATE", number(above=True), rate)
    add_option(group, "--momentum", "SHARE", number(1), "of sgd and rmsprop")
    add_option(group, "--l2", "LAMBDA", number(), "penalty on the squared weights")
    add_option(group, "--weight-decay", "LAMBDA", number(), "weight decay (default: the optimizer's)")
    add_option(group, "--clip-norm", "NORM", number(above=True), "maximum norm of the gradient")
    add_option(group, "--ema", "SHARE", number(1, above=True), "average the parameters exponentially, such as 0.999")
    schedules = schedule_names()
    add_option(
        group, "--schedule", "NAME", known("schedule", schedules), f"of the learning rate: {', '.join(schedules)}"
    )
    add_option(group, "--epochs", "N", at_least(1), "passes over the training part (default: 30)")
    add_option(group, "--batch-size", "N", at_least(1), "samples per step (default: 32)")
    add_option(
        group, "--early-stopping", "PATIENCE", at_least(1),
        "stop when the cost on a validation part, split from the training part, has not improved for PATIENCE "
        "epochs, and keep the best epoch",
    )  # fmt: skip
    weights = known("class weight", ("balanced",))
    add_option(group, "--class-weight", "NAME", weights, "balanced: all classes have equal total weight")
    add_metrics(group)
    seed = "of the split, the initial weights and the batches (default: 0)"
    add_option(group, "--seed", "SEED", at_least(0), seed, default=0)
    add_option(
        group, "--seeds", "N", at_least(1),
        "train N times, with seeds SEED, SEED + 1, ..., and report the mean and the standard deviation, also of those "
        "before one that fails; "
        "the picture shows the median and quartiles, or with fewer than 4 runs the minimum and maximum (default: 1)",
        default=1,
    )  # fmt: skip
    add_option(
        group, "--jobs", "N", at_least(1),
        "train N of the seeds at once, in processes that share the cores; Ctrl-C keeps the finished ones (default: 1)",
        default=1,
    )  # fmt: skip
    add_option(
        group, "--ensemble", "N", at_least(1),
        "train N networks in one pass, with seeds SEED, SEED + 1, ... on one split, and save them in one file; "
        "results are those of their mean predictions",
    )  # fmt: skip
    add_backend(group)
    each = "train on all processes that mpiexec or srun has started, which divide each minibatch"
    add_flag(group, "--mpi", f"{each}; on GPUs, each has its own")


def _add_output(group: argparse._ActionsContainer) -> None:
    model = f"file for the network, with --seeds that of the first seed (default: {DEFAULTS['model']})"
    add_option(group, "--model", "FILE", Path, model)
    picture = "the learning curve, with --seeds the spread of the runs: .png, .svg or .pdf"
    add_option(group, "--picture", "FILE", Path, f"{picture} (default: {DEFAULTS['picture']})")
    add_flag(group, "--no-model", "do not save the network")
    add_flag(group, "--no-picture", "do not draw a picture")
    add_option(group, "--history", "FILE", Path, "write the history as JSON, with --seeds a list")
    add_option(group, "--checkpoint", "FILE", Path, "save the training state after each epoch")
    add_flag(group, "--resume", "resume from the checkpoint, if it exists")
    purpose = "a TOML file of options, such as hidden = [256, 128], with paths as here; those given here win"
    add_option(group, "--config", "FILE", Path, purpose)
    add_flag(group, "--quiet", "print only errors, warnings and --json output")
    add_flag(group, "--json", "print one JSON object: settings, seeds, results, paths")


def _add_named(
    group: argparse._ActionsContainer, kind: str, names: list[str], text: str, option: str = "", **more: Any
) -> None:
    """Add an option for one of these names, which its help lists before `text`."""
    add_option(group, option or f"--{kind}", "NAME", known(kind, names), f"{', '.join(names)}{text}", **more)
