"""What is to be learned: classes or real numbers, with how many outputs and by which cost."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.kernels.costs import get_cost

_MANY = 100  # classes: whole numbers that are so many are perhaps quantities
_FAR = 100.0  # from 0, for what a network should learn


class Targets(NamedTuple):
    """Targets as they are divided and learned.

    y: numbers of the classes (n,), or targets (n,) or (n, d_out). classes: their names (k,), or None where there are
    none. outputs: of the network. cost: its name.
    """

    y: NDArray[Any]
    classes: NDArray[Any] | None
    outputs: int
    cost: str

    def named(self, y: NDArray[Any]) -> NDArray[Any]:
        """Some of y as the network takes them: labels by their names."""
        return y if self.classes is None else self.classes[y]


def targets_of(y: NDArray[Any], cost: str | None, name: str) -> Targets:
    """What labels (n,) or targets (n,), (n, d_out) ask for; `name` is what messages call them.

    Without a cost, text and whole numbers are labels and get the softmax cross-entropy; real numbers get the quadratic
    cost. Raises ValueError for a single class, for text where the cost is one of numbers, for a matrix of text and for
    more than two axes.
    """
    text = y.dtype.kind in "US"
    if text and y.ndim > 1:
        raise ValueError(f"{name} is text of shape {y.shape}; expected ({len(y)},), one class for each sample")
    if y.ndim > 2:
        raise ValueError(f"{name} has shape {y.shape}; expected ({len(y)},) or ({len(y)}, outputs)")
    labels = y.ndim == 1 and y.dtype.kind != "f"
    cost = cost or ("softmax_cross_entropy" if labels else "quadratic")
    if not get_cost(cost).classifies:
        if text:
            raise ValueError(f"--cost {cost} is for numbers, and {name} is text, such as {str(y[0])!r}")
        y = y.astype(np.float64)
        _warn_of_scale(y, name)
        return _numbers(y, cost)
    y = whole_labels(y)
    if y.ndim > 1 or y.dtype.kind == "f":
        return _numbers(y, cost)
    classes, y = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{name} holds a single class, {classes[0]}; expected at least two")
    if len(classes) > _MANY and not text:
        warnings.warn(
            f"{name} holds {len(classes)} different whole numbers, which are taken for classes; if they are "
            "quantities, give --cost quadratic",
            stacklevel=2,
        )
    return Targets(y, classes, len(classes), cost)


def whole_labels(y: NDArray[Any]) -> NDArray[Any]:
    """Labels (n,) that are whole numbers of a float type as int64; anything else as it is.

    >>> whole_labels(np.array([1.0, 3.0])), whole_labels(np.array([0.5, 1.0]))
    (array([1, 3]), array([0.5, 1. ]))
    """
    whole = y.ndim == 1 and y.dtype.kind == "f" and np.array_equal(y, np.floor(y)) and np.all(np.abs(y) < 2**53)
    return y.astype(np.int64) if whole else y


def _numbers(y: NDArray[Any], cost: str) -> Targets:
    return Targets(y, None, 1 if y.ndim == 1 else y.shape[1], cost)


def _warn_of_scale(y: NDArray[np.float64], name: str) -> None:
    with np.errstate(all="ignore"):
        mean, deviation = float(np.mean(y)), float(np.std(y))
    if abs(mean) > _FAR or deviation > _FAR:
        warnings.warn(
            f"{name} has mean {mean:.3g} and standard deviation {deviation:.3g}; a network learns numbers of mean 0 "
            "and deviation 1 best: shift and rescale them, or the training may diverge",
            stacklevel=2,
        )
