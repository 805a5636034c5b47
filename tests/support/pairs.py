"""Which output activations have a meaning for a cost, written down: the others are refused."""

from nnkit.kernels.activations import activation_names
from nnkit.kernels.costs import cost_names

EVERY = (*activation_names(), "softmax")
_POSITIVE = ("sigmoid", "softplus", "exponential", "softmax")
_OUTPUTS = {
    "cross_entropy": ("sigmoid", "hard_sigmoid", "softmax"),
    "softmax_cross_entropy": ("softmax",),
    "poisson": (*_POSITIVE, "relu", "hard_sigmoid"),
    "gamma": _POSITIVE,
    "tweedie": _POSITIVE,
    "hinge": tuple(name for name in EVERY if name not in _POSITIVE),
}
PAIRS = [(cost, output) for cost in cost_names() for output in _OUTPUTS.get(cost, EVERY)]
