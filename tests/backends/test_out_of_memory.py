"""A device whose memory is full: what the error says, that the network is as it was, and that nothing half-built stays.

The device is NumPy with a limit: an allocation that would pass it is refused, as a GPU refuses it.
"""

import pickle
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import nnkit
from nnkit.backends.numpy_backend import NumpyBackend
from nnkit.state import training_arrays
from nnkit.step import step_for
from nnkit.training import on_device
from tests.conftest import gpu_backend

LAYERS = [nnkit.Dense(6, 9, "gelu"), nnkit.Dropout(0.2), nnkit.Dense(9, 3)]
X, Y = np.random.default_rng(0).random((22, 6), np.float32), np.arange(22) % 3


class Limited(NumpyBackend):
    """NumPy that refuses one allocation: the `refuse`-th from now on, where that is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: int | None = None
        self.made: list[weakref.ref[np.ndarray]] = []
        self.released = 0

    def empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        return self._made(super().empty(shape, dtype))

    def asarray(self, values: Any, dtype: str | None = None) -> np.ndarray:
        array = super().asarray(values, dtype)
        return array if array is values else self._made(array)

    def _made(self, array: np.ndarray) -> np.ndarray:
        if self.refuse is not None:
            if self.refuse == 0:
                self.refuse = None
                raise nnkit.OutOfMemoryError(self.name, array.nbytes, 100, 1000)
            self.refuse -= 1
        self.made.append(weakref.ref(array))
        return array

    def release(self) -> None:
        self.released += 1

    def alive(self) -> int:
        """How many of the arrays that it made are still there."""
        return sum(array() is not None for array in self.made)


@pytest.fixture(autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """With more, a training forgets the steps that it recorded for one thread, memory or not."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


def network(backend: Limited) -> nnkit.Network:
    return nnkit.Network(LAYERS, cost="softmax_cross_entropy", seed=3, backend=backend)


def contents(net: nnkit.Network) -> dict[str, Any]:
    """All that a training changes, and what belongs to it."""
    arrays = {name: a.copy() for name, a in training_arrays(net.placement, net.state).items()}
    arrays["flat"] = net.parameters.flat.copy()
    kept = {"backend": net.backend, "optimizer": net.optimizer, "state": net.state, "epochs": net.epochs_trained}
    return arrays | kept | {"steps": list(net.recorded.values()), "classes": net.classes}


def assert_the_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[name], value)
        elif isinstance(value, list):
            assert [id(v) for v in found[name]] == [id(v) for v in value]
        else:
            assert found[name] is value or name == "epochs", name
    assert found["epochs"] == expected["epochs"]


def assert_explained(error: nnkit.OutOfMemoryError, lower: str = "") -> None:
    assert "were requested" in str(error)
    assert error.lower
    assert error.lower.startswith(lower)
    assert isinstance(error.__cause__, nnkit.OutOfMemoryError)


CALLS: dict[str, Callable[[nnkit.Network], object]] = {
    "fit": lambda net: net.fit(X, Y, epochs=2, batch_size=8, optimizer=nnkit.Adam(clip_norm=1.0)),
    "fit, weights": lambda net: net.fit(X, Y, epochs=1, batch_size=5, sample_weight=np.arange(22.0)),
    "fit, accumulation": lambda net: net.fit(X, Y, epochs=1, batch_size=5, gradient_accumulation_steps=2),
    "fit, validation": lambda net: net.fit(X, Y, epochs=1, batch_size=22, validation_data=(X[:7], Y[:7])),
    "fit, names": lambda net: net.fit(
        X, np.array(["a", "b", "c"])[Y], epochs=1, early_stopping=nnkit.EarlyStopping("cost")
    ),
    "train_step": lambda net: net.train_step(X[:9], Y[:9], nnkit.SGD(0.1, momentum=0.9)),
    "gradients": lambda net: net.gradients(X[:9], Y[:9], sample_weight=np.ones(9)),
    "predict": lambda net: (net.predict(X), net.predict(X)),
    "evaluate": lambda net: net.evaluate(X, Y, metrics=["top_2"]),
}


@pytest.mark.parametrize("what", CALLS)
def test_the_network_is_restored_wherever_memory_runs_out(what: str) -> None:
    backend, done = Limited(), False
    for number in range(400):
        net = network(backend)
        if what != "fit, names":  # which only outputs that nothing has trained learn
            net.train_step(X[:4], Y[:4], nnkit.SGD(0.5, momentum=0.5))  # a state and a recorded step that must survive
        before, alive = contents(net), backend.alive()
        backend.refuse = number
        try:
            CALLS[what](net)
        except nnkit.OutOfMemoryError as error:
            # While the error is still there: what was made before it must be gone by now.
            if net.epochs_trained == 0:
                assert_the_same(contents(net), before)
                assert backend.alive() <= alive
            assert_explained(error)
        else:
            done = True
        backend.refuse = None
        if done:
            break
        CALLS[what](net)  # with memory again
    assert done
    assert number > 0, "nothing was refused"


def test_training_after_an_error_equals_training_without_it() -> None:
    backend, results = Limited(), []
    for refused in (None, 3, 12, 25):
        net = network(backend)
        net.fit(X, Y, epochs=1, batch_size=4, optimizer=nnkit.Adam(0.01))
        backend.refuse = refused
        if refused is not None:
            with pytest.raises(nnkit.OutOfMemoryError, match="lower batch_size, or leave X on the host"):
                net.fit(X, Y, epochs=2, batch_size=8)
        net.fit(X, Y, epochs=2, batch_size=8)
        results.append(net.parameters.flat.copy())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_an_epoch_without_memory_to_start_undoes_nothing() -> None:
    """A callback gives another optimizer, for whose state the next epoch has no room."""
    backend, after = Limited(), list[np.ndarray]()
    net = network(backend)

    def change(net: nnkit.Network, history: nnkit.History) -> None:
        after.append(net.parameters.flat.copy())
        net.optimizer = nnkit.Adam()
        backend.refuse = 0

    with pytest.raises(nnkit.OutOfMemoryError) as caught:
        net.fit(X, Y, epochs=2, batch_size=8, callbacks=[change])
    assert vars(caught.value)["history"].epochs == net.epochs_trained == len(after) == 1
    np.testing.assert_array_equal(net.parameters.flat, after[0])


def test_running_out_of_memory_in_the_last_minibatch_undoes_the_epoch() -> None:
    backend = Limited()
    net = network(backend)
    net.fit(X[:16], Y[:16], epochs=1, batch_size=8)  # what minibatches of 8 need is there from now on
    before = net.parameters.flat.copy()
    steps: list[int] = []

    def refuse_the_rest(samples: int) -> None:
        steps.append(samples)
        backend.refuse = 0 if samples == 6 else None

    with pytest.MonkeyPatch.context() as patch:

        def watched(model: Any, samples: int, *rest: Any) -> Any:
            refuse_the_rest(samples)
            return step_for(model, samples, *rest)

        patch.setattr(on_device, "step_for", watched)
        with pytest.raises(nnkit.OutOfMemoryError):
            net.fit(X, Y, epochs=1, batch_size=8)
    assert steps == [8, 6]
    np.testing.assert_array_equal(net.parameters.flat, before)
    assert net.epochs_trained == 1


def test_a_network_without_memory_to_move_stays() -> None:
    X64, target = X.astype(np.float64), Limited()
    net = nnkit.Network(LAYERS, cost="softmax_cross_entropy", seed=3, backend="numpy")
    net.fit(X64, Y, epochs=1, batch_size=8, optimizer=nnkit.Adam())
    before = contents(net)
    for number in range(100):
        target.refuse = number
        try:
            net.to(target)
        except nnkit.OutOfMemoryError as error:
            assert_explained(error, "make the layers smaller")
            assert_the_same(contents(net), before)
            assert target.alive() == 0
        else:
            break
    assert net.backend is target
    assert number > 3
    np.testing.assert_array_equal(net.parameters.flat, before["flat"])


def test_a_network_that_is_too_large() -> None:
    backend = Limited()
    backend.refuse = 1
    with pytest.raises(nnkit.OutOfMemoryError, match=r"numpy is out of memory: .* make the layers smaller"):
        network(backend)
    assert backend.alive() == 0
    assert backend.released == 1


@pytest.mark.parametrize(
    ("asked", "free", "total", "text"),
    [
        (13 << 30, 3 << 29, 80 << 30, "cupy is out of memory: 13.0 GiB were requested, 1.5 GiB of 80.0 GiB were free"),
        (1536, 100, 5 << 20, "cupy is out of memory: 1.5 KiB were requested, 100 bytes of 5.0 MiB were free"),
        (None, 0, 1 << 30, "cupy is out of memory: more was requested, 0 bytes of 1.0 GiB were free"),
    ],
)
def test_text(asked: int | None, free: int, total: int, text: str) -> None:
    assert str(nnkit.OutOfMemoryError("cupy", asked, free, total)) == text
    error = nnkit.OutOfMemoryError("cupy", asked, free, total, "lower batch_size")
    assert str(error) == f"{text}; lower batch_size"
    assert isinstance(error, MemoryError)
    passed = pickle.loads(pickle.dumps(error))
    assert (str(passed), passed.asked, passed.lower) == (str(error), asked, "lower batch_size")


def test_other_errors_are_not_changed() -> None:
    class Broken(Limited):
        def copy(self, source: Any, out: np.ndarray) -> np.ndarray:
            raise MemoryError("of the host")

    net = nnkit.Network([6, 3], seed=0, backend="numpy")
    net.placement.backend = Broken()
    with pytest.raises(MemoryError, match=r"^of the host$") as caught:
        net.train_step(X, Y)
    assert type(caught.value) is MemoryError
    with pytest.raises(ValueError, match="X has shape"):
        net.predict(X[:, 1:])


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    gpu = gpu_backend()
    pool = gpu.xp.get_default_memory_pool()
    net = nnkit.Network([784, 2048, 10], cost="softmax_cross_entropy", seed=0, backend=gpu)
    x, y = np.random.default_rng(0).random((64, 784), np.float32), np.arange(64) % 10
    net.train_step(x, y, nnkit.Adam())
    before = gpu.to_numpy(net.parameters.flat)
    wide = gpu.empty((300_000, 784), "float32")
    wide[...] = 0.5
    labels = np.zeros(300_000, np.int64)
    pool.free_all_blocks()
    pool.set_limit(pool.used_bytes() + (64 << 20))
    held = pool.total_bytes()
    try:
        calls: list[Callable[[], object]] = [
            lambda: net.fit(wide, labels, epochs=1, batch_size=100_000, progress=False),
            lambda: net.train_step(wide, labels),
            lambda: net.predict(wide),
            lambda: net.forward(wide),
            lambda: nnkit.Network([4096, 4096, 10], backend=gpu),
            lambda: nnkit.Network([4096, 4096, 10], backend="numpy").to(gpu),
        ]
        for call in calls:
            with pytest.raises(nnkit.OutOfMemoryError, match=r"^cupy.* is out of memory: .* requested, .* were free; "):
                call()
            assert pool.total_bytes() <= held + (8 << 20)
        assert not np.array_equal(gpu.to_numpy(net.parameters.flat), np.zeros_like(before))
        np.testing.assert_array_equal(gpu.to_numpy(net.parameters.flat), before)
        net.train_step(x, y)  # recorded before
        assert not np.array_equal(gpu.to_numpy(net.parameters.flat), before)
    finally:
        pool.set_limit(size=0)
