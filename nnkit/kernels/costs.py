"""The costs by name, with the term of each output and the allowed targets.

name                   terms                            output       targets
quadratic              ½ (y − h)²            (eq. 3)    identity     any
mean_absolute          |y − h|                          identity     any
huber                  ½ (y − h)² up to δ, then linear  identity     any
log_cosh               ln cosh(y − h)                   identity     any
quantile               max(q (y − h), (q − 1)(y − h))   identity     any
poisson                h − y ln h                       exponential  at least 0
gamma                  y/h + ln h                       exponential  above 0
tweedie                h^(2−p)/(2−p) + y h^(1−p)/(p−1)  exponential  at least 0
cross_entropy          −[y ln h + (1 − y) ln(1 − h)]    sigmoid      in [0, 1]         (eq. 18)
softmax_cross_entropy  −y ln h                          softmax      of sum 1
hinge                  max(0, 1 − (2y − 1)h)            identity     in [0, 1]

A cost is the sum of its terms over outputs and their mean over samples. PyTorch and Keras also divide all but
softmax_cross_entropy by the number of outputs. At a kink, Δ is the left derivative, as in the activations' kernels, but
0 for |y − h|.
"""

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from nnkit.backends.formula import Formula, as_formula
from nnkit.checks import check_agreement, check_new_name, flag, named
from nnkit.kernels import classification, regression
from nnkit.kernels.activations import get_activation
from nnkit.kernels.cost import Cost as Cost
from nnkit.kernels.softmax import softmax

_costs = {cost.name: cost for cost in (*regression.COSTS, *classification.COSTS)}
_DEFAULTS = {"sigmoid": "cross_entropy", "softmax": "softmax_cross_entropy"}  # by output activation


def cost_names() -> list[str]:
    """The valid names for `cost=`."""
    return list(_costs)


def get_cost(name: str | Cost, *, label_smoothing: float | None = None, **constants: float) -> Cost:
    """The cost with this name, constants and label smoothing; a Cost keeps its values for those not given.

    Constants: `delta` of huber (1.0), positive, where its square becomes linear; `q` of quantile (0.5), in (0, 1);
    `power` of tweedie (1.5), in (1, 2). Label smoothing is for cross_entropy
    and softmax_cross_entropy. Raises ValueError for an unknown name, with the closest one, an unknown constant, and
    numbers out of range; TypeError if a value is not a number.

    >>> nnkit.get_cost("cross_entropy").output
    'sigmoid'
    >>> net = nnkit.Network([4, 8, 1], cost=nnkit.get_cost("huber", delta=2.0))
    """
    if not isinstance(name, Cost):
        name = named("cost", name, _costs)
    return name if label_smoothing is None and not constants else name.with_options(label_smoothing, **constants)


def default_cost(outputs: int, activation: str | None = None) -> Cost:
    """The default cost of a network, for classification, from the number of outputs or the output activation.

    Sigmoid goes with cross_entropy, with independent outputs (eq. 18, 19), and softmax with softmax_cross_entropy. The
    default activation is softmax, for exclusive classes, and sigmoid for a single output. Raises ValueError for other
    activations, which do not determine a cost.

    >>> default_cost(10).name, default_cost(1).name, default_cost(10, "sigmoid").name
    ('softmax_cross_entropy', 'cross_entropy', 'cross_entropy')
    """
    activation = activation or ("sigmoid" if outputs == 1 else "softmax")
    if activation not in _DEFAULTS:
        get_activation(activation)  # for an unknown name
        raise ValueError(
            f"cost is None, and the output activation is {activation!r}; expected a cost as well, "
            "such as cost='quadratic' for real numbers"
        )
    return _costs[_DEFAULTS[activation]]


def register_cost(
    name: str,
    terms: Formula | object,
    delta: Formula | object,
    output: str = "identity",
    classifies: bool = False,
    threshold: float | None = None,
) -> Cost:
    """Register a custom cost: formulas f(xp, h, y, scale), whose sum is the cost, and g(xp, h, y, scale) = ∂f/∂h.

    `output` is the default activation of the output layer; `classifies` says that targets are classes, 0 or 1. Both
    formulas include the factor `scale`, the weight of each sample in the mean; further arguments with a default are
    positive constants for `get_cost`. The pair is checked at possible values of `output` (targets 0, 1 and ¼ if it
    classifies) and several scales: g must agree with the complex-step derivative of f to 1e-10.

    A single output above `threshold` is class 1. None is ½ for sigmoid and softmax outputs and for costs in which the
    classes change places with h and 1 − h, such as (h − y)², and 0 if they do with h and −h, as for margins; other
    costs need a number. Networks and their copies keep the cost, files and pickles its name: where another one has the
    name when they are read, they compute that.
    Raises ValueError if the formulas disagree, the name is taken, the output unknown or the threshold missing.

    >>> pinball = nnkit.register_cost(
    ...     "pinball",
    ...     lambda xp, h, y, scale, quantile=0.5: xp.maximum(quantile * (y - h), (quantile - 1) * (y - h)) * scale,
    ...     lambda xp, h, y, scale, quantile=0.5: xp.where(h <= y, -quantile * scale, (1 - quantile) * scale))
    >>> net = nnkit.Network([2, 3, 1], cost=nnkit.get_cost("pinball", quantile=0.9), seed=0)
    >>> nnkit.unregister_cost("pinball")
    """
    check_new_name("cost", name, _costs)
    classifies = flag("", "classifies", classifies)
    if threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, Real) or not np.isfinite(threshold):
            raise TypeError(f"threshold is {threshold!r}; expected a finite number")
        if not classifies:
            raise TypeError(f"threshold is {threshold}, which has no effect unless classifies is True; leave it out")
    made = Cost(name, as_formula(terms, name), as_formula(delta, f"{name}_delta"), output, classifies)
    if made.terms.defaults != made.delta.defaults:
        both = f"{made.terms.defaults} and {made.delta.defaults}"
        raise ValueError(f"cost {name!r}: the formulas have the constants {both}; expected the same")
    z = np.linspace(-2, 2, 42).reshape(14, 3) ** 3 / 2  # in [−4, 4]; unequal spacing, as softmax is invariant to shifts
    h = softmax(z) if isinstance(output, str) and output == "softmax" else get_activation(output).forward(z)
    # Targets are the reversed outputs, which avoids h = y, the usual kink.
    _check(name, made.terms, made.delta, h, np.resize([0.0, 1.0, 0.25], h.shape) if classifies else h[::-1])
    if classifies:
        made = replace(made, threshold=_threshold(made, h) if threshold is None else float(threshold))
    _costs[name] = made
    return made


def _threshold(cost: Cost, h: Any) -> float:
    """The decision threshold of a classifying cost, from its symmetry at outputs h; ValueError if it has none."""
    if cost.output in ("sigmoid", "softmax"):
        return 0.5
    one, zero = np.ones_like(h), np.zeros_like(h)
    for threshold in (0.0, 0.5):
        if np.allclose(cost.terms(h, one, one), cost.terms(2 * threshold - h, zero, one), rtol=1e-9, atol=1e-12):
            return threshold
    raise ValueError(
        f"cost {cost.name!r}: threshold is missing, and does not follow from the formula; expected the output above "
        "which a sample is of class 1, such as threshold=0.5 for probabilities or 0.0 for margins"
    )


def _check(name: str, terms: Formula, delta: Formula, h: np.ndarray, y: np.ndarray) -> None:
    """Raise ValueError unless delta is the derivative of the terms by h, at outputs h, targets y and several scales."""
    owner, one, scale = f"cost {name!r}", np.ones_like(h), np.linspace(1, 3, h.size).reshape(h.shape)
    step = terms(h + 1e-30j, y + 0j, one + 0j).imag / 1e-30
    what = "delta differs from scale · ∂f/∂h ="
    check_agreement(owner, what, delta(h, y, scale), scale * step, h=h, y=y, scale=scale)
    what = "the terms are not multiplied by scale: they differ from"
    check_agreement(owner, what, terms(h, y, scale), scale * terms(h, y, one), h=h, y=y, scale=scale)


def unregister_cost(name: str) -> None:
    """Remove a cost; KeyError if there is no cost with this name."""
    del _costs[name]
