"""The vocabulary of formulas: each elementwise operation with its NumPy ufunc and its C++ expression.

For the complex step, `ComplexStepNamespace` continues those that are not analytic.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["real", "bool", "bits"]  # bits are 32-bit unsigned integers, whose arithmetic wraps

_BITS: tuple[Kind, ...] = ("bits",)
_CONDITIONS: tuple[Kind, ...] = ("bool",)
_NUMBERS: tuple[Kind, ...] = ("real", "bits")
_ALL: tuple[Kind, ...] = ("real", "bits", "bool")


@dataclass(frozen=True, slots=True)
class Operation:
    """One elementwise operation of the array-API standard.

    `ufunc` computes it on NumPy (None for `where`, which is two masked copies, and `astype`, a casting copy). `cuda` is
    the C++ expression in the arguments `{0}`, `{1}`, `{2}`. `result` is the kind of its value; real becomes bits if the
    arguments are bits. `takes` lists the kinds of its arguments, which must agree; the first of `where` is a condition.
    """

    ufunc: np.ufunc | None
    cuda: str
    result: Kind = "real"
    takes: tuple[Kind, ...] = ("real",)


# maximum, minimum and sign propagate NaN, as in NumPy; C++'s fmax and fmin would ignore it.
OPERATIONS: dict[str, Operation] = {
    "add": Operation(np.add, "{0} + {1}"),
    "subtract": Operation(np.subtract, "{0} - {1}"),
    "multiply": Operation(np.multiply, "{0} * {1}", takes=_NUMBERS),
    "divide": Operation(np.divide, "{0} / {1}"),
    "negative": Operation(np.negative, "-{0}"),
    "abs": Operation(np.absolute, "fabs({0})"),
    "square": Operation(np.square, "{0} * {0}"),
    "sqrt": Operation(np.sqrt, "sqrt({0})"),
    "pow": Operation(np.power, "pow({0}, {1})"),
    "exp": Operation(np.exp, "exp({0})"),
    "expm1": Operation(np.expm1, "expm1({0})"),
    "log": Operation(np.log, "log({0})"),
    "log1p": Operation(np.log1p, "log1p({0})"),
    "sin": Operation(np.sin, "sin({0})"),
    "cos": Operation(np.cos, "cos({0})"),
    "tanh": Operation(np.tanh, "tanh({0})"),
    "floor": Operation(np.floor, "floor({0})"),
    "sign": Operation(np.sign, "{0} > R(0) ? R(1) : ({0} < R(0) ? R(-1) : {0})"),
    "maximum": Operation(np.maximum, "({0} > {1} || {0} != {0}) ? {0} : {1}"),
    "minimum": Operation(np.minimum, "({0} < {1} || {0} != {0}) ? {0} : {1}"),
    "where": Operation(None, "{0} ? {1} : {2}"),
    "less": Operation(np.less, "{0} < {1}", "bool", _NUMBERS),
    "less_equal": Operation(np.less_equal, "{0} <= {1}", "bool", _NUMBERS),
    "greater": Operation(np.greater, "{0} > {1}", "bool", _NUMBERS),
    "greater_equal": Operation(np.greater_equal, "{0} >= {1}", "bool", _NUMBERS),
    "equal": Operation(np.equal, "{0} == {1}", "bool", _ALL),
    "not_equal": Operation(np.not_equal, "{0} != {1}", "bool", _ALL),
    "logical_and": Operation(np.logical_and, "{0} && {1}", "bool", _CONDITIONS),
    "logical_or": Operation(np.logical_or, "{0} || {1}", "bool", _CONDITIONS),
    "logical_not": Operation(np.logical_not, "!{0}", "bool", _CONDITIONS),
    "bitwise_xor": Operation(np.bitwise_xor, "{0} ^ {1}", "bits", _BITS),
    "bitwise_right_shift": Operation(np.right_shift, "{0} >> {1}", "bits", _BITS),
    "astype(uint32)": Operation(None, "(unsigned int){0}", "bits"),
    "astype(dtype)": Operation(None, "R({0})", takes=_CONDITIONS),
}

# The number of arguments of each operation, from its expression.
ARITY: dict[str, int] = {
    name: sum(f"{{{i}}}" in operation.cuda for i in range(3)) for name, operation in OPERATIONS.items()
}


class ComplexStepNamespace:
    """NumPy with |z|, sign, floor and astype continued from the real axis, to differentiate a formula.

    f'(x) = Im f(x + ih)/h has no cancellation, so a tiny h gives the derivative to rounding (Squire and Trapp, SIAM
    Review 40, 1998). For piecewise analytic functions, the real part must select the piece, and |z| must be continued
    analytically (Martins, Sturdza and Alonso, ACM TOMS 29, 2003). NumPy orders complex numbers by their real parts and
    then by their imaginary parts, so comparisons, maximum and minimum need no change; at a kink they give the
    derivative from the right. In NumPy, abs is the modulus and sign the phase: these two, floor and astype are
    replaced.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def abs(z: Any) -> Any:
        """z or −z, whichever has the larger real part."""
        return np.where(np.asarray(z) < 0, -z, z)

    @staticmethod
    def sign(z: Any) -> Any:
        """The sign of the real part; its derivative is 0."""
        return np.sign(np.real(z))

    @staticmethod
    def floor(z: Any) -> Any:
        """The floor of the real part; its derivative is 0."""
        return np.floor(np.real(z))

    @staticmethod
    def astype(x: Any, dtype: Any, *, copy: bool = True) -> Any:
        """Convert an array to another dtype; bits come from the real part, with derivative 0."""
        return np.asarray(np.real(x) if dtype == np.uint32 else x).astype(dtype, copy=copy)


complex_step_namespace = ComplexStepNamespace()
