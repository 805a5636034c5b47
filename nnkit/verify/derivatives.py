"""Derivatives of any function by the complex step: f′(x) = Im f(x + ih)/h, exact to rounding.

There is no difference of nearly equal numbers in it, so that h may be tiny (Squire and Trapp, SIAM Review 40, 1998).
It is what gradients, written by hand or by nnkit, are checked against.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.checks import unknown_name
from nnkit.inputs import on_host

STEP = 1e-30  # any h far below the square root of the smallest number of interest; there is no cancellation
_METHODS = ("complex", "central")
_ROOT = float(np.finfo(np.float64).eps) ** (1 / 3)  # of the central difference with the smallest error
_CLOSE = 1e-4  # the two methods agree so far, relatively; what one of them misses is far more
_PROBES = (1e-5, 1e-7, 1e-9)


def derivative(
    function: Callable[[NDArray[Any]], Any], at: ArrayLike, *, method: Literal["complex", "central"] = "complex"
) -> NDArray[np.float64]:
    """∂f/∂a for each entry a of an array: a check for a gradient of your own, as `check_gradients` is for networks.

    Args:
        function: takes an array of the shape of `at`, a new one each time, and returns one number; computed on NumPy.
            The kernels of nnkit and NumPy's analytic functions take complex arrays; so does np.maximum(z, 0).
        at: where, an array of any shape and backend, or a number; real and finite.
        method: "complex" calls the function once for each entry with h = 10⁻³⁰ i added to it, and is exact to rounding.
            It needs a function that is analytic near `at`. "central" is (f(a + h) − f(a − h))/2h, for any function,
            with an error of some 10⁻¹⁰ of its size.

    Returns the derivatives in float64, of the shape of `at`. The complex step is compared with a central difference in
    one direction. Raises ValueError if they disagree, as where np.abs or a comparison of parts drops the imaginary part
    or `at` is a kink, or if the function does not return one finite number; TypeError if `function` cannot be called or
    `at` does not hold real numbers.

    >>> nnkit.derivative(lambda x: np.sum(np.sin(x)), [0.0, 1.0]) - np.cos([0.0, 1.0])
    array([0., 0.])
    >>> x, y = np.array([[1.0, 2.0]]), np.array([[0.5]])
    >>> nnkit.derivative(lambda W: np.sum((y - np.tanh(x @ W.T)) ** 2) / 2, np.array([[0.1, 0.2]])).round(6)
    array([[-0.029793, -0.059586]])
    """
    if not callable(function):
        raise TypeError(f"function is {function!r}; expected a function of an array that returns a number")
    if method not in _METHODS:
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
    """The derivatives by these entries of an array, counted in C order.

    The step goes downwards, so that at a kink the derivative is the left one, as in the kernels. With `check` each call
    gets an array of its own, and ValueError is raised where a real number comes back.
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
                "function returns a real number for a complex array, so that the complex step sees no derivative; "
                "something in it drops the imaginary part, as np.abs and casts do: give method='central'"
            )
        yield float(-(_number(value) if check else value).imag / STEP)


def _checked_point(at: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(on_host(at))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"at has dtype {array.dtype}; expected real numbers")
    point = np.array(array, np.float64, order="C")
    if not np.isfinite(point).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(point))[0]]
        raise ValueError(f"at holds {point[tuple(where)]} at {where}; expected finite numbers")
    return point


def _number(value: Any) -> Any:
    """What a function returned, as a Python number."""
    array = np.asarray(on_host(value))
    if array.size != 1 or array.dtype.kind not in "biufc":
        raise ValueError(f"function returns {value!r}; expected one number")
    number = array.reshape(()).item()
    if not np.isfinite(number):
        raise ValueError(f"function returns {number}; expected a finite number")
    return number


def _central(function: Callable[[NDArray[Any]], Any], at: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        above, below = at.copy(), at.copy()
        step = _ROOT * max(1.0, abs(float(at[index])))
        above[index] += step
        below[index] -= step
        width = float(above[index] - below[index])  # as it was rounded; and the function may write to its argument
        found[index] = (_real(function(above)) - _real(function(below))) / width
    return found


def _real(value: Any) -> float:
    number = _number(value)
    if isinstance(number, complex):
        raise ValueError(f"function returns {number} for a real array; expected a real number")
    return float(number)


def _compare(
    function: Callable[[NDArray[Any]], Any], at: NDArray[np.float64], found: NDArray[np.float64], value: float
) -> None:
    """ValueError unless the derivatives agree with a central difference in one direction, at one of some widths."""
    direction = np.random.default_rng(0).uniform(0.5, 1.0, at.shape) * np.where(np.arange(at.size) % 2, -1, 1).reshape(
        at.shape
    )
    terms = (found * direction).ravel()
    exact, largest, quotient = math.fsum(terms), float(np.abs(terms).sum()), math.nan
    for width in _PROBES:
        step = width * max(1.0, float(np.max(np.abs(at), initial=0.0)))
        try:
            ends = [_real(function(at + sign * step * direction)) for sign in (1, -1)]
        except ValueError:  # not finite there: a narrower one may be
            continue
        quotient = (ends[0] - ends[1]) / (2 * step)
        rounding = 1e3 * np.finfo(np.float64).eps * max(value, *map(abs, ends)) / step
        if abs(quotient - exact) <= _CLOSE * max(largest, abs(quotient)) + rounding:
            return
    raise ValueError(
        f"function: the complex step and the central difference disagree in one direction, {exact:.6g} and "
        f"{quotient:.6g}: something in it is not analytic, as np.abs, or at is a kink; give method='central'"
    )
