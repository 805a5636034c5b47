"""What commands that use a trained network share."""

import argparse
from pathlib import Path
from typing import Any

from nnkit.network import Network


def add_model(parser: argparse.ArgumentParser) -> None:
    """The argument MODEL."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a network that nnkit train or Network.save wrote")


def check_width(network: Network, X: Any, name: str | Path) -> None:
    """ValueError unless samples (n, d) are as wide as the network takes them."""
    width = X.shape[1]
    if width != network.width:
        hint = "; if one is the answer, leave it out with --target NAME" if width == network.width + 1 else ""
        raise ValueError(f"{name} has {width} features, and this network takes {network.width}{hint}")
