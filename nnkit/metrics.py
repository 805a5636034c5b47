"""Metrics: what a person wants to know of outputs beside the cost, computed on the host in float64.

A metric is a function of targets y and outputs h, both (n, d_out) NumPy arrays, that returns a number. Labels are rows
with a single 1 there; outputs are probabilities for sigmoid and softmax. A function that takes `sample_weight`, (n,),
gets the weights of the samples, where there are any; another one does not know of them. Weights of classes count in
the cost alone.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import named, whole
from nnkit.inputs import SHARES, checked_weights, is_real, on_host
from nnkit.tables import as_array

__all__ = ["MetricFunction", "accuracy", "get_metrics", "mean_absolute_error", "r2", "top_k"]

MetricFunction = Callable[..., float]
Numbers = NDArray[np.floating]

_ROUNDINGS = 2  # how many roundings of the largest number a constant may differ by


class Metric(NamedTuple):
    """A metric, the name that histories have it under, and whether it takes the weights of samples."""

    name: str
    function: MetricFunction
    weighted: bool = False

    def measure(self, y: Numbers, h: Numbers, weights: Numbers | None = None) -> float:
        """The metric of targets and outputs (n, d_out), with weights (n, 1) if there are any and it takes them.

        Copies are given to the function: what it writes there changes no other number. TypeError for no number.
        """
        given = {} if weights is None or not self.weighted else {"sample_weight": weights[:, 0].astype(np.float64)}
        return _number(self.name, self.function(y.copy(), h.copy(), **given))


def _number(name: str, value: Any) -> float:
    """What a metric returned as a float: a number or a 0-d array of any library; TypeError for anything else."""
    found = on_host(as_array(value, f"the metric {name}")) if hasattr(value, "dtype") else value
    if isinstance(found, np.ndarray | np.generic) and found.shape == () and is_real(found):
        return float(found)
    if not isinstance(found, Real | Decimal):
        raise TypeError(f"metrics: {name!r} returned {value!r}; expected a number")
    try:
        return float(found)
    except OverflowError:
        raise ValueError(f"metrics: {name!r} returned a whole number that is too large for a float") from None


def top_k(k: int) -> MetricFunction:
    """The share of samples whose class is among the k largest outputs; of equal outputs the first counts as larger.

    Where samples may be of several classes (`accuracy` says when), one of these has to be among them. Raises ValueError
    unless k is a whole number of at least 1.

    >>> y, h = np.eye(3)[[0, 1]], np.array([[0.2, 0.5, 0.3], [0.5, 0.4, 0.1]])
    >>> [nnkit.metrics.top_k(k)(y, h) for k in (1, 2, 3)]
    [0.0, 0.5, 1.0]
    """
    k = whole("top_k", "k", k, 1)

    def metric(y: Any, h: Any, sample_weight: Any = None) -> float:
        y, h = _arrays(y, h, (2,))
        single = y.shape[1] == 1 or _one_class_each(y)
        own = np.arange(y.shape[1]) == np.argmax(y, axis=1)[:, None] if single else y > 0.5
        order = np.argsort(-h.astype(np.float64), axis=1, kind="stable")[:, :k]  # NaN comes last
        hits = np.take_along_axis(own, order, axis=1).any(axis=1) & ~np.isnan(h).any(axis=1)
        return float(_mean(hits, sample_weight))

    metric.__name__ = f"top_{k}"
    return metric


def accuracy(y: Any, h: Any, sample_weight: Any = None) -> float:
    """The share of samples that are right; with weights w it is Σ w [right]/Σ w.

    Where the targets of each sample sum to 1, as labels and shares in classes do, its largest output has to be that of
    its class. Otherwise, as where samples may be of several classes or of none, all of its outputs have to be on the
    same side of ½ as their targets: the accuracy of scikit-learn's `accuracy_score`. So has a single output. NaN is
    never right.

    For costs that do not classify, such as the quadratic one, with labels; those that do measure it by themselves.

    >>> nnkit.metrics.accuracy(np.eye(2)[[0, 1]], np.array([[0.9, 0.2], [0.6, 0.5]]))
    0.5
    >>> nnkit.metrics.accuracy(np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[0.9, 0.8], [0.1, 0.6]]))
    0.5
    """
    y, h = _arrays(y, h, (2,))
    if y.shape[1] > 1 and _one_class_each(y):
        right = np.argmax(y, axis=1) == np.argmax(h, axis=1)
    else:
        right = ((y > 0.5) == (h > 0.5)).all(axis=1)
    return float(_mean(right & ~np.isnan(h).any(axis=1), sample_weight))


def r2(y: Any, h: Any, sample_weight: Any = None) -> float:
    """R² = 1 − Σ w (y − h)²/Σ w (y − ȳ)², the mean over the outputs; for constant targets 1 if all are met, else 0.

    A constant is one but for rounding in the dtype of y. Without weights w is 1.

    >>> nnkit.metrics.r2(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [2.0]]))
    0.5
    >>> nnkit.metrics.r2(np.full((3, 1), 0.3), np.full((3, 1), 0.4))
    0.0
    """
    y, h = _columns(y, h)
    weights = _weights(sample_weight, len(y))
    rounding = _ROUNDINGS * float(np.finfo(y.dtype).eps if y.dtype.kind == "f" else 0.0)
    y, h, weights = (array[weights[:, 0] > 0].astype(np.float64) for array in (y, h, weights))
    if not len(y):
        return float("nan")
    with np.errstate(all="ignore"):
        scale = np.abs(y).max(axis=0) * rounding
        constant = np.ptp(y, axis=0) <= scale
        met = (np.abs(y - h) <= scale).all(axis=0)
        mean = (weights * y).sum(axis=0) / weights.sum()
        exponent = np.frexp(np.abs(y - mean).max(axis=0))[1]  # squares of small or large numbers leave float64
        left, total = ((weights * np.ldexp(y - other, -exponent) ** 2).sum(axis=0) for other in (h, mean))
        return float(np.mean(np.where(constant, met, 1 - left / np.where(constant, 1, total))))


def mean_absolute_error(y: Any, h: Any, sample_weight: Any = None) -> float:
    """The mean of |y − h| over all samples, by their weights if there are any, and outputs.

    >>> nnkit.metrics.mean_absolute_error(np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
    1.5
    """
    y, h = _columns(y, h)
    with np.errstate(all="ignore"):
        return float(np.mean(_mean(np.abs(y.astype(np.float64) - h.astype(np.float64)), sample_weight)))


def _arrays(y: Any, h: Any, axes: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Targets and outputs as arrays of one shape, with so many axes; TypeError and ValueError name what is not."""
    arrays = []
    for name, values in (("y", y), ("h", h)):
        array = np.asarray(on_host(as_array(values, name)))
        if not is_real(array):
            raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
        if array.ndim not in axes or array.size == 0:
            expected = "(n, d_out)" if 1 not in axes else "(n, d_out) or (n,)"
            raise ValueError(
                f"{name} has shape {array.shape}; expected {expected} with at least one sample{_hint(y, h)}"
            )
        arrays.append(array)
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(f"h has shape {arrays[1].shape}; expected that of y, {arrays[0].shape}{_hint(y, h)}")
    return arrays[0], arrays[1]


def _hint(y: Any, h: Any) -> str:
    """What to do with labels (n,) where targets (n, d_out) belong."""
    labels, outputs = np.shape(on_host(y)), np.shape(on_host(h))
    if len(outputs) != 2 or labels != outputs[:1]:
        return ""
    return f"; for labels use nnkit.data.one_hot(y, {outputs[1]})"


def _columns(y: Any, h: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Targets and outputs (n, d_out), or of a single output (n,), as matrices."""
    y, h = _arrays(y, h, (1, 2))
    return (y[:, None], h[:, None]) if y.ndim == 1 else (y, h)


def _weights(sample_weight: Any, n: int) -> Numbers:
    """Weights (n,) as a column (n, 1), 1 without any."""
    if sample_weight is None:
        return np.ones((n, 1))
    return checked_weights(sample_weight, n, "sample_weight")[:, None]


def _mean(values: NDArray[Any], sample_weight: Any) -> Any:
    """The mean over the samples, by their weights if there are any."""
    if sample_weight is None:
        return np.mean(values, axis=0)
    weights = _weights(sample_weight, len(values)).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(all="ignore"):
        return np.where(weights > 0, weights * values, 0).sum(axis=0) / weights.sum()


def _one_class_each(y: Numbers) -> bool:
    """Whether each row of targets is one class or shares of them, of sum 1."""
    return bool((np.abs(y.sum(axis=1) - 1) <= SHARES).all())


def _takes_weights(function: MetricFunction) -> bool:
    """Whether a function has a parameter `sample_weight`."""
    try:
        parameter = inspect.signature(function).parameters.get("sample_weight")
    except (TypeError, ValueError):  # made by C, without a signature
        return False
    return parameter is not None and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY


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
        if classifies and (metric is accuracy or (isinstance(metric, str) and metric == "accuracy")):
            continue
        if isinstance(metric, str) and re.fullmatch(r"top_\d+", metric):
            found.append(Metric(metric, _checked_top(int(metric[4:]), outputs), weighted=True))
        elif isinstance(metric, str):
            found.append(Metric(metric, named("metric", metric, _named, ["top_5", "a function of (y, h)"]), True))
        elif callable(metric):
            name = getattr(metric, "__name__", type(metric).__name__)
            found.append(Metric(name, metric, _takes_weights(metric)))
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
