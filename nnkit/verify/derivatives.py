"""Derivatives of any function by the complex step: f′(x) = Im f(x + ih)/h, exact to rounding.

It has no cancellation, so h may be tiny (Squire and Trapp, SIAM Review 40, 1998). Gradients are checked against it.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.checks import check_finite, unknown_name
from nnkit.inputs import on_host

STEP = 1e-30  # any h far below the square root of the smallest number of interest
_METHODS = ("complex", "central")
_ROOT = float(np.finfo(np.float64).eps) ** (1 / 3)  # the step of the central difference with the smallest error
_SURE, _SEEN = 1e-10, 1e-7  # relative differences of the two methods: those that mean nothing, and those looked for
_AGREE = 1e-5  # relative tolerance between two central differences; in float32 they differ by about 10⁻²
_SMALL = 1e-8  # where the derivative is 0, such as that of a³ at 0, they differ by the square of the step
_PROBES = (1e-5, 1e-7, 1e-9)


def derivative(
    function: Callable[[NDArray[Any]], Any], at: ArrayLike, *, method: Literal["complex", "central"] = "complex"
) -> NDArray[np.float64]:
    """∂f/∂a for each entry a of an array: checks hand-written gradients, as `check_gradients` does for networks.

    Args:
        function: a function of an array of the shape of `at`, new in each call, that returns one number; computed on
            NumPy. nnkit's kernels and NumPy's analytic functions accept complex arrays; so does np.maximum(z, 0).
        at: the point, a real and finite number or array of any shape and backend.
        method: "complex" calls the function once per entry with h = 10⁻³⁰ i added to it. It is exact to rounding, but
            the function must be analytic near `at`. "central" is (f(a + h) − f(a − h))/2h, h = 6 · 10⁻⁶ max(1, |a|),
            for any function computed in float64. Its error is h²/6 times the third derivative, 10⁻¹¹ of that for
            |a| ≤ 1 and a² times as much beyond, and 10⁻¹¹ of the function's value, whose rounding is divided by h:
            subtract a large constant.

    Returns the derivatives in float64, in the shape of `at`. The complex step is compared with a central difference in
    one direction, which sees what is missing from about 10⁻⁷ of the function's value and slope on. Raises ValueError if
    they disagree, for example because np.abs or a comparison drops the imaginary part or `at` is a kink, if "central"
    differs with h/2 by more than 10⁻⁵ of the largest derivative and 10⁻⁸, for example for 1/a at 10⁻⁴, or the function
    returns float32, or if it does not return one finite number; TypeError if `function` is not callable or `at` does
    not contain real numbers.

    >>> nnkit.derivative(lambda x: np.sum(np.sin(x)), [0.0, 1.0]) - np.cos([0.0, 1.0])
    array([0., 0.])
    >>> x, y = np.array([[1.0, 2.0]]), np.array([[0.5]])
    >>> nnkit.derivative(lambda W: np.sum((y - np.tanh(x @ W.T)) ** 2) / 2, np.array([[0.1, 0.2]])).round(6)
    array([[-0.029793, -0.059586]])
    """
    if not callable(function):
        raise TypeError(f"function is {function!r}; expected a function of an array that returns a number")
    if not isinstance(method, str) or method not in _METHODS:
        raise unknown_name("method", method, _METHODS)
    point = _checked_point(at)
    if method == "central":
        return _central(function, point)
    value = _number(function(point.copy()))
    try:
        found = np.fromiter(
            complex_steps(function, point, range(point.size), check=True), np.float64, count=point.size
        ).reshape(point.shape)
    except TypeError as error:  # from math.sin, float and if
        error.add_note("the complex step calls the function with complex numbers; method='central' does not")
        raise
    _compare(function, point, found, abs(value))
    return found


def complex_steps(
    function: Callable[[NDArray[Any]], Any], at: NDArray[Any], entries: Iterable[int], check: bool = False
) -> Iterable[float]:
    """The derivatives by these entries of an array, numbered in C order.

    The step is negative, so that the derivative at a kink is the left one, as in the kernels. With `check`, each call
    gets a new array, and a real result raises ValueError.
    """
    point = np.array(at, complex, order="C")
    flat = point.reshape(-1)
    for entry in entries:
        kept = flat[entry]
        flat[entry] -= 1j * STEP
        value = function(point.copy() if check else point)
        flat[entry] = kept
        if check and np.asarray(value).dtype.kind != "c":
            raise ValueError(
                "function returns a real number for a complex array; expected a complex number: np.abs or a cast in it "
                "may drop the imaginary part; use method='central'"
            )
        yield float(-(_number(value) if check else value).imag / STEP)


def _checked_point(at: ArrayLike) -> NDArray[np.float64]:
    try:
        array = np.asarray(on_host(at))
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"at: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"at has dtype {array.dtype}; expected real numbers")
    point = np.array(array, np.float64, order="C")
    check_finite(point, "at")
    return point


def _number(value: Any) -> Any:
    """Convert the result of a function to a Python number."""
    array = np.asarray(on_host(value))
    if array.size != 1 or array.dtype.kind not in "biufc":
        raise ValueError(f"function returns {value!r}; expected one number")
    number = array.reshape(()).item()
    if not np.isfinite(number):
        raise ValueError(f"function returns {number}; expected a finite number")
    return number


def _central(function: Callable[[NDArray[Any]], Any], at: NDArray[np.float64]) -> NDArray[np.float64]:
    found, halved, rounding = np.empty(at.shape), np.empty(at.shape), np.empty(at.shape)
    for index in np.ndindex(at.shape):
        step = _ROOT * max(1.0, abs(float(at[index])))
        found[index], size = _quotient(function, at, index, step)
        halved[index], _ = _quotient(function, at, index, step / 2)
        rounding[index] = 1e3 * np.finfo(np.float64).eps * size / step
    allowed = _AGREE * np.max(np.abs(found), initial=0.0) + rounding + _SMALL
    for index in np.ndindex(at.shape):
        if not abs(found[index] - halved[index]) <= allowed[index]:
            raise ValueError(
                f"function: central differences with h and h/2 disagree at {list(index)}, {found[index]:.6g} and "
                f"{halved[index]:.6g}: it varies too much over a ± h, or is not computed in float64"
            )
    return found


def _quotient(
    function: Callable[[NDArray[Any]], Any], at: NDArray[np.float64], index: tuple[int, ...], step: float
) -> tuple[float, float]:
    """The central difference with this step in one entry, and the larger of the two values."""
    above, below = at.copy(), at.copy()
    above[index] += step
    below[index] -= step
    width = float(above[index] - below[index])  # after rounding, and before the function can change its argument
    ends = _real(function(above)), _real(function(below))
    return (ends[0] - ends[1]) / width, max(map(abs, ends))


def _real(value: Any) -> float:
    dtype = np.asarray(on_host(value)).dtype
    if dtype.kind == "f" and dtype.itemsize < 8:
        raise ValueError(f"function returns {dtype}, too coarse for differences; expected float64")
    number = _number(value)
    if isinstance(number, complex):
        raise ValueError(f"function returns {number} for a real array; expected a real number")
    return float(number)


def _compare(
    function: Callable[[NDArray[Any]], Any], at: NDArray[np.float64], found: NDArray[np.float64], value: float
) -> None:
    """Raise ValueError unless a central difference in one direction agrees, as far as its own error allows.

    That error is seen in halved steps: differences of a smooth function depend on the square of the step. Of several
    widths, those with the smallest errors decide.
    """
    direction = np.random.default_rng(0).uniform(0.5, 1.0, at.shape) * np.where(np.arange(at.size) % 2, -1, 1).reshape(
        at.shape
    )
    terms = (found * direction).ravel()
    exact, largest, quotient = math.fsum(terms), float(np.abs(terms).sum()), math.nan
    tried: list[tuple[float, float]] = []  # the error that a quotient may have, and its distance from `exact`
    for width in _PROBES:
        step = width * max(1.0, float(np.max(np.abs(at), initial=0.0)))
        quotients, size = [], value
        try:
            for half in (step, step / 2, step / 4):
                ends = [_real(function(at + sign * half * direction)) for sign in (1, -1)]
                quotients.append((ends[0] - ends[1]) / (2 * half))
                size = max(size, *map(abs, ends))
        except ValueError:  # not finite there; a smaller width may work
            continue
        quotient, spread = quotients[0], max(quotients) - min(quotients)
        error = 4 * spread + 1e3 * np.finfo(np.float64).eps * size / step + _SURE * largest
        tried.append((error, abs(quotient - exact)))
        if abs(quotient - exact) <= error <= _SEEN * largest:
            return
    least = min((error for error, _ in tried), default=math.nan)
    if any(distance <= error <= 30 * least for error, distance in tried):
        return
    raise ValueError(
        f"function: the complex step and the central difference disagree in one direction, {exact:.6g} and "
        f"{quotient:.6g}: part of it is not analytic, such as np.abs, or at is a kink; use method='central'"
    )
