"""Regression costs: the term of each output h with target y, and its derivative Δ by h (eq. 3, 4).

The formulas take h, or the logits z of the paired activation, y and `scale`, the weight of each sample in the
mean; the cost is the sum of the terms over outputs and samples. The functions `quadratic`, `quadratic_delta` and so on
are for custom training loops, with arguments as in `nnkit.kernels.cost.mean_cost`. PyTorch and Keras take the mean over
outputs: their values are these divided by d_out.
"""

import math
from typing import Any

from nnkit.backends.base import Array
from nnkit.backends.formula import formula
from nnkit.kernels.cost import Cost, mean_cost, mean_delta

_LN2 = math.log(2)


@formula
def quadratic_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """½ (y − h)² · scale (eq. 3)."""
    return 0.5 * (y - h) ** 2 * scale


@formula
def quadratic_delta_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = (h − y) · scale (eq. 4)."""
    return (h - y) * scale


QUADRATIC = Cost("quadratic", quadratic_terms, quadratic_delta_terms, "identity", False)


def quadratic(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of ½ Σₖ (y − h)² (eq. 3), of outputs h.

    >>> float(nnkit.quadratic(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])))
    2.5
    """
    return mean_cost(QUADRATIC, h, y, scale)


def quadratic_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = (h − y)/n (eq. 4), of outputs h.

    >>> nnkit.quadratic_delta(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([[1., 2.]])
    """
    return mean_delta(QUADRATIC, h, y, scale)


@formula
def mean_absolute_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """|y − h| · scale."""
    return xp.abs(h - y) * scale


@formula
def mean_absolute_delta_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = sign(h − y) · scale; 0 where h = y, so that an exact output is not changed."""
    return xp.sign(h - y) * scale


MEAN_ABSOLUTE = Cost("mean_absolute", mean_absolute_terms, mean_absolute_delta_terms, "identity", False)


def mean_absolute(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ |y − h|, of outputs h.

    >>> float(nnkit.mean_absolute(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])))
    3.0
    """
    return mean_cost(MEAN_ABSOLUTE, h, y, scale)


def mean_absolute_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = sign(h − y)/n, of outputs h; 0 where h = y, as in PyTorch.

    >>> nnkit.mean_absolute_delta(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
    array([[0., 1.]])
    """
    return mean_delta(MEAN_ABSOLUTE, h, y, scale)


@formula
def huber_terms(xp: Any, h: Any, y: Any, scale: Any, delta: float = 1.0) -> Any:
    """½ r² · scale where r = |y − h| ≤ δ, else δ (r − ½δ) · scale (Huber 1964): both are c (r − ½c), c = min(r, δ)."""
    r = xp.abs(h - y)
    c = xp.minimum(r, delta)
    return c * (r - 0.5 * c) * scale


@formula
def huber_delta_terms(xp: Any, h: Any, y: Any, scale: Any, delta: float = 1.0) -> Any:
    """Δ = min(max(h − y, −δ), δ) · scale."""
    return xp.minimum(xp.maximum(h - y, -delta), delta) * scale


HUBER = Cost("huber", huber_terms, huber_delta_terms, "identity", False)


def huber(h: Array, y: Array, scale: Any = None, *, delta: float = 1.0) -> Array:
    """C = mean over the samples of Σₖ ½ r² where r = |y − h| ≤ δ, else δ (r − ½δ) (Huber 1964), of outputs h; δ > 0.

    >>> float(nnkit.huber(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])))
    2.0
    """
    return mean_cost(HUBER.with_options(delta=delta), h, y, scale)


def huber_delta(h: Array, y: Array, scale: Any = None, *, delta: float = 1.0) -> Array:
    """Δ = ∂C/∂h = min(max(h − y, −δ), δ)/n, of outputs h; δ > 0.

    >>> nnkit.huber_delta(np.array([[0.5, 3.0]]), np.array([[0.0, 1.0]]))
    array([[0.5, 1. ]])
    """
    return mean_delta(HUBER.with_options(delta=delta), h, y, scale)


@formula
def log_cosh_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """ln cosh(h − y) · scale, finite for any argument and accurate to rounding near 0.

    With r = |h − y| and e = e⁻ʳ − 1, cosh r = 1 + ½e²/(1 + e), without cancellation, = eʳ (1 + (1 + e)²)/2, without
    overflow.
    """
    r = xp.abs(h - y)
    e = xp.expm1(-r)
    return xp.where(r < 1, xp.log1p(0.5 * e**2 / (1 + e)), r + xp.log1p((1 + e) ** 2) - _LN2) * scale


@formula
def log_cosh_delta_terms(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = tanh(h − y) · scale."""
    return xp.tanh(h - y) * scale


LOG_COSH = Cost("log_cosh", log_cosh_terms, log_cosh_delta_terms, "identity", False)


def log_cosh(h: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ ln cosh r, r = h − y, of outputs h: near ½ r² for small r, |r| − ln 2 for large.

    >>> float(nnkit.log_cosh(np.array([[1e-4]]), np.array([[0.0]])).round(12))
    5e-09
    """
    return mean_cost(LOG_COSH, h, y, scale)


def log_cosh_delta(h: Array, y: Array, scale: Any = None) -> Array:
    """Δ = ∂C/∂h = tanh(h − y)/n, of outputs h.

    >>> nnkit.log_cosh_delta(np.array([[1.0, 1e4]]), np.array([[1.0, 1.0]]))
    array([[0., 1.]])
    """
    return mean_delta(LOG_COSH, h, y, scale)


@formula
def poisson_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """(h − y ln h) · scale, with 0 · ln 0 = 0: −ln of the Poisson distribution with mean h at y, minus ln y!."""
    return (h - xp.where(y == 0, 0.0, y * xp.log(h))) * scale


@formula
def poisson_delta_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = (1 − y/h) · scale."""
    return (1 - xp.where(y == 0, 0.0, y / h)) * scale


@formula
def poisson_terms(xp: Any, z: Any, y: Any, scale: Any) -> Any:
    """(eᶻ − yz) · scale, the Poisson cost of h = eᶻ."""
    return (xp.exp(z) - y * z) * scale


@formula
def poisson_delta_terms(xp: Any, z: Any, y: Any, scale: Any) -> Any:
    """δh̄ = (eᶻ − y) · scale, of the form of eq. 19."""
    return (xp.exp(z) - y) * scale


POISSON = Cost(
    "poisson", poisson_of_outputs, poisson_delta_of_outputs, "exponential", False, "nonnegative",
    from_logits=(poisson_terms, poisson_delta_terms),
)  # fmt: skip


def poisson(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ (h − y ln h) with h = e^logits, for counts y of at least 0.

    −ln of the Poisson distribution with mean h at y, without ln y!, which does not depend on the parameters.

    >>> float(nnkit.poisson(np.array([[0.0, -1e4]]), np.array([[1.0, 2.0]])))
    20001.0
    """
    return mean_cost(POISSON, logits, y, scale)


def poisson_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (e^logits − y)/n, of the form of eq. 19.

    >>> nnkit.poisson_delta(np.array([[0.0, -1e4]]), np.array([[3.0, 2.0]]))
    array([[-2., -2.]])
    """
    return mean_delta(POISSON, logits, y, scale)


@formula
def quantile_terms(xp: Any, h: Any, y: Any, scale: Any, q: float = 0.5) -> Any:
    """max(q (y − h), (q − 1)(y − h)) · scale (Koenker and Bassett, Econometrica 1978)."""
    return xp.maximum(q * (y - h), (q - 1) * (y - h)) * scale


@formula
def quantile_delta_terms(xp: Any, h: Any, y: Any, scale: Any, q: float = 0.5) -> Any:
    """Δ = −q · scale below the target, (1 − q) · scale above; 0 where h = y, so that an exact output is not changed."""
    return xp.where(h < y, -q, xp.where(h > y, 1 - q, h - y)) * scale


QUANTILE = Cost("quantile", quantile_terms, quantile_delta_terms, "identity", False, ranges=(("q", 0.0, 1.0),))


def quantile(h: Array, y: Array, scale: Any = None, *, q: float = 0.5) -> Array:
    """C = mean over the samples of Σₖ q (y − h) where h ≤ y, else (1 − q)(h − y), of outputs h; 0 < q < 1.

    The outputs become the q-quantile of the targets, such as the upper end of an interval with q = 0.95. scikit-learn's
    `mean_pinball_loss` with `alpha=q`.

    >>> float(nnkit.quantile(np.array([[1.0, 3.0]]), np.array([[2.0, 1.0]]), q=0.75))
    1.25
    """
    return mean_cost(QUANTILE.with_options(q=q), h, y, scale)


def quantile_delta(h: Array, y: Array, scale: Any = None, *, q: float = 0.5) -> Array:
    """Δ = ∂C/∂h: −q/n below the target, (1 − q)/n above, of outputs h; 0 < q < 1.

    >>> nnkit.quantile_delta(np.array([[1.0, 3.0]]), np.array([[2.0, 1.0]]), q=0.75)
    array([[-0.75,  0.25]])
    """
    return mean_delta(QUANTILE.with_options(q=q), h, y, scale)


@formula
def gamma_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """(y/h + ln h) · scale: −ln of the gamma distribution with mean h at y, up to its shape and terms of y alone."""
    return (y / h + xp.log(h)) * scale


@formula
def gamma_delta_of_outputs(xp: Any, h: Any, y: Any, scale: Any) -> Any:
    """Δ = (1 − y/h)/h · scale."""
    return (1 - y / h) / h * scale


@formula
def gamma_terms(xp: Any, z: Any, y: Any, scale: Any) -> Any:
    """(y e⁻ᶻ + z) · scale, the gamma cost of h = eᶻ."""
    return (y * xp.exp(-z) + z) * scale


@formula
def gamma_delta_terms(xp: Any, z: Any, y: Any, scale: Any) -> Any:
    """δh̄ = (1 − y e⁻ᶻ) · scale."""
    return (1 - y * xp.exp(-z)) * scale


GAMMA = Cost(
    "gamma", gamma_of_outputs, gamma_delta_of_outputs, "exponential", False, "positive",
    from_logits=(gamma_terms, gamma_delta_terms),
)  # fmt: skip


def gamma(logits: Array, y: Array, scale: Any = None) -> Array:
    """C = mean over the samples of Σₖ (y/h + ln h) with h = e^logits, for positive amounts y, such as costs of claims.

    Half the gamma deviance (McCullagh and Nelder 1989) without its terms of y alone.

    >>> float(nnkit.gamma(np.array([[0.0, 0.0]]), np.array([[1.0, 2.0]])))
    3.0
    """
    return mean_cost(GAMMA, logits, y, scale)


def gamma_delta(logits: Array, y: Array, scale: Any = None) -> Array:
    """δh̄ = ∂C/∂logits = (1 − y e^−logits)/n.

    >>> nnkit.gamma_delta(np.array([[0.0, 0.0]]), np.array([[1.0, 2.0]]))
    array([[ 0., -1.]])
    """
    return mean_delta(GAMMA, logits, y, scale)


@formula
def tweedie_of_outputs(xp: Any, h: Any, y: Any, scale: Any, power: float = 1.5) -> Any:
    """(h^(2 − p)/(2 − p) + y h^(1 − p)/(p − 1)) · scale."""
    return (h ** (2 - power) / (2 - power) + y * h ** (1 - power) / (power - 1)) * scale


@formula
def tweedie_delta_of_outputs(xp: Any, h: Any, y: Any, scale: Any, power: float = 1.5) -> Any:
    """Δ = (h − y) h⁻ᵖ · scale."""
    return (h - y) * h**-power * scale


@formula
def tweedie_terms(xp: Any, z: Any, y: Any, scale: Any, power: float = 1.5) -> Any:
    """(e^((2 − p)z)/(2 − p) + y e^((1 − p)z)/(p − 1)) · scale, the Tweedie cost of h = eᶻ."""
    amount = xp.where(y == 0, 0.0, y * xp.exp((1 - power) * z))  # also where the exponential overflows
    return (xp.exp((2 - power) * z) / (2 - power) + amount / (power - 1)) * scale


@formula
def tweedie_delta_terms(xp: Any, z: Any, y: Any, scale: Any, power: float = 1.5) -> Any:
    """δh̄ = (e^((2 − p)z) − y e^((1 − p)z)) · scale."""
    return (xp.exp((2 - power) * z) - xp.where(y == 0, 0.0, y * xp.exp((1 - power) * z))) * scale


TWEEDIE = Cost(
    "tweedie", tweedie_of_outputs, tweedie_delta_of_outputs, "exponential", False, "nonnegative",
    from_logits=(tweedie_terms, tweedie_delta_terms), ranges=(("power", 1.0, 2.0),),
)  # fmt: skip


def tweedie(logits: Array, y: Array, scale: Any = None, *, power: float = 1.5) -> Array:
    """C = mean over the samples of Σₖ (h^(2 − p)/(2 − p) + y h^(1 − p)/(p − 1)), h = e^logits, y ≥ 0 and 1 < p < 2.

    For sums of amounts that are often 0, such as claims of a year. Half the Tweedie deviance (Jørgensen 1987) without
    its terms of y alone; `power`, p, is near 1 for counts and near 2 for gamma-like amounts.

    >>> float(nnkit.tweedie(np.array([[0.0, 0.0]]), np.array([[1.0, 2.0]])))
    10.0
    """
    return mean_cost(TWEEDIE.with_options(power=power), logits, y, scale)


def tweedie_delta(logits: Array, y: Array, scale: Any = None, *, power: float = 1.5) -> Array:
    """δh̄ = ∂C/∂logits = (h^(2 − p) − y h^(1 − p))/n with h = e^logits.

    >>> nnkit.tweedie_delta(np.array([[0.0, 0.0]]), np.array([[1.0, 2.0]]))
    array([[ 0., -1.]])
    """
    return mean_delta(TWEEDIE.with_options(power=power), logits, y, scale)


COSTS = (QUADRATIC, MEAN_ABSOLUTE, HUBER, LOG_COSH, QUANTILE, POISSON, GAMMA, TWEEDIE)
