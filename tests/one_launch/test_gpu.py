"""One launch an epoch on a real GPU: it trains as NumPy's steps do, with the same bits each time."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import Backend
from nnkit.backends.cuda.cluster import limits_of
from nnkit.one_launch import EpochKernel, epoch_kernel_for
from nnkit.one_launch.layout import layout, recipe_of
from nnkit.optimizers import OptimizerState
from tests.conftest import gpu_backend
from tests.support.epoch_cases import (
    CASES,
    Array,
    Case,
    Trained,
    assert_as_exact_as_numpy,
    bits,
    train_by_steps,
    trained,
)

pytestmark = pytest.mark.gpu

LECTURE = CASES["the lecture's"]


@pytest.fixture
def gpu() -> Backend:
    return gpu_backend()


def prepared(case: Case, gpu: Backend, blocks: int) -> tuple[nnkit.Network, OptimizerState, EpochKernel]:
    """The case's network on the GPU, its optimizer's state, and a kernel of so many blocks for it."""
    model = case.network(backend=gpu.name)
    state = model.optimizer_state(case.optimizer())
    recipe = recipe_of(model, state)
    assert recipe is not None
    made = layout(recipe, case.batch_size, blocks)
    limits = limits_of(model.parameters.flat)
    if blocks > limits.cluster or made.bytes > limits.shared_bytes:
        pytest.skip(f"{blocks} blocks of {made.bytes} bytes: this GPU has {limits}")
    return model, state, EpochKernel(model, state, recipe, made)


def train(case: Case, gpu: Backend, blocks: int, shift: int = 0, ordered: bool = True, nan: bool = False) -> Trained:
    """The case trained on the GPU; X starts `shift` numbers after an aligned address."""
    model, state, kernel = prepared(case, gpu, blocks)
    X, y = case.data()
    if nan:
        X[17, 3] = np.nan
    logits = gpu.asarray(np.full((case.samples, case.sizes[-1]), np.nan, np.float32))
    for number in range(case.epochs):
        order, rates = case.epoch(number)
        rows = X if ordered else X[order]
        place = gpu.empty((X.size + shift,), "float32")[shift:].reshape(X.shape)
        gpu.copy(gpu.asarray(rows), place)
        given = gpu.asarray(order) if ordered else None
        kernel.run(place, gpu.asarray(y[order]), given, gpu.asarray(rates), logits)
    return trained(model, state, gpu.to_numpy(logits))


@functools.cache
def by_steps(name: str, dtype: str) -> Trained:
    return train_by_steps(CASES[name], dtype)


@pytest.mark.parametrize("blocks", [1, 2, 4, 8])
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_trains_like_recorded_steps(gpu: Backend, name: str, blocks: int) -> None:
    found = train(CASES[name], gpu, blocks)
    assert_as_exact_as_numpy(found, by_steps(name, "float32"), by_steps(name, "float64"))


@pytest.mark.parametrize("blocks", [1, 8])
@pytest.mark.parametrize("name", ["the lecture's", "all options of SGD", "four layers, Adam"])
def test_the_same_bits_each_time(gpu: Backend, name: str, blocks: int) -> None:
    first = bits(train(CASES[name], gpu, blocks))
    for _ in range(3):
        assert bits(train(CASES[name], gpu, blocks)) == first
    assert bits(train(CASES[name], gpu, blocks, shift=1)) == first  # by copies of 4 bytes
    assert bits(train(CASES[name], gpu, blocks, ordered=False)) == first


def test_on_the_callers_stream(gpu: Backend) -> None:
    expected = bits(train(LECTURE, gpu, 8))
    with gpu.xp.cuda.Stream(non_blocking=True):
        assert bits(train(LECTURE, gpu, 8)) == expected


def arguments(case: Case, gpu: Backend) -> list[Any]:
    """What a kernel is given for the first epoch: X, y, the order, the rates and an array for the logits."""
    X, y = case.data()
    order, rates = case.epoch(0)
    return [*map(gpu.asarray, (X, y[order], order, rates)), gpu.zeros(y.shape, "float32")]


def test_on_another_stream_each_time(gpu: Backend) -> None:
    """Each launch waits for the one before, on whichever stream that was, and the kernel's own stream for the last."""
    cuda, found = gpu.xp.cuda, []
    for streams in ([cuda.get_current_stream()], [cuda.Stream(non_blocking=True) for _ in range(3)]):
        model, state, kernel = prepared(LECTURE, gpu, 8)  # the text is compiled in the first round
        given = arguments(LECTURE, gpu)
        gpu.synchronize()
        for i in range(12):
            with streams[i % len(streams)]:
                kernel.run(*given)
        found.append(trained(model, state, gpu.to_numpy(given[-1])))
    assert np.isfinite(found[0].parameters).all()
    assert bits(found[0]) == bits(found[1])


def test_other_streams_wait_for_the_kernel(gpu: Backend) -> None:
    """What the arrays get on the stream that the kernel was made on is what a launch on another stream reads."""
    cupy, found = gpu.xp, []
    big = cupy.ones((4096, 4096), np.float32)
    for stream in (cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)):
        model, state, kernel = prepared(LECTURE, gpu, 8)
        given = arguments(LECTURE, gpu)
        late = given[0].copy()
        given[0][...] = 0
        gpu.synchronize()
        for _ in range(30):  # some hundred milliseconds, in which X is still zeros
            big = cupy.matmul(big, big) / 4096
        cupy.copyto(given[0], late)
        with stream:
            kernel.run(*given)
        found.append(trained(model, state, gpu.to_numpy(given[-1])))
    assert bits(found[0]) == bits(found[1])


def test_nan_and_infinities_are_passed_on(gpu: Backend) -> None:
    found = train(replace(LECTURE, epochs=1), gpu, 8, nan=True)
    assert np.isnan(found.parameters).any()
    assert np.isnan(found.logits).any()


def test_all_shared_memory_of_a_block(gpu: Backend) -> None:
    case = Case((1150, 40, 10), 4, 62, 1, lambda: nnkit.SGD(0.1), "tanh")
    found = train(case, gpu, 1)
    assert_as_exact_as_numpy(found, train_by_steps(case, "float32"), train_by_steps(case, "float64"))


def test_when_there_is_a_kernel(gpu: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nnkit.Network([64, 30, 10], cost="cross_entropy", seed=0, backend=gpu.name)
    kernel: Any = epoch_kernel_for(net, net.optimizer_state(nnkit.SGD(0.5, momentum=0.9)), 10)
    assert kernel is not None
    assert kernel.layout.bytes <= limits_of(net.parameters.flat).shared_bytes
    wide = nnkit.Network([784, 512, 512, 10], cost="cross_entropy", seed=0, backend=gpu.name)
    assert epoch_kernel_for(wide, wide.optimizer_state(), 1024) is None
    monkeypatch.setenv("NNKIT_ONE_LAUNCH", "0")
    assert epoch_kernel_for(net, net.optimizer_state(), 10) is None


def test_steps_continue_after_a_launch(gpu: Backend) -> None:
    """The clock and the vectors of an optimizer are those that recorded steps go on with."""
    case = replace(CASES["four layers, Adam"], epochs=2)
    results: list[Array] = []
    for backend in ("cupy", "numpy"):
        model = case.network(backend=gpu.name if backend == "cupy" else "numpy")
        state = model.optimizer_state(case.optimizer())
        X, y = case.data()
        asarray = model.backend.asarray
        if backend == "cupy":
            recipe = recipe_of(model, state)
            assert recipe is not None
            order, rates = case.epoch(0)
            logits = gpu.empty((case.samples, case.sizes[-1]), "float32")
            kernel = EpochKernel(model, state, recipe, layout(recipe, case.batch_size, 1))
            kernel.run(asarray(X), asarray(y[order]), asarray(order), asarray(rates), logits)
        else:
            order, rates = case.epoch(0)
            for i, rate in enumerate(rates):
                rows = order[i * case.batch_size : (i + 1) * case.batch_size]
                state.optimizer.learning_rate = float(rate)
                model.train_step(X[rows], y[rows])
        state.optimizer.learning_rate = 1e-3
        model.train_step(asarray(X[:8]), asarray(y[:8]))
        results.append(trained(model, state, np.zeros(1)).parameters)
    # Adam divides by |g|; its steps are of 1e-3 times 1, to some 1e-3 of that.
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=64 * 1e-3 * 1e-3)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("blocks", [1, 2, 8])
def test_a_launch_of_no_samples_changes_nothing(gpu: Backend, blocks: int, first: int) -> None:
    """Neither of aligned rows nor of others, which have a kernel of their own."""
    model, state, kernel = prepared(LECTURE, gpu, blocks)
    X = gpu.zeros((8 * model.d_in + 4,), "float32")[first : 8 * model.d_in + first].reshape(8, model.d_in)
    arrays = [model.parameters.flat, *state.arrays.values()]
    before = [gpu.to_numpy(array).tobytes() for array in arrays]
    assert kernel.works(X)
    assert [*kernel._texts] == ([4] if model.d_in % 4 == 0 and first == 0 else [1])
    assert [gpu.to_numpy(array).tobytes() for array in arrays] == before
