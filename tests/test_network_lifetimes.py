"""Networks are freed with their last reference, copies are of the class of the original, and caches stay small."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends.cpu import allocation, calls
from nnkit.backends.cpu.native import formulas
from nnkit.backends.formula import Formula, compose
from nnkit.kernels.cost import output_pair

X, LABELS = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 3


def network(drops: bool = False, **options: Any) -> nnkit.Network:
    layers = [nnkit.Dense(4, 5, "tanh"), *([nnkit.Dropout(0.3)] if drops else []), nnkit.Dense(5, 3)]
    return nnkit.Network(layers, cost="softmax_cross_entropy", seed=0, **options)


def fit(net: nnkit.Network, **options: Any) -> nnkit.History:
    return net.fit(X, LABELS, **({"epochs": 2, "progress": False} | options))


def fail(kind: type[BaseException]) -> Callable[..., None]:
    def callback(*_: object) -> None:
        raise kind

    return callback


def fails(kind: type[Exception], call: Callable[[], object]) -> None:
    """Not by pytest.raises, whose result holds the traceback and so the network."""
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def save_and_load(net: nnkit.Network, path: Path) -> None:
    net.save(path)
    fit(nnkit.load(path))


def resume(net: nnkit.Network, path: Path) -> None:
    fit(net, checkpoint=path)
    fit(net, checkpoint=path, epochs=3, resume=True)


def move(net: nnkit.Network) -> None:
    for backend in ("standard:array_api_strict", "numpy"):
        net.to(backend)
        net.predict(X)
        net.predict(X)
        net.train_step(X, LABELS)


def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return ((X[i : i + 9], LABELS[i : i + 9]) for i in range(0, 40, 9))


USES: dict[str, Callable[[nnkit.Network, Path], object]] = {
    "train_step": lambda net, path: [net.train_step(X, LABELS, nnkit.Adam()) for _ in range(2)],
    "fit": lambda net, path: fit(net),
    "a schedule": lambda net, path: fit(net, schedule="cosine"),
    "a plateau": lambda net, path: fit(net, schedule=nnkit.schedules.reduce_on_plateau("cost")),
    "early stopping": lambda net, path: fit(net, early_stopping=nnkit.EarlyStopping("cost", patience=1)),
    "callbacks": lambda net, path: fit(net, callbacks=[lambda net, history: net.predict(X) is None]),
    "metrics": lambda net, path: fit(net, metrics=["mae"], validation_data=(X, LABELS)),
    "accumulation": lambda net, path: fit(net, gradient_accumulation_steps=2),
    "weights": lambda net, path: fit(net, class_weight="balanced"),
    "a stream": lambda net, path: net.fit(stream, epochs=2, progress=False),
    "predict": lambda net, path: [net.predict(X) for _ in range(3)],
    "evaluate": lambda net, path: [net.evaluate(X, LABELS, metrics=["mae"]) for _ in range(3)],
    "gradients": lambda net, path: [net.gradients(X, LABELS, training=how) for how in (False, True, True)],
    "save and load": save_and_load,
    "resume": resume,
    "to": lambda net, path: move(net),
    "check_gradients": lambda net, path: nnkit.check_gradients(net, X, LABELS, entries=2),
    "copies": lambda net, path: [copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))],
    "an error in fit": lambda net, path: fails(KeyError, lambda: fit(net, callbacks=[fail(KeyError)])),
    "Ctrl-C": lambda net, path: fit(net, callbacks=[fail(KeyboardInterrupt)]),
    "divergence": lambda net, path: fails(
        nnkit.DivergenceError, lambda: fit(net, optimizer=nnkit.SGD(3e38, momentum=0.9), epochs=9)
    ),
    "wrong data": lambda net, path: fails(ValueError, lambda: net.fit(X, LABELS[:3])),
}


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("use", USES)
def test_a_network_is_freed_with_its_last_reference(use: str, drops: bool, tmp_path: Path) -> None:
    USES[use](network(drops), tmp_path / "first")  # imports may leave cycles of their own
    gc.collect()
    gc.disable()
    try:
        net = network(drops)
        USES[use](net, tmp_path / "second")
        left = [weakref.ref(each) for each in (net, net.parameters, net.gradient)]
        del net
        assert [each() for each in left] == [None, None, None]
    finally:
        gc.enable()


class Named(nnkit.Network):
    """A subclass with a constructor, a method, attributes and a slot of its own."""

    __slots__ = ("note",)

    def __init__(self, hidden: int) -> None:
        super().__init__([4, hidden, 3], cost="softmax_cross_entropy", seed=3)
        self.hidden, self.this = hidden, self
        self.note = ["a slot"]

    def predict(self, x: Any) -> Any:
        return "named"


def passed_on(net: Any) -> Any:
    return pickle.loads(pickle.dumps(net))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, passed_on])
@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.1), nnkit.Adam()])
def test_a_copy_of_a_subclass_has_its_class(copied: Callable[[Any], Any], optimizer: Any) -> None:
    net = Named(6)
    fit(net, optimizer=optimizer)
    other = copied(net)
    assert type(other) is Named
    assert (other.hidden, other.note, other.predict(X)) == (6, ["a slot"], "named")
    assert (other.note is net.note) is (copied is copy.copy)
    assert other.this is (net if copied is copy.copy else other)
    assert np.array_equal(other.parameters.flat, net.parameters.flat)
    before = net.parameters.flat.copy()
    fit(other)
    assert np.array_equal(net.parameters.flat, before)
    fit(net)
    assert np.array_equal(other.parameters.flat, net.parameters.flat)  # with the same state of the optimizer


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda net: copy.deepcopy([net])[0]])
@pytest.mark.parametrize("again", [True, False])
def test_a_copy_has_the_cost_of_the_original_whatever_has_its_name_now(
    copied: Callable[[Any], Any], again: bool
) -> None:
    def register(c: float) -> None:
        nnkit.register_cost(
            "mine", lambda xp, h, y, scale: c * (h - y) ** 2 * scale, lambda xp, h, y, scale: 2 * c * (h - y) * scale
        )

    Y = np.random.default_rng(1).normal(size=(40, 2))
    register(1.0)
    net = nnkit.Network([4, 3, 2], "tanh", cost="mine", dtype="float64", seed=0)
    nnkit.unregister_cost("mine")
    if again:
        register(3.0)
    try:
        other, right = copied(net), ((net.forward(X) - Y) ** 2).sum(axis=1).mean()
        assert net.evaluate(X, Y)["cost"] == other.evaluate(X, Y)["cost"] == pytest.approx(right, rel=1e-14)
        for each in (net, other):
            each.train_step(X, Y, nnkit.SGD(0.1))
        assert np.array_equal(net.parameters.vector, other.parameters.vector)
    finally:
        if again:
            nnkit.unregister_cost("mine")


def test_a_network_is_pickled_by_its_state() -> None:
    """As serializers expect that look at an object's class and state: `__reduce__` returns neither."""
    net = network()
    parts: Any = net.__reduce_ex__(4)
    make, arguments, state = parts[:3]
    assert isinstance(state, dict)
    assert all(not isinstance(value, nnkit.Network) for value in state.values())
    other = make(*arguments)
    other.__setstate__(state)
    assert repr(other) == repr(net)


def test_a_pickle_of_an_earlier_version_is_read() -> None:
    """Which had pairs (W, b) for the parameters, the training state by itself, and no cost among the arguments."""
    net = network()
    fit(net, optimizer=nnkit.Adam())
    now = net.__getstate__()
    arguments = dict(now["arguments"])
    cost, arrays, layers = arguments.pop("cost"), dict(now["arrays"]), range(len(net.dense))
    pairs = [(arrays.pop(f"layers.{i}.W"), arrays.pop(f"layers.{i}.b")) for i in layers]
    names = ("epochs_trained", "optimizer", "has_state", "added")
    before = {"arguments": arguments, "cost": cost, "values": pairs, "state": arrays} | {n: now[n] for n in names}
    other = nnkit.Network.__new__(nnkit.Network)
    other.__setstate__(pickle.loads(pickle.dumps(before)))
    fit(net)
    fit(other)  # with the same state of the optimizer
    assert other.optimizer == net.optimizer
    assert np.array_equal(other.parameters.flat, net.parameters.flat)


def grown(use: Callable[[int], object], before: int, after: int) -> int:
    """How many more objects are alive after calls with `after` new numbers, when `before` have been used."""
    counts = []
    for numbers in (range(before), range(before, before + after)):
        for i in numbers:
            use(i)
        gc.collect()
        counts.append(len(gc.get_objects()))
    return counts[1] - counts[0]


ONE = np.ones((3, 2))
SMALL = nnkit.Network([2, 3, 2], seed=0)


def use_activation(number: int) -> None:
    name = f"cube{number}"
    nnkit.register_activation(name, lambda xp, z: z**3, lambda xp, z, delta: 3 * z**2 * delta, "preactivation")
    nnkit.Network([2, 3, 2], activation=name, seed=0).train_step(ONE, [0, 1, 1])
    nnkit.unregister_activation(name)


def use_cost(number: int) -> None:
    name = f"square{number}"
    nnkit.register_cost(name, lambda xp, h, y, scale: (h - y) ** 2 * scale, lambda xp, h, y, scale: 2 * (h - y) * scale)
    nnkit.Network([2, 3, 2], cost=name, seed=0).train_step(ONE, ONE)
    nnkit.unregister_cost(name)


def smoothed(number: int) -> nnkit.Network:
    cost = nnkit.get_cost("softmax_cross_entropy", label_smoothing=1e-6 * (number + 1))
    return nnkit.Network([2, 2], cost=cost, seed=0)


def dropping(number: int) -> nnkit.Network:
    return nnkit.Network([nnkit.Dense(2, 3), nnkit.Dropout(1e-6 * (number + 1)), nnkit.Dense(3, 2)], seed=0)


NEW_NUMBERS: dict[str, Callable[[int], object]] = {
    "leaky_relu": lambda i: nnkit.leaky_relu(ONE, negative_slope=1e-6 * i),
    "elu": lambda i: nnkit.elu(ONE, alpha=1 + 1e-6 * i),
    "huber": lambda i: nnkit.huber(ONE, 2 * ONE, delta=1 + 1e-6 * i),
    "epsilon": lambda i: SMALL.train_step(ONE, [0, 1, 1], nnkit.Adam(epsilon=1e-8 * (i + 1))),
    "beta1": lambda i: SMALL.train_step(ONE, [0, 1, 1], nnkit.Adam(beta1=1e-6 * (i + 1))),
    "rates": lambda i: SMALL.train_step(ONE, [0, 1, 1], nnkit.SGD(1e-6 * (i + 1), l2=1e-6 * i, clip_norm=i + 1.0)),
    "label smoothing": lambda i: smoothed(i).train_step(ONE, [0, 1, 1]),
    "dropout": lambda i: dropping(i).train_step(ONE, [0, 1, 1]),
    "activations": use_activation,
    "costs": use_cost,
    "compositions": lambda i: compose(Formula(lambda xp, a: a * i, "times", ["a"]), nnkit.relu),
    "networks": lambda i: nnkit.Network([2, 3, 2], seed=i).predict(ONE),
}


@pytest.mark.parametrize("use", NEW_NUMBERS)
def test_caches_are_bounded(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever new slopes, deltas and rates: memory grew by 1 to 18 kB with each.

    The allocations of formulas and their native code, which are limited to 1024, some megabytes, are put away here.
    """
    monkeypatch.setattr(formulas, "_found", lru_cache(maxsize=8)(formulas._found.__wrapped__))
    monkeypatch.setattr(calls, "moves", lru_cache(maxsize=8)(allocation.moves.__wrapped__))
    assert grown(NEW_NUMBERS[use], before=140 if use in ("activations", "compositions") else 70, after=30) < 30


def test_cached_formulas_are_correct_after_many_others() -> None:
    for slope in (*range(1, 200), 1):
        assert nnkit.leaky_relu(np.array([-1.0]), negative_slope=slope * 1e-3).tolist() == [-slope * 1e-3]
    for delta in (*range(1, 200), 1):
        assert nnkit.huber(np.array([[300.0]]), np.array([[0.0]]), delta=float(delta)) == delta * (300 - delta / 2)
    assert output_pair(nnkit.get_cost("huber", delta=2.0), "identity").constants == {"delta": 2.0}
