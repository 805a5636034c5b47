"""The output files of nnkit train: checked before training, written after it."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnkit import checkpoint
from nnkit.commands.outputs import check_packages, output_path, picture_title, write_json
from nnkit.commands.runs import Run
from nnkit.layers import dense_layers
from nnkit.network import Network
from nnkit.plots.figure import picture_path

_PACKAGES = {"model": "safetensors", "picture": "matplotlib", "checkpoint": "safetensors"}


class Files(NamedTuple):
    """Output paths of a training; None for files that are not written."""

    model: Path | None
    picture: Path | None
    history: Path | None
    checkpoint: Path | None


def files_of(options: argparse.Namespace) -> Files:
    """The requested output files. Raises ImportError, OSError or ValueError if one cannot be written."""
    if options.resume and options.checkpoint is None:
        raise ValueError("--resume needs --checkpoint FILE")
    if options.checkpoint is not None and options.seeds > 1:
        raise ValueError(f"--checkpoint is for a single training, but --seeds is {options.seeds}")
    others = [] if options.data in ("digits", "mnist") else [options.data]
    found = Files(
        None if options.no_model else options.model,
        None if options.no_picture else options.picture,
        options.history,
        options.checkpoint,
    )
    given = {name: path for name, path in found._asdict().items() if path is not None}
    check_packages({f"--{name}": package for name, package in _PACKAGES.items() if name in given})
    for name, path in given.items():
        others.append(output_path(path, f"--{name}", others))
    picture_path(found.picture, "--picture")
    return found


def check_resumed(options: argparse.Namespace, network: Network) -> None:
    """Raise ValueError if --checkpoint is not a checkpoint or its seed, layers or preprocessing differ."""
    if not options.resume or not options.checkpoint.exists():
        return
    saved = checkpoint.read(options.checkpoint)
    if saved.training is None:
        raise ValueError(f"--resume: {options.checkpoint} is a trained network, not a training checkpoint")
    about = saved.arguments
    if about["seed"] != network.seed:
        raise ValueError(f"--resume: {options.checkpoint} has seed {about['seed']}; give --seed {about['seed']}")
    was, now = (
        " → ".join([str(dense_layers(layers)[0].inputs), *(layer.label for layer in layers)])
        for layers in (about["layers"], network.layers)
    )
    if was != now:
        raise ValueError(f"--resume: {options.checkpoint} has the layers {was}; this training has {now}")
    there, here = ({} if p is None else p.arrays for p in (about["preprocessing"], network.preprocessing))
    if there.keys() != here.keys() or not all(np.array_equal(there[name], here[name]) for name in here):
        raise ValueError(f"--resume: {options.checkpoint} is for other samples or another --preprocessing")


def write_files(
    files: Files,
    runs: Sequence[Run],
    title: str,
    metrics: Sequence[str],
    samples: str | None,
    say: Callable[[str], None],
) -> None:
    """Write the first run's network, the histories, and the learning curve of one run or the spread of several.

    `samples` is text about the training samples for the model file.
    """
    histories, several = [run.history for run in runs], len(runs) > 1
    if files.model is not None:
        checkpoint.save(runs[0].network.snapshot(), files.model, samples=samples)
        say(f"model {f'of seed {runs[0].network.seed} ' if several else ''}written to {files.model}")
    if files.history is not None:
        write_json(files.history, histories if several else histories[0])
        say(f"history written to {files.history}")
    if files.picture is not None and histories[0].epochs:
        from nnkit import plots

        title = picture_title(title)
        if several:
            plots.seed_spread(histories, files.picture, title=f"{title}, {len(runs)} seeds")
        else:
            plots.learning_curve(histories[0], files.picture, f"{title}, seed {runs[0].network.seed}", metrics=metrics)
        say(f"{'spread of the runs' if several else 'learning curve'} written to {files.picture}")
