"""Numbers that users give, checked: an error names whose number it is, what came and what was expected."""

import math
from numbers import Integral, Real

import numpy as np


def in_range(owner: str, name: str, value: object, end: float = math.inf, *, above: bool = False) -> float:
    """The number as a float, if it is finite and in [0, end), or in (0, end) with `above`.

    Raises TypeError if it is not a number, and ValueError for other numbers.

    >>> in_range("SGD", "momentum", 0.5, 1.0)
    0.5
    >>> in_range("SGD", "momentum", 1.5, 1.0)
    Traceback (most recent call last):
    ValueError: SGD: momentum is 1.5; expected a finite number of at least 0 and below 1
    """
    expected = f"expected a finite number {'above' if above else 'of at least'} 0"
    expected += f" and below {end:g}" if end < math.inf else ""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{owner}: {name} is {value!r}; {expected}")
    try:
        number = float(value)
    except OverflowError:  # a whole number above all floats
        number = math.inf
    if not (0 < number < end if above else 0 <= number < end):
        raise ValueError(f"{owner}: {name} is {value!r}; {expected}")
    return number


def flag(owner: str, name: str, value: object) -> bool:
    """True or False as it is; TypeError for anything else, as a text "False" would count as true.

    >>> flag("", "shuffle", "no")
    Traceback (most recent call last):
    TypeError: shuffle is 'no'; expected True or False
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{owner and owner + ': '}{name} is {value!r}; expected True or False")
    return bool(value)


def whole(owner: str, name: str, value: object, least: int) -> int:
    """The number as an int, if it is whole and at least `least`; ValueError otherwise. Without an owner "" is given.

    >>> whole("step", "every", 10, least=1)
    10
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        whose = f"{owner}: {name}" if owner else name
        raise ValueError(f"{whose} is {value!r}; expected a whole number of at least {least}")
    return int(value)
