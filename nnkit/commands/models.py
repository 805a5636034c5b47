"""Trained networks from files, and the samples they were trained on."""

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from nnkit.backends import get_backend
from nnkit.commands.arguments import counted
from nnkit.data.encoding import TableEncoding
from nnkit.network import Network
from nnkit.tables import is_table
from nnkit.tensor_files import read_samples
from nnkit.training import fingerprints


def in_order(network: Network, model: Path, X: Any, features: list[str] | None, name: str | Path) -> Any:
    """Samples (n, d) with their columns in the network's order, matched by name if both have names.

    Raises ValueError that names the first missing or unknown column, or both widths.
    """
    if network.features is None or features is None or len(set(features)) != len(features):
        if X.shape[1] != network.width:
            hint = "; if one is the target, exclude it with --target NAME" if X.shape[1] == network.width + 1 else ""
            raise ValueError(f"{name} has {counted(X.shape[1], 'feature')}; {model} expects {network.width}{hint}")
        return X
    for feature in network.features:
        if feature not in features:
            raise ValueError(f"{name} has no column {feature!r}, which {model} needs")
    for feature in features:
        if feature not in network.features:
            hint = "if it is the target, exclude it with --target, if it names the samples, with --id"
            raise ValueError(f"{name}: {model} was not trained with column {feature!r}; {hint}")
    if features == network.features or is_table(X):  # whose columns the network takes by name
        return X
    return X[:, [features.index(feature) for feature in network.features]]


def encoding_of(network: Network) -> TableEncoding | None:
    """The encoding of a network that takes tables of mixed columns."""
    return network.preprocessing if isinstance(network.preprocessing, TableEncoding) else None


class TrainedOn(NamedTuple):
    """The samples of a training: a fingerprint of all of them, the fraction of the test part, and how it was drawn."""

    samples: str
    test_fraction: float
    drawn: str  # missing in older files, for which `data.split` drew others

    def is_of(self, X: NDArray[Any]) -> bool:
        """Whether X (n, width) contains these samples, including the test part."""
        return self.samples == _fingerprint(X)


def as_text(X: NDArray[Any], test_fraction: float) -> str:
    """Text for a model file: the network was trained on the samples X (n, width) except for the test fraction."""
    return json.dumps(TrainedOn(_fingerprint(X), test_fraction, "systematic")._asdict())


def trained_on(model: Path) -> TrainedOn | None:
    """The training samples recorded in a model file, or None."""
    try:
        found = TrainedOn(**json.loads(read_samples(model) or ""))
    except (TypeError, ValueError):  # not written by nnkit train
        return None
    return found if isinstance(found.samples, str) and isinstance(found.test_fraction, float) else None


def new_share(known: TrainedOn | None, model: Path, X: NDArray[Any], fraction: float | None, default: float) -> float:
    """The test fraction of X, split with the network's seed: that of its training, if known.

    Raises ValueError if `fraction` differs from it.
    """
    if known is None or not known.is_of(X):
        return default if fraction is None else fraction
    if fraction not in (None, known.test_fraction):
        raise ValueError(
            f"--test-fraction {fraction:g}: {model} was trained with --test-fraction {known.test_fraction:g}; any "
            "other test part contains training samples"
        )
    return known.test_fraction


def warn_of_known_samples(known: TrainedOn | None, model: Path, source: str, X: NDArray[Any]) -> None:
    """Warn if the samples X (n, width) of a file, or the test part of the digits, may contain training samples."""
    if source == "digits" and known is None:
        warnings.warn(
            f"{model} does not record what it was trained on, or is of an older nnkit: these samples may be among "
            "those of its training",
            stacklevel=2,
        )
    if source not in ("digits", "mnist") and known is not None and known.is_of(X):
        warnings.warn(
            f"{model} was trained on {1 - known.test_fraction:.0%} of the samples in {source}: these results are a "
            "worse estimate for new samples than those printed by nnkit train",
            stacklevel=2,
        )


def _fingerprint(X: NDArray[Any]) -> str:
    return fingerprints.of_array(get_backend("numpy"), X)
