"""Smooth activations with their gradient kernels: GELU (exact and by tanh), SiLU, softplus and the exponential.

All but the last are related to ReLU. GELU and SiLU are not monotonic, so their derivatives are not functions of the
output: their gradient kernels take the saved pre-activation z = h̄ instead. Arrays may have any shape and are float16,
bfloat16, float32 or float64; results have the operands' dtype. `out` receives the result and may be one of the
operands. Raises TypeError for another dtype, ValueError for shapes that do not broadcast.
"""

import math
from typing import Any

from nnkit.backends.formula import formula

_MAP = 5.0
_POWERS = (  # coefficients of the powers of s, the constant first
    0.1538386099500125,
    0.13307650057801357,
    0.09906112319401422,
    0.06270663133409482,
    0.033004073233313946,
    0.01382372774495829,
    0.004159013371958206,
    0.0005986753159936601,
    -0.0001595739760406926,
    -0.0001089795938532396,
    -1.1874695374551138e-05,
    9.951790245059091e-06,
    3.334942057572293e-06,
    -7.944255950769179e-07,
    -5.514807821171256e-07,
    6.471542988396613e-08,
    8.394135902952392e-08,
    -5.973650280642188e-09,
    -1.1431400798773756e-08,
    4.742201499568934e-10,
    9.910260041502261e-10,
)
_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)


def normal_pdf(xp: Any, z: Any) -> Any:
    """φ(z) = e^(−z²/2)/√(2π), the normal density; for use in formulas."""
    return _DENSITY_AT_0 * xp.exp(-0.5 * z**2)


def normal_cdf(xp: Any, z: Any) -> Any:
    """Φ(z), the normal distribution function, with full relative accuracy in the left tail; for use in formulas."""
    t = _MAP / (_MAP + xp.abs(z))
    s = 2 * t - 1
    polynomial: Any = _POWERS[-1]
    for coefficient in reversed(_POWERS[:-1]):
        polynomial = polynomial * s + coefficient
    tail = t * polynomial * xp.exp(-0.5 * z**2)
    return xp.where(z < 0, tail, 1 - tail)


_GELU_SLOPE = math.sqrt(2 / math.pi)  # Hendrycks and Gimpel, arXiv:1606.08415, eq. 2
_GELU_CUBIC = 0.044715


@formula
def gelu(xp: Any, z: Any) -> Any:
    """z Φ(z) with the normal distribution function Φ (Hendrycks and Gimpel, 2016); z: logits of any shape.

    >>> nnkit.gelu(np.array([-100.0, 0.0, 1.0])).round(6)
    array([-0.      ,  0.      ,  0.841345])
    """
    return z * normal_cdf(xp, z)


@formula
def gelu_grad(xp: Any, z: Any, delta: Any) -> Any:
    """δh̄ = (Φ(z) + z φ(z)) ⊙ Δ (eq. 8); z: the saved pre-activation h̄, delta: Δ.

    >>> nnkit.gelu_grad(np.array([0.0]), np.array([2.0]))
    array([1.])
    """
    return delta * (normal_cdf(xp, z) + z * normal_pdf(xp, z))


@formula
def gelu_tanh(xp: Any, z: Any) -> Any:
    """½ z (1 + tanh(√(2/π)(z + 0.044715 z³))), near gelu (Hendrycks and Gimpel, 2016); z: logits of any shape.

    >>> nnkit.gelu_tanh(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.841192])
    """
    return 0.5 * z * (1 + xp.tanh(_GELU_SLOPE * (z + _GELU_CUBIC * z**3)))


@formula
def gelu_tanh_grad(xp: Any, z: Any, delta: Any) -> Any:
    """δh̄ = (½(1 + t) + ½ z (1 − t²) √(2/π)(1 + 0.134145 z²)) ⊙ Δ, t = tanh(…) as in gelu_tanh (eq. 8); z: h̄, delta: Δ.

    >>> nnkit.gelu_tanh_grad(np.array([0.0]), np.array([2.0]))
    array([1.])
    """
    t = xp.tanh(_GELU_SLOPE * (z + _GELU_CUBIC * z**3))
    z = xp.minimum(xp.maximum(z, -20.0), 20.0)  # beyond, 1 − t² is 0 in every dtype, and z² may overflow
    slope = _GELU_SLOPE * (1 + 3 * _GELU_CUBIC * z**2)
    return delta * (0.5 * (1 + t) + 0.5 * z * (1 - t**2) * slope)


@formula
def silu(xp: Any, z: Any) -> Any:
    """z σ(z), also called swish (Hendrycks and Gimpel, 2016); z: logits of any shape.

    >>> nnkit.silu(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.731059])
    """
    return z / (1 + xp.exp(-z))


@formula
def silu_grad(xp: Any, z: Any, delta: Any) -> Any:
    """δh̄ = σ(z)(1 + z(1 − σ(z))) ⊙ Δ (eq. 8); z: the saved pre-activation h̄, delta: Δ.

    >>> nnkit.silu_grad(np.array([0.0]), np.array([2.0]))
    array([1.])
    """
    s = 1 / (1 + xp.exp(-z))
    return delta * s * (1 + z * (1 - s))


def _mish_parts(xp: Any, z: Any) -> tuple[Any, Any, Any]:
    """t = tanh(ln(1 + eᶻ)), 1 − t without cancellation, and σ(z), by a = e^−|z| without overflow."""
    a = xp.exp(-xp.abs(z))
    positive = z > 0
    share, rest = xp.where(positive, 1 + 2 * a, a * (a + 2)), xp.where(positive, 2 * a * a, 2.0)
    return share / (share + rest), rest / (share + rest), xp.where(positive, 1.0, a) / (1 + a)


@formula
def mish(xp: Any, z: Any) -> Any:
    """z tanh(ln(1 + eᶻ)) (Misra, BMVC 2020); z: logits of any shape.

    >>> nnkit.mish(np.array([-100.0, 0.0, 1.0])).round(6)
    array([-0.      ,  0.      ,  0.865098])
    """
    t, _, _ = _mish_parts(xp, z)
    return z * t


@formula
def mish_grad(xp: Any, z: Any, delta: Any) -> Any:
    """δh̄ = (t + z (1 − t²) σ(z)) ⊙ Δ with t = tanh(ln(1 + eᶻ)) (eq. 8); z: the saved pre-activation h̄, delta: Δ.

    >>> nnkit.mish_grad(np.array([0.0]), np.array([2.0]))
    array([1.2])
    """
    t, rest, s = _mish_parts(xp, z)
    return delta * (t + z * s * rest * (1 + t))


@formula
def softplus(xp: Any, z: Any) -> Any:
    """ln(1 + eᶻ) = max(z, 0) + ln(1 + e^−|z|), finite for any z (Dugas et al., NIPS 2000); z: logits of any shape.

    >>> nnkit.softplus(np.array([-1000.0, 0.0, 10.0])).round(6)
    array([ 0.      ,  0.693147, 10.000045])
    """
    return xp.maximum(z, 0.0) + xp.log1p(xp.exp(-xp.abs(z)))


@formula
def softplus_grad(xp: Any, h: Any, delta: Any) -> Any:
    """δh̄ = σ(z) ⊙ Δ = (1 − e⁻ʰ) ⊙ Δ (eq. 8); h: the saved output softplus(h̄), delta: Δ.

    >>> nnkit.softplus_grad(np.array([0.0, np.log(2.0)]), np.array([1.0, 1.0])).round(6)
    array([0. , 0.5])
    """
    return -xp.expm1(-h) * delta


@formula
def exponential(xp: Any, z: Any) -> Any:
    """The exponential eᶻ, for positive outputs such as the mean of counts; z: logits of any shape.

    Infinite above 709 in float64, 88 in float32.

    >>> nnkit.exponential(np.array([-1000.0, 0.0, np.log(2.0)]))
    array([0., 1., 2.])
    """
    return xp.exp(z)


@formula
def exponential_grad(xp: Any, h: Any, delta: Any) -> Any:
    """δh̄ = h ⊙ Δ, since f′ = f (eq. 8); h: the saved output e^h̄, delta: Δ.

    >>> nnkit.exponential_grad(np.array([0.5, 2.0]), np.array([2.0, 2.0]))
    array([1., 4.])
    """
    return h * delta
