"""Random formulas, and what plain NumPy makes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import ml_dtypes
import numpy as np

from nnkit.backends.formula import Formula
from nnkit.backends.formulas.operations import ARITY, OPERATIONS

# What every loop of NumPy computes to the same bits: IEEE 754 rounds these correctly. The others may differ between
# contiguous and strided memory on some CPUs, maximum and minimum in the sign of zero.
EXACT = (
    *("add", "subtract", "multiply", "divide", "negative", "abs", "square", "sqrt", "floor", "sign", "where"),
    *("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"),
    *("logical_and", "logical_or", "logical_not"),
    *("bitwise_xor", "bitwise_right_shift", "astype(uint32)", "astype(dtype)"),
)


class Word(int):
    """A constant among bits."""


WORDS = tuple(map(Word, (0, 1, 3, 0x85EBCA6B, 2**31, 2**32 - 1)))
SHIFTS = tuple(map(Word, (0, 1, 13, 31)))
CONSTANTS = (-2.5, -1.0, 0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 1e-8)
SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e30, 1e-30)
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


@dataclass(frozen=True)
class Recipe:
    """A straight-line program; in a step, an int is an earlier value (operands first), a float or Word a constant."""

    operands: int
    steps: tuple[tuple[str, tuple[int | float, ...]], ...]
    outputs: tuple[int, ...]

    def evaluate(self, xp: Any, operands: Sequence[Any], number: Callable[[float], Any]) -> tuple[Any, ...]:
        values = list(operands)
        for op, places in self.steps:
            arguments = [values[a] if type(a) is int else number(a) for a in places]
            if op == "astype(uint32)":  # of whole numbers that fit: what becomes of others depends on the machine
                size = xp.abs(arguments[0])
                values.append(xp.astype(xp.where(size < 65536, xp.floor(size), number(7.0)), xp.uint32))
            elif op == "astype(dtype)":
                values.append(xp.astype(arguments[0], operands[0].dtype))
            else:
                values.append(getattr(xp, op)(*arguments))
        return tuple(values[i] for i in self.outputs)

    def formula(self) -> Formula:
        names = [f"x{i}" for i in range(self.operands)]

        def number(constant: float) -> float:
            return int(constant) if isinstance(constant, Word) else constant

        return Formula(lambda xp, *operands: self.evaluate(xp, operands, number), "random", names)


def random_recipe(choose: Random, names: Sequence[str] = tuple(OPERATIONS)) -> Recipe:
    """One to four operands, one to three outputs: all but some operands needed, some outputs the same.

    Drawn from a generator and not from Hypothesis' strategies: those repeat themselves too much to meet the programs
    in which places are confused.
    """
    operands = choose.randint(1, 4)
    kinds: list[str] = ["real"] * operands
    unused: list[int] = []  # nothing takes these values so far
    steps: list[tuple[str, tuple[int | float, ...]]] = []

    def step(op: str, *arguments: int | float) -> None:
        unused[:] = [i for i in unused if i not in arguments] + [len(kinds)]
        on_bits = OPERATIONS[op].result == "real" and any(type(a) is int and kinds[a] == "bits" for a in arguments)
        steps.append((op, arguments))
        kinds.append("bits" if on_bits else OPERATIONS[op].result)

    def some(kind: str) -> int:
        found = [i for i, k in enumerate(kinds) if k == kind]
        fresh = [i for i in unused if i in found]
        return choose.choice(fresh if fresh and choose.random() < 0.4 else found)

    for _ in range(choose.randint(0, 8)):
        if choose.random() < 0.1:
            step("astype(uint32)", some("real"))
        kind = choose.choice([*sorted({*kinds}), "real"])
        possible = [n for n in names if kind in OPERATIONS[n].takes]
        op = choose.choice([n for n in possible if n != "where" or "bool" in kinds])
        arguments: list[int | float] = [some("bool")] if op == "where" else []
        while len(arguments) < ARITY[op]:
            constants = CONSTANTS if kind == "real" else WORDS if kind == "bits" and arguments else ()
            if op == "bitwise_right_shift" and arguments:
                arguments.append(choose.choice(SHIFTS))
            else:
                arguments.append(choose.choice(constants) if constants and choose.random() < 0.2 else some(kind))
        step(op, *arguments)
    while bits := [i for i in unused if kinds[i] == "bits"]:
        step("less", bits[0], choose.choice([some("bits"), *WORDS]))
    while conditions := [i for i in unused if kinds[i] == "bool"]:
        step("where", conditions[0], some("real"), some("real"))
    count = choose.randint(1, 3)
    while len(unused) > count:
        step(choose.choice(["add", "subtract", "multiply"]), *choose.sample(unused, 2))
    outputs = [*unused, *(some("real") for _ in range(count - len(unused)))]
    return Recipe(operands, tuple(steps), tuple(choose.sample(outputs, count)))


def random_values(choose: Random, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Normal numbers; in every other array zeros, infinities, NaN and the very large and small among them."""
    rng = np.random.default_rng(choose.getrandbits(64))
    share = 0.2 * choose.randint(0, 1)
    values = np.where(rng.random(shape) < share, rng.choice(SPECIAL, shape), rng.normal(0, 3, shape))
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(DTYPES[dtype])


def random_dtypes(choose: Random, count: int) -> list[str]:
    """One dtype for all, or a mixture without two kinds of halves."""
    if choose.random() < 0.5:
        return [choose.choice([*DTYPES])] * count
    return choose.choices([choose.choice(["float16", "bfloat16"]), "float32", "float64"], k=count)


def narrowed(choose: Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Full, row, column, scalar: any shape that broadcasts to `shape`."""
    kept = tuple(1 if choose.random() < 0.25 else n for n in shape)
    ones = next((i for i, n in enumerate(kept) if n != 1), len(kept))
    return kept[choose.randint(0, ones) :]


class _PlainNumpy:
    """NumPy, whose astype takes no numbers and came with version 2.1."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def astype(x: Any, dtype: Any) -> np.ndarray:
        return np.asarray(x).astype(dtype)


def plain_numpy(recipe: Recipe, operands: Sequence[np.ndarray], dtype: str) -> list[np.ndarray]:
    """The results by NumPy's own expressions: in float64 or float32, rounded to `dtype` once at the end."""
    real = np.float64 if dtype == "float64" else np.float32
    shape = np.broadcast_shapes(*(o.shape for o in operands))
    with np.errstate(all="ignore"):
        wide = [o.astype(real) for o in operands]
        results = recipe.evaluate(_PlainNumpy(), wide, lambda c: np.asarray(c, np.uint32 if type(c) is Word else real))
        return [np.broadcast_to(r, shape).astype(DTYPES[dtype]) for r in results]


def assert_identical(result: np.ndarray, expected: np.ndarray) -> None:
    """The same dtype, shape and bits; any NaN is as good as another."""
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    wide, wanted = result.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(wide, wanted)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(wide)[numbers], np.signbit(wanted)[numbers])
