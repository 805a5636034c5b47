"""Epochs by launches: what a kernel is given, in how many parts, and when fit asks for one."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.model import Model
from nnkit.one_launch import EpochKernel
from nnkit.optimizers import OptimizerState
from nnkit.step import step_for
from nnkit.training import meter, on_device

RNG = np.random.default_rng(7)
X, LABELS = RNG.normal(size=(53, 6)).astype(np.float32), RNG.integers(0, 4, 53)


class StepByStep:
    """In the place of a kernel: what `EpochKernel.run` promises, by the recorded steps of the network."""

    def __init__(self, model: Model, state: OptimizerState, batch_size: int) -> None:
        self.model, self.state, self.batch_size = model, state, batch_size
        self.parts: list[int] = []
        self.rates: list[Any] = []  # the arrays themselves

    def works(self, X: Any) -> bool:
        return bool(X.shape == (53, 6))

    def run(self, X: Any, y: Any, order: Any, rates: Any, logits: Any) -> None:
        assert len(rates) == -(-len(y) // self.batch_size)
        assert logits.shape == y.shape
        self.parts.append(len(y))
        self.rates.append(rates)
        for i, rate in enumerate(rates):
            place = slice(i * self.batch_size, min((i + 1) * self.batch_size, len(y)))
            step = step_for(self.model, place.stop - place.start, self.state, 0, True)
            step.x[...] = X[place] if order is None else X[order[place]]
            step.y[...] = y[place]
            step.run(float(rate))
            logits[place] = step.logits


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[StepByStep]:
    """The kernels that fit has asked for."""
    made: list[StepByStep] = []

    def kernel_for(*arguments: Any) -> StepByStep:
        made.append(StepByStep(*arguments))
        return made[-1]

    monkeypatch.setattr(on_device, "epoch_kernel_for", kernel_for)
    return made


def trained(**options: Any) -> tuple[bytes, nnkit.History]:
    net = nnkit.Network([6, 9, 4], "tanh", "softmax_cross_entropy", seed=3)
    history = net.fit(X, LABELS, **{"epochs": 3, "batch_size": 8, "progress": False} | options)
    return np.array(net.parameters.flat).tobytes(), history


@pytest.mark.parametrize("schedule", [None, "cosine"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("kept", "parts"), [(1 << 20, [53]), (80, [16, 16, 16, 5]), (1, [8] * 6 + [5])])
def test_launches_equal_steps(
    kept: int, parts: list[int], shuffle: bool, schedule: str | None, kernels: list[StepByStep],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(meter, "_KEPT", kept)
    options: dict[str, Any] = {"shuffle": shuffle, "schedule": schedule, "optimizer": nnkit.SGD(0.25, momentum=0.5)}
    found, history = trained(**options)
    assert kernels.pop().parts == parts * 3
    with monkeypatch.context() as patch:
        patch.setattr(on_device, "epoch_kernel_for", lambda *_: None)
        wanted, steps = trained(**options)
    assert not kernels
    assert found == wanted
    for name in history.keys() - {"seconds"}:
        assert history[name] == steps[name]


def test_rates_of_a_pending_launch_are_not_overwritten(kernels: list[StepByStep]) -> None:
    _, history = trained(schedule="cosine")
    assert len(set(history["learning_rate"])) == 3
    np.testing.assert_allclose([rates[-1] for rates in kernels[0].rates], history["learning_rate"], rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (X, {"sample_weight": np.ones(53)}),
        ((X > 0).astype(np.uint8), {}),
        (X, {"gradient_accumulation_steps": 2}),
        (X, {"class_weight": "balanced"}),
    ],
)
def test_unsupported_trainings_use_no_kernel(given: Any, options: Any, kernels: list[StepByStep]) -> None:
    net = nnkit.Network([6, 9, 4], "tanh", "softmax_cross_entropy", seed=3)
    net.fit(given, LABELS, epochs=1, progress=False, **options)
    assert not kernels


@pytest.mark.parametrize("which", ["X", "y"])
def test_strided_arrays_use_recorded_steps(which: str, kernels: list[StepByStep]) -> None:
    targets = np.eye(4, dtype=np.float32)[LABELS]
    given, wanted = (X, targets) if which == "X" else (X, np.asfortranarray(targets))
    given = np.asfortranarray(given) if which == "X" else given
    results = []
    for x, y in ((given, wanted), (X, targets)):
        net = nnkit.Network([6, 9, 4], "tanh", "softmax_cross_entropy", seed=3)
        net.fit(x, y, epochs=1, batch_size=8, shuffle=False, progress=False)
        results.append(np.array(net.parameters.flat).tobytes())
        parts = kernels.pop().parts
        assert bool(parts) is (y is targets and x is X)
    assert results[0] == results[1]


def test_divergence_is_found_after_the_launch(kernels: list[StepByStep]) -> None:
    net = nnkit.Network([6, 9, 4], "relu", "quadratic", seed=3)
    with pytest.raises(nnkit.DivergenceError):
        net.fit(X, LABELS, epochs=3, batch_size=8, optimizer=nnkit.SGD(1e6), progress=False)
    assert kernels[0].parts[0] == 53
    assert np.isfinite(net.parameters.flat).all()


def test_a_failing_kernel_is_not_used(kernels: list[StepByStep], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepByStep, "works", lambda kernel, X: False)
    found, _ = trained()
    assert kernels.pop().parts == []
    monkeypatch.setattr(on_device, "epoch_kernel_for", lambda *_: None)
    assert trained()[0] == found


@pytest.mark.parametrize("message", ["cluster out of resources", ""])
def test_a_kernel_is_tried_before_use(host: Any, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """Up to CUDA's own launch, which is replaced: it gets no samples, and its error is a warning."""
    kernel, given, samples = object.__new__(EpochKernel), [], host.asarray(X)
    kernel._model = nnkit.Network([6, 9, 4], seed=0, backend="cupy")
    kernel._recipe = SimpleNamespace(widths=(6, 9, 4))  # type: ignore[assignment]

    def run(self: EpochKernel, X: Any, y: Any, order: Any, rates: Any, logits: Any) -> None:
        given.append((X.shape, y.shape, (order.shape, order.dtype), rates.shape, logits.shape))
        if message:
            raise RuntimeError(message)

    monkeypatch.setattr(EpochKernel, "run", run)
    if message:
        with pytest.warns(nnkit.BackendFallbackWarning, match=r"executed step by step: cluster out of resources$"):
            assert not kernel.works(samples)
    else:
        assert kernel.works(samples)
    assert given == [((53, 6), (0, 4), ((0,), "int64"), (0,), (0, 4))]


def test_running_out_of_memory_is_not_a_failing_kernel(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = object.__new__(EpochKernel)
    kernel._model = nnkit.Network([6, 9, 4], seed=0, backend="cupy")
    kernel._recipe = SimpleNamespace(widths=(6, 9, 4))  # type: ignore[assignment]

    def run(*_: Any) -> None:
        raise nnkit.OutOfMemoryError("cupy", 8, 4, 16)

    monkeypatch.setattr(EpochKernel, "run", run)
    monkeypatch.setattr(type(host), "out_of_memory", lambda backend, error: error)
    with pytest.raises(nnkit.OutOfMemoryError):
        kernel.works(host.asarray(X))
