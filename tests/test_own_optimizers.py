"""An optimizer of the user's own with any state, written over the backend's operations: recorded, saved and resumed.

Adafactor (Shazeer and Stern, ICML 2018) keeps a row and a column of the squared gradients of each W instead of all.
"""

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends.base import Array
from nnkit.optimizers import Optimizer, OptimizerState
from nnkit.parameters import Parameters
from nnkit.step import step_for
from tests.conftest import Arrays


@nnkit.formula
def squared(xp: Any, g: Any, epsilon: Any) -> Any:
    """g² + ε₁."""
    return g * g + epsilon


@nnkit.formula
def mean_of(xp: Any, mean: Any, total: Any, beta2: Any, share: Any) -> Any:
    """β₂ m + (1 − β₂) total/n."""
    return beta2 * mean + (1 - beta2) * (total * share)


@nnkit.formula
def factored_descent(xp: Any, p: Any, g: Any, row: Any, column: Any, mean: Any, learning_rate: Any) -> Any:
    """W − ε g/√(R C/mean(R))."""
    return p - learning_rate * g / xp.sqrt(row * column / mean)


@nnkit.formula
def plain_descent(xp: Any, p: Any, g: Any, v: Any, learning_rate: Any) -> Any:
    """b − ε g/√v."""
    return p - learning_rate * g / xp.sqrt(v)


class AdafactorState(OptimizerState):
    recordable = True

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)

        def zeros(*shape: int) -> Array:
            return self.backend.zeros(shape, self.dtype)

        self.rows = [zeros(W.shape[0], 1) for W in parameters.W]
        self.columns = [zeros(1, W.shape[1]) for W in parameters.W]
        self.squares = [zeros(*b.shape) for b in parameters.b]
        self.shares = [[self.number(1 / n) for n in W.shape] for W in parameters.W]

    @property
    def arrays(self) -> dict[str, Array]:
        lists = {"row": self.rows, "column": self.columns, "square": self.squares}
        return {f"{name}{i}": array for name, arrays in lists.items() for i, array in enumerate(arrays)}

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        rate, beta2, epsilon = (self.numbers[name] for name in ("learning_rate", "beta2", "epsilon"))
        for W, g, row, column, (of_rows, of_columns) in zip(
            parameters.W, gradients.W, self.rows, self.columns, self.shares, strict=True
        ):
            square = squared(g, epsilon)
            mean_of(row, self.backend.sum(square, axis=1, keepdims=True), beta2, of_columns, out=row)
            mean_of(column, self.backend.sum(square, axis=0, keepdims=True), beta2, of_rows, out=column)
            mean = self.backend.sum(row)
            factored_descent(W, g, row, column, mean_of(mean, mean, self.number(0.0), of_rows), rate, out=W)
        for b, g, v in zip(parameters.b, gradients.b, self.squares, strict=True):
            mean_of(v, squared(g, epsilon), beta2, self.number(1.0), out=v)
            plain_descent(b, g, v, rate, out=b)


@dataclass(repr=False)
class Adafactor(Optimizer):
    learning_rate: float = 0.01
    beta2: float = 0.9
    epsilon: float = 1e-30
    note: str = "factored"

    def start(self, parameters: Parameters) -> OptimizerState:
        return AdafactorState(self, parameters)


def by_hand(W: NDArray[Any], g: NDArray[Any], state: dict[str, Any], rate: float) -> Any:
    square, beta = g * g + 1e-30, 0.9
    if W.ndim == 1:
        state["v"] = beta * state.get("v", 0.0) + (1 - beta) * square
        return W - rate * g / np.sqrt(state["v"])
    state["R"] = beta * state.get("R", 0.0) + (1 - beta) * square.mean(axis=1)
    state["C"] = beta * state.get("C", 0.0) + (1 - beta) * square.mean(axis=0)
    return W - rate * g / np.sqrt(np.outer(state["R"], state["C"]) / state["R"].mean())


class Momentum(OptimizerState):
    """v ← 0.9 v + g, W ← W − ε v with NumPy, which `recordable` says wrongly that a recording sees."""

    recordable = True

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self.v = np.zeros_like(parameters.flat)

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        self.v *= 0.9
        self.v += gradients.flat
        parameters.flat -= self.numbers["learning_rate"] * self.v


class Unrecorded(nnkit.SGD):
    def start(self, parameters: Parameters) -> OptimizerState:
        return Momentum(self, parameters)


def test_a_recordable_update_that_is_not_recorded_is_refused() -> None:
    net = nnkit.Network([5, 7, 3], seed=0)
    before = values(net)
    for train in (lambda: net.train_step(*DATA, Unrecorded(0.1)), lambda: net.fit(*DATA, optimizer=Unrecorded(0.1))):
        with pytest.raises(ValueError, match=r"Momentum.update: a replay differs from a call"):
            train()
    assert all(np.array_equal(a, b) for a, b in zip(before, values(net), strict=True))
    assert net.optimizer == nnkit.SGD()


DATA = np.random.default_rng(0).normal(size=(24, 5)), np.arange(24) % 3


def network(**options: Any) -> nnkit.Network:
    return nnkit.Network([5, 7, 3], seed=0, dtype="float64", **options)


def values(net: nnkit.Network) -> list[NDArray[Any]]:
    return [net.backend.to_numpy(a) for a in (*net.parameters.W, *net.parameters.b)]


def test_steps_match_the_paper(arrays: Arrays) -> None:
    """On each backend, recorded and replayed, with a learning rate that changes."""
    net, (X, y) = network(), DATA
    expected, states = values(net), [dict[str, Any]() for _ in range(4)]
    optimizer = Adafactor()
    for rate in (0.01, 0.01, 0.02, 0.005):
        optimizer.learning_rate = rate
        _, gradients = net.gradients(X, y)
        pairs = [net.backend.to_numpy(g) for g in (*(W for W, _ in gradients), *(b for _, b in gradients))]
        expected = [by_hand(p, g, s, rate) for p, g, s in zip(expected, pairs, states, strict=True)]
        net.train_step(X, y, optimizer)
        for found, wanted in zip(values(net), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)
    assert len(net.recorded) >= 1  # the steps were replayed, not made anew


def test_it_is_part_of_the_recorded_step() -> None:
    """As far as NumPy's recording goes: no call of Python code is left on it, as an `update` at every step is."""
    calls = []

    class Counted(AdafactorState):
        def update(self, parameters: Parameters, gradients: Parameters) -> None:
            calls.append(1)
            super().update(parameters, gradients)

    class Counting(Adafactor):
        def start(self, parameters: Parameters) -> OptimizerState:
            return Counted(self, parameters)

    net, (X, y) = network(), DATA
    net.fit(X, y, epochs=5, batch_size=8, optimizer=Counting(), progress=False)
    assert len(calls) == 4  # three when it is tried, and one that is recorded
    step = step_for(net, 8, net.optimizer_state(), 0, True)
    assert step.state is net.optimizer_state()


def test_the_update_is_recorded_with_cupy_arrays(host: Any) -> None:
    (X, y), one_hot = DATA, np.eye(3)[DATA[1]]
    nets = [network(), network(backend="cupy")]
    for net in nets:
        step = step_for(net, len(y), net.optimizer_state(Adafactor()))
        for array, given in ((step.x, X), (step.y, one_hot)):
            net.backend.copy(net.backend.asarray(given), array)
        for _ in range(3):
            step.run()
    for found, wanted in zip(*map(values, reversed(nets)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("schedule", [None, "cosine"])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, schedule: str | None) -> None:
    (X, y), path = DATA, tmp_path / "run.safetensors"
    options: dict[str, Any] = {"batch_size": 8, "progress": False, "schedule": schedule}
    whole = network()
    whole.fit(X, y, epochs=6, optimizer=Adafactor(), **options)
    interrupted = network()

    def fail(net: nnkit.Network, history: nnkit.History) -> None:
        if len(history["cost"]) == 4:
            raise OSError("the power is gone")

    with pytest.raises(OSError, match="the power is gone"):
        interrupted.fit(X, y, epochs=6, optimizer=Adafactor(), checkpoint=path, callbacks=[fail], **options)
    assert path.exists()
    resumed, done = network(), []
    options["callbacks"] = [lambda net, history: done.append(1)]
    resumed.fit(X, y, epochs=6, optimizer=Adafactor(), checkpoint=path, resume=True, **options)
    assert len(done) <= 3
    assert resumed.epochs_trained == 6
    for found, wanted in zip(values(resumed), values(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_an_optimizer_without_a_formula_and_an_update_is_refused() -> None:
    @dataclass(repr=False)
    class Nothing(Optimizer):
        learning_rate: float = 0.1

    net = network()
    before = values(net)
    with pytest.raises(TypeError, match=r"^Nothing has no formula, and its state does not override update; expected"):
        net.train_step(*DATA, Nothing())
    for found, wanted in zip(values(net), before, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_numbers_and_state_of_a_custom_optimizer() -> None:
    optimizer = Adafactor(beta2=0.5, note="mine")
    assert repr(optimizer) == "Adafactor(learning_rate=0.01, beta2=0.5, note='mine')"
    assert optimizer.describe()["note"] == "mine"
    with pytest.raises(AttributeError, match="only learning_rate can be changed"):
        optimizer.note = "another"


def test_a_missing_constant_of_the_formula_is_named() -> None:
    @nnkit.formula
    def scaled(xp: Any, p: Any, g: Any, learning_rate: Any, mu: float = 0.5) -> Any:
        return p - learning_rate * mu * g

    @dataclass(repr=False)
    class Lacking(Optimizer):
        learning_rate: float = 0.1
        formula = scaled

    with pytest.raises(TypeError, match=r"^Lacking has no mu, a constant of its formula scaled$"):
        network().train_step(*DATA, Lacking())


class NumPyState(OptimizerState):
    """Of a user of NumPy: in dtypes of its own, one array in place and another anew in each step."""

    diverges_at = 0

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self.total = np.full(parameters.flat.shape, 1e-10)
        self.mean, self.count = np.zeros(parameters.flat.shape), np.zeros((), np.int64)

    @property
    def arrays(self) -> dict[str, Array]:
        return {"total": self.total, "mean": self.mean, "count": self.count}

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        self.mean = 0.9 * self.mean + gradients.flat.astype(np.float64)
        self.total += self.mean**2
        self.count = self.count + 1  # which NumPy makes a number, not an array
        self.mean *= np.nan if self.count == self.diverges_at else 1.0
        parameters.flat -= (self.optimizer.learning_rate * self.mean / np.sqrt(self.total)).astype(np.float32)


class NumPyDescent(nnkit.SGD):
    def start(self, parameters: Parameters) -> OptimizerState:
        return NumPyState(self, parameters)


def state_of(net: nnkit.Network) -> list[Any]:
    return [net.parameters.flat.tolist(), *(np.asarray(a).tolist() for a in net.state.arrays.values())]  # type: ignore[union-attr]


class Counting(OptimizerState):
    """Momentum with the correction of Adam; the number of steps is a number of Python."""

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self.m, self.t, self.decay = np.zeros_like(parameters.flat), 0, 1.0

    @property
    def arrays(self) -> dict[str, Any]:
        return {"m": self.m, "t": np.array(self.t), "decay": np.float64(self.decay)}

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        self.t, self.decay = self.t + 1, 0.9 * self.decay
        self.m = 0.9 * self.m + 0.1 * gradients.flat
        rate = self.optimizer.learning_rate * (1 + 1 / self.t)
        parameters.flat[...] -= rate * self.m / (1 - self.decay)


class Corrected(nnkit.SGD):
    def start(self, parameters: Parameters) -> OptimizerState:
        return Counting(self, parameters)


def test_numbers_of_a_state_are_resumed_and_copied(tmp_path: Path) -> None:
    """`arrays` makes new arrays of them each time, into which nothing can be written."""
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3

    def trained(path: Path, epochs: int) -> nnkit.Network:
        net = nnkit.Network([4, 8, 3], seed=1, dtype="float64")
        net.fit(X, y, epochs=epochs, optimizer=Corrected(0.05), checkpoint=path, resume=True, progress=False)
        return net

    wanted = trained(tmp_path / "whole", 4)
    half = trained(tmp_path / "run", 2)
    counts: Any = wanted.state
    for net in (copy.deepcopy(half), pickle.loads(pickle.dumps(half)), trained(tmp_path / "run", 4)):
        if net.epochs_trained == 2:
            net.fit(X, y, epochs=2, progress=False)
        found: Any = net.state
        assert (found.t, found.decay) == (counts.t, counts.decay)
        assert type(found.t) is int
        np.testing.assert_array_equal(net.parameters.vector, wanted.parameters.vector)


def test_arrays_of_other_dtypes_are_resumed_and_copied(tmp_path: Path) -> None:
    def trained(epochs: int, **options: Any) -> nnkit.Network:
        net = nnkit.Network([5, 4, 3], seed=0)
        net.fit(*DATA, epochs=epochs, optimizer=NumPyDescent(0.1), progress=False, **options)
        return net

    whole = trained(4)
    trained(2, checkpoint=tmp_path / "run")
    resumed = trained(4, checkpoint=tmp_path / "run", resume=True)
    assert state_of(resumed) == state_of(whole) == state_of(copy.deepcopy(whole))


def test_arrays_that_are_assigned_anew_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error in the data, and after a divergence, from which the training can go on."""
    (x, y), seen = DATA, list[list[Any]]()

    def minibatches() -> Iterator[tuple[Any, Any]]:
        yield x[:10], y[:10]
        if seen:
            raise OSError("the drive is gone")
        yield x[10:], y[10:]

    def see(net: nnkit.Network, history: nnkit.History) -> None:
        seen.append(state_of(net))

    net = nnkit.Network([5, 4, 3], seed=0)
    with pytest.raises(OSError, match="the drive"):
        net.fit(minibatches, epochs=2, optimizer=NumPyDescent(0.1), callbacks=[see], progress=False)
    assert state_of(net) == seen[0]
    monkeypatch.setattr(NumPyState, "diverges_at", 4)
    with pytest.raises(nnkit.DivergenceError) as caught:
        net.fit(*DATA, epochs=2, batch_size=12, progress=False)
    assert caught.value.step == 2
    assert state_of(net)[3:] == [3]
    assert np.isfinite(state_of(net)[2]).all()


class LazyState(NumPyState):
    """Its arrays are made in the first step, as in PyTorch."""

    @property
    def arrays(self) -> dict[str, Array]:
        return {} if self.count == 0 else super().arrays


def test_arrays_that_are_made_in_the_first_step_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumPyDescent, "start", lambda self, p: LazyState(self, p))
    net, whole = nnkit.Network([5, 4, 3], seed=0), nnkit.Network([5, 4, 3], seed=0)
    monkeypatch.setattr(NumPyState, "diverges_at", 2)
    with pytest.raises(nnkit.DivergenceError):
        net.fit(*DATA, epochs=1, batch_size=12, optimizer=NumPyDescent(0.1), progress=False)
    monkeypatch.setattr(NumPyState, "diverges_at", 0)
    for each in (net, whole):  # the step before has been taken
        history = each.fit(*DATA, epochs=3, batch_size=12, optimizer=NumPyDescent(0.1), progress=False)
        assert history.epochs == 3
        assert np.isfinite(state_of(each)[2]).all()


class Memory(NumPyState):
    """Of L-BFGS: the last gradients, first none; a mean made in the first step, and a number in float64 since then."""

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self.rows, self.share = np.zeros((0, parameters.flat.size)), np.zeros((), np.float32)
        self.latest: Any = None

    @property
    def arrays(self) -> dict[str, Array]:
        latest = {} if self.latest is None else {"latest": self.latest}
        return {"rows": self.rows, "share": self.share} | latest

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        self.rows = np.concatenate([self.rows[-2:], gradients.flat[None]])
        self.latest = self.rows.mean(axis=0) if self.latest is None else 0.5 * (self.latest + gradients.flat)
        self.share = np.asarray(self.share * 0.9 + np.float64(1 / 3))
        parameters.flat -= (0.1 * self.share * self.latest).astype(parameters.flat.dtype)


@pytest.mark.parametrize("by", ["checkpoint", "deepcopy", "pickle", "copy", "to"])
def test_arrays_that_grow_or_come_later_go_on(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumPyDescent, "start", lambda self, p: Memory(self, p))
    options: dict[str, Any] = {"batch_size": 8, "progress": False}
    kept = options | ({"checkpoint": tmp_path / "run", "resume": True} if by == "checkpoint" else {})
    whole, net = nnkit.Network([5, 4, 3], seed=0), nnkit.Network([5, 4, 3], seed=0)
    whole.fit(*DATA, epochs=4, optimizer=NumPyDescent(0.1), **options)
    net.fit(*DATA, epochs=2, optimizer=NumPyDescent(0.1), **kept)
    if by == "checkpoint":
        net = nnkit.Network([5, 4, 3], seed=0)
        net.fit(*DATA, epochs=4, optimizer=NumPyDescent(0.1), **kept)
    else:
        ways: dict[str, Callable[[nnkit.Network], nnkit.Network]] = {
            "deepcopy": copy.deepcopy,
            "copy": copy.copy,
            "pickle": lambda net: pickle.loads(pickle.dumps(net)),
            "to": lambda net: net.to("standard:array_api_compat.numpy").to("numpy"),
        }
        net = ways[by](net)
        net.fit(*DATA, epochs=2, **options)
    assert state_of(net) == state_of(whole)


def test_arrays_that_grow_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumPyDescent, "start", lambda self, p: Memory(self, p))
    net, fails = nnkit.Network([5, 4, 3], seed=0), False

    def minibatches() -> Iterator[tuple[Any, Any]]:
        yield DATA[0][:10], DATA[1][:10]
        if fails:
            raise OSError("the drive is gone")

    net.fit(minibatches, epochs=1, optimizer=NumPyDescent(0.1), progress=False)
    before, fails = state_of(net), True
    with pytest.raises(OSError, match="the drive"):
        net.fit(minibatches, epochs=1, progress=False)
    assert state_of(net) == before


class Unnamed(Memory):
    @property
    def arrays(self) -> dict[str, Array]:
        return {} if self.latest is None else {"other": self.latest}


def test_an_array_without_an_attribute_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumPyDescent, "start", lambda self, p: Unnamed(self, p))
    net = nnkit.Network([5, 4, 3], seed=0)
    net.fit(*DATA, epochs=1, optimizer=NumPyDescent(0.1), progress=False)
    with pytest.raises(ValueError, match=r"Unnamed.arrays: 'other' is not an attribute of this name"):
        copy.deepcopy(net)


class NamedLikeAverages(NumPyState):
    @property
    def arrays(self) -> dict[str, Array]:
        return {"average": self.mean}


def test_a_name_of_the_averages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file would have one of both."""
    monkeypatch.setattr(NumPyDescent, "start", lambda self, p: NamedLikeAverages(self, p))
    net = nnkit.Network([5, 4, 3], seed=0)
    with pytest.raises(ValueError, match=r"NamedLikeAverages.arrays: 'average' is that of the averages by `ema`"):
        net.fit(*DATA, optimizer=NumPyDescent(0.1, ema=0.9), progress=False)
    net.fit(*DATA, epochs=1, optimizer=NumPyDescent(0.1), progress=False)


class Kept(OptimizerState):
    """It says nothing of `arrays`: momentum of each layer in a list, counts in a dict, and a list that grows."""

    fails_at = 0

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self.m = [np.zeros_like(W) for W in parameters.W]
        self.counts: dict[str, Any] = {"steps": 0, "rate": np.float64(1.0)}
        self.pair, self.name = (0, np.zeros(2)), "kept"
        self.first, self.seen = True, list[Any]()
        self.latest: Any = None

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        self.counts["steps"] += 1
        self.counts["rate"] *= np.float64(0.9)
        self.seen.append(np.array(gradients.flat[-2:]))
        self.pair = (self.pair[0] + 1, self.pair[1] + 1)
        self.first, self.latest = False, np.array(gradients.flat)
        for W, m, g in zip(parameters.W, self.m, gradients.W, strict=True):
            m *= 0.9
            m += g
            W[...] -= 0.05 * self.counts["rate"] * m
        parameters.flat[-2:] -= 0.01 * sum(self.seen)
        if self.counts["steps"] == Kept.fails_at:
            raise OSError("the drive is gone")


class Keeping(nnkit.SGD):
    def start(self, parameters: Parameters) -> OptimizerState:
        return Kept(self, parameters)


@pytest.mark.parametrize("by", ["checkpoint", "deepcopy", "pickle", "copy", "set_rate", "undo"])
def test_what_attributes_hold_goes_on(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"batch_size": 8, "progress": False}
    kept = options | ({"checkpoint": tmp_path / "run", "resume": True} if by == "checkpoint" else {})
    whole, net = nnkit.Network([5, 4, 3], seed=0), nnkit.Network([5, 4, 3], seed=0)
    whole.fit(*DATA, epochs=4, optimizer=Keeping(0.1), **options)
    net.fit(*DATA, epochs=2, optimizer=Keeping(0.1), **kept)
    steps: Any = net.state
    if by == "checkpoint":
        net = nnkit.Network([5, 4, 3], seed=0)
        net.fit(*DATA, epochs=4, optimizer=Keeping(0.1), **kept)
    elif by == "undo":
        before, length = net.parameters.vector, len(steps.seen)
        monkeypatch.setattr(Kept, "fails_at", steps.counts["steps"] + 2)
        with pytest.raises(OSError, match="the drive"):
            net.fit(*DATA, epochs=2, **options)
        assert net.parameters.vector.tobytes() == before.tobytes()
        assert len(steps.seen) == length
        monkeypatch.setattr(Kept, "fails_at", 0)
        net.fit(*DATA, epochs=2, **options)
    else:
        ways: dict[str, Callable[[nnkit.Network], Any]] = {
            "deepcopy": copy.deepcopy,
            "copy": copy.copy,
            "pickle": lambda net: pickle.loads(pickle.dumps(net)),
            "set_rate": lambda net: net.set_rate(0, 1.0),
        }
        net = ways[by](net) or net
        net.fit(*DATA, epochs=2, **options)
    found, wanted = net.state, whole.state
    assert isinstance(found, Kept)
    assert isinstance(wanted, Kept)
    assert (found.counts, found.first, len(found.seen)) == (wanted.counts, False, len(wanted.seen))
    assert type(found.counts["steps"]) is int
    assert (found.pair[0], found.pair[1].tolist()) == (wanted.pair[0], wanted.pair[1].tolist())
    assert net.parameters.vector.tobytes() == whole.parameters.vector.tobytes()


@pytest.mark.parametrize("name", ["mean", "other"])
def test_copies_among_the_arrays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an attribute called like it, which is set; of another name, which could not be."""

    class Copies(NumPyState):
        @property
        def arrays(self) -> dict[str, Array]:
            return super().arrays | {name: np.array(self.mean)}

    monkeypatch.setattr(NumPyDescent, "start", lambda self, p: Copies(self, p))
    net = nnkit.Network([5, 4, 3], seed=0)
    if name == "other":
        with pytest.raises(
            ValueError, match=r"Copies.arrays: 'other' is a copy; expected the array itself, or the name"
        ):
            net.fit(*DATA, epochs=1, optimizer=NumPyDescent(0.1), progress=False)
        return
    net.fit(*DATA, epochs=2, optimizer=NumPyDescent(0.1), progress=False)
    again = copy.deepcopy(net)
    for each in (net, again):
        each.fit(*DATA, epochs=2, progress=False)
    assert state_of(net) == state_of(again)


def test_what_is_not_kept_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Random(Kept):
        def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
            super().__init__(optimizer, parameters)
            self.rng = np.random.default_rng(0)

    monkeypatch.setattr(Keeping, "start", lambda self, p: Random(self, p))
    with pytest.warns(UserWarning, match="Random: its attribute 'rng' is a Generator, which copies, pickles and"):
        nnkit.Network([5, 4, 3], seed=0).fit(*DATA, epochs=1, optimizer=Keeping(0.1), progress=False)
