"""Formulas on NumPy: random programs give the bits of plain NumPy expressions, wherever their arrays lie."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from nnkit.backends import get_backend
from nnkit.backends.formula import Formula
from tests.support.random_programs import (
    DTYPES,
    EXACT,
    assert_identical,
    narrowed,
    plain_numpy,
    random_dtypes,
    random_recipe,
    random_values,
)

numpy = get_backend("numpy")


@pytest.fixture(scope="module", params=["masked copies", "bits"], autouse=True)
def _way_of_where(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways of `where` for arrays of any size, one with calls that are bound anew each time, one by plans."""
    bits = request.param == "bits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnkit.backends.cpu.calls.FEW_CHOSEN", 0 if bits else 1 << 30)
        patch.setattr("nnkit.backends.cpu.calls.FEW_BYTES", -1 if bits else 1 << 16)
        yield


SHAPES = [(), (1,), (37,), (0,), (3, 5), (2, 0), (4, 1), (2, 3, 19), (1, 2, 1)]


def as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=400, deadline=None)
def test_random_programs(seed: int) -> None:
    choose = Random(seed)
    recipe, shape = random_recipe(choose), choose.choice(SHAPES)
    dtypes = random_dtypes(choose, recipe.operands)
    operands = [random_values(choose, narrowed(choose, shape), dtype) for dtype in dtypes]
    note(f"{recipe} of {[(o.shape, o.dtype) for o in operands]}")
    for operand in operands:
        operand.flags.writeable = False
    results = as_tuple(numpy.elementwise(recipe.formula(), operands))
    dtype = max(dtypes, key=[*DTYPES].index)
    for result, expected in zip(results, plain_numpy(recipe, operands, dtype), strict=True):
        assert_identical(result, expected)
        assert not any(np.shares_memory(result, operand) for operand in operands)
    assert len({id(result) for result in results}) == len(results)


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=400, deadline=None)
def test_results_are_rounded_to_the_dtype_of_out(seed: int) -> None:
    choose = Random(seed)
    recipe = random_recipe(choose)
    dtypes = random_dtypes(choose, recipe.operands)
    operands = [random_values(choose, (3, 7), dtype) for dtype in dtypes]
    wide = "float64" if "float64" in dtypes else "float32"
    outs = tuple(np.full((3, 7), 77, choose.choice([*DTYPES.values()])) for _ in recipe.outputs)
    note(f"{recipe} of {dtypes} into {[out.dtype for out in outs]}")
    assert numpy.elementwise(recipe.formula(), operands, out=outs) is outs
    for out, expected in zip(outs, plain_numpy(recipe, operands, wide), strict=True):
        with np.errstate(all="ignore"):
            assert_identical(out, expected.astype(out.dtype))


def view(pool: np.ndarray, layout: str, offset: int) -> np.ndarray:
    """A (3, 4) array, or one that broadcasts to it, in the pool's memory."""
    block = pool[offset:]
    layouts: dict[str, Callable[[], np.ndarray]] = {
        "plain": lambda: block[:12].reshape(3, 4),
        "transposed": lambda: block[:12].reshape(4, 3).T,
        "strided": lambda: block[:24:2].reshape(3, 4),
        "reversed": lambda: block[:12][::-1].reshape(3, 4),
        "row": lambda: block[:4],
        "column": lambda: block[:3].reshape(3, 1),
        "scalar": lambda: block[:1].reshape(()),
    }
    return layouts[layout]()


FULL = ("plain", "transposed", "strided", "reversed")
ANY = (*FULL, "row", "column", "scalar")


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=400, deadline=None)
def test_operands_and_outs_anywhere_in_one_memory(seed: int) -> None:
    """Outs overlap operands in every way: exactly, shifted, transposed, swapped; outs do not overlap each other."""
    choose = Random(seed)
    recipe, dtype = random_recipe(choose, EXACT), choose.choice([*DTYPES])
    pool = random_values(choose, (96,), dtype)
    # Each result has 32 entries of the pool to itself, of which a strided one takes 24.
    outs_at = [(choose.choice(FULL), 32 * j + choose.randint(0, 8)) for j in range(len(recipe.outputs))]
    operands_at = [outs_at[0]]  # a full one: the results have the shape of the outs
    while len(operands_at) < recipe.operands:
        operands_at.append(choose.choice([*outs_at, (choose.choice(ANY), choose.randint(0, 72))]))
    choose.shuffle(operands_at)
    if choose.random() < 0.5:
        operands_at[0] = (choose.choice(FULL), choose.randint(0, 72))
    note(f"{recipe} of {operands_at} into {outs_at}, {dtype}")
    operands = [view(pool, *place) for place in operands_at]
    expected, whole = plain_numpy(recipe, [operand.copy() for operand in operands], dtype), pool.copy()
    for place, value in zip(outs_at, expected, strict=True):
        view(whole, *place)[...] = value
    numpy.elementwise(recipe.formula(), operands, out=tuple(view(pool, *place) for place in outs_at))
    assert_identical(pool, whole)  # nothing else in the pool has changed


NAMED: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "swap": (lambda xp, a, b: (b, a), (0, 1)),
    "rotation": (lambda xp, a, b, c: (b, c, a), (0, 1, 2)),
    "duplicates": (lambda xp, a, b: (a, a, b), (1, 2, 0)),
    "temporaries in each other's result": (lambda xp, a, b: crossed(xp, a + b, a * b), (2, 3)),
    "where": (lambda xp, a, b: (xp.where(a > b, b, a), xp.where(a > b, a, b)), (0, 1)),
    "momentum": (lambda xp, p, g, v: (p - 0.1 * (0.9 * v + g), 0.9 * v + g), (0, 2)),
}


def crossed(xp: Any, total: Any, product: Any) -> tuple[Any, Any]:
    return xp.floor(product), xp.floor(total)


@pytest.mark.parametrize("name", NAMED)
def test_results_over_the_operands(name: str) -> None:
    function, slots = NAMED[name]
    count = function.__code__.co_argcount - 1  # the namespace aside
    arrays = [np.random.default_rng(i).normal(size=(5, 3)) for i in range(4)]
    formula = Formula(function, "named", [f"x{i}" for i in range(count)])
    expected = function(np, *(a.copy() for a in arrays[:count]))
    numpy.elementwise(formula, arrays[:count], out=tuple(arrays[i] for i in slots))
    for slot, value in zip(slots, expected, strict=True):
        np.testing.assert_array_equal(arrays[slot], value)


def test_a_shifted_copy() -> None:
    a = np.arange(10.0)
    numpy.elementwise(Formula(lambda xp, x: (x + 1) * x, "f", ["x"]), (a[:-1],), out=a[1:])
    np.testing.assert_array_equal(a, [0, 0, 2, 6, 12, 20, 30, 42, 56, 72])


def test_half_precision_is_summed_in_float32() -> None:
    big, one = np.array([2048.0], np.float16), np.array([1.0], np.float16)
    difference = numpy.elementwise(Formula(lambda xp, a, b: a + b - a, "f", ["a", "b"]), (big, one))
    assert big + one - big == 0  # what float16 itself makes of it
    assert_identical(difference, one)


def test_float32_meets_float64_before_the_arithmetic() -> None:
    """Else exp of a float32 would carry a float32's error into a float64 result."""
    x, zero = np.array([0.1], np.float32), np.zeros(1)
    result = numpy.elementwise(Formula(lambda xp, a, b: xp.exp(a) + b, "f", ["a", "b"]), (x, zero))
    assert_identical(result, np.exp(x.astype(np.float64)))


@pytest.mark.parametrize("order", ["F", "strided", "big-endian"])
def test_operands_and_out_of_any_order(order: str) -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))
    layouts: dict[str, Callable[[], np.ndarray]] = {
        "F": lambda: np.asfortranarray(x),
        "strided": lambda: np.repeat(x, 2, axis=1)[:, ::2],
        "big-endian": lambda: x.astype(">f8"),
    }
    operand, out = layouts[order](), layouts[order]()
    operand.flags.writeable = False
    numpy.elementwise(Formula(lambda xp, a: a * a - 1 / a, "f", ["a"]), (operand,), out=out)
    np.testing.assert_array_equal(out, x * x - 1 / x)
