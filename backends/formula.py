"""An elementwise formula, written once in Python and compiled for every backend.

A formula is a plain function over an array-API namespace and its operands:

    @formula
    def sigmoid_grad(xp, s, delta):
        return delta * s * (1 - s)

It is traced once into a straight-line program (`nnkit.backends.tracing`). NumPy runs the program as ufuncs into
preallocated arrays, CuPy compiles it to one CUDA kernel, and any other namespace calls the function itself.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnkit.backends.dispatch import backend_of
from nnkit.backends.errors import FormulaError
from nnkit.backends.program import Program
from nnkit.backends.tracing import trace

_listed: dict[str, "Formula"] = {}

# What is remembered of formulas is limited, since a program may ask for ever new constants and make ever new formulas.
_PROGRAMS = 64  # of a formula, by its constants
_COMPOSED = 128


class Formula:
    """An elementwise function of arrays that every backend can compile.

    `operands` names the arrays (of shapes that broadcast) or numbers that `function` takes after the namespace;
    `defaults` holds the constants that it takes after those, such as the slope of a leaky ReLU.
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
        def traced(constants: tuple[tuple[str, float], ...]) -> Program:
            return trace(function, names, dict(constants))

        self._traced = traced

    @property
    def __signature__(self) -> inspect.Signature:
        """What help() shows and calls are checked against."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature(
            [inspect.Parameter(operand, kind) for operand in self.operands]
            + [inspect.Parameter(name, kind, default=value) for name, value in self.defaults.items()]
            + [inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None)]
        )

    def __repr__(self) -> str:
        return f"<formula {self.name}{self.__signature__}>"

    def __call__(self, *operands: Any, out: Any = None, **named: Any) -> Any:
        """Evaluate on the backend of the operands; `out` is an array, or a tuple where there are several results."""
        constants: dict[str, Any] = named
        if named or len(operands) != len(self.operands):
            operands, constants = self._bind(operands, named)
        backend = backend_of(**dict(zip(self.operands, operands, strict=True)), out=out)
        return backend.elementwise(self, operands, out, constants)

    def program(self, constants: Mapping[str, float] | None = None) -> Program:
        """The traced program for these constants; traced at the first call, the latest ones are remembered."""
        return self._traced(tuple(sorted(constants.items())) if constants else ())

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
    """Make an elementwise formula of a function over an array namespace and its operands, and list it.

    The function's parameters without a default are its operands; those with one are constants. `FormulaError` is
    raised when it is first used, if it branches on a value or calls what no kernel can do.

    Beside real values there are conditions, such as a > 0, and bits: 32-bit unsigned integers, which
    `xp.astype(a, xp.uint32)` makes of whole numbers from 0 to 2³² − 1. Bits know ^, >>, comparisons and *, which wraps,
    with each other and with Python's ints. `xp.astype(condition, a.dtype)` is 1 or 0.

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
    # From the code object: inspect.signature for all of nnkit's formulas would take milliseconds at import.
    if not hasattr(function, "__code__"):
        raise TypeError(f"function is {function!r}; expected a function of xp and its operands, written in Python")
    names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    count = len(names) - len(defaults)
    made = Formula(function, function.__name__, names[:count], dict(zip(names[count:], defaults, strict=True)))
    functools.update_wrapper(made, function)  # help() and doctest find the function's own docstring
    _listed[f"{function.__module__}.{function.__qualname__}"] = made
    return made


def list_formulas() -> dict[str, Formula]:
    """Every formula that was made with `@formula` so far, by the full name of its function."""
    return dict(sorted(_listed.items()))


@functools.lru_cache(maxsize=_COMPOSED)
def compose(outer: Formula, inner: Formula, keep_inner: bool = False) -> Formula:
    """The formula outer(inner(...)), one pass over memory; with `keep_inner`, inner's value is a first result.

    >>> double = Formula(lambda xp, a: 2 * a, "double", ["a"])
    >>> add = Formula(lambda xp, a, b: a + b, "add", ["a", "b"])
    >>> float(compose(double, add)(1.0, 2.0))
    6.0
    """
    if len(outer.operands) != 1:
        raise FormulaError(f"{outer.name} takes {', '.join(outer.operands)}; only one operand can be composed")

    def composed(xp: Any, *operands: Any) -> Any:
        value = inner.function(xp, *operands)
        if isinstance(value, tuple):
            raise FormulaError(f"{inner.name} has {len(value)} results; only one can be composed")
        result = outer.function(xp, value)
        return (value, result) if keep_inner else result

    return Formula(composed, f"{inner.name}_{outer.name}" + "_both" * keep_inner, inner.operands)
