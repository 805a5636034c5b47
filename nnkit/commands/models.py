"""Trained networks that commands use: from a file, and which samples they were trained on."""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from nnkit.backends import get_backend
from nnkit.checkpoint import read_samples
from nnkit.commands.arguments import counted
from nnkit.network import Network
from nnkit.training import fingerprints


def add_model(parser: argparse.ArgumentParser) -> None:
    """The argument MODEL."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a network that nnkit train or Network.save wrote")


def in_order(network: Network, model: Path, X: Any, features: list[str] | None, name: str | Path) -> Any:
    """Samples (n, d) with their columns as the network of a file takes them: by name, where both have names.

    Raises ValueError, naming the first, for a column that is missing or that the network does not take.
    """
    if network.features is None or features is None or len(set(features)) != len(features):
        _check_width(network, model, X, name)
        return X
    for feature in network.features:
        if feature not in features:
            raise ValueError(f"{name} has no column {feature!r}, which {model} takes")
    for feature in features:
        if feature not in network.features:
            hint = "if it is the answer, leave it out with --target"
            raise ValueError(f"{name}: {model} takes no column {feature!r}; {hint}")
    return X if features == network.features else X[:, [features.index(feature) for feature in network.features]]


def _check_width(network: Network, model: Path, X: Any, name: str | Path) -> None:
    """ValueError unless samples (n, d) are as wide as the network takes them."""
    width = X.shape[1]
    if width != network.width:
        hint = "; if one is the answer, leave it out with --target NAME" if width == network.width + 1 else ""
        raise ValueError(f"{name} has {counted(width, 'feature')}, and {model} takes {network.width}{hint}")


class TrainedOn(NamedTuple):
    """What the samples of a training were: a fingerprint of them all, and which share was the test part."""

    samples: str
    test_fraction: float

    def is_of(self, X: NDArray[Any]) -> bool:
        """Whether X (n, width) are these samples, its test part with them."""
        return self.samples == _fingerprint(X)


def as_text(X: NDArray[Any], test_fraction: float) -> str:
    """The text for a file of a network that was trained with the samples X (n, width) but a share of them."""
    return json.dumps(TrainedOn(_fingerprint(X), test_fraction)._asdict())


def trained_on(model: Path) -> TrainedOn | None:
    """What the file of a network says it was trained with; None if it does not say it."""
    try:
        found = TrainedOn(**json.loads(read_samples(model) or ""))
    except (TypeError, ValueError):  # not written by nnkit train
        return None
    return found if isinstance(found.samples, str) and isinstance(found.test_fraction, float) else None


def new_share(known: TrainedOn | None, model: Path, X: NDArray[Any], fraction: float | None, default: float) -> float:
    """The share of X, divided by the network's seed, that is new to it: the one of its training, if that is known.

    Raises ValueError if another one, `fraction`, is asked for.
    """
    if known is None or not known.is_of(X):
        return default if fraction is None else fraction
    if fraction not in (None, known.test_fraction):
        raise ValueError(
            f"--test-fraction {fraction:g}: {model} was trained with --test-fraction {known.test_fraction:g}, and any "
            "other test part has samples that it was trained on"
        )
    return known.test_fraction


def warn_of_known_samples(known: TrainedOn | None, model: Path, source: str, X: NDArray[Any]) -> None:
    """Warn if the samples X (n, width) of a file, or the test part of the digits, may be what a network knows."""
    if source == "digits" and known is None:
        warnings.warn(
            f"{model} does not say what it was trained on: only with the seed and the --test-fraction of its training "
            "are these samples new to it",
            stacklevel=2,
        )
    if source not in ("digits", "mnist") and known is not None and known.is_of(X):
        warnings.warn(
            f"{model} was trained on {1 - known.test_fraction:.0%} of the samples in {source}: these results say "
            "less of new samples than those that nnkit train printed",
            stacklevel=2,
        )


def _fingerprint(X: NDArray[Any]) -> str:
    return fingerprints.of_array(get_backend("numpy"), X)
