"""The option --metrics: what can be measured of classes, and what of numbers."""

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
    """The option --metrics."""
    text = "to measure too: top_5, or another top_N, of classes; mae, r2 of numbers; accuracy of numbers 0 and 1"
    group.add_argument("--metrics", nargs="+", type=_metric, default=[], metavar="NAME", help=text)


def check_metrics(metrics: Sequence[str], y: NDArray[Any], name: str, cost: Cost, outputs: int, labels: bool) -> None:
    """ValueError, naming --metrics, for one that says nothing of y (n,) or (n, d_out), which messages call `name`.

    cost: that of the network. outputs: how many it has. labels: whether y are labels.
    """
    for at, metric in enumerate(metrics):
        if metric in metrics[:at]:
            raise ValueError(f"--metrics: {metric} is there twice")
        if metric in _OF_NUMBERS:
            if labels:
                raise ValueError(f"--metrics {metric} is for numbers, and {name} holds classes")
        elif not cost.classifies and not np.isin(y, (0, 1)).all():
            raise ValueError(f"--metrics {metric} is for classes, and {name} holds numbers, with the cost {cost.name}")
        elif metric != "accuracy" and not 0 < int(metric[4:]) < outputs:
            raise ValueError(f"--metrics {metric}: of {outputs} outputs at least 1 and fewer than all can be looked at")


def _metric(name: str) -> str:
    if name not in (*_OF_CLASSES, *_OF_NUMBERS) and not re.fullmatch(r"top_[0-9]{1,9}", name):
        raise argparse.ArgumentTypeError(str(unknown_name("metric", name, (*_OF_CLASSES, *_OF_NUMBERS))))
    return name
