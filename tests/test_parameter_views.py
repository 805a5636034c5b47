"""Views of the parameters can be written to; an array in their place, which a network would not see, is refused."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.optimizers import Adam, Lion, Optimizer


def replace_entry(owner: Callable[[Any], Any], index: Any) -> Callable[[Any], None]:
    def replace(parameters: Any) -> None:
        owner(parameters)[index] = 0 * np.asarray(owner(parameters)[index])

    return replace


def replace_attribute(name: str) -> Callable[[Any], None]:
    return lambda parameters: setattr(parameters, name, getattr(parameters, name) * 1)


@pytest.mark.parametrize(
    "replace",
    [
        replace_entry(lambda p: p.W, 0),
        replace_entry(lambda p: p.W, slice(0, 1)),
        replace_entry(lambda p: p.b, -1),
        replace_entry(lambda p: p.layers[0], "W"),
        lambda p: p.layers[0].update(W=np.zeros((3, 2))),
        lambda p: p.layers[0].__ior__({"W": np.zeros((3, 2))}),
        *map(replace_attribute, ("flat", "weights", "biases", "W", "b")),
    ],
)
def test_replacing_a_view_is_refused(replace: Callable[[Any], None]) -> None:
    """It would change nothing, or the predictions and not the file."""
    net = nnkit.Network([2, 3, 2], seed=0)
    before = net.parameters.flat.copy()
    for parameters in (net.parameters, net.gradient):
        with pytest.raises(TypeError, match="is part of the parameters, and another array would not be; write into it"):
            replace(parameters)
    assert np.array_equal(net.parameters.flat, before)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.W.append(np.zeros((3, 2))),
        lambda p: p.b.pop(),
        lambda p: p.W.__delitem__(0),
        lambda p: p.W.__iadd__([np.zeros((3, 2))]),
        lambda p: p.layers.clear(),
        lambda p: p.layers[0].pop("W"),
        lambda p: p.layers[0].__delitem__("b"),
    ],
)
def test_views_are_neither_added_nor_removed(change: Callable[[Any], Any]) -> None:
    net = nnkit.Network([2, 3, 2], seed=0)
    with pytest.raises(TypeError, match="these are views of the parameters; write into one: "):
        change(net.parameters)


def test_views_are_written_to_in_place() -> None:
    x, net, other = [[1.0, 2.0]], nnkit.Network([2, 3, 2], seed=0), nnkit.Network([2, 3, 2], seed=0)
    net.parameters.flat *= 0.5
    net.parameters.W[0] += 1.0
    net.parameters.b[-1][...] = 3.0
    net.parameters.layers[1]["W"] -= 1.0
    other.parameters.assign(
        [[0.5 * other.parameters.W[0] + 1, 0.5 * other.parameters.b[0]], [0.5 * other.parameters.W[1] - 1, [3.0, 3.0]]]
    )
    assert np.array_equal(net.predict_proba(x), other.predict_proba(x))
    for copied in (copy.deepcopy(net.parameters), pickle.loads(pickle.dumps(net.parameters))):
        assert np.array_equal(copied.W[1], net.parameters.W[1])
        assert len(copied.W) == len(copied.layers) == 2


def test_an_update_that_replaces_the_vector_is_refused() -> None:
    class Replacing(nnkit.optimizers.OptimizerState):
        def update(self, parameters: Any, gradients: Any) -> None:
            parameters.flat = parameters.flat - self.numbers["learning_rate"] * gradients.flat

    class Descent(nnkit.SGD):
        def start(self, parameters: Any) -> Replacing:
            return Replacing(self, parameters)

    net = nnkit.Network([2, 2], seed=0)
    with pytest.raises(TypeError, match="flat is part of the parameters"):
        net.train_step([[0.0, 1.0]], [0], Descent(0.1))


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.1), Adam(0.05, ema=0.9), Lion(0.01)])
def test_views_stay_views_when_rates_change_and_trainings_resume(optimizer: Optimizer, tmp_path: Path) -> None:
    layers = [nnkit.Dense(4, 5, "tanh"), nnkit.Dropout(0.3), nnkit.Dense(5, 3)]
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    options: dict[str, Any] = {"optimizer": optimizer, "averaged": False, "checkpoint": tmp_path / "net"}

    def trained(change: bool) -> nnkit.Network:
        net = nnkit.Network(layers, cost="softmax_cross_entropy", seed=0)
        W, b = net.parameters.W[1], net.parameters.b[0]
        net.fit(X, y, epochs=2, progress=False, **options)
        if change:
            net.set_rate(0, 0.5)
            net.set_rate(0, 1.0)
        else:
            net = nnkit.Network(layers, cost="softmax_cross_entropy", seed=0)
            W, b = net.parameters.W[1], net.parameters.b[0]
        net.fit(X, y, epochs=4, progress=False, resume=True, **options)
        assert np.array_equal(W, net.parameters.W[1])
        assert np.array_equal(b, net.parameters.b[0])
        W[...] = 0
        assert not net.parameters.W[1].any()
        return net

    one, other = trained(True), trained(False)
    assert np.array_equal(one.parameters.flat, other.parameters.flat)


def test_a_rate_keeps_the_optimizers_state_and_the_dropout() -> None:
    """The steps are those of a network that had the rate from the start: its other layer is trained alike."""

    def network(rate: float) -> nnkit.Network:
        layers = [nnkit.Dense(4, 5, "tanh"), nnkit.Dropout(0.5), nnkit.Dense(5, 3, rate=rate)]
        return nnkit.Network(layers, seed=0, cost="softmax_cross_entropy")

    nets = [network(1.0), network(0.25)]
    x, y = np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 3
    for net in nets:
        net.train_step(x, y, Adam(1e-3, ema=0.5))
    nets[1].parameters.vector = nets[0].parameters.vector
    nets[0].set_rate(2, 0.25)
    for net in nets:
        net.train_step(x, y)
    assert np.array_equal(nets[0].parameters.vector, nets[1].parameters.vector)


@pytest.mark.parametrize("name", ["layers", "dense", "features", "target_names", "preprocessing.features"])
def test_lists_of_a_network_cannot_be_changed(name: str) -> None:
    """The arrays and a file would no longer agree with them."""
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"b": [0.0, 1.0, 2.0, 5.0], "a": [1.0, 3.0, 0.0, 2.0]})
    fitted = nnkit.data.Normalization.fit(table)
    net = nnkit.Network([2, 3, 2], cost="quadratic", seed=0, preprocessing=fitted)
    net.fit(table, table, epochs=1, progress=False)
    net.set_rate(0, 0.5)

    def owned(net: Any) -> Any:
        return net.preprocessing.features if "." in name else getattr(net, name)

    given, before = owned(net), list(owned(net))
    changes: list[Callable[[], Any]] = [
        given.pop, given.clear, given.reverse, given.sort, lambda: given.append(before[0]),
        lambda: given.extend(before), lambda: given.insert(0, before[0]), lambda: given.remove(before[0]),
        lambda: given.__setitem__(0, before[1]), lambda: given.__delitem__(0), lambda: given.__iadd__(before),
        lambda: given.__imul__(2),
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(TypeError, match="cannot be changed; change a copy"):
            change()
    assert given == before == list(given)
    assert sorted(map(str, given)) == sorted(map(str, before))
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert owned(other) == before
