"""An optimizer's state: recorded steps, learning rates, gradients that are no numbers, and kernels of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit import attribute_state
from nnkit import step as step_module
from nnkit.backends.cuda.graph import Graph, GraphLowering
from nnkit.backends.formula import Formula, formula
from nnkit.backends.recording import HostCall, Node, Tape
from nnkit.kernels import regularization, updates
from nnkit.optimizers import Optimizer, OptimizerState
from nnkit.parameters import Parameters
from tests.support.host_cuda import aligned, build, launch, with_driver
from tests.support.kernels import variant
from tests.support.recursions import ALL, LAYERS, OPTIMIZERS
from tests.support.rounding import allowed_differences, assert_agree

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))


def network() -> nnkit.Network:
    return nnkit.Network([3, 5, 2], "tanh", "quadratic", seed=0, dtype="float64")


def flat(net: nnkit.Network) -> np.ndarray:
    return np.array(net.backend.to_numpy(net.parameters.flat))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_recorded_steps_are_eager_updates(arrays: "Arrays", name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []
    record = step_module.Step.__init__

    def counted(self: step_module.Step, *args: Any, **options: Any) -> None:
        recorded.append(self)
        record(self, *args, **options)

    optimizer, eager = OPTIMIZERS[name](), OPTIMIZERS[name]()
    net, twin = network(), network()
    gradient = Parameters(arrays.backend, twin.parameters.shapes, "float64")
    state = eager.start(twin.parameters)
    monkeypatch.setattr(step_module.Step, "__init__", counted)
    for i, rate in enumerate((0.1, 0.05, 0.05, 0.2)):
        x, y = X * (1 + i), Y * (20 if i == 1 else 1)  # such that some are clipped
        optimizer.learning_rate = eager.learning_rate = rate
        net.train_step(x, y, optimizer)
        gradient.assign(twin.gradients(x, y)[1])
        state.set_rate()
        state.update(twin.parameters, gradient)
        np.testing.assert_allclose(flat(net), flat(twin), rtol=1e-11, atol=1e-13)
    assert len(recorded) == 2  # one for each network
    for key, array in net.optimizer_state(optimizer).arrays.items():
        np.testing.assert_allclose(arrays.numpy(array), arrays.numpy(state.arrays[key]), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["descent-l2", "momentum", "adam", "lion-all"])
def test_a_new_learning_rate_is_used_in_the_next_step(arrays: "Arrays", name: str) -> None:
    optimizer, net = OPTIMIZERS[name](), network()
    way = []
    for rate in (0.1, 0.1, 1e-300, 0.2):
        optimizer.learning_rate = rate
        way.append(flat(net))
        net.train_step(X, Y, optimizer)
    way.append(flat(net))
    moved = [np.count_nonzero(abs(b - a) > 1e-299) for a, b in pairwise(way)]
    assert moved == [net.parameters.count, net.parameters.count, 0, net.parameters.count]


@pytest.mark.parametrize("name", ["descent", "descent-all", "adam"])
def test_a_schedules_factor_multiplies_the_rate(arrays: "Arrays", name: str) -> None:
    ends = []
    for rate, factor in ((0.05, 1.0), (0.2, 0.25), (0.1, 0.5)):
        optimizer, net = OPTIMIZERS[name](), network()
        optimizer.learning_rate = rate
        state = optimizer.start(net.parameters)
        net.gradient.assign(network().gradients(X, Y)[1])
        for scaled in (0.0, factor):
            state.set_rate(scaled * rate)
            before = flat(net)
            state.update(net.parameters, net.gradient)
            assert (flat(net) == before).all() == (scaled == 0)
        assert optimizer.learning_rate == rate
        assert arrays.numpy(state.rate).tolist() == [0.05, -0.05]
        ends.append(flat(net).tolist())
    assert ends[0] == ends[1] == ends[2]


def test_the_rate_is_written_only_when_it_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, written = nnkit.SGD(0.1), list[float]()
    state = optimizer.start(network().parameters)
    copy = state.backend.copy

    def watched(source: Any, out: Any) -> Any:
        assert out is state.rate
        written.append(float(source[0]))
        return copy(source, out)

    monkeypatch.setattr(state.backend, "copy", watched)
    for rate in (None, 0.1, 0.05, 0.05, 0.1):
        state.set_rate(rate)
    optimizer.learning_rate = 0.2
    state.set_rate(0.1)
    state.set_rate()
    assert written == [0.05, 0.1, 0.2]
    assert state.rate.tolist() == [0.2, -0.2]
    assert state.numbers["learning_rate"] == 0.2


@pytest.mark.parametrize("steps_between", [False, True])
def test_each_step_has_its_own_rate(steps_between: bool) -> None:
    """Where a schedule's factor changes from step to step, then is what it was, and a callback's step has none."""
    factors, net, twin, optimizer = [0.5, 0.5, 0.5, 0.25, 0.5, 0.5], network(), network(), nnkit.SGD(0.25)
    after: list[np.ndarray] = []

    def callback(net: nnkit.Network, history: nnkit.History) -> None:
        if steps_between:
            net.train_step(X, Y)
        after.append(flat(net))

    options: dict[str, Any] = {"batch_size": 2, "shuffle": False, "progress": False, "optimizer": optimizer}
    history = net.fit(X, Y, epochs=3, schedule=lambda epoch: factors[int(2 * epoch)], callbacks=[callback], **options)
    assert history["learning_rate"] == [0.125, 0.0625, 0.125]
    for epoch in range(3):
        for i in (0, 1):
            optimizer.learning_rate = 0.25 * factors[2 * epoch + i]
            twin.train_step(X[2 * i : 2 * i + 2], Y[2 * i : 2 * i + 2], optimizer)
        optimizer.learning_rate = 0.25
        if steps_between:
            twin.train_step(X, Y)
        np.testing.assert_array_equal(after[epoch], flat(twin))


def test_only_plain_descent_can_be_part_of_a_product() -> None:
    parameters = network().parameters
    states = {name: make().start(parameters) for name, make in OPTIMIZERS.items()}
    assert [name for name, state in states.items() if state.is_descent] == ["descent"]
    assert not _Sign().start(parameters).is_descent


def test_descent_with_l2_is_its_one_pass_formula() -> None:
    made, known = regularization.treated(updates.gradient_descent, "l2"), updates.gradient_descent_l2
    assert made.operands == known.operands
    assert made.program().values == known.program().values
    assert made.program().outputs == known.program().outputs


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("name", ["descent-clip_norm", "adamw-clipped"])
def test_clip_norm_does_not_hide_overflow(arrays: "Arrays", name: str, bad: float) -> None:
    optimizer, net = OPTIMIZERS[name](), network()
    by_value = optimizer.clip_value is not None
    state = optimizer.start(net.parameters)
    net.gradient.assign([(np.ones((5, 3)), np.ones(5)), (np.full((2, 5), bad), np.ones(2))])
    state.update(net.parameters, net.gradient)
    assert np.isfinite(flat(net)).all() if by_value and not np.isnan(bad) else np.isnan(flat(net)).all()
    padding = np.count_nonzero(arrays.numpy(net.gradient.flat) == 0)
    assert padding == net.parameters.flat.shape[0] - net.parameters.count  # for the next step, if all else is put back


def test_without_clip_norm_nan_stays_where_it_is(arrays: "Arrays") -> None:
    net, optimizer = network(), nnkit.SGD(0.1, clip_value=1.0, l1=0.1, weight_decay=0.1)
    gradient = np.ones((2, 5))
    gradient[1, 2] = np.nan
    gradient[0, 0] = np.inf
    before = flat(net)
    net.gradient.assign([(np.zeros((5, 3)), np.zeros(5)), (gradient, np.zeros(2))])
    optimizer.start(net.parameters).update(net.parameters, net.gradient)
    W = arrays.numpy(net.parameters.W[1])
    assert np.argwhere(np.isnan(W)).tolist() == [[1, 2]]
    assert np.count_nonzero(np.isnan(flat(net))) == 1
    old = before[flat(net).tolist().index(W[0, 0])]
    assert W[0, 0] == pytest.approx(old * (1 - 0.01) - 0.1 * (1 + 0.1 * np.sign(old)), rel=1e-14)


def test_clip_norm_of_a_zero_gradient() -> None:
    net = network()
    before = flat(net)
    nnkit.SGD(0.1, clip_norm=1.0).start(net.parameters).update(net.parameters, net.gradient)
    assert (flat(net) == before).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_of_options_agree_with_numpy(dtype: str, tmp_path: Path) -> None:
    rng, made = np.random.default_rng(0), []
    for update in (updates.gradient_descent, updates.nesterov_descent, updates.adam, updates.lion):
        for options in (("clip_value",), ("l1", "weight_decay"), tuple(ALL)):
            treated = regularization.treated(update, *options)
            vectors = treated.operands.index("learning_rate")
            layouts = tuple("full" if i < vectors else "scalar" for i in range(len(treated.operands)))
            made.append(variant(treated, treated.name, dtype, layouts, lanes=1))
    library = build("".join(map(with_driver, made)), tmp_path)
    for kernel in made:
        shapes = [(9, 7) if layout == "full" else () for layout in kernel.signature.layouts]
        operands = [aligned(rng.normal(size=shape).astype(dtype)) for shape in shapes]
        operands[1][0, :3] = np.nan, np.inf, 0.0
        outs = [aligned(np.zeros((9, 7), dtype)) for _ in kernel.signature.out_dtypes]
        launch(library, kernel, operands, outs)
        given = kernel.formula(*operands)
        allowed = allowed_differences(kernel.program, operands, dtype)
        for out, wanted, d in zip(outs, given if isinstance(given, tuple) else (given,), allowed, strict=True):
            assert_agree(out, wanted, np.broadcast_to(d, wanted.shape))


def test_the_state_suffices_to_continue_training() -> None:
    parameters = Parameters(nnkit.get_backend("numpy"), LAYERS, "float32")
    names = {name: list(make().start(parameters).arrays) for name, make in OPTIMIZERS.items()}
    assert names["descent-all"] == []
    assert names["nesterov-all"] == ["velocity"]
    assert names["rmsprop-all"] == ["square"]
    assert names["rmsprop-momentum-l2"] == ["square", "velocity"]
    assert names["adagrad-all"] == ["total"]
    assert names["adamw-clipped"] == ["mean", "square", "t"]
    assert names["lion-all"] == ["mean"]


def test_a_custom_optimizer(arrays: "Arrays") -> None:
    @formula
    def averaged(xp: Any, p: Any, g: Any, total: Any, learning_rate: Any, share: Any, power: float = 1.0) -> Any:
        total = share * total + power * g
        return p - learning_rate * total, total

    @dataclass(repr=False)
    class Averaged(Optimizer):
        learning_rate: float = 0.1
        share: float = 0.5
        power: float = 1.0

        @property
        def formula(self) -> Formula:
            return averaged

    net, optimizer = network(), Averaged(0.05, 0.9, l2=0.1, power=2.0)
    assert repr(optimizer) == "Averaged(learning_rate=0.05, share=0.9, power=2.0, l2=0.1)"
    for _ in range(3):
        net.train_step(X, Y, optimizer)
    assert list(net.optimizer_state().arrays) == ["total"]
    twin = network()
    for _ in range(3):
        twin.train_step(X, Y, nnkit.SGD(0.1, momentum=0.9, l2=0.1) if twin.state is None else None)
    np.testing.assert_allclose(flat(net), flat(twin), rtol=1e-12)


class _Signs(OptimizerState):
    """An update in NumPy, with a count in Python: nothing of it can be recorded."""

    steps = 0

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        self.steps += 1
        rate = self.numbers["learning_rate"]
        parameters.flat[...] = np.clip(parameters.flat - rate * self.steps * np.sign(gradients.flat), -1, 1)


class _Sign(nnkit.SGD):
    def start(self, parameters: Parameters) -> OptimizerState:
        return _Signs(self, parameters)


def signs_by_hand(epochs: int, batch: int, rate: float, factors: Callable[[int], float], accumulate: int = 1) -> Any:
    net, steps = network(), 0
    p, batches = flat(net), [slice(i, i + batch) for i in range(0, len(X), batch)]
    for epoch in range(epochs):
        for i in range(0, len(batches), accumulate):
            part = slice(batches[i].start, batches[min(i + accumulate, len(batches)) - 1].stop)
            net.parameters.flat[...] = p
            net.gradient.assign(net.gradients(X[part], Y[part])[1])
            steps += 1
            p = np.clip(p - rate * factors(epoch) * steps * np.sign(net.gradient.flat), -1, 1)
    return p


@pytest.mark.parametrize("data", ["arrays", "iterable"])
@pytest.mark.parametrize(
    ("options", "factors", "accumulate"),
    [
        ({}, lambda epoch: 1.0, 1),
        ({"schedule": lambda epoch: 1 / (1 + int(epoch))}, lambda epoch: 1 / (1 + epoch), 1),
        ({"gradient_accumulation_steps": 2}, lambda epoch: 1.0, 2),
    ],
    ids=["plain", "schedule", "accumulation"],
)
def test_a_custom_update_runs_at_every_step(data: str, options: Any, factors: Any, accumulate: int) -> None:
    net = network()
    given: Any = (X, Y) if data == "arrays" else (lambda: ((X[i : i + 1], Y[i : i + 1]) for i in range(4)),)
    if data == "arrays":
        options = options | {"batch_size": 1, "shuffle": False}
    net.fit(*given, epochs=5, optimizer=_Sign(0.01), progress=False, **options)
    state: Any = net.current_state
    assert state.steps == 20 // accumulate
    np.testing.assert_allclose(flat(net), signs_by_hand(5, 1, 0.01, factors, accumulate), rtol=1e-12, atol=1e-15)


def test_a_custom_update_in_train_step() -> None:
    net, before = network(), flat(network())
    net.train_step(X, Y, _Sign(0.01))
    assert (flat(net) != before).any()
    for _ in range(4):
        net.train_step(X, Y)
    np.testing.assert_allclose(flat(net), signs_by_hand(5, 4, 0.01, lambda epoch: 1.0), rtol=1e-12, atol=1e-15)


def test_a_custom_update_learns_digits() -> None:
    """With an `update` that runs only when the step is recorded, accuracy stays at 0.2."""
    images, labels = nnkit.data.digits()
    net = nnkit.Network([64, 10], seed=0)
    history = net.fit(images, labels, epochs=5, optimizer=_Slow(0.5), progress=False)
    assert history["accuracy"][-1] > 0.95


class _SlowState(OptimizerState):
    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        for pairs in (zip(parameters.W, gradients.W, strict=True), zip(parameters.b, gradients.b, strict=True)):
            for p, g in pairs:
                p -= self.numbers["learning_rate"] * g


class _Slow(nnkit.SGD):
    def start(self, parameters: Parameters) -> OptimizerState:
        return _SlowState(self, parameters)


def test_a_graph_does_not_contain_host_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape with such a call stays a list of calls; one without becomes a graph at its second replay."""
    stream = SimpleNamespace(ptr=0)
    cupy = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda device=-1: stream))
    monkeypatch.setattr(Graph, "_capture", lambda self: SimpleNamespace(launch=lambda: done.append("graph")))
    done: list[str] = []
    for call in (HostCall(lambda: done.append("host")), lambda: done.append("device")):
        tape = Tape(lower=GraphLowering(cupy.cuda, None))  # type: ignore[arg-type]
        tape.nodes.append(Node(call))
        tape.replay(3)
    assert done == ["host"] * 3 + ["device", "graph", "graph"]


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop", "lion"])
def test_the_attributes_of_the_base_class_are_not_taken_for_a_users(name: str) -> None:
    net = nnkit.Network([3, 4, 2], seed=0)
    options: dict[str, Any] = {"learning_rate": 0.1, "clip_norm": 1.0, "ema": 0.9, "l2": 0.1}
    net.set_rate(0, 0.5)
    net.fit(np.ones((4, 3)), [0, 1, 0, 1], epochs=1, optimizer=nnkit.get_optimizer(name, **options), progress=False)
    state: Any = net.current_state
    assert vars(state).keys() <= attribute_state._OWN
