"""Registration of custom functions as formulas, with checks of their derivatives by the complex step."""

from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.formula import Formula, formula

STEP = 1e-30
_BOUND = 1e-10


def check_new_name(kind: str, name: object, taken: Container[str]) -> None:
    """Raise TypeError if the name is not a string, ValueError if it is taken."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"name is {name!r}; expected a string, the name of the {kind}")
    if name in taken:
        raise ValueError(f"{kind} name {name!r} is taken")


def as_formula(function: object, name: str) -> Formula:
    """Return a formula unchanged, make one with this name from a function; TypeError for anything else."""
    if isinstance(function, Formula):
        return function
    if not callable(function):
        raise TypeError(f"{name} is a {type(function).__name__}; expected a function or a formula")
    made = formula(function)
    made.name = name
    return made


def check_agreement(owner: str, what: str, found: NDArray[Any], exact: NDArray[Any], **points: NDArray[Any]) -> None:
    """Raise ValueError, with the worst point, if two arrays differ by over 10⁻¹⁰ of the largest entry or of 1.

    >>> z = np.array([1.0, 2.0])
    >>> check_agreement("square", "the gradient differs from f′ =", z + 2, 2 * z, z=z)
    Traceback (most recent call last):
    ValueError: square: at z = 1 the gradient differs from f′ = 2 by 1
    """
    with np.errstate(all="ignore"):  # such as inf − inf
        error = np.abs(found - exact)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)  # argmax prefers NaN
    if not error[worst] <= _BOUND * max(1.0, float(np.max(np.abs(exact)))):
        at = ", ".join(f"{name} = {values[worst]:.4g}" for name, values in points.items())
        raise ValueError(f"{owner}: at {at} {what} {exact[worst]:.6g} by {error[worst]:.2g}")


def check_cost(name: str, terms: Formula, delta: Formula, h: NDArray[Any], y: NDArray[Any]) -> None:
    """Raise ValueError unless delta is the derivative of the terms by h, at outputs h, targets y and several scales."""
    owner, one, scale = f"cost {name!r}", np.ones_like(h), np.linspace(1, 3, h.size).reshape(h.shape)
    step = terms(h + STEP * 1j, y + 0j, one + 0j).imag / STEP
    what = "delta differs from scale · ∂f/∂h ="
    check_agreement(owner, what, delta(h, y, scale), scale * step, h=h, y=y, scale=scale)
    what = "the terms are not multiplied by scale: they differ from"
    check_agreement(owner, what, terms(h, y, scale), scale * terms(h, y, one), h=h, y=y, scale=scale)
