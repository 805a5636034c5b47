"""Metrics of classes from scikit-learn: by name, or any of its metric functions as it is.

Most of them compare labels, for which nnkit decides as `predict` does; those in `_OF_PROBABILITIES` compare labels with
the network's outputs. Functions get the names of classes as labels, those of `predict`. Metrics by name get their
numbers, so that of two classes the second one is the positive class; so do functions with the positive class 1, their
default, if no class has this name.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.inputs import SHARES, checked_weights

# Names, with the function of scikit-learn and the options for more than two classes: the unweighted mean over them.
_NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "f1": ("f1_score", {"average": "macro", "zero_division": 0.0}),
    "precision": ("precision_score", {"average": "macro", "zero_division": 0.0}),
    "recall": ("recall_score", {"average": "macro", "zero_division": 0.0}),
    "roc_auc": ("roc_auc_score", {}),
    "balanced_accuracy": ("balanced_accuracy_score", {}),
}
NAMES = tuple(_NAMED)


class Scores(NamedTuple):
    """What decides classes, (n, d_out): logits where outputs near 1 may round to the same number, else outputs.

    A single one above the threshold is class 1.
    """

    values: NDArray[Any]
    threshold: float


_OF_PROBABILITIES = (
    "roc_auc_score", "average_precision_score", "log_loss", "brier_score_loss", "top_k_accuracy_score",
    "d2_log_loss_score", "d2_brier_score", "hinge_loss", "coverage_error", "label_ranking_loss",
    "label_ranking_average_precision_score", "ndcg_score", "dcg_score",
)  # fmt: skip
# For two classes these take the probability of the second one, or the difference of margins.
_OF_ONE_COLUMN = ("roc_auc_score", "average_precision_score", "top_k_accuracy_score")


def is_of_scikit_learn(function: object) -> bool:
    """Whether a metric is a function of `sklearn.metrics`, also with fixed options by `functools.partial`.

    >>> is_of_scikit_learn(np.mean)
    False
    """
    plain, _ = _parts(function)
    return str(getattr(plain, "__module__", "")).startswith("sklearn.metrics")


def named(name: str, outputs: int, threshold: float) -> Callable[..., Any]:
    """The metric with this name of targets and outputs, for a classifier with this many outputs.

    Raises ImportError without scikit-learn.
    """
    try:
        metrics = importlib.import_module("sklearn.metrics")
    except ImportError as error:
        hint = f"metrics: {name!r} needs scikit-learn: python -m pip install scikit-learn"
        raise ImportError(hint, name="sklearn") from error
    found, options = getattr(metrics, _NAMED[name][0]), _NAMED[name][1]
    if name == "roc_auc" and outputs > 2:
        return _of_each_class(found)
    if outputs > 2 or "zero_division" not in options:
        return adapted(functools.partial(found, **(options if outputs > 1 else {})), True, threshold)

    def of_two_classes(labels: NDArray[Any], predicted: NDArray[Any], **weights: Any) -> Any:
        """That of the second class; for two labels per sample, the mean over the labels."""
        average = "binary" if labels.ndim == 1 else options["average"]
        return found(labels, predicted, **weights, **options | {"average": average})

    return adapted(of_two_classes, True, threshold)


def _of_each_class(function: Callable[..., Any]) -> Callable[..., Any]:
    """The mean of a function of two classes, of each class against the rest, as its output tells them apart."""

    def metric(y: NDArray[Any], h: NDArray[Any], sample_weight: Any = None, scores: Any = None) -> float:
        truths = y > 0.5
        if one_class_each(y, sample_weight):
            truths = y.argmax(axis=1)[:, None] == np.arange(y.shape[1])
        columns = range(y.shape[1])
        return float(np.mean([function(truths[:, k], h[:, k], sample_weight=sample_weight) for k in columns]))

    return metric


def one_class_each(y: NDArray[Any], sample_weight: Any) -> bool:
    """Whether each row of targets, except those of weight 0, is one class or a probability distribution."""
    apart = np.abs(y.sum(axis=1) - 1)
    if sample_weight is not None:
        apart = apart[checked_weights(sample_weight, len(y), "sample_weight") > 0]
    return bool((apart <= SHARES).all())


def adapted(function: Callable[..., Any], classifies: bool, threshold: float) -> Callable[..., Any]:
    """A metric of targets and outputs (n, d_out) from a function of scikit-learn.

    For a regression, it gets the targets and outputs, (n,) for a single one. For classes, a single output above the
    threshold is class 1; of several outputs the largest is the class, or for several labels per sample all above it.
    """
    plain, fixed = _parts(function)
    of_outputs = plain.__name__ in _OF_PROBABILITIES

    def metric(
        y: NDArray[Any],
        h: NDArray[Any],
        sample_weight: Any = None,
        classes: NDArray[Any] | None = None,
        scores: Scores | None = None,
    ) -> Any:
        decisive, limit = (h, threshold) if scores is None else scores
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        if y.shape[1] == 1:
            y, h, decisive = y[:, 0], h[:, 0], decisive[:, 0]
        if not classifies:
            return function(y, h, **weights)
        one_class = y.ndim == 2 and one_class_each(y, sample_weight)
        labels = y.argmax(axis=1) if one_class else (y > 0.5).astype(int)
        if of_outputs:
            return _of_outputs(function, labels, h, one_class, [0, 1] if classes is None else classes.tolist(), weights)
        predicted = decisive.argmax(axis=1) if one_class else (decisive > limit).astype(int)
        if classes is not None and (one_class or y.ndim == 1) and _knows(function, fixed, classes):
            labels, predicted = classes[labels], classes[predicted]
        return function(labels, predicted, **weights)

    vars(metric)["fixed"] = tuple(sorted(fixed.items()))  # for a resumed training, which must have the same
    return metric


def _parts(function: Any) -> tuple[Any, Mapping[str, Any]]:
    """A function without its fixed options, and these."""
    return (function.func, function.keywords) if isinstance(function, functools.partial) else (function, {})


def _of_outputs(
    function: Callable[..., Any],
    labels: NDArray[Any],
    h: NDArray[Any],
    one_class: bool,
    names: list[Any],
    options: dict[str, Any],
) -> Any:
    """A function of labels and outputs: probabilities, or margins."""
    plain, fixed = _parts(function)
    if one_class:
        if "labels" in inspect.signature(plain).parameters:
            options["labels"] = np.arange(h.shape[1])
        are_margins = bool((h < 0).any())
        if h.shape[1] == 2 and (plain.__name__ in _OF_ONE_COLUMN or "pos_label" in fixed):
            options.pop("labels", None)
            compares = plain.__name__ == "top_k_accuracy_score" or "pos_label" in fixed  # with 1/2, others rank
            total = h.sum(axis=1) if compares else 1.0  # of two separate outputs
            h = h[:, 1] - h[:, 0] if are_margins else h[:, 1] / total
        elif not are_margins:
            h = h / h.sum(axis=1, keepdims=True)  # rounded to float32, they do not sum to 1 in float64
    positive = fixed.get("pos_label")
    if len(names) == 2 and positive in names and h.ndim == 1:
        return function(*_of_positive(names.index(positive), labels, h), **options, pos_label=1)
    return function(labels, h, **options)


def _of_positive(number: int, labels: NDArray[Any], h: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """1 for the labels with this number, of two classes, and the probability or margin of that class."""
    if number == 1:
        return labels, h
    return 1 - labels, -h if (h < 0).any() else 1 - h


def _knows(function: Callable[..., Any], fixed: Mapping[str, Any], classes: NDArray[Any]) -> bool:
    """Whether a function with these fixed options compares the names of classes.

    It does not if its positive class is none of them, and if they are neither text nor whole numbers or truth values,
    which scikit-learn refuses.
    """
    if classes.dtype.kind not in "biuU" and not all(isinstance(name, str) for name in classes.tolist()):
        return False
    positive = inspect.signature(function).parameters.get("pos_label")
    if positive is None or len(classes) > 2 or {"pos_label", "labels"} & {*fixed}:
        return True
    return fixed.get("average", "binary") != "binary" or positive.default in classes.tolist()
