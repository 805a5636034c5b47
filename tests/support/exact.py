"""The activations in 450 decimal digits, by the standard library's decimal: what the tests measure against."""

import decimal
import functools
from collections.abc import Callable
from decimal import Decimal

import numpy as np

# 450 digits: ln(1 + e^−700) is 10⁻³⁰⁴, and the series of Φ(−40) cancels to 10⁻³⁴⁹. Exponents go to e^(10¹⁰) and below.
CONTEXT = decimal.Context(prec=450, Emax=10**12, Emin=-(10**12))
ONE, HALF = Decimal(1), Decimal("0.5")
SELU_LAMBDA, SELU_ALPHA = Decimal("1.0507009873554804934193349852946"), Decimal("1.6732632423543772848170429916717")


def sigmoid(z: Decimal) -> Decimal:
    return ONE / (ONE + (-z).exp())


def tanh(z: Decimal) -> Decimal:
    e = (-2 * abs(z)).exp()
    return ((ONE - e) / (ONE + e)).copy_sign(z)


@functools.cache
def pi() -> Decimal:
    """π by Machin's formula."""

    def arctan_inverse(x: int) -> Decimal:
        return sum((Decimal((-1) ** k) / ((2 * k + 1) * Decimal(x) ** (2 * k + 1)) for k in range(330)), Decimal(0))

    return 16 * arctan_inverse(5) - 4 * arctan_inverse(239)


def phi(z: Decimal) -> Decimal:
    """Φ by its Taylor series, ½ + φ(z)(z + z³/3 + z⁵/15 + ...); 0 or 1 where e^(−z²/2) is below 10⁻³⁴⁷."""
    if abs(z) > 40:
        return ONE if z > 0 else Decimal(0)
    term, total, k = z, z, 1
    while abs(term) > Decimal("1e-150"):
        k += 2
        term = term * z * z / k
        total += term
    return HALF + (-z * z / 2).exp() / (2 * pi()).sqrt() * total


def gelu_tanh(z: Decimal) -> Decimal:
    return HALF * z * (ONE + tanh((2 / pi()).sqrt() * (z + Decimal("0.044715") * z**3)))


DEFINITIONS: dict[str, Callable[[Decimal], Decimal]] = {
    "identity": lambda z: z,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": lambda z: max(z, Decimal(0)),
    "leaky_relu": lambda z: z if z > 0 else Decimal("0.01") * z,
    "elu": lambda z: z if z > 0 else z.exp() - 1,
    "selu": lambda z: SELU_LAMBDA * (z if z > 0 else SELU_ALPHA * (z.exp() - 1)),
    "gelu": lambda z: z * phi(z),
    "gelu_tanh": gelu_tanh,
    "silu": lambda z: z * sigmoid(z),
    "mish": lambda z: z * tanh((ONE + z.exp()).ln()),
    "softplus": lambda z: z + (ONE + (-z).exp()).ln() if z > 0 else (ONE + z.exp()).ln(),
    "exponential": lambda z: z.exp(),
    "softsign": lambda z: z / (ONE + abs(z)),
    "hard_sigmoid": lambda z: min(max(z / 6 + HALF, Decimal(0)), ONE),
}


@functools.cache
def exact(name: str, z: float) -> tuple[float, float]:
    """The value and the derivative at z. The difference quotient's error is of the order of h² = 10⁻⁶⁰."""
    f, h = DEFINITIONS[name], Decimal("1e-30")
    with decimal.localcontext(CONTEXT):
        x = Decimal(float(z))
        return float(f(x)), float((f(x + h) - f(x - h)) / (2 * h))


def distances(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How far numbers are from those that are wanted: 0 for infinities that are the same, infinite for others."""
    with np.errstate(invalid="ignore"):
        away = np.abs(found.astype(float) - wanted)
    return np.where(found == wanted, 0.0, np.where(np.isfinite(wanted), away, np.inf))


def references(name: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = np.array([exact(name, float(x)) for x in z.ravel()]).reshape(*z.shape, 2)
    return found[..., 0], found[..., 1]
