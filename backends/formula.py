"""Elementwise formulas, written once in Python and compiled for every backend.

A formula is a plain function over an array-API namespace and its operands:

    @formula
    def sigmoid_grad(xp, s, delta):
        return delta * s * (1 - s)

It is traced once into a straight-line program (`nnkit.backends.formulas.tracing`). NumPy runs the program as ufuncs on
preallocated arrays, CuPy compiles it to one CUDA kernel, and other namespaces run it by their functions.
"""

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnkit.backends.errors import FormulaError
from nnkit.backends.formulas.program import Program
from nnkit.backends.formulas.tracing import trace
from nnkit.backends.selection import backend_of

_listed: dict[str, "Formula"] = {}

# The caches are bounded, since a program may keep using new constants and creating new formulas.
_PROGRAMS = 64  # per formula, by its constants
_COMPOSED = 128


class Formula:
    """An elementwise function of arrays that every backend can compile.

    `operands` names the arguments of `function` after the namespace: arrays, whose shapes must broadcast, or numbers.
    `defaults` contains the constants that follow, such as the slope of a leaky ReLU.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        operands: Sequence[str],
        defaults: Mapping[str, float] | None = None,
    ) -> None:
        self.function = function
        self.name = self.__name__ = name
        self.operands = tuple(operands)
        if not self.operands:
            raise FormulaError(f"{name} has no operands; a formula takes the namespace and at least one array")
        self.defaults = dict(defaults or {})
        names = self.operands

        @functools.lru_cache(maxsize=_PROGRAMS)
        def traced(constants: tuple[tuple[str, float], ...], *signs: float) -> Program:  # as 0.0 == -0.0
            return trace(function, names, dict(constants))

        self._traced = traced

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature, for help() and for checking calls."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature(
            [inspect.Parameter(operand, kind) for operand in self.operands]
            + [inspect.Parameter(name, kind, default=value) for name, value in self.defaults.items()]
            + [inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None)]
        )

    def __repr__(self) -> str:
        return f"<formula {self.name}{self.__signature__}>"

    def __call__(self, *operands: Any, out: Any = None, **named: Any) -> Any:
        """Evaluate on the backend of the operands; `out` is an array, or a tuple if there are several results."""
        constants: dict[str, Any] = named
        if named or len(operands) != len(self.operands):
            operands, constants = self._bind(operands, named)
        backend = backend_of(**dict(zip(self.operands, operands, strict=True)), out=out)
        return backend.elementwise(self, operands, out, constants)

    def program(self, constants: Mapping[str, float] | None = None) -> Program:
        """The traced program for these constants, in a cache of the most recent ones."""
        if not constants:
            return self._traced(())
        known = tuple(sorted(constants.items()))
        return self._traced(known, *[math.copysign(1.0, value) for _, value in known])

    def _bind(self, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Sort the arguments of a call into operands and constants."""
        try:
            bound = self.__signature__.bind(*positional, **named).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        constants = {name: value for name, value in bound.items() if name in self.defaults}
        for name, value in constants.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{self.name}(): {name} is a {type(value).__name__}; expected a Python number")
            if abs(value) > sys.float_info.max and isinstance(value, int):
                raise ValueError(f"{self.name}(): {name} is a whole number that is too large for float64")
        return tuple(bound[name] for name in self.operands), constants


def formula(function: Callable[..., Any]) -> Formula:
    """Turn a function of an array namespace and operands into an elementwise formula, and list it.

    The function's parameters without a default are operands, those with a default are constants. It is called once for
    each set of constants: the values of other variables at that time are part of the formula, so that a number that
    changes must be a constant. On first use, `FormulaError` is raised if it branches on a value or calls a function
    that cannot be compiled.

    Besides real values, there are conditions, such as a > 0, and bits: 32-bit unsigned integers, created from integers
    from 0 to 2³² − 1 by `xp.astype(a, xp.uint32)`. Bits support ^, >>, comparisons and *, which wraps around, with each
    other and with Python ints. `xp.astype(condition, a.dtype)` is 1 or 0.

    >>> @formula
    ... def swish(xp, z, beta=1.0):
    ...     return z / (1 + xp.exp(-beta * z))
    >>> float(swish(0.0)), round(float(swish(1.0, beta=2.0)), 6)
    (0.0, 0.880797)
    >>> @formula
    ... def is_odd(xp, a):
    ...     return xp.astype((xp.astype(a, xp.uint32) * 2**31) > 0, a.dtype)
    >>> is_odd(np.array([6.0, 7.0]))
    array([0., 1.])
    """
    # From the code object, as inspect.signature for all of nnkit's formulas would take milliseconds at import.
    if not hasattr(function, "__code__"):
        raise TypeError(f"function is {function!r}; expected a function of xp and its operands, written in Python")
    names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    count = len(names) - len(defaults)
    made = Formula(function, function.__name__, names[:count], dict(zip(names[count:], defaults, strict=True)))
    functools.update_wrapper(made, function)  # so that help() and doctest find the function's docstring
    _listed[f"{function.__module__}.{function.__qualname__}"] = made
    return made


def as_formula(function: object, name: str) -> Formula:
    """Return a formula unchanged, make one with this name from a function; TypeError for anything else."""
    if isinstance(function, Formula):
        return function
    if not callable(function):
        raise TypeError(f"{name} is a {type(function).__name__}; expected a function or a formula")
    made = formula(function)
    made.name = name
    return made


def list_formulas() -> dict[str, Formula]:
    """All formulas created with `@formula` so far, by the full names of their functions."""
    return dict(sorted(_listed.items()))


@functools.lru_cache(maxsize=_COMPOSED)
def compose(outer: Formula, inner: Formula, keep_inner: bool = False) -> Formula:
    """The formula outer(inner(...)) in one pass over memory; with `keep_inner`, inner's value is the first result.

    >>> double = Formula(lambda xp, a: 2 * a, "double", ["a"])
    >>> add = Formula(lambda xp, a, b: a + b, "add", ["a", "b"])
    >>> float(compose(double, add)(1.0, 2.0))
    6.0
    """
    if len(outer.operands) != 1:
        raise FormulaError(f"{outer.name} takes {', '.join(outer.operands)}; expected a single operand")

    def composed(xp: Any, *operands: Any) -> Any:
        value = inner.function(xp, *operands)
        if isinstance(value, tuple):
            raise FormulaError(f"{inner.name} has {len(value)} results; expected a single result")
        result = outer.function(xp, value)
        return (value, result) if keep_inner else result

    return Formula(composed, f"{inner.name}_{outer.name}" + "_both" * keep_inner, inner.operands)
