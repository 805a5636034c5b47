"""What commands that use a trained network share."""

import argparse
from pathlib import Path
from typing import Any

from nnkit.commands.arguments import counted
from nnkit.network import Network


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
