"""Exponentials and logarithms as statements of native text that LLVM vectorizes: no branches, no calls.

Each is range reduction and a series: e^x = 2^n e^r with |r| ≤ ln 2 / 2, and ln x = e ln 2 + ln(1 + f) with 1 + f in
[√½, √2). The results differ from the exact ones by at most 2 units in the last place, also subnormal ones; those of ±0,
infinities and NaN are IEEE 754's (measured in tests/backends/cpu/native/test_mathematics.py).
"""

import ast
import math
from functools import cache, lru_cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

# Names in capitals are constants; functions that are defined here are replaced by their statements.
_TEXT = """
def power(k):
    return from_bits(integer(integer(k + BIAS) << FRACTION))

def reduced(x):
    # x = n ln 2 + r + lost, where rounding loses a part of r
    shifted = fused(x, LOG2_E, SHIFT)  # rounds to whole numbers: n is in its lowest bits
    n = shifted - SHIFT
    high = fused(n, -LN2_HIGH, x)  # exact, as LN2_HIGH has few bits
    low = n * LN2_LOW
    r = high - low
    lost = (high - r) - low
    k = integer(bits(shifted) - SHIFT_BITS)
    return r, lost, k

def exp(x):
    x = select(x > LARGEST, LARGEST, select(x < SMALLEST, SMALLEST, x))
    r, lost, k = reduced(x)
    y = fused(r * r, EXPONENTIAL(r), r)
    half = integer(k >> 1)  # 2^k may be too large or small where e^x is not
    a = power(half)
    b = power(integer(k - half))
    return (ONE + y) * a * b

def expm1(x):
    limited = select(x > LARGEST, LARGEST, select(x < ALMOST_MINUS_ONE, ALMOST_MINUS_ONE, x))
    r, lost, k = reduced(limited)
    y = r + fused(r * r, EXPONENTIAL(r), lost)
    half = integer(k >> 1)
    a = power(half)
    b = power(integer(k - half))
    inverse = power(integer(half - k))
    return select(absolute(x) < TINY, x, fused(a, y, a - inverse) * b)  # 2^k y + (2^k − 1)

def tanh(x):
    # 1 − 2e / (1 + e) with e = e^−2|x|, and a series where that is below 1/2
    size = absolute(x)
    limited = select(size > ALMOST_ONE, ALMOST_ONE, size)
    doubled = -(limited + limited)
    r, lost, k = reduced(doubled)
    y = fused(r * r, EXPONENTIAL(r), r)
    a = power(k)
    e = fused(a, y, a)
    z = size * size
    small = fused(size * z, TANGENT(z), size)
    return copysign(select(size < BELOW_HALF, small, ONE - (e + e) / (e + ONE)), x)

def logarithm(x, scale, lost):
    # ln x − scale ln 2 + lost; ln(1 + f) = 2 artanh s = f − f²/2 + s (f²/2 + series in s²)
    k = integer(bits(x) + OFFSET)
    e = from_bits(integer(integer(k >> FRACTION) - BIAS + SHIFT_BITS)) - SHIFT - scale
    f = from_bits(integer(integer(k & MASK) + ROOT)) - ONE
    s = f / (f + TWO)
    z = s * s
    h = HALF * f * f
    return fused(e, LN2_HIGH, f - (h - fused(s, fused(z, LOGARITHM(z), h), fused(e, LN2_LOW, lost))))

def log(x):
    subnormal = x < NORMAL
    normal = select(subnormal, x * SCALE, x)
    scale = select(subnormal, SCALED, ZERO)
    y = logarithm(normal, scale, ZERO)
    y = select(x < INFINITY, y, x)
    return select(x < ZERO, NAN, select(x == ZERO, -INFINITY, y))

def log1p(x):
    u = x + ONE
    lost = (x - (u - ONE)) / u
    y = logarithm(u, ZERO, lost)
    y = select(absolute(x) < TINY, x, select(x < INFINITY, y, x))
    return select(u < ZERO, NAN, select(u == ZERO, -INFINITY, y))

def to_brain(x):
    # The bits of a float32 rounded to bfloat16.
    u = bits(x)
    rounded = integer(integer(u + 32767 + ((u >> 16) & 1)) >> 16)
    return uint16(select(x == x, rounded, integer(32704)))
"""
_FUNCTIONS = {f.name: f for f in ast.parse(_TEXT).body if isinstance(f, ast.FunctionDef)}

OPERATIONS = ("exp", "expm1", "log", "log1p", "tanh")


def _economized(series: list[float], start: float, stop: float, terms: int) -> list[float]:
    """A power series cut to fewer terms in Chebyshev's basis, where that costs least between two points."""
    whole = Polynomial(series).convert(kind=Chebyshev, domain=[start, stop])
    return [float(c) for c in whole.truncate(terms).convert(kind=Polynomial).coef]


def _tangent(terms: int) -> list[float]:
    """The coefficients of x, x³, x⁵, … of t = tanh x, from t′ = 1 − t²."""
    series = [1.0]
    while len(series) < terms:
        series.append(-sum(a * b for a, b in zip(series, reversed(series), strict=True)) / (2 * len(series) + 1))
    return series


@cache
def _constants(dtype: str) -> dict[str, float | list[float]]:
    """The constants of a dtype; whole ones are integers of its size, the lists are coefficients of series."""
    info = np.finfo(dtype)
    fraction, single = info.nmant, dtype == "float32"
    one, root = (int(np.asarray(x, dtype).view(f"i{info.bits // 8}")) for x in (1, math.sqrt(0.5)))
    shift = 1.5 * 2.0**fraction
    return {
        "FRACTION": fraction, "BIAS": info.maxexp - 1, "MASK": (1 << fraction) - 1, "ROOT": root, "OFFSET": one - root,
        "SHIFT": shift, "SHIFT_BITS": int(np.asarray(shift, dtype).view(f"i{info.bits // 8}")),
        "ZERO": 0.0, "HALF": 0.5, "ONE": 1.0, "TWO": 2.0, "INFINITY": math.inf, "NAN": math.nan,
        "TINY": 2.0**-fraction / 4, "NORMAL": float(info.smallest_normal),
        "SCALE": 2.0 ** (fraction + 1), "SCALED": float(fraction + 1),
        "LOG2_E": math.log2(math.e),
        "LN2_HIGH": 0.693359375 if single else 6.93147180369123816490e-01,
        "LN2_LOW": -2.12194440054690582e-4 if single else 1.90821492927058770002e-10,
        "LARGEST": 89.0 if single else 710.0, "SMALLEST": -104.0 if single else -746.0,
        "ALMOST_MINUS_ONE": -20.0 if single else -40.0, "ALMOST_ONE": 10.0 if single else 20.0,
        "EXPONENTIAL": _economized([1 / math.factorial(i) for i in range(2, 24)], -0.35, 0.35, 5 if single else 11),
        "BELOW_HALF": 0.5494, "TANGENT": _economized(_tangent(40)[1:], 0.0, 0.302, 5 if single else 12),
        "LOGARITHM": _economized([2 / (2 * i + 1) for i in range(1, 24)], 0.0, 0.03, 3 if single else 7),
    }  # fmt: skip


def statements(operation: str, result: str, arguments: list[str], dtype: str) -> list[str]:
    """The lines that compute an operation of values of these names; further names start with that of the result.

    >>> statements("power", "p", ["k"], "float32")
    ['p = from_bits32(int32(int32(k + 127) << 23))']
    """
    return list(_statements(operation, result, tuple(arguments), dtype))


@lru_cache(maxsize=4096)  # each new network has the same, which take milliseconds
def _statements(operation: str, result: str, arguments: tuple[str, ...], dtype: str) -> list[str]:
    return _inlined(operation, ast.Name(result), [ast.Name(a) for a in arguments], dtype, result)


def _inlined(operation: str, target: ast.expr, arguments: list[ast.expr], dtype: str, prefix: str) -> list[str]:
    function, lines = _FUNCTIONS[operation], list[str]()
    names: dict[str, ast.expr] = {a.arg: v for a, v in zip(function.args.args, arguments, strict=True)}
    for line in function.body:
        if isinstance(line, ast.Assign):
            value, (to,) = _replaced(line.value, names, dtype), line.targets
            for name in ast.walk(to):
                if isinstance(name, ast.Name):
                    names[name.id] = ast.Name(f"{prefix}_{name.id}")
            to = _replaced(to, names, dtype)
        elif isinstance(line, ast.Return) and line.value is not None:
            value, to = _replaced(line.value, names, dtype), target
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in _FUNCTIONS:
            lines += _inlined(value.func.id, to, value.args, dtype, f"{prefix}_{value.func.id}")
        elif isinstance(value, ast.Tuple) and isinstance(to, ast.Tuple):
            lines += [f"{ast.unparse(a)} = {ast.unparse(b)}" for a, b in zip(to.elts, value.elts, strict=True)]
        else:
            lines.append(f"{ast.unparse(to)} = {ast.unparse(value)}")
    return lines


class _Replacing(ast.NodeTransformer):
    """Replaces names by values and constants, and series by Horner's scheme."""

    def __init__(self, names: dict[str, ast.expr], dtype: str) -> None:
        self.names, self.dtype = names, dtype

    def visit_Name(self, node: ast.Name) -> ast.expr:
        constant = _constants(self.dtype).get(node.id)
        bits = "32" if self.dtype == "float32" else "64"
        if isinstance(constant, float):
            return _number(constant, self.dtype)
        if isinstance(constant, int):
            return ast.Constant(constant)
        renamed = {"bits": f"bits{bits}", "from_bits": f"from_bits{bits}", "integer": f"int{bits}"}
        return self.names.get(node.id, ast.Name(renamed.get(node.id, node.id)))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        series = _constants(self.dtype).get(node.func.id) if isinstance(node.func, ast.Name) else None
        if not isinstance(series, list):
            return self.generic_visit(node)
        (x,) = (self.visit(a) for a in node.args)
        total = _number(series[-1], self.dtype)
        for coefficient in reversed(series[:-1]):
            total = ast.Call(ast.Name("fused"), [total, x, _number(coefficient, self.dtype)], [])
        return total


def _number(value: float, dtype: str) -> ast.expr:
    text = repr(value) if math.isfinite(value) else value.hex()
    return ast.parse(f"{dtype}({text})", mode="eval").body


def _replaced(node: ast.expr, names: dict[str, ast.expr], dtype: str) -> ast.expr:
    replaced: ast.expr = _Replacing(names, dtype).visit(ast.parse(ast.unparse(node), mode="eval").body)
    return replaced
