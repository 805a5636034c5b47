"""Recordings as CUDA graphs: one launch, the same bits as call by call, on any stream, without allocating."""

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends import Backend
from nnkit.backends.cuda.graph import Graph, GraphLowering, Home, graphs_wanted
from nnkit.backends.recording import Node, Tape, perform
from nnkit.step import Step, step_for
from tests.conftest import gpu_backend
from tests.support.accumulating import add_column_sums, add_product
from tests.support.recorded_steps import before_each_step

Array = NDArray[Any]


@pytest.fixture
def gpu() -> Iterator[Backend]:
    yield gpu_backend()
    nnkit.set_matmul_precision("highest")


@pytest.mark.parametrize(("value", "wanted"), [(None, True), ("", True), ("1", True), ("0", False)])
def test_the_variable(monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool) -> None:
    if value is None:
        monkeypatch.delenv("NNKIT_CUDA_GRAPHS", raising=False)
    else:
        monkeypatch.setenv("NNKIT_CUDA_GRAPHS", value)
    assert graphs_wanted() == wanted


def test_any_other_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_CUDA_GRAPHS", "off")
    with pytest.raises(ValueError, match=r"^NNKIT_CUDA_GRAPHS is 'off'; expected 0 or 1$"):
        graphs_wanted()


class Stream:
    """A stream on which nothing runs. Captures end in an error as often as `fails` says, otherwise in a graph."""

    def __init__(self, cuda: "Cuda", name: str, ptr: int = 0) -> None:
        self.cuda, self.name, self.ptr = cuda, name, ptr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr  # as CuPy has it

    def __hash__(self) -> int:
        return self.ptr

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def begin_capture(self, mode: object) -> None:
        self.cuda.done("begin")

    def end_capture(self) -> Any:
        self.cuda.done("end")
        if self.cuda.fails:
            raise self.cuda.fails.pop(0)
        return SimpleNamespace(launch=lambda: self.cuda.done("launch"))

    def record(self, event: object) -> Any:
        return self.name

    def wait_event(self, event: object) -> None:
        self.cuda.done(f"{self.name} waits for {event}")

    def synchronize(self) -> None:
        self.cuda.done("wait")


class Cuda:
    """What graphs ask of `cupy.cuda`, on streams of this file's own; `current` is the current stream."""

    Event = staticmethod(lambda disable_timing: None)
    memory = SimpleNamespace(OutOfMemoryError=MemoryError)

    def __init__(self, *fails: Exception, ptr: int = 0) -> None:
        self.fails, self.calls = list(fails), list[str]()
        self.current = self.home = Stream(self, "home", ptr)
        self.runtime = SimpleNamespace(
            streamCaptureModeThreadLocal=1,
            CUDARuntimeError=KeyError,
            deviceSynchronize=lambda: self.done("wait for all"),
        )

    def done(self, call: str) -> None:
        self.calls.append(call)

    def get_current_stream(self, device: int = -1) -> Stream:
        return self.current

    def Stream(self, non_blocking: bool) -> Stream:
        return Stream(self, "side", 77)

    def graph(self, call: Callable[[], object] = lambda: None) -> Graph:
        """A recording of a call."""

        def made() -> None:
            self.done("call")
            call()

        handle = SimpleNamespace(workspace=lambda stream, captured: None, lent=lambda workspace: nullcontext())
        handles: Any = SimpleNamespace(get=lambda: handle)
        return Graph([Node(made)], self, handles, Home(self), captures=True)


CAPTURE = ["begin", "call", "end"]


def error(status: int) -> Exception:
    """CuPy's error of a call that CUDA refuses; 900 and 901 are those of captures that another thread disturbs."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    made: Exception = cupy.cuda.runtime.CUDARuntimeError(status)
    return made


def test_a_capture_that_fails_is_tried_three_times_and_then_given_up_with_one_warning() -> None:
    cuda = Cuda(*[RuntimeError("refused")] * 3)
    made = cuda.graph()
    made()
    assert cuda.calls == ["call"]
    with pytest.warns(nnkit.BackendFallbackWarning, match=r"executed call by call: refused$"):
        made()
    assert cuda.calls == ["call", *CAPTURE * 3, "call"]
    made()  # a warning would be an error
    assert cuda.calls[-1] == "call"
    assert cuda.calls.count("begin") == 3


def test_a_capture_disturbed_by_another_thread_is_retried() -> None:
    cuda = Cuda(error(901), error(901))
    made = cuda.graph()
    for _ in range(3):
        made()
    assert cuda.calls == ["call", *CAPTURE * 3, "launch", "launch"]


@pytest.mark.parametrize("again", [2, 3])
def test_a_call_disturbed_by_another_thread_is_captured_again(again: int) -> None:
    """The call itself gets the error, and the capture is ended before the next begins."""
    left = [error(900) for _ in range(again)]
    cuda = Cuda()

    def disturbed() -> None:
        if cuda.calls.count("begin") and left:
            raise left.pop()

    made = cuda.graph(disturbed)
    made()
    with nullcontext() if again < 3 else pytest.warns(nnkit.BackendFallbackWarning, match="call by call: .*Capture"):
        made()
    assert cuda.calls == ["call", *CAPTURE * 3, "launch" if again < 3 else "call"]


def on_a_thread(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


@pytest.mark.parametrize("ptr", [0, 1 << 40])
def test_streams_wait_for_the_stream_of_a_tape_and_vice_versa(ptr: int) -> None:
    cuda = Cuda(ptr=ptr)
    made = cuda.graph()
    made()
    cuda.current = Stream(cuda, "other", 5)
    for _ in range(2):
        on_a_thread(made)
    ordered = ["other waits for home", "X", "home waits for other"]
    assert cuda.calls == ["call", *CAPTURE, *ordered[:1], "launch", *ordered[2:], *ordered[:1], "launch", *ordered[2:]]


def test_default_streams_of_two_threads_are_two_streams() -> None:
    """With CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1 they compare equal, and one thread cannot name the other's."""
    cuda = Cuda(ptr=2)
    made = cuda.graph()
    made()
    for _ in range(2):
        on_a_thread(made)  # is not captured: its memory is in use on the other stream
    assert cuda.calls == ["call", *["wait for all", "call", "wait"] * 2]
    cuda.calls.clear()
    made()
    made()
    assert cuda.calls == [*CAPTURE, "launch", "launch"]  # the thread of the recording needs not wait
    cuda.calls.clear()
    on_a_thread(made)
    assert cuda.calls == ["wait for all", "launch", "wait"]
    cuda.current = Stream(cuda, "other", 5)
    cuda.calls.clear()
    made()
    assert cuda.calls == ["other waits for home", "launch", "home waits for other"]


def test_what_a_test_reads_before_each_step_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for the GPU inside a capture."""
    seen: list[bool] = []
    before_each_step(monkeypatch, lambda step: seen.append(True))
    net = nnkit.Network([3, 2], seed=0)
    nodes = step_for(net, 4, net.optimizer_state("sgd"), drops=True).nodes
    (made,) = GraphLowering(Cuda(), None)(nodes)  # type: ignore[arg-type]
    assert isinstance(made, Graph)
    for _ in range(3):
        made()
    assert seen == [True] * 3
    assert made.graph is None


# --- on a GPU ---------------------------------------------------------------------------------------------------------

SIZES = [(784, 30, 10), (60, 100, 50, 10)]
OPTIMIZERS = [nnkit.SGD(0.5), nnkit.SGD(0.1, momentum=0.9, l2=1e-3, clip_norm=1.0), nnkit.Adam(weight_decay=1e-3)]


def network(sizes: tuple[int, ...] = SIZES[0], seed: int = 3, dtype: str = "float32") -> nnkit.Network:
    layers: list[Any] = [nnkit.Dense(sizes[0], sizes[1], "gelu"), nnkit.Dropout(0.2)]
    layers += [nnkit.Dense(a, b) for a, b in pairwise(sizes[1:])]
    return nnkit.Network(layers, cost="softmax_cross_entropy", seed=seed, dtype=dtype, backend="cupy")


def data(sizes: tuple[int, ...], n: int = 300) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], n)


def fitted(sizes: tuple[int, ...], optimizer: Any, **options: Any) -> bytes:
    """The parameters after two epochs, bit for bit, and the costs; the last batch is smaller."""
    X, y = data(sizes)
    net = network(sizes)
    history = net.fit(X, y, epochs=2, batch_size=64, optimizer=optimizer, **options)
    return net.backend.to_numpy(net.parameters.flat).tobytes() + repr(history["cost"]).encode()


def graph(tape: Tape) -> Any:
    """The CUDA graph of a recording; None if there is none yet."""
    (call,) = tape.calls
    assert isinstance(call, Graph)
    return call.graph


def graph_of(step: Step) -> Any:
    return graph(step._tape)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_graphs_on_and_off_give_the_same_bits(
    gpu: Backend, monkeypatch: pytest.MonkeyPatch, precision: str, sizes: tuple[int, ...], optimizer: Any
) -> None:
    nnkit.set_matmul_precision(precision)
    on = fitted(sizes, optimizer)
    assert fitted(sizes, optimizer) == on  # and a second run too
    monkeypatch.setenv("NNKIT_CUDA_GRAPHS", "0")
    assert fitted(sizes, optimizer) == on


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_of_a_graph_agree_with_numpy(gpu: Backend, dtype: str) -> None:
    X, y = data(SIZES[1])
    results = []
    for backend in ("cupy", "numpy"):
        net = network(SIZES[1], dtype=dtype).to(backend)
        for i in range(6):
            net.train_step(X[40 * i : 40 * i + 40].astype(dtype), y[40 * i : 40 * i + 40])
        results.append([net.backend.to_numpy(W) for W in net.parameters.W])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)


@pytest.mark.gpu
def test_a_step_is_captured_at_its_second_run(gpu: Backend) -> None:
    X, y = data(SIZES[0], 32)
    net = network()
    for expected in (False, True, True):
        net.train_step(X, y)
        (step,) = net.recorded.values()
        assert (graph_of(step) is not None) == expected
    captured = graph_of(step)
    for rate in (0.4, 0.2, 0.1, 0.1):  # a schedule's learning rates need no other graph
        before = gpu.to_numpy(net.parameters.flat)
        step.run(rate)
        assert not np.array_equal(gpu.to_numpy(net.parameters.flat), before)
    before = gpu.to_numpy(net.parameters.flat)
    step.run(0.0)
    np.testing.assert_array_equal(gpu.to_numpy(net.parameters.flat), before)
    assert graph_of(step) is captured


@pytest.mark.gpu
def test_every_operation_can_be_part_of_a_graph(gpu: Backend) -> None:
    rng = np.random.default_rng(0)
    a, b, stack = (gpu.asarray(rng.normal(size=shape), "float32") for shape in ((40, 30), (30, 20), (3, 30, 20)))
    wide = gpu.asarray(rng.normal(size=(9000, 40)), "float32")
    order, start = gpu.asarray(np.arange(40)[::-1].copy()), gpu.asarray(np.array(0, np.int64))
    W, bias, rate = gpu.zeros((40, 20), "float32"), gpu.zeros((20,), "float32"), gpu.asarray(-0.5, "float32")
    out, kept = gpu.empty((4, 30), "float64"), gpu.zeros((40, 30), "float32")
    with gpu.recording() as tape:
        results = [
            gpu.matmul(a, b), gpu.matmul(a.mT, a), gpu.matmul(a, stack), gpu.matmul(a[::2, ::3], b[::3, ::2]),
            gpu.sum(wide), gpu.sum(wide, 0), gpu.sum(wide, -1, True), gpu.max(wide, 0), gpu.max(a.mT, 1),
            gpu.elementwise(nnkit.sigmoid, (a.mT,)), gpu.take(a, order), gpu.take_at(a, start, out, order),
            gpu.copy(a.mT, gpu.empty((30, 40), "float32")), gpu.copy(a, gpu.empty((40, 30), "float64")),
        ]  # fmt: skip
        gpu.put_at(out, start, kept)
        add_product(gpu, a, b, W, rate)
        add_column_sums(gpu, results[0], bias, rate)
        gpu.advance(start, 4)
    found = []
    for _ in range(3):
        gpu.copy(gpu.asarray(np.array(0, np.int64)), start)
        gpu.copy(gpu.zeros(W.shape, "float32"), W)
        gpu.copy(gpu.zeros(bias.shape, "float32"), bias)
        tape.replay()
        found.append([gpu.to_numpy(array).tobytes() for array in (*results, kept, W, bias, start)])
    assert graph(tape) is not None
    assert found[0] == found[1] == found[2]
    values = gpu.to_numpy(a)
    np.testing.assert_array_equal(gpu.to_numpy(out), values[::-1][:4].astype(np.float64))
    np.testing.assert_allclose(gpu.to_numpy(W), -0.5 * (values @ gpu.to_numpy(b)), rtol=0, atol=1e-4)
    assert int(start) == 4


@pytest.mark.gpu
def test_replays_allocate_nothing(gpu: Backend) -> None:
    X, y = data(SIZES[1], 128)
    net = network(SIZES[1])
    for _ in range(3):
        net.train_step(X, y)
    (step,) = net.recorded.values()
    pool = gpu.xp.get_default_memory_pool()
    gpu.synchronize()
    before = pool.used_bytes(), pool.total_bytes()
    for _ in range(50):
        step.run()
    gpu.synchronize()
    assert (pool.used_bytes(), pool.total_bytes()) == before


@pytest.mark.gpu
def test_memory_of_a_network_is_released(gpu: Backend) -> None:
    pool = gpu.xp.get_default_memory_pool()
    X, y = data(SIZES[1], 128)

    def use() -> int:
        net = network(SIZES[1])
        for _ in range(3):
            net.train_step(X, y)
        gpu.synchronize()
        del net
        gc.collect()
        return int(pool.used_bytes())

    first = use()
    for _ in range(3):
        assert use() == first


@pytest.mark.gpu
def test_replays_on_the_callers_stream(gpu: Backend) -> None:
    found = []
    for stream in (gpu.xp.cuda.Stream.null, gpu.xp.cuda.Stream(non_blocking=True), gpu.xp.cuda.Stream()):
        with stream:
            found.append(fitted(SIZES[0], OPTIMIZERS[0]))
    assert found[0] == found[1] == found[2]


@pytest.mark.gpu
def test_a_tape_on_another_stream_each_time(gpu: Backend) -> None:
    """Each product waits for the one before, on whichever stream that was."""
    cuda, n = gpu.xp.cuda, 1500
    a = gpu.asarray(np.eye(n)[::-1] * 2, "float32")
    x = gpu.asarray(np.ones((n, n)), "float32")
    with gpu.recording() as tape:
        gpu.copy(gpu.matmul(a, x), x)
    streams = [cuda.Stream(non_blocking=True) for _ in range(3)]
    for i in range(12):
        with streams[i % 3]:
            tape.replay()
    np.testing.assert_array_equal(gpu.to_numpy(x), 2.0**12)  # on the tape's own stream, which has waited for them


@pytest.mark.gpu
def test_two_threads_with_their_own_networks(gpu: Backend) -> None:
    expected = [fitted(sizes, OPTIMIZERS[0]) for sizes in SIZES]
    results: dict[int, bytes] = {}

    def work(number: int) -> None:
        stream = gpu.xp.cuda.Stream(non_blocking=True)
        with stream:
            results[number] = fitted(SIZES[number % 2], OPTIMIZERS[0])
            stream.synchronize()

    for _ in range(3):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [results[0], results[1]] == expected


@pytest.mark.gpu
def test_uncapturable_recordings_are_executed_call_by_call(gpu: Backend) -> None:
    a, total = gpu.asarray(np.ones((4, 4)), "float32"), gpu.zeros((), "float32")
    with gpu.recording() as tape:
        gpu.sum(a, out=total)
        perform(lambda: float(a[0, 0]))  # waits for the GPU
    tape.replay()
    with pytest.warns(nnkit.BackendFallbackWarning, match=r"a CUDA graph, and is executed call by call: "):
        tape.replay()
    assert float(total) == 16.0  # nothing is left half captured
    gpu.copy(gpu.asarray(np.full((4, 4), 2.0), "float32"), a)
    tape.replay()  # without another warning
    assert float(total) == 32.0


@pytest.mark.gpu
def test_errors_of_the_three_precisions(gpu: Backend) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 512, 512))
    exact, magnitude = a @ b, abs(a) @ abs(b)
    off = {}
    for precision in ("highest", "high", "medium"):
        nnkit.set_matmul_precision(precision)
        found = gpu.to_numpy(gpu.matmul(gpu.asarray(a, "float32"), gpu.asarray(b, "float32")))
        assert found.dtype == np.float32
        off[precision] = float((abs(found - exact) / magnitude).max())
        double = gpu.to_numpy(gpu.matmul(gpu.asarray(a), gpu.asarray(b)))
        np.testing.assert_allclose(double, exact, rtol=0, atol=1e-11)
    # Half a unit in the last place of each factor: 2⁻²⁴, 2⁻¹¹ and 2⁻⁹; errors of many terms cancel in part.
    assert off["highest"] < 1e-6
    if int(gpu.xp.cuda.Device().compute_capability) >= 80:  # before, there is neither
        assert 1e-6 < off["high"] < 2**-10
        assert 1e-5 < off["medium"] < 2**-8
        assert off["high"] < off["medium"]


@pytest.mark.gpu
def test_the_tf32_setting_of_cupy_has_no_effect() -> None:
    gpu_backend()
    program = """
import numpy as np, nnkit
gpu = nnkit.get_backend("cupy")
a = np.random.default_rng(0).normal(size=(512, 512))
x = gpu.asarray(a, "float32")
print(float((abs(gpu.to_numpy(gpu.matmul(x, x)) - a @ a) / (abs(a) @ abs(a))).max()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ | {"CUPY_TF32": "1"}
    )
    assert float(done.stdout) < 1e-6


@pytest.mark.gpu
def test_step_for_the_device_that_is_not_the_current_one(gpu: Backend) -> None:
    if gpu.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    X, y = data(SIZES[1], 64)
    results = []
    for name in ("cupy:0", "cupy:1"):
        net = network(SIZES[1]).to(name)
        for _ in range(4):
            net.train_step(X, y)
        results.append(net.backend.to_numpy(net.parameters.flat).tobytes())
    assert results[0] == results[1]
