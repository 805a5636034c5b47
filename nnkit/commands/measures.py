"""The option --metrics, for classes and for numbers."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import unknown_name
from nnkit.kernels.costs import Cost

_OF_CLASSES = ("accuracy", "top_5")
_OF_NUMBERS = ("r2", "mae")


def add_metrics(group: argparse._ActionsContainer) -> None:
    """Add the option --metrics."""
    text = "additional metrics: top_5, or another top_N, for classes; mae, r2 for numbers; accuracy for numbers 0 and 1"
    group.add_argument("--metrics", nargs="+", type=_metric, default=[], metavar="NAME", help=text)


def check_metrics(metrics: Sequence[str], y: NDArray[Any], name: str, cost: Cost, outputs: int, labels: bool) -> None:
    """Raise ValueError for a metric that does not apply to y (n,) or (n, d_out), called `name` in messages.

    cost: the cost of the network. outputs: its number of outputs. labels: whether y contains labels.
    """
    for at, metric in enumerate(metrics):
        if metric in metrics[:at]:
            raise ValueError(f"--metrics: {metric} is given twice")
        if metric in _OF_NUMBERS:
            if labels:
                raise ValueError(f"--metrics {metric} is for numbers, and {name} holds classes")
        elif not cost.classifies and not np.isin(y, (0, 1)).all():
            raise ValueError(f"--metrics {metric} is for classes, and {name} holds numbers, with the cost {cost.name}")
        elif metric != "accuracy" and not 0 < int(metric[4:]) < outputs:
            raise ValueError(f"--metrics {metric}: expected top_1 or more, below the number of outputs, {outputs}")


def _metric(name: str) -> str:
    if name not in (*_OF_CLASSES, *_OF_NUMBERS) and not re.fullmatch(r"top_[0-9]{1,9}", name):
        raise argparse.ArgumentTypeError(str(unknown_name("metric", name, (*_OF_CLASSES, *_OF_NUMBERS))))
    return name
