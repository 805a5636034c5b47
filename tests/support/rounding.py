"""How far apart two correct evaluations of a formula's program may be.

Both make the same operations in the same order. IEEE arithmetic then gives equal results from equal arguments, and only
the functions of the mathematical library differ, by a few units in the last place; a running error analysis (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.3) carries that to the results. A formula without such
functions is allowed nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.dtypes import compute_type, numpy_dtype
from nnkit.backends.formulas.operations import OPERATIONS
from nnkit.backends.formulas.program import Program

Real = NDArray[Any]

# Units in the last place between two libraries: NumPy's vector loops are within 4, C's and CUDA's within 2.
_LIBRARY = 6.0
_FUNCTIONS = {"exp", "expm1", "log", "log1p", "pow", "tanh"}
_EXACT = {"negative", "abs", "sign", "maximum", "minimum", "where", "astype(dtype)"}
_MANTISSA = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
_DTYPES = {"bool": "bool", "bits": "uint32"}  # of the kinds that are exact
_LEAST_EXPONENT = {"float16": -14, "bfloat16": -126, "float32": -126, "float64": -1022}

# How differences d (a list, like the arguments a) of an operation's arguments show in its value v.
_CARRIED: dict[str, Callable[[Real, list[Real], list[Real]], Real]] = {
    "add": lambda v, a, d: d[0] + d[1],
    "subtract": lambda v, a, d: d[0] + d[1],
    "multiply": lambda v, a, d: abs(a[0]) * d[1] + abs(a[1]) * d[0] + d[0] * d[1],
    "divide": lambda v, a, d: (d[0] + abs(v) * d[1]) / np.maximum(abs(a[1]) - d[1], 0),
    "square": lambda v, a, d: (2 * abs(a[0]) + d[0]) * d[0],
    "sqrt": lambda v, a, d: d[0] / np.maximum(v, np.sqrt(d[0])),
    "negative": lambda v, a, d: d[0],
    "abs": lambda v, a, d: d[0],
    "sign": lambda v, a, d: np.where(d[0] < abs(a[0]), 0.0, 2.0),
    "maximum": lambda v, a, d: np.maximum(d[0], d[1]),
    "minimum": lambda v, a, d: np.maximum(d[0], d[1]),
    "astype(dtype)": lambda v, a, d: d[0],
    "where": lambda v, a, d: np.where(d[0] > 0, abs(a[1] - a[2]) + np.maximum(d[1], d[2]), np.where(a[0], d[1], d[2])),
    "exp": lambda v, a, d: v * np.expm1(d[0]),
    "expm1": lambda v, a, d: (v + 1) * np.expm1(d[0]),
    "log": lambda v, a, d: -np.log1p(-np.minimum(d[0] / a[0], 1)),
    "log1p": lambda v, a, d: -np.log1p(-np.minimum(d[0] / (1 + a[0]), 1)),
    "pow": lambda v, a, d: abs(v) * np.expm1(-abs(a[1]) * np.log1p(-np.minimum(d[0] / abs(a[0]), 1))),
    "tanh": lambda v, a, d: d[0],
}


def spacing(values: Real, dtype: str) -> Real:
    """The distance from each value to the next of its type."""
    exponent = np.frexp(np.asarray(values, np.float64))[1] - 1
    steps: Real = np.ldexp(1.0, np.maximum(exponent, _LEAST_EXPONENT[dtype]) - _MANTISSA[dtype])
    return steps


def allowed_differences(program: Program, operands: Sequence[Real], dtype: str, gpu: bool = False) -> list[Real]:
    """For each result, the largest difference between two evaluations over operands of one dtype.

    With `gpu`, one of them may join a product and a sum, whose rounding it then leaves out, and may take a subnormal
    float32 for 0. Where a result is not finite, the difference is 0: both must be the same. It is infinite where either
    may be right, as in inf · x for an x that may be 0 or just beside it.
    """
    real = compute_type(dtype)
    joined = {_product(program, i) for v in program.values if v.op in ("add", "subtract") for i in v.arguments}
    values: list[Real] = []
    slack: list[Real] = []
    for value in program.values:
        if value.op == "operand":
            values.append(operands[len(values)].astype(real))
            slack.append(np.zeros(()))
        elif value.op == "constant":
            values.append(np.asarray(value.constant, _DTYPES.get(value.kind, real)))
            slack.append(np.zeros(()))
        else:
            arguments, differences = ([known[i] for i in value.arguments] for known in (values, slack))
            values.append(_apply(value.op, arguments, _DTYPES.get(value.kind, real)))
            slack.append(_difference(value.op, values[-1], arguments, differences, real))
            if gpu and value.kind == "real":
                slack[-1] = slack[-1] + _on_gpu(values[-1], real, len(values) - 1 in joined)
    results = [(values[i], slack[i]) for i in program.outputs]
    return [_rounded(v, d, dtype) if real != dtype else np.broadcast_to(d, v.shape) for v, d in results]


def assert_agree(found: Real, expected: Real, allowed: Real) -> None:
    """Assert that two results are equal where they are not finite, and elsewhere within the allowed differences."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.count_nonzero(np.isinf(allowed)) <= 0.1 * allowed.size, "most of a result must be determined"
    wide, other = found.astype(np.float64), expected.astype(np.float64)
    same = (wide == other) | (np.isnan(wide) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        wrong = np.argwhere(~same & ~np.isinf(allowed) & ~(abs(wide - other) <= allowed))
    assert not wrong.size, [(wide[tuple(i)], other[tuple(i)], allowed[tuple(i)], tuple(i)) for i in wrong[:5]]


def _apply(op: str, arguments: list[Real], dtype: str) -> Real:
    ufunc = np.where if op == "where" else OPERATIONS[op].ufunc
    with np.errstate(all="ignore"):
        result: Real = arguments[0].astype(dtype) if ufunc is None else ufunc(*arguments)
    return result


def _difference(op: str, value: Real, arguments: list[Real], differences: list[Real], real: str) -> Real:
    if value.dtype in (np.bool_, np.uint32):
        if not any(d.any() for d in differences):
            return np.zeros(())
        assert value.dtype == np.bool_, f"{op} of computed values: either result may be right"
        with np.errstate(all="ignore"):  # where the numbers may be equal, either truth may be right
            apart = abs(arguments[0].astype(np.float64) - arguments[1].astype(np.float64))
            return np.where(apart <= sum(differences), np.inf, 0.0)
    with np.errstate(all="ignore"):
        wide = [a if a.dtype == np.bool_ else a.astype(np.float64) for a in arguments]
        carried = _CARRIED[op](value.astype(np.float64), wide, differences)
        carried = np.where(sum(differences) > 0, carried, 0.0)  # where 0/0 or inf · 0 came out
        if op in _FUNCTIONS:  # of infinities they are exact
            units = np.where(np.isfinite(arguments[0]), _LIBRARY, 0.0)
        else:
            units = np.where(carried > 0, 0.0 if op in _EXACT else 1.0, 0.0)
        known = np.where(np.isfinite(value), carried + units * spacing(value, real), 0.0)
        return np.where(_doubtful(op, value, wide, differences, carried), np.inf, known)


def _doubtful(op: str, value: Real, arguments: list[Real], differences: list[Real], carried: Real) -> Real:
    """Where two evaluations need not even be both finite: inf · x and x/0 for an x known only to be about 0."""
    doubtful = np.isinf(carried if op == "where" else sum(differences))
    if op in ("multiply", "divide"):
        for d, a in zip(differences, arguments, strict=True):
            doubtful = doubtful | (~np.isfinite(value) & (d > 0) & (d >= abs(a)))
    return doubtful


def _product(program: Program, number: int) -> int:
    """The number of the product that a value is, but for its sign; -1 if it is none."""
    value = program.values[number]
    if value.op == "negative":
        return _product(program, *value.arguments)
    return number if value.op in ("multiply", "square") else -1


def _on_gpu(value: Real, real: str, joined: bool) -> Real:
    """What a GPU may leave out: the rounding of a product that is joined with a sum, and a subnormal."""
    tiny = float(np.finfo(np.float32).tiny) if real == "float32" else 0.0
    left_out = spacing(value, real) * joined + np.where(abs(value) < 2 * tiny, 2 * tiny, 0.0)
    return np.where(np.isfinite(value) & (value != 0), left_out, 0.0)


def _rounded(value: Real, difference: Real, dtype: str) -> Real:
    """The difference after both were rounded to a half type."""
    with np.errstate(all="ignore"):
        stored = value.astype(numpy_dtype(dtype)).astype(np.float64)
        finite = np.isfinite(stored)
        step = spacing(np.where(finite, stored, 0.0), dtype)
    return np.where(difference > 0, difference + step, 0.0)
