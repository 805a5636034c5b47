"""Native formulas: random programs of exact operations give the bits of plain NumPy expressions, in every layout."""

import signal
from random import Random
from typing import Any

import numpy as np
import pytest

from nnkit.backends import BackendFallbackWarning, get_backend
from nnkit.backends.cpu.blocks import SideBySide
from nnkit.backends.cpu.native import compiler
from nnkit.backends.cpu.native.calls import NativeCall
from nnkit.backends.cpu.native.compiler import address_of
from nnkit.backends.cpu.native.formulas import approximates, native_calls, native_source
from nnkit.backends.cpu.native.runs import NativeRun
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

pytest.importorskip("numba")

SHAPES = [(), (1,), (37,), (0,), (3, 5), (2, 0), (4, 1), (2, 3, 19), (1, 2, 1), (3, 70)]


def random_case(seed: int) -> bool:
    """Compare a random program with NumPy; returns whether it has native code."""
    choose = Random(seed)
    recipe, shape = random_recipe(choose, EXACT), choose.choice(SHAPES)
    dtypes = random_dtypes(choose, recipe.operands)
    operands = [random_values(choose, narrowed(choose, shape), dtype) for dtype in dtypes]
    shape = np.broadcast_shapes(*(o.shape for o in operands))
    dtype = max(dtypes, key=[*DTYPES].index)
    expected = [np.broadcast_to(e, shape) for e in plain_numpy(recipe, operands, dtype)]
    outs = [np.full(shape, 77, DTYPES[dtype]) for _ in recipe.outputs]
    for j in range(len(outs)):  # some results in the memory of an operand, by columns or both
        place = choose.choice(operands)
        if choose.random() < 0.5 and (place.shape, place.dtype) == (shape, outs[j].dtype):
            outs[j] = place if not any(o is place for o in outs) else outs[j]
    if choose.random() < 0.3:
        in_place = {id(o): i for i, o in enumerate(operands)}
        by_columns = [np.asarray(o, order="F") for o in operands]
        outs = [by_columns[in_place[id(o)]] if id(o) in in_place else np.asarray(o, order="F") for o in outs]
        operands = by_columns
    calls = native_calls(recipe.formula().program(), operands, outs)
    for call in calls or []:
        call()
    for out, wanted in zip(outs, expected, strict=True):
        if calls is not None:
            assert_identical(out, wanted)
    return calls is not None


@pytest.mark.parametrize("count", [40, pytest.param(4000, marks=pytest.mark.campaign)])
def test_random_programs(count: int) -> None:
    native = sum(map(random_case, range(count)))
    assert native > 0.6 * count  # the others broadcast in a way that has no loop, such as along a middle axis


def formula(function: Any) -> Formula:
    return Formula(function, "f", function.__code__.co_varnames[1 : function.__code__.co_argcount])


BIASED = formula(lambda xp, h, b: xp.where(h + b > 0, h + b, 0.1 * (h + b)))
ADAM = formula(lambda xp, p, g, m, r: (p - r * (0.9 * m + g) / (xp.sqrt(xp.abs(g)) + 1e-8), 0.9 * m + g))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_and_updates_in_place(order: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)
    h, p, g, m = (np.asarray(rng.normal(size=(33, 70)), dtype, order=order) for _ in range(4))
    b, r = rng.normal(size=70).astype(dtype), np.asarray(0.25, dtype)
    for made, operands, outs in ((BIASED, [h, b], [h]), (ADAM, [p, g, m, r], [p, m])):
        expected = [np.asarray(x) for x in as_tuple(made.function(np, *(o.copy() for o in operands)))]
        (call,) = native_calls(made.program(), operands, outs) or []
        call()
        for out, wanted in zip(outs, expected, strict=True):
            assert_identical(out, wanted.astype(dtype))


def as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def test_what_has_no_native_code() -> None:
    program = formula(lambda xp, a, b: a * b).program()
    x, row = np.ones((4, 6)), np.ones(6)
    shared = np.ones(50)
    assert native_calls(program, [x, row], [np.empty((4, 6))]) is not None
    cases: list[tuple[list[np.ndarray], np.ndarray]] = [
        ([x[:, ::2], row[::2]], np.empty((4, 3))),  # strided
        ([x, row], np.empty((4, 12))[:, ::2]),
        ([shared[:24].reshape(4, 6), x], shared[1:25].reshape(4, 6)),  # an operand that results overwrite too early
        ([x, shared[:6]], shared[:24].reshape(4, 6)),
        ([np.ones((4, 1)), np.ones((2, 4, 6))], np.empty((2, 4, 6))),  # along a middle axis
        ([np.ones(x.shape, np.float16), x], np.empty(x.shape, np.float16)),  # rounding float64 to half
        ([x, np.frombuffer(bytearray(8 * 24 + 1), np.uint8)[1:].view(np.float64).reshape(4, 6)], np.empty((4, 6))),
    ]
    for operands, out in cases:
        assert native_calls(program, operands, [out]) is None
    assert native_calls(formula(lambda xp, a: xp.sin(a)).program(), [x], [np.empty((4, 6))]) is None
    both = formula(lambda xp, a: (a + 1, a - 1)).program()
    assert native_calls(both, [x], [shared[:24].reshape(4, 6), shared[20:44].reshape(4, 6)]) is None


@pytest.mark.parametrize("function", [lambda xp, a, b: a * b, lambda xp, a, b: xp.exp(a) * b], ids=["exact", "exp"])
def test_what_is_recorded_has_the_bits_of_what_is_not(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else results would depend on what was computed before. Scalars are read again at each replay."""
    backend, made, results = get_backend("numpy"), formula(function), []
    for switch in ("1", "0"):
        monkeypatch.setenv("NNKIT_NATIVE", switch)
        x, rate, out = np.linspace(-3, 3, 1000), np.asarray(2.0), np.empty(1000)
        with backend.recording() as tape:
            backend.elementwise(made, (x, rate), out=out)
        tape.replay()
        rate[...] = 3.0
        tape.replay()
        np.testing.assert_array_equal(out, made(x, rate))
        assert {isinstance(call, NativeCall | NativeRun) for call in tape.calls} == {switch == "1"}
        results.append(out)
    native, ufuncs = results
    np.testing.assert_array_max_ulp(native, ufuncs, 4)
    assert np.array_equal(native, ufuncs) is not approximates(made.program())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_calls_outside_of_recordings_follow_their_arrays(dtype: str) -> None:
    """A thread keeps the code of a layout; the arrays differ from call to call, and so may their order in memory."""
    backend, made = get_backend("numpy"), formula(lambda xp, a, b: xp.exp(a) * b)
    rng = np.random.default_rng(0)
    for shape in ((), (1,), (0, 3), (37,), (4, 6)) * 2:
        for order in "CFC":
            a, b = (np.asarray(rng.normal(size=shape).astype(dtype), order="F" if order == "F" else "C") for _ in "ab")
            outs = [np.empty(shape, dtype) for _ in range(2)]
            with backend.recording() as tape:
                backend.elementwise(made, (a, b), out=outs[0])
            tape.replay()
            backend.elementwise(made, (a, b), out=outs[1])
            np.testing.assert_array_equal(outs[0], outs[1])
            np.testing.assert_allclose(outs[0], np.exp(a) * b, rtol=1e-6)
            backend.elementwise(made, (a, b), out=a)  # in place; F is native code here, and ufuncs above
            np.testing.assert_allclose(a, outs[0], rtol=1e-6 if order == "F" else 0)


def test_without_a_working_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is told once; from then on formulas are ufuncs."""
    monkeypatch.setattr(compiler, "_failed", None)
    monkeypatch.setattr(compiler, "_load", lambda text: 1 / 0)
    product = formula(lambda xp, a, b: a * b + 7.25)
    x = np.arange(3.0)
    with pytest.warns(BackendFallbackWarning, match="without native code: ZeroDivisionError.*NNKIT_NATIVE=0"):
        assert native_calls(product.program(), [x, x], [np.empty(3)]) is None
    assert not compiler.enabled()
    monkeypatch.setattr(compiler, "_failed", None)
    monkeypatch.setattr(compiler, "_addresses", {})
    backend, out = get_backend("numpy"), np.empty((3, 3))
    with backend.recording() as tape:
        backend.matmul(x[:, None], x[None], out=out)
        backend.elementwise(product, (out, x), out=out)
    with pytest.warns(BackendFallbackWarning, match="without native code"):
        tape.replay()
    np.testing.assert_array_equal(out, np.outer(x, x) * x + 7.25)
    assert compiler.describe() == "off: ZeroDivisionError: division by zero"
    monkeypatch.setattr(compiler, "_failed", None)
    with pytest.warns(BackendFallbackWarning, match="without native code"):
        assert formula(lambda xp, a: xp.exp(a) + 7.5)(np.zeros(2)).tolist() == [8.5, 8.5]
    assert native_calls(product.program(), [x, x], [np.empty(3)]) is None


def test_the_exception_of_a_signal_handler_does_not_turn_native_code_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(compiler, "_load", lambda text: signal.raise_signal(signal.SIGTERM))
    x, before = np.arange(3.0), signal.signal(signal.SIGTERM, late)
    try:
        with pytest.raises(TimeoutError):
            native_calls(formula(lambda xp, a, b: a * b + 7.75).program(), [x, x], [np.empty(3)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert compiler.enabled()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_the_listing_is_what_is_compiled(dtype: str) -> None:
    product = formula(lambda xp, a, b: a * b + 1)
    a, b, out = (np.full(9, k, DTYPES[dtype]) for k in (3, 2, 0))
    (call,) = native_calls(product.program(), [a, b], [out]) or []
    assert isinstance(call, NativeCall)
    assert call.address == address_of(native_source(product, dtype).partition("\n")[2])
    call()
    np.testing.assert_array_equal(out.astype(float), 7.0)


def test_large_arrays_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnkit.backends.cpu.blocks.thread_count", lambda: 2)
    x = np.random.default_rng(0).normal(size=(1 << 10, 1 << 9))
    out, row = np.empty_like(x), np.full(1 << 9, 2.0)
    (call,) = native_calls(formula(lambda xp, a, b: xp.sqrt(a * a) * b).program(), [x, row], [out]) or []
    assert isinstance(call, SideBySide)
    call()
    np.testing.assert_array_equal(out, np.abs(x) * 2)
