"""Metrics: what a person wants to know of outputs beside the cost, computed on the host in float64.

A metric is a function of targets y and outputs h, both (n, d_out) NumPy arrays, that returns a number. Labels are rows
with a single 1 there; outputs are probabilities for sigmoid and softmax.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.dtypes import FLOATS, dtype_name
from nnkit.inputs import on_host
from nnkit.kernels.names import named
from nnkit.tables import as_array

# What is too large or too small for a square is seen in the result, whatever the caller has told NumPy to do then.
_quiet = np.errstate(all="ignore")

__all__ = ["MetricFunction", "accuracy", "get_metrics", "mean_absolute_error", "r2", "top_k"]

MetricFunction = Callable[[NDArray[np.floating], NDArray[np.floating]], float]


class Metric(NamedTuple):
    """A metric and the name that histories have it under."""

    name: str
    function: MetricFunction


def top_k(k: int) -> MetricFunction:
    """The share of samples whose class is among the k largest outputs; of equal outputs the first counts as larger.

    Raises ValueError unless k is a whole number of at least 1.

    >>> y, h = np.eye(3)[[0, 1]], np.array([[0.2, 0.5, 0.3], [0.5, 0.4, 0.1]])
    >>> [nnkit.metrics.top_k(k)(y, h) for k in (1, 2, 3)]
    [0.0, 0.5, 1.0]
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"top_k: k is {k!r}; expected a whole number of at least 1")

    def metric(y: NDArray[np.floating], h: NDArray[np.floating]) -> float:
        y, h = _arrays(y, h, (2,))
        label = np.argmax(y, axis=1)
        order = np.argsort(-h, axis=1, kind="stable")[:, :k]  # NaN comes last
        return float(np.mean((order == label[:, None]).any(axis=1) & ~np.isnan(h).any(axis=1)))

    metric.__name__ = f"top_{k}"
    return metric


def accuracy(y: NDArray[np.floating], h: NDArray[np.floating]) -> float:
    """The share of samples whose largest output is that of their class; of a single output, on which side of ½ it is.

    For costs that do not classify, such as the quadratic one, with labels; those that do measure it by themselves.

    >>> nnkit.metrics.accuracy(np.eye(2)[[0, 1]], np.array([[0.9, 0.2], [0.6, 0.5]]))
    0.5
    """
    y, h = _arrays(y, h, (2,))
    if y.shape[1] == 1:
        return float(np.mean((y > 0.5) == (h > 0.5)))
    return float(np.mean(np.argmax(y, axis=1) == np.argmax(h, axis=1)))


@_quiet
def r2(y: NDArray[np.floating], h: NDArray[np.floating]) -> float:
    """R² = 1 − Σ (y − h)²/Σ (y − ȳ)², the mean over the outputs; for constant targets 1 if all are met, else 0.

    >>> nnkit.metrics.r2(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [2.0]]))
    0.5
    """
    y, h = (array.astype(np.float64) for array in _arrays(y, h, (1, 2)))
    left, total = ((y - h) ** 2).sum(axis=0), ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    explained = 1 - left / np.where(total > 0, total, 1)
    return float(np.mean(np.where(total > 0, explained, left == 0)))


@_quiet
def mean_absolute_error(y: NDArray[np.floating], h: NDArray[np.floating]) -> float:
    """The mean of |y − h| over all samples and outputs.

    >>> nnkit.metrics.mean_absolute_error(np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
    1.5
    """
    y, h = (array.astype(np.float64) for array in _arrays(y, h, (1, 2)))
    return float(np.mean(np.abs(y - h)))


def _arrays(y: Any, h: Any, axes: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Targets and outputs as arrays of one shape, with so many axes; TypeError and ValueError name what is not."""
    arrays = []
    for name, values in (("y", y), ("h", h)):
        array = np.asarray(on_host(as_array(values, name)))
        if array.dtype.kind not in "biuf" and dtype_name(array.dtype) not in FLOATS:
            raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
        if array.ndim not in axes or array.size == 0:
            expected = "(n, d_out)" if 1 not in axes else "(n, d_out) or (n,)"
            raise ValueError(f"{name} has shape {array.shape}; expected {expected} with at least one sample")
        arrays.append(array)
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(f"h has shape {arrays[1].shape}; expected that of y, {arrays[0].shape}")
    return arrays[0], arrays[1]


_named: dict[str, MetricFunction] = {"accuracy": accuracy, "r2": r2, "mae": mean_absolute_error}


def get_metrics(metrics: Iterable[str | MetricFunction], outputs: int, classifies: bool) -> list[Metric]:
    """Metrics by name ("accuracy", "top_5" for any k, "r2", "mae") or as functions.

    The accuracy is left out where a network classifies and has it anyway. Raises ValueError for an unknown name, with
    the nearest one, and for a k above the number of outputs; TypeError for what is neither a name nor a function.
    """
    if isinstance(metrics, str) or callable(metrics):
        metrics = [metrics]
    if not isinstance(metrics, Iterable):
        raise TypeError(f"metrics is {metrics!r}; expected names or functions of (y, h)")
    found = []
    for metric in metrics:
        if classifies and metric in ("accuracy", accuracy):
            continue
        if isinstance(metric, str) and re.fullmatch(r"top_\d+", metric):
            found.append(Metric(metric, _checked_top(int(metric[4:]), outputs)))
        elif isinstance(metric, str):
            found.append(Metric(metric, named("metric", metric, _named, ["top_5", "a function of (y, h)"])))
        elif callable(metric):
            found.append(Metric(getattr(metric, "__name__", type(metric).__name__), metric))
        else:
            raise TypeError(f"metrics holds {metric!r}; expected a name or a function of (y, h)")
    _check_names([metric.name for metric in found], classifies)
    return found


def _check_names(names: list[str], classifies: bool) -> None:
    """ValueError for a name that occurs twice, or that histories have for something else."""
    taken = ["cost", "learning_rate", "seconds", *(["accuracy"] if classifies else [])]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"metrics: two are called {name!r}; a function's __name__ is what histories have it under")
        if name in taken or name.startswith("validation_"):
            raise ValueError(f"metrics: the name {name!r} is taken; call the function something else")


def _checked_top(k: int, outputs: int) -> MetricFunction:
    if k >= outputs:
        raise ValueError(f"metrics: 'top_{k}' of {outputs} outputs is always 1")
    return top_k(k)


def __dir__() -> list[str]:
    return sorted(__all__)
