"""Metrics of outputs besides the cost, computed on the host in float64.

A metric is a function of targets y and outputs h, both (n, d_out) NumPy arrays, that returns a number. Labels are
one-hot rows; outputs are probabilities for sigmoid and softmax. Targets of a regression are as given, in float64 if a
network in float32 rounds them; the cost is that of the rounded ones. A function with a parameter `sample_weight`, (n,),
receives the sample weights as given, if any. Class weights only affect the cost.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit import label_metrics
from nnkit.checks import named, whole
from nnkit.inputs import checked_weights, is_real, on_host
from nnkit.label_metrics import Scores, one_class_each
from nnkit.tables import as_array

__all__ = ["MetricFunction", "accuracy", "get_metrics", "mean_absolute_error", "r2", "root_mean_squared_error", "top_k"]

MetricFunction = Callable[..., float]
Numbers = NDArray[np.floating]

_ROUNDINGS = 2  # tolerance for constants, in rounding errors of the largest entry


class Metric(NamedTuple):
    """A metric, its name in histories, and what it accepts: sample weights, names of classes, and scores."""

    name: str
    function: MetricFunction
    weighted: bool = False
    of_labels: bool = False
    of_scores: bool = False

    def measure(
        self,
        y: Numbers,
        h: Numbers,
        weights: Numbers | None = None,
        classes: NDArray[Any] | None = None,
        scores: Scores | None = None,
    ) -> float:
        """The metric of targets and outputs (n, d_out), with weights (n, 1) if given and accepted.

        `classes` are the network's names of classes, `scores` what decides the class. The function gets copies, which
        it may modify. Raises TypeError if it does not return a number.
        """
        given: dict[str, Any] = {}
        if weights is not None and self.weighted:
            given["sample_weight"] = weights[:, 0].astype(np.float64)
        if self.of_labels:
            given["classes"] = classes
        if self.of_scores:
            given["scores"] = scores
        return _number(self.name, self.function(y.copy(), h.copy(), **given))


def _number(name: str, value: Any) -> float:
    """Convert a metric's return value, a number or a 0-d array of any library, to float; TypeError for others."""
    found = on_host(as_array(value, f"the metric {name}")) if hasattr(value, "dtype") else value
    if isinstance(found, np.ndarray | np.generic) and found.shape == () and is_real(found):
        return float(found)
    if not isinstance(found, Real | Decimal):
        raise TypeError(f"metrics: {name!r} returned {value!r}; expected a number")
    try:
        return float(found)
    except OverflowError:
        raise ValueError(f"metrics: {name!r} returned a number too large for a float") from None


def top_k(k: int) -> MetricFunction:
    """The fraction of samples whose class is among the k largest outputs; of equal outputs, the first ranks higher.

    For multilabel targets (see `accuracy`), one of the classes must be among them. Raises ValueError unless k is an
    integer of at least 1.

    >>> y, h = np.eye(3)[[0, 1]], np.array([[0.2, 0.5, 0.3], [0.5, 0.4, 0.1]])
    >>> [nnkit.metrics.top_k(k)(y, h) for k in (1, 2, 3)]
    [0.0, 0.5, 1.0]
    """
    k = whole("top_k", "k", k, 1)

    def metric(y: Any, h: Any, sample_weight: Any = None) -> float:
        y, h = _arrays(y, h, (2,))
        single = y.shape[1] == 1 or one_class_each(y, sample_weight)
        own = np.arange(y.shape[1]) == np.argmax(y, axis=1)[:, None] if single else y > 0.5
        order = np.argsort(-h.astype(np.float64), axis=1, kind="stable")[:, :k]  # NaN is last
        hits = np.take_along_axis(own, order, axis=1).any(axis=1) & ~np.isnan(h).any(axis=1)
        return float(_mean(hits, sample_weight))

    metric.__name__ = f"top_{k}"
    return metric


def accuracy(y: Any, h: Any, sample_weight: Any = None) -> float:
    """The fraction of correct samples; with weights w, Σ w [correct]/Σ w.

    If the targets of each sample sum to 1, as labels and class probabilities do, its largest output must be that of its
    class. Otherwise, as for multilabel targets, and for a single output, all outputs must be on the same side of ½ as
    their targets: scikit-learn's `accuracy_score`. NaN is never correct.

    For labels with costs that do not classify, such as the quadratic one; classification costs always report it.

    >>> nnkit.metrics.accuracy(np.eye(2)[[0, 1]], np.array([[0.9, 0.2], [0.6, 0.5]]))
    0.5
    >>> nnkit.metrics.accuracy(np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[0.9, 0.8], [0.1, 0.6]]))
    0.5
    """
    y, h = _arrays(y, h, (2,))
    if y.shape[1] > 1 and one_class_each(y, sample_weight):
        right = np.argmax(y, axis=1) == np.argmax(h, axis=1)
    else:
        right = ((y > 0.5) == (h > 0.5)).all(axis=1)
    return float(_mean(right & ~np.isnan(h).any(axis=1), sample_weight))


def r2(y: Any, h: Any, sample_weight: Any = None) -> float:
    """R² = 1 − Σ w (y − h)²/Σ w (y − ȳ)², averaged over outputs; for constant targets, 1 if all are predicted, else 0.

    Targets are constant up to rounding in the dtype of y, and predicted up to rounding in that of y or h. Without
    weights, w is 1.

    >>> nnkit.metrics.r2(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [2.0]]))
    0.5
    >>> nnkit.metrics.r2(np.full((3, 1), 0.3), np.full((3, 1), 0.4))
    0.0
    """
    y, h = _columns(y, h)
    weights = _weights(sample_weight, len(y))
    rounding, predicted = (_ROUNDINGS * float(np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0.0) for a in (y, h))
    y, h, weights = (array[weights[:, 0] > 0].astype(np.float64) for array in (y, h, weights))
    if not len(y):
        return float("nan")
    with np.errstate(all="ignore"):
        scale = np.abs(y).max(axis=0)
        constant = np.isfinite(scale) & (np.ptp(y, axis=0) <= scale * rounding)
        met = (np.abs(y - h) <= scale * max(rounding, predicted)).all(axis=0)
        mean = (weights * y).sum(axis=0) / weights.sum()
        exponent = np.frexp(np.abs(y - mean).max(axis=0))[1]  # squares of small or large numbers under- or overflow
        left, total = ((weights * np.ldexp(y - other, -exponent) ** 2).sum(axis=0) for other in (h, mean))
        return float(np.mean(np.where(constant, met, 1 - left / np.where(constant, 1, total))))


def mean_absolute_error(y: Any, h: Any, sample_weight: Any = None) -> float:
    """The mean of |y − h| over all outputs and samples, weighted if there are weights.

    >>> nnkit.metrics.mean_absolute_error(np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
    1.5
    """
    y, h = _columns(y, h)
    with np.errstate(all="ignore"):
        return float(np.mean(_mean(np.abs(y.astype(np.float64) - h.astype(np.float64)), sample_weight)))


def root_mean_squared_error(y: Any, h: Any, sample_weight: Any = None) -> float:
    """The root of the mean of (y − h)² over the samples, averaged over the outputs: in the units of the targets.

    >>> nnkit.metrics.root_mean_squared_error(np.array([[1.0], [2.0]]), np.array([[2.0], [9.0]]))
    5.0
    """
    y, h = _columns(y, h)
    with np.errstate(all="ignore"):
        error = np.abs(y.astype(np.float64) - h.astype(np.float64))
        if sample_weight is not None:
            error[_weights(sample_weight, len(error))[:, 0] == 0] = 0  # which could have the only large error
        exponent = np.frexp(error.max(axis=0))[1]  # squares of small or large numbers under- or overflow
        mean = _mean(np.ldexp(error, -exponent) ** 2, sample_weight)
        return float(np.mean(np.ldexp(np.sqrt(mean), exponent)))


def _arrays(y: Any, h: Any, axes: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Targets and outputs as arrays of equal shape with a number of axes in `axes`; raises TypeError or ValueError."""
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
    """A hint for labels (n,) instead of targets (n, d_out)."""
    labels, outputs = np.shape(on_host(y)), np.shape(on_host(h))
    if len(outputs) != 2 or labels != outputs[:1]:
        return ""
    return f"; for labels use nnkit.data.one_hot(y, {outputs[1]})"


def _columns(y: Any, h: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Targets and outputs (n, d_out), or (n,) for a single output, as matrices."""
    y, h = _arrays(y, h, (1, 2))
    return (y[:, None], h[:, None]) if y.ndim == 1 else (y, h)


def _weights(sample_weight: Any, n: int) -> Numbers:
    """Weights (n,) as a column (n, 1); ones if there are none."""
    if sample_weight is None:
        return np.ones((n, 1))
    return checked_weights(sample_weight, n, "sample_weight")[:, None]


def _mean(values: NDArray[Any], sample_weight: Any) -> Any:
    """The mean over the samples, weighted if there are weights."""
    if sample_weight is None:
        return np.mean(values, axis=0)
    weights = _weights(sample_weight, len(values)).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(all="ignore"):
        return np.where(weights > 0, weights * values, 0).sum(axis=0) / weights.sum()


def _takes_weights(function: MetricFunction) -> bool:
    """Whether a function has a parameter `sample_weight`."""
    try:
        parameter = inspect.signature(function).parameters.get("sample_weight")
    except (TypeError, ValueError):  # C functions without a signature
        return False
    return parameter is not None and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY


_named: dict[str, MetricFunction] = {
    "accuracy": accuracy, "r2": r2, "mae": mean_absolute_error, "rmse": root_mean_squared_error,
}  # fmt: skip


def get_metrics(
    metrics: Iterable[str | MetricFunction], outputs: int, classifies: bool, threshold: float = 0.5
) -> list[Metric]:
    """Metrics by name, or as functions of targets and outputs, or functions of `sklearn.metrics`, as they are.

    The names are "accuracy", "top_5" for any k, "r2", "mae", "rmse", and by scikit-learn "f1", "precision", "recall",
    "roc_auc" and "balanced_accuracy": for two classes that of the second one, for more the mean over the classes. A
    single output above the threshold is class 1 for these. Functions of scikit-learn compare the labels that `predict`
    returns. Two classes are ranked by the second output, or by its difference from the first with a cost of margins.

    The accuracy is omitted for networks that classify: they always report it. Raises ValueError for an unknown name,
    with similar ones, and unless k is below the number of outputs; TypeError for other than names and functions.
    """
    if isinstance(metrics, str) or callable(metrics):
        metrics = [metrics]
    if not isinstance(metrics, Iterable):
        raise TypeError(f"metrics is {metrics!r}; expected names or functions of (y, h)")
    chosen = [metric for metric in metrics if not (classifies and _is_accuracy(metric))]
    found = [_made(metric, outputs, classifies, threshold) for metric in chosen]
    _check_names([metric.name for metric in found], classifies)
    return found


def _is_accuracy(metric: Any) -> bool:
    return metric is accuracy or (isinstance(metric, str) and metric == "accuracy")


def _made(metric: Any, outputs: int, classifies: bool, threshold: float) -> Metric:
    if isinstance(metric, str):
        return _of_name(metric, outputs, classifies, threshold)
    if not callable(metric):
        raise TypeError(f"metrics holds {metric!r}; expected a name or a function of (y, h)")
    if not label_metrics.is_of_scikit_learn(metric):
        return Metric(getattr(metric, "__name__", type(metric).__name__), metric, _takes_weights(metric))
    name = getattr(getattr(metric, "func", metric), "__name__", "")
    if not name:
        raise TypeError(f"metrics holds {metric!r}; expected a function of (y, h), which a scorer is not")
    adapted, weighted = label_metrics.adapted(metric, classifies, threshold), _takes_weights(metric)
    return Metric(name, adapted, weighted, of_labels=classifies, of_scores=classifies)


def _of_name(name: str, outputs: int, classifies: bool, threshold: float) -> Metric:
    if re.fullmatch(r"top_\d+", name):
        k = int(name[4:])
        if k >= outputs:
            raise ValueError(f"metrics: {name!r} of {outputs} outputs is always 1")
        return Metric(name, _by_scores(top_k(k)), weighted=True, of_scores=True)
    if name in label_metrics.NAMES:
        _check_classifies(name, classifies)
        return Metric(name, label_metrics.named(name, outputs, threshold), weighted=True, of_scores=True)
    known = [*label_metrics.NAMES, "top_5", "a function of (y, h)"]
    return Metric(name, named("metric", name, _named, known), weighted=True)


def _by_scores(function: MetricFunction) -> MetricFunction:
    """A metric of the order of the outputs, by scores, which do not round to equal ones."""

    def metric(y: Any, h: Any, sample_weight: Any = None, scores: Scores | None = None) -> float:
        return function(y, h if scores is None else scores.values, sample_weight)

    return metric


def _check_classifies(name: str, classifies: bool) -> None:
    if not classifies:
        raise ValueError(f"metrics: {name!r} is for classes, and the network's cost is for numbers")


def _check_names(names: list[str], classifies: bool) -> None:
    """Raise ValueError for duplicate names and those that histories use for something else."""
    taken = ["cost", "learning_rate", "seconds", *(["accuracy"] if classifies else [])]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"metrics: two are called {name!r}; histories use a function's __name__")
        if name in taken or name.startswith("validation_"):
            raise ValueError(f"metrics: the name {name!r} is taken; rename the function")


def __dir__() -> list[str]:
    return sorted(__all__)
