"""The normal distribution for GELU, written out because the array API standard has no error function.

For a = |z|, Φ(−a) = t P(s) e^(−a²/2) with t = 5/(5 + a) and s = 2t − 1, where P is smooth on [−1, 1]. Its Chebyshev
expansion to degree 20 was computed with 60 digits and rearranged into powers of s. The relative error of Φ is 2·10⁻¹⁵
for |z| < 5 and stays below 10⁻¹⁴ down to z = −12, where the rounding of a²/2 in the exponential dominates.
"""

import math
from typing import Any

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
