"""Recording: nothing is done in the block, and each replay does it all on what the arrays hold then."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import Backend, get_backend
from nnkit.backends.formula import Formula
from nnkit.backends.recording import Call, Composite, Nodes, Pass, Tape, active_tape, calls_of, perform, recording

if TYPE_CHECKING:
    from tests.conftest import Arrays

wave = Formula(lambda xp, a, b: xp.sin(a) * b + a, "wave", ["a", "b"])
crowded = Formula(lambda xp, a, b: xp.floor(a * b) + xp.sqrt(abs(a + b)) * b, "crowded", ["a", "b"])  # has scratch
add = Formula(lambda xp, a, b: a + b, "add", ["a", "b"])
both = Formula(lambda xp, a, b: (a + b, a * b), "both", ["a", "b"])

# Each with the shapes of its operands, how a backend is asked for it, and NumPy's own word for it.
Calls = dict[str, tuple[list[tuple[int, ...]], Callable[..., Any], Callable[..., Any]]]
CALLS: Calls = {
    "elementwise": (
        [(3, 4), (4,)],
        lambda backend, a, b, out: backend.elementwise(wave, (a, b), out),
        lambda a, b: np.sin(a) * b + a,
    ),
    "matmul": ([(3, 4), (4, 2)], lambda backend, a, b, out: backend.matmul(a, b, out), np.matmul),
    "batched matmul": ([(2, 3, 4), (2, 4, 2)], lambda backend, a, b, out: backend.matmul(a, b, out), np.matmul),
    "sum of all": ([(3, 4)], lambda backend, a, out: backend.sum(a, out=out), np.sum),
    "sum of columns": ([(3, 4)], lambda backend, a, out: backend.sum(a, 0, out=out), lambda a: a.sum(0)),
    "sum of rows": (
        [(3, 4)],
        lambda backend, a, out: backend.sum(a, -1, True, out=out),
        lambda a: a.sum(-1, keepdims=True),
    ),
    "max": ([(3, 4)], lambda backend, a, out: backend.max(a, 0, out=out), lambda a: a.max(0)),
}


def change(backend: Backend, array: Any, values: np.ndarray) -> None:
    backend.copy(backend.asarray(values, "float64"), array)


@pytest.mark.parametrize("given_out", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_each_operation_is_recorded_and_replayed(arrays: "Arrays", name: str, given_out: bool) -> None:
    shapes, ask, numpy_does = CALLS[name]
    backend, rng = arrays.backend, np.random.default_rng(0)
    values = [rng.normal(size=shape) for shape in shapes]
    # What the operands hold while the tape records must not matter, nor make itself heard.
    operands = [backend.asarray(np.full(shape, 1e300), "float64") for shape in shapes]
    out = backend.asarray(np.full(numpy_does(*values).shape, 77.0), "float64") if given_out else None
    with backend.recording() as tape:
        result = ask(backend, *operands, out)
    assert not given_out or result is out
    if given_out:
        np.testing.assert_array_equal(arrays.numpy(result), 77.0)
    for _ in range(2):
        values = [rng.normal(size=shape) for shape in shapes]
        for operand, value in zip(operands, values, strict=True):
            change(backend, operand, value)
        tape.replay()
        np.testing.assert_allclose(arrays.numpy(result, "float64"), numpy_does(*values), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given_out", [False, True])
def test_take_and_copy(arrays: "Arrays", given_out: bool) -> None:
    backend = arrays.backend
    rows, target = arrays([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), arrays.backend.zeros((2, 2), "float64")
    indices = backend.asarray(np.array([10**9, -(10**9)]), "int64")  # not written yet
    out = backend.zeros((2, 2), "float64") if given_out else None
    with backend.recording() as tape:
        taken = backend.take(rows, indices, out)
        backend.copy(taken, target)
    np.testing.assert_array_equal(arrays.numpy(target), 0.0)
    for wanted in ([2, 0], [1, 1]):
        backend.copy(backend.asarray(np.array(wanted), "int64"), indices)
        tape.replay()
        np.testing.assert_array_equal(arrays.numpy(target), np.array([[1, 2], [3, 4], [5, 6]])[wanted])


def test_a_chain_with_nested_results_and_an_update_in_place(arrays: "Arrays") -> None:
    backend, rng = arrays.backend, np.random.default_rng(1)
    w, x = rng.normal(size=(4, 2)), rng.normal(size=(3, 4))
    weights, inputs = backend.asarray(w.copy(), "float64"), backend.empty((3, 4), "float64")
    with backend.recording() as tape:
        total, scaled = backend.elementwise(both, (backend.matmul(inputs, weights), 0.5))
        gradient = backend.matmul(inputs.mT, backend.elementwise(wave, (total, scaled)))
        nnkit.kernels.updates.gradient_descent(weights, gradient, 0.1, out=weights)
    for _ in range(3):
        change(backend, inputs, x)
        tape.replay()
        h = x @ w
        w = w - 0.1 * (x.T @ (np.sin(h + 0.5) * (h * 0.5) + (h + 0.5)))
        np.testing.assert_allclose(arrays.numpy(weights), w, rtol=1e-12, atol=1e-12)
        x = rng.normal(size=x.shape)


def test_numpy_does_nothing_while_it_records() -> None:
    backend, counted = get_backend("numpy"), []
    a, out = np.ones((2, 2)), np.full((2, 2), 77.0)
    with backend.recording() as tape:
        assert active_tape() is tape
        for made in (backend.elementwise(wave, (a, a), out), backend.matmul(a, a, out), backend.take(a, [0, 1], out)):
            counted.append(len(tape.nodes))
            assert made is out
        backend.sum(a, 0, out=out[0])
        backend.max(a, 0, out=out[1])
        backend.copy(a, out)
    assert active_tape() is None
    np.testing.assert_array_equal(out, 77.0)
    assert counted == sorted(counted)
    assert len(tape.nodes) >= 6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_products_and_sums_are_recorded(dtype: str) -> None:
    backend = get_backend("numpy")
    a = backend.zeros((2, 2), dtype)
    with backend.recording() as tape:
        product = backend.matmul(a, a)
        total = backend.sum(product, 0)
    a[...] = [[1, 2], [3, 4]]
    tape.replay()
    np.testing.assert_array_equal(product.astype(float), [[7, 10], [15, 22]])
    np.testing.assert_array_equal(total.astype(float), [22, 32])


def test_replays_allocate_nothing() -> None:
    backend, n = get_backend("numpy"), 512
    x, w, b = np.ones((n, n)), np.ones((n, n)), np.ones(n)
    indices = np.arange(n)
    with backend.recording() as tape:
        taken = backend.take(x, indices)
        h = nnkit.dense_forward(taken, w, b, activation="gelu_tanh")
        delta = backend.elementwise(wave, (h, backend.max(h, -1, keepdims=True)))
        nnkit.dense_backward(delta, taken, w, h, activation="sigmoid", out=(x, None, b))
        backend.copy(backend.sum(h), np.empty(()))
    tape.replay()
    tracemalloc.start()
    tape.replay()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # No array of ours is this small: NumPy's iterator has a buffer or two of 64 KiB for operands that it broadcasts.
    assert peak < x.nbytes / 8


def test_a_tape_keeps_its_arrays_and_its_scratch() -> None:
    backend, rng = get_backend("numpy"), np.random.default_rng(2)
    value = rng.normal(size=(30, 20))
    with backend.recording() as tape:
        result = backend.elementwise(wave, (value.copy(), value[0].copy()))
    with backend.recording() as other:
        backend.elementwise(wave, (np.zeros((300, 20)), np.zeros(20)))
    gc.collect()
    for _ in range(2):
        tape.replay()
        other.replay()
        wave(rng.normal(size=(40, 40)), 1.0)
    np.testing.assert_array_equal(result, np.sin(value) * value[0] + value)


def test_other_calls_between_replays_do_not_disturb_a_tape() -> None:
    """As when another thread computes, or replays another tape, while this one is replayed."""
    value = np.random.default_rng(3).normal(size=(30, 20))
    with get_backend("numpy").recording() as tape:
        result = crowded(value, value[0])
    for call in tape.calls:
        call()
        crowded(value + 1, value[1])
    np.testing.assert_array_equal(result, np.floor(value * value[0]) + np.sqrt(abs(value + value[0])) * value[0])


def test_replays_are_silent_about_infinities(arrays: "Arrays") -> None:
    z = arrays([-1e4, 1e4])
    with arrays.backend.recording() as tape:
        h = nnkit.sigmoid(z)
    tape.replay()  # warnings are errors in these tests
    np.testing.assert_array_equal(arrays.numpy(h), [0.0, 1.0])


def test_a_tape_replayed_several_times_while_another_records(arrays: "Arrays") -> None:
    backend = arrays.backend
    a, one = backend.zeros((3,), "float64"), arrays(np.ones(3))
    with backend.recording() as inner:
        backend.elementwise(add, (a, one), a)
    with backend.recording() as outer:
        inner.replay(3)
    assert arrays.numpy(a).tolist() == [0, 0, 0]
    outer.replay()
    assert arrays.numpy(a).tolist() == [3, 3, 3]
    outer.replay(2)
    assert arrays.numpy(a).tolist() == [9, 9, 9]


def test_tapes_replayed_only_by_other_tapes_are_not_lowered() -> None:
    """A minibatch of `fit` is such a tape: the step in it is lowered once, with what is around it."""
    done: list[str] = []
    lowered: list[int] = []

    def lower(nodes: Nodes) -> list[Call]:
        lowered.append(len(nodes))
        return calls_of(nodes)

    with recording(Tape(lower=lower)) as inner:
        perform(lambda: done.append("inner"))
    with recording(Tape(lower=lower)) as outer:
        inner.replay(2)
        perform(lambda: done.append("outer"))
    assert (done, lowered) == ([], [])
    for _ in range(2):
        outer.replay()
    assert (done, lowered) == (["inner", "inner", "outer"] * 2, [3])
    inner.replay()
    assert (done[6:], lowered) == (["inner"], [3, 1])


def test_passes_run_once_in_their_order_and_not_where_the_block_fails() -> None:
    seen: list[str] = []

    def named(name: str) -> Pass:
        def rewrite(nodes: Nodes) -> Nodes:
            seen.append(f"{name} {len(nodes)}")
            return [*nodes, *nodes]

        return rewrite

    with recording(Tape([named("one"), named("two")])) as tape:
        perform(lambda: seen.append("call"))
        assert len(tape.calls) == 1  # those of now
    assert seen == ["one 1", "two 2"]
    assert len(tape.calls) == len(tape.nodes) == 4
    with pytest.raises(KeyError), recording(Tape([named("three")])):
        raise KeyError
    assert len(seen) == 2


def test_composite_calls_are_expanded() -> None:
    class Twice(Composite):
        def __call__(self) -> None:
            for _ in range(2):
                perform(lambda: done.append(1), name="once")

    class Fourfold(Composite):
        def __call__(self) -> None:
            for _ in range(2):
                perform(Twice())

    done: list[int] = []
    with recording(Tape()) as tape:
        perform(Fourfold())
    assert [node.name for node in tape.nodes] == ["once"] * 4
    Fourfold()()  # at once
    assert done == [1] * 4
    tape.replay()
    assert done == [1] * 8
