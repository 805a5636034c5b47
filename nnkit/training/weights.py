"""Sample weights and class weights in the cost.

With weights w the cost is Σ w C/Σ w over the samples. They are scaled once so that their mean is 1; in a minibatch of n
samples the factor is then w/n, so that minibatches with little weight change the parameters little.
"""

import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.base import Array
from nnkit.checks import unknown_name
from nnkit.classes import listed
from nnkit.inputs import checked_weights
from nnkit.kernels.costs import Cost
from nnkit.model import Model

ClassWeight = Mapping[Any, float] | str | None


@np.errstate(all="ignore")
def weights_of(
    model: Model,
    y: Array,
    one_label: bool,
    sample_weight: Any,
    class_weight: ClassWeight,
    name: str,
    scaled: bool = True,
) -> Array | None:
    """The weight of each sample, (n, 1), or of each of its outputs, (n, d_out), `scaled` to a mean of 1; or None.

    y are the targets (n, d_out); `one_label` means that they were labels, one per sample. A class weight applies to the
    samples of that class, in proportion to class probabilities, or for targets of separate outputs (cross-entropy) to
    that output: without normalization, like the `weight` of PyTorch's binary_cross_entropy.
    Raises ValueError and TypeError that name invalid weights.
    """
    if sample_weight is None and class_weight is None:
        return None
    n = y.shape[0]
    weights = np.ones((n, 1))
    if sample_weight is not None:
        weights = checked_weights(sample_weight, n, name)[:, None]
    columns = np.ones(1)
    if class_weight is not None:
        targets = model.backend.to_numpy(y)
        of_class = _class_weights(model, targets, one_label, class_weight, weights[:, 0])
        if one_label or model.cost.domain == "distribution":
            weights = weights * _by_sample(of_class, targets, one_label, model.cost)
        else:
            columns = of_class
    if scaled:
        mean = weights.mean()
        if not np.isfinite(mean):  # their sum is too large for float64
            weights = weights / weights.max()
            mean = weights.mean()
        if mean == 0:
            raise ValueError(f"{name}: all weights are 0; expected one above 0")
        weights = weights / mean
    return model.backend.asarray(weights * columns, model.dtype)


def without_masked(model: Model, y: Array, weights: NDArray[np.float64] | None) -> Array:
    """The targets (n, d_out) of a regression, with those of another sample where the weight (n, 1) is 0.

    The cost of a fill value such as 1e36 would be infinite, and 0 · ∞ is NaN.
    """
    masked = np.zeros(1, bool) if weights is None or model.classifies else weights[:, 0] == 0
    if not masked.any() or masked.all():
        return y
    xp, other = model.backend.xp, int(masked.argmin())
    return xp.where(model.backend.asarray(masked)[:, None], y[other : other + 1, ...], y)


def _class_weights(
    model: Model,
    targets: NDArray[Any],
    one_label: bool,
    class_weight: Mapping[Any, float] | str,
    of_sample: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The weight of each class, (k,)."""
    if not model.classifies and not (one_label and targets.shape[1] > 1):
        raise ValueError(f"class_weight needs labels of several classes, or a cost other than {model.cost.name}")
    count = max(targets.shape[1], 2) if one_label else targets.shape[1]
    names = list(range(count)) if model.classes is None else listed(model.classes)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise unknown_name("class_weight", class_weight, ["balanced"])
        if not one_label:
            raise ValueError("class_weight='balanced' needs labels (n,); for a matrix of targets give a dict")
        return _balanced(model.cost, targets, of_sample, count)
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"class_weight is {class_weight!r}; expected a dict from classes to weights, or 'balanced'")
    weights = np.ones(count)
    for key, value in class_weight.items():
        if key not in names:
            raise ValueError(f"class_weight contains the class {key!r}; expected some of {names}")
        if not isinstance(value, Real) or not 0 <= value <= sys.float_info.max:
            raise ValueError(f"class_weight of {key!r} is {value!r}; expected a finite number of at least 0")
        weights[names.index(key)] = value
    if not weights.any():
        raise ValueError("class_weight: all weights are 0; expected one above 0")
    return weights


def _balanced(cost: Cost, targets: NDArray[Any], of_sample: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Class weights (count,) for equal total weights: a sample of weight 2 counts twice, as if it were repeated."""
    largest = of_sample.max()
    if largest == 0:
        return np.ones(count)
    if cost.domain == "unit" and targets.shape[1] == 1:
        shares = targets[:, 0].astype(np.float64)  # of class 1
        totals = np.stack([1 - shares, shares]) @ (of_sample / largest)
    else:
        totals = np.bincount(_classes_of(targets), of_sample / largest, minlength=count)
    total = totals.sum()
    weights: NDArray[np.float64] = total / (np.count_nonzero(totals) * np.maximum(totals, 1e-300 * total))
    return weights


def _classes_of(targets: NDArray[Any]) -> NDArray[np.int64]:
    column = targets[:, 0] > 0.5 if targets.shape[1] == 1 else np.argmax(targets, axis=1)
    return column.astype(np.int64)


def _by_sample(
    of_class: NDArray[np.float64], targets: NDArray[Any], one_label: bool, cost: Cost
) -> NDArray[np.float64]:
    """Each sample's weight, (n, 1): that of its class, or the mean over its class probabilities."""
    if cost.domain == "unit" and targets.shape[1] == 1:  # the probability of class 1
        targets = np.hstack([1 - targets.astype(np.float64), targets])
    elif one_label:
        return of_class[_classes_of(targets)][:, None]
    return (targets.astype(np.float64) @ of_class)[:, None]
