"""Kernels that go on with what the kernel before them computes: the same bits as one after the other, in one launch."""

import itertools
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnkit
from nnkit.backends.cuda.launch import extent, meet
from nnkit.backends.dtypes import numpy_dtype
from nnkit.backends.formula import Formula
from nnkit.backends.formulas.program import chained
from nnkit.backends.recording import Tape
from nnkit.kernels.cost import output_pair
from nnkit.kernels.dense import dense_forward
from nnkit.placement import DropoutState
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host

Array = NDArray[Any]
ADD = Formula(lambda xp, a, b: a + b, "add", ["a", "b"])
TANH = Formula(lambda xp, a: xp.tanh(a), "hyperbolic", ["a"])
BOTH = Formula(lambda xp, a, b: (a - b, a * b), "both", ["a", "b"])
FIRST = Formula(lambda xp, a, b: a, "first", ["a", "b"])
LIFTED = Formula(lambda xp, a: a * 0.5 + 1, "lifted", ["a"])
FORMULAS = [ADD, TANH, BOTH, FIRST]


def pool(host: HostDevice, dtype: str) -> list[Any]:
    """Matrices, two of which overlap by a row and two by all but an entry, a row, a column and a number."""
    rng = np.random.default_rng(3)
    whole, skewed = (host.asarray(rng.normal(size=shape).astype(numpy_dtype(dtype))) for shape in ((9, 4), (33,)))
    arrays = [host.asarray(rng.normal(size=(8, 4)).astype(numpy_dtype(dtype))) for _ in range(3)]
    arrays += [whole[:8], whole[1:], skewed[:32].reshape(8, 4), skewed[1:].reshape(8, 4)]
    arrays += [host.asarray(rng.normal(size=shape).astype(numpy_dtype(dtype))) for shape in ((4,), (8, 1), ())]
    # Parts of others: a row and a number that results may overwrite.
    return [*arrays, arrays[0][2], arrays[1][1, 1:2]]


MATRICES = 7
CALLS = st.lists(
    st.tuples(
        st.sampled_from(FORMULAS),
        st.lists(st.integers(0, MATRICES + 4), min_size=2, max_size=2),
        st.lists(st.integers(0, MATRICES), min_size=2, max_size=2),
    ),
    min_size=2,
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(calls=CALLS, dtype=st.sampled_from(["float32", "float64", "float16"]))
def test_fused_kernels_have_the_bits_of_separate_ones(calls: Any, dtype: str) -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    found = []
    for recorded in (True, False):
        host = HostDevice(cupy)
        arrays = pool(host, dtype)
        with host.recording() if recorded else nullcontext(Tape()) as tape:
            for formula, chosen, places in calls:
                operands = [arrays[i] for i in chosen[: len(formula.operands)]]
                operands[0] = arrays[chosen[0] % MATRICES]  # at least one has the shape of the results
                count = 2 if formula is BOTH else 1
                if count == 2 and meets(arrays, *(place % MATRICES for place in places)):
                    continue
                # The last place is that of a new array, which is a matrix from now on.
                outs = [host.empty((8, 4), dtype) if i == MATRICES else arrays[i] for i in places[:count]]
                host.elementwise(formula, operands, out=tuple(outs) if count == 2 else outs[0])
                for i, out in zip(places, outs, strict=False):
                    if i == MATRICES:
                        arrays[chosen[1] % 3] = out
        tape.replay()
        found.append([on_host(array).copy() for array in arrays])
    for one, other in zip(*found, strict=True):
        assert one.tobytes() == other.tobytes()


def test_two_calls_in_any_memory(host: HostDevice) -> None:
    """The second takes one of two results, and an operand and a result that may lie across all that the first has."""
    chained_calls = 0
    results = [(0, 3), (3, 5), (5, 0)]
    for addend, (out, beside), second, last in itertools.product((1, 10), results, range(12), range(MATRICES)):
        arrays, others = pool(host, "float32"), pool(host, "float32")
        expected = [on_host(array) for array in others]
        with host.recording() as tape:
            host.elementwise(BOTH, (arrays[2], arrays[addend]), out=(arrays[out], arrays[beside]))
            host.elementwise(ADD, (arrays[out], arrays[second]), out=arrays[last])
        chained_calls += len(tape.calls) == 1
        tape.replay()
        difference, product = expected[2] - expected[addend], expected[2] * expected[addend]
        expected[out][...], expected[beside][...] = difference, product
        expected[last][...] = expected[out] + expected[second]
        for array, values in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(on_host(array), values, err_msg=f"{addend, out, beside, second, last}")
    assert chained_calls > 100


def test_a_rounded_result_is_read_as_stored(host: HostDevice) -> None:
    """Beside one that is handed on."""
    a, b = (host.asarray(np.linspace(0.1, value, 32).reshape(4, 8), "float32") for value in (1.1, 2.2))
    exact, rounded = host.empty((4, 8), "float32"), host.empty((4, 8), "float16")
    with host.recording() as tape:
        host.elementwise(BOTH, (a, b), out=(exact, rounded))
        total = host.elementwise(ADD, (exact, rounded))
    tape.replay()
    values = (on_host(a) - on_host(b)) + (on_host(a) * on_host(b)).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(on_host(total), values)


def meets(arrays: list[Any], one: int, other: int) -> bool:
    """Whether two results would lie in the same memory."""
    first, second = (extent(arrays[i], arrays[i].data.ptr) for i in (one, other))
    return meet(first, second)


def test_overwritten_results_are_not_stored(host: HostDevice) -> None:
    """A result that the next call overwrites is never in memory; one that is somewhere else is."""
    a, b, out = (host.asarray(np.full((4, 8), value), "float32") for value in (0.25, 0.5, 7.0))
    with host.recording() as tape:
        host.elementwise(ADD, (a, b), out=out)
        host.elementwise(TANH, (out,), out=out)
        host.elementwise(ADD, (out, b), out=a)
    call: Any
    (call,) = tape.calls
    assert call.name == "add_hyperbolic_add"
    assert [array.data.ptr for array in call.outs] == [out.data.ptr, a.data.ptr]
    tape.replay()
    np.testing.assert_allclose(on_host(out), np.tanh(0.75), rtol=2e-7)
    np.testing.assert_allclose(on_host(a), np.tanh(0.75) + 0.5, rtol=2e-7)


@pytest.mark.parametrize("formula", [ADD, LIFTED])
def test_fused_kernels_have_a_size_limit(host: HostDevice, formula: Formula) -> None:
    """CUDA takes 4096 bytes of arguments, and a thousand calls are recorded without texts of a thousand lines."""
    n = 600
    a = host.asarray(np.zeros((4, 8)), "float32")
    addends = [host.asarray(np.full((4, 8), i % 7), "float32") for i in range(n)]
    with host.recording() as tape:
        for addend in addends:
            host.elementwise(formula, (a, addend)[: len(formula.operands)], out=a)
    kernels: list[Any] = tape.calls
    assert n / 100 < len(kernels) < n / 10
    assert max(len(call.operands) + len(call.outs) for call in kernels) <= 24
    assert max(len(call.name) for call in kernels) < 2000
    tape.replay()
    np.testing.assert_array_equal(on_host(a), sum(i % 7 for i in range(n)) if formula is ADD else 2.0)


@pytest.mark.parametrize("cost", ["quadratic", "cross_entropy"])
def test_an_output_layer_is_one_kernel(host: HostDevice, cost: str) -> None:
    """The bias, the activation, the cost's derivative and the activation's (eq. 8 and 19)."""
    rng = np.random.default_rng(0)
    product, b, y = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (4,), (6, 4)))
    with host.recording() as tape:
        z = host.elementwise(ADD, (on := host.asarray(product.copy()), host.asarray(b)), out=on)
        pair, scale = output_pair(nnkit.get_cost(cost), "sigmoid"), host.asarray(0.5, "float32")
        delta = pair.delta(host, z, host.asarray(y), scale)
    assert len(tape.calls) == 1
    tape.replay()
    logits = (product + b).astype(float)
    h = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(on_host(z), logits, rtol=1e-6)
    expected = (h - y) / 2 * (h * (1 - h) if cost == "quadratic" else 1)
    np.testing.assert_allclose(on_host(delta), expected, rtol=0, atol=1e-6)


def test_dropout_in_the_kernel_of_its_layer_drops_the_same(host: HostDevice) -> None:
    """Bit by bit what NumPy drops, in each of three steps, and the numbers of two layers of dropout are apart."""
    x, W, b = (np.random.default_rng(1).normal(size=shape).astype(np.float32) for shape in ((6, 12), (20, 12), (20,)))
    found = []
    for backend in (host, nnkit.get_backend("numpy")):
        random = DropoutState(backend, "float32", seed=9)
        on = [backend.asarray(array) for array in (x, W, b)]
        with backend.recording() as tape:
            h = dense_forward(on[0], on[1], on[2], "relu")
            dropped, first = random.apply(h, 0.3, 1)
            _, second = random.apply(dropped, 0.6, 2)
            random.advance()
        if backend is host:
            kernels: list[Any] = tape.calls[1:]
            assert [call.name for call in kernels] == ["biased_relu_dropout_dropout", "dropout_clock"]
        for _ in range(3):
            tape.replay()
            found.append([backend.to_numpy(array).copy() for array in (h, dropped, first, second)])
    for (h, dropped, *masks), (_, _, *expected) in zip(found[:3], found[3:], strict=True):
        for mask, other in zip(masks, expected, strict=True):
            assert mask.tobytes() == other.tobytes()
        np.testing.assert_array_equal(dropped, h * masks[0])
    assert len({mask.tobytes() for step in found[:3] for mask in step[2:]}) == 6


@pytest.mark.parametrize("between", ["another shape", "another type", "a half type", "a row", "a copy", "a replay"])
def test_what_prevents_fusion(host: HostDevice, between: str) -> None:
    dtype = "float16" if between == "a half type" else "float32"
    a = host.asarray(np.linspace(-1, 1, 32).reshape(4, 8), dtype)
    with host.recording() as inner:
        host.elementwise(TANH, (a,))
    with host.recording() as tape:
        h = host.elementwise(TANH, (a,))
        if between == "a copy":
            host.copy(a, host.empty((4, 8), dtype))
        if between == "a replay":
            inner.replay()
            inner.replay()
        if between == "another shape":
            host.elementwise(TANH, (h[:2],))
        elif between == "another type":
            host.elementwise(ADD, (h, host.asarray(np.ones((4, 8)), "float64")))
        elif between == "a row":  # which all rows of the result read
            host.elementwise(ADD, (h, h[1]))
        else:
            host.elementwise(TANH, (h,))
    assert len(tape.calls) == {"a copy": 3, "a replay": 4}.get(between, 2)


def test_programs_in_a_row() -> None:
    """Operands of the second are results of the first, or its own, in any order, or twice the same."""
    first, second = BOTH.program(), BOTH.program()
    both = chained(first, second, (1, None), (0,))
    assert both.operands == ("a", "b", "b")
    assert both is chained(first, second, (1, None), (0,))
    values = run(both, 3.0, 5.0, 7.0)
    assert values == [-2.0, 15.0 - 7.0, 15.0 * 7.0]
    assert run(chained(first, second, (1, 0), ()), 3.0, 5.0) == [15.0 - -2.0, 15.0 * -2.0]
    assert run(chained(first, second, (0, 0), (1, 0)), 3.0, 5.0) == [15.0, -2.0, 0.0, 4.0]
    assert run(chained(first, FIRST.program(), (None, 0), ()), 3.0, 5.0, 9.0) == [9.0]


def run(program: Any, *operands: float) -> list[float]:
    """A program of sums, differences and products on Python's numbers."""
    does = {"add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b}
    found = list(operands)
    for value in program.values[len(operands) :]:
        found.append(does[value.op](*(found[i] for i in value.arguments)))
    return [found[i] for i in program.outputs]
