"""Factors of the learning rate per layer and for biases, compared with PyTorch's parameter groups."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.optimizers import Adagrad, AdamW, Optimizer, RMSprop
from tests.conftest import working_backend
from tests.support.recursions import OPTIMIZERS
from tests.support.sign_descent import SignDescent
from tests.support.torch_twin import Twin

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(40, 4)), RNG.integers(0, 3, 40)
RATES = ((0.0, 0.25), (0.5, None), (2.0, 0.0))


def layers(rates: tuple[tuple[float, float | None], ...] = RATES) -> list[nnkit.Dense]:
    sizes = ((4, 6, "tanh"), (6, 5, "tanh"), (5, 3, None))
    return [nnkit.Dense(*size, rate=rate, bias_rate=b) for size, (rate, b) in zip(sizes, rates, strict=True)]


def network(rates: tuple[tuple[float, float | None], ...] = RATES, **more: Any) -> nnkit.Network:
    return nnkit.Network(layers(rates), seed=1, **{"dtype": "float64", **more})


TORCH = {
    "SGD": (nnkit.SGD(0.1), {}),
    "momentum": (nnkit.SGD(0.1, momentum=0.9), {"momentum": 0.9}),
    "nesterov": (nnkit.SGD(0.1, momentum=0.9, nesterov=True), {"momentum": 0.9, "nesterov": True}),
    "RMSprop": (RMSprop(0.01, momentum=0.5), {"momentum": 0.5}),
    "Adagrad": (Adagrad(0.1), {}),
    "Adam": (nnkit.Adam(0.01), {}),
    "AdamW": (AdamW(0.01, weight_decay=0.3), {"weight_decay": 0.3}),
    "clip_norm": (nnkit.Adam(0.01, clip_norm=0.1), {}),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("how", ["steps", "fit"])
def test_rates_are_parameter_groups_of_pytorch(name: str, how: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net, (ours, options) = network(), TORCH[name]
    twin = Twin(torch, net)
    groups = []
    for layer, (W, b) in zip(net.dense, twin.tensors, strict=True):
        biases = options | {"weight_decay": 0.0}  # nnkit does not decay biases
        groups.append({"params": [W], "lr": ours.learning_rate * layer.rates["W"]} | options)
        groups.append({"params": [b], "lr": ours.learning_rate * layer.rates["b"]} | biases)
    theirs = getattr(torch.optim, type(ours).__name__)(groups)
    tensors = [a for pair in twin.tensors for a in pair]
    ours = replace(ours)  # a test's own
    for epoch in range(3):
        order = np.arange(40)
        np.random.default_rng([net.seed, 1, epoch]).shuffle(order)
        for start in range(0, 40, 10):
            rows = order[start : start + 10]
            if how == "steps":
                net.train_step(X[rows], LABELS[rows], ours)
            _, gradients = twin.gradients(X[rows], np.eye(3)[LABELS[rows]])
            for tensor, gradient in zip(tensors, (a for pair in gradients for a in pair), strict=True):
                tensor.grad = torch.tensor(gradient)
            if ours.clip_norm is not None:
                norm = torch.nn.utils.get_total_norm([tensor.grad for tensor in tensors])  # of frozen ones, too
                torch.nn.utils.clip_grads_with_norm_(tensors, ours.clip_norm, norm - 1e-6)  # adds 1e-6 to the norm
            theirs.step()
    if how == "fit":
        net.fit(X, LABELS, epochs=3, batch_size=10, optimizer=ours, progress=False)
    ours_now = [a for pair in zip(net.parameters.W, net.parameters.b, strict=True) for a in pair]
    for own, their in zip(ours_now, tensors, strict=True):
        np.testing.assert_allclose(own, their.detach().numpy(), rtol=1e-10, atol=1e-12)


KINDS = ["descent", "descent-decay", "nesterov-all", "rmsprop-all", "adagrad-all", "adam-all", "adamw", "lion-all"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("backend", ["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def test_a_factor_for_all_is_another_learning_rate(name: str, backend: str) -> None:
    """Of any optimizer with any options: by ½, both have the same bits."""
    found = []
    for factor in (1.0, 0.5):
        net = network(((factor, None),) * 3, dtype="float32", backend=working_backend(backend))
        optimizer = OPTIMIZERS[name]()
        optimizer.learning_rate *= 0.25 / factor
        for start in (0, 20, 0):
            net.train_step(X[start : start + 20], LABELS[start : start + 20], optimizer)
        net.fit(X, LABELS, epochs=2, batch_size=16, progress=False)
        found.append(net.parameters.vector)
    if name == "descent":  # plain descent may be part of the product
        np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-7)
    else:
        assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("name", ["adamw-clipped", "nesterov-all", "lion-all", "descent"])
def test_rate_0_freezes(name: str) -> None:
    made = [nnkit.Dense(4, 6, "relu", rate=0.0), nnkit.Dropout(0.2), nnkit.Dense(6, 3, bias_rate=0.0)]
    net = nnkit.Network(made, seed=0)
    before = [np.array(a) for a in (net.parameters.W[0], net.parameters.b[0], net.parameters.b[1], net.parameters.W[1])]
    net.fit(X, LABELS, epochs=2, optimizer=OPTIMIZERS[name](), schedule="cosine", progress=False)
    after = net.parameters.W[0], net.parameters.b[0], net.parameters.b[1], net.parameters.W[1]
    assert [bool((a == b).all()) for a, b in zip(before, after, strict=True)] == [True, True, True, False]


def test_rates_of_1_change_nothing() -> None:
    net = network(((1.0, None), (1.0, 1.0), (1.0, None)))
    assert net.parameters.rates is None
    assert net.optimizer_state().factors is None
    assert net.optimizer_state().is_descent


def test_rates_are_saved_with_the_network(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net, plain = network(), network(((1.0, None),) * 3)
    assert repr(net.layers[0]) == "Dense(inputs=4, units=6, activation='tanh', init=None, rate=0.0, bias_rate=0.25)"
    assert eval(repr(net.layers[1]), {"Dense": nnkit.Dense}) == net.layers[1]
    net.save(tmp_path / "net.safetensors")
    again = nnkit.load(tmp_path / "net.safetensors")
    assert again.layers == net.layers
    plain.save(tmp_path / "plain.safetensors")
    assert b"rate" not in (tmp_path / "plain.safetensors").read_bytes()  # as before there were rates
    for one in (net, again):
        one.fit(X, LABELS, epochs=2, optimizer=nnkit.Adam(0.01), progress=False)
    assert np.array_equal(net.parameters.flat, again.parameters.flat)


def test_a_resumed_training_keeps_its_rates(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    options: dict[str, Any] = {"optimizer": nnkit.Adam(0.01), "batch_size": 8, "progress": False}
    whole = network()
    whole.fit(X, LABELS, epochs=4, **options)
    options |= {"checkpoint": tmp_path / "run.safetensors", "resume": True}
    network().fit(X, LABELS, epochs=2, **options)
    resumed = network()
    resumed.fit(X, LABELS, epochs=4, **options)
    assert resumed.parameters.flat.tobytes() == whole.parameters.flat.tobytes()
    with pytest.raises(ValueError, match=r"its layers is .*'rate': 0.0.*but this training's is .*'rate': 0.1"):
        network(((0.1, 0.25), *RATES[1:])).fit(X, LABELS, epochs=5, **options)


def test_set_rate_keeps_the_state() -> None:
    nets, adam = [network(((1.0, None),) * 3) for _ in range(2)], [nnkit.Adam(0.01), nnkit.Adam(0.01)]
    for net, optimizer in zip(nets, adam, strict=True):
        net.fit(X, LABELS, epochs=2, batch_size=8, optimizer=optimizer, progress=False)
    frozen = nets[0].parameters.W[0].copy()
    nets[0].set_rate(0, 0.0)
    nets[0].set_rate(-1, 0.5, bias_rate=0.125)
    assert nets[0].layers[-1] == replace(nets[1].dense[-1], rate=0.5, bias_rate=0.125)
    cost = nets[0].train_step(X, LABELS)
    assert cost == nets[1].train_step(X, LABELS)
    assert np.array_equal(nets[0].parameters.W[0], frozen)
    assert np.array_equal(nets[0].parameters.W[1], nets[1].parameters.W[1])  # by the same state of Adam
    ours, theirs = (net.optimizer_state().numbers["t"] for net in nets)
    assert ours == theirs == 11


@pytest.mark.parametrize("first", [nnkit.SGD(0.1), nnkit.Adam(0.1)], ids=["sgd", "adam"])
def test_an_optimizer_that_was_assigned_before_set_rate_starts_anew(first: Optimizer) -> None:
    nets = [network(((1.0, None),) * 3) for _ in range(2)]
    for net, change in zip(nets, (True, False), strict=True):
        net.train_step(X, LABELS, first)
        net.optimizer = nnkit.AdamW(0.01)
        if change:
            net.set_rate(0, 1.0)
        net.train_step(X, LABELS)
        assert net.optimizer_state().numbers["t"] == 1
    assert np.array_equal(nets[0].parameters.vector, nets[1].parameters.vector)


CHANGES: dict[str, Callable[[nnkit.Network], object]] = {
    "set_rate": lambda net: net.set_rate(0, 0.0),
    "to": lambda net: net.to("standard:array_api_strict"),
    "optimizer": lambda net: setattr(net, "optimizer", nnkit.SGD(0.1)),
    "preprocessing": lambda net: setattr(net, "preprocessing", nnkit.data.Normalization.fit(X)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", ["iterable", "schedule"])
def test_within_an_epoch_it_is_refused(where: str, change: str) -> None:
    """Its steps keep the arrays with which it began: the change would be ignored, and the state of its steps lost."""
    net = network(((1.0, None),) * 3)

    def changed(step: float) -> float:
        if step > 1:
            CHANGES[change](net)
        return 1.0

    def minibatches() -> Any:
        for start in range(0, 40, 10):
            changed(start)
            yield X[start : start + 10], LABELS[start : start + 10]

    data: Any = (minibatches,) if where == "iterable" else (X, LABELS)
    more: dict[str, Any] = (
        {} if where == "iterable" else {"schedule": lambda epoch: changed(4 * epoch), "batch_size": 10}
    )
    before, layers, optimizer = net.parameters.vector, list(net.layers), nnkit.Adam(0.1)
    if change == "to":
        pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    with pytest.raises(RuntimeError, match=f"{change}: an epoch of fit is running, with what it began with; wait"):
        net.fit(*data, **more, epochs=2, optimizer=optimizer, progress=False)
    assert np.array_equal(net.parameters.vector, before)
    assert list(net.layers) == layers
    net.set_rate(0, 0.0)
    net.to("numpy")


def test_what_set_rate_refuses() -> None:
    net = nnkit.Network([nnkit.Dense(2, 3, "relu"), nnkit.Dropout(0.5), nnkit.Dense(3, 2)], seed=0)
    with pytest.raises(ValueError, match=r"set_rate: layer 1 is Dropout\(rate=0.5\); expected a Dense layer"):
        net.set_rate(1, 0.0)
    with pytest.raises(ValueError, match="set_rate: layer is 3; expected an index below 3"):
        net.set_rate(3, 0.0)
    with pytest.raises(ValueError, match="Dense: rate is -1; expected a finite number of at least 0"):
        net.set_rate(0, -1)
    with pytest.raises(TypeError, match="Dense: bias_rate is '0'; expected a finite number"):
        net.set_rate(0, 1, "0")  # type: ignore[arg-type]
    net.set_rate(0, 0.0)
    pytest.importorskip("scipy", reason="scipy is not installed")
    with pytest.raises(ValueError, match="minimize: layers have rates other than 1"):
        net.minimize([[0.0, 1.0]], [1])


@nnkit.formula
def scaled(xp: Any, x: Any, s: Any) -> Any:
    return x * s


@dataclass(frozen=True)
class Scale(nnkit.Layer):
    """Each input times a parameter, which learns at its own rate."""

    inputs: int
    units: int
    factor: float = 6.0
    name: str = "s"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"s": (self.units,)}

    @property
    def rates(self) -> dict[str, float]:
        return {self.name: self.factor}

    def start(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"s": np.ones(self.units)}

    def forward(self, backend: Any, x: Any, parameters: Any) -> Any:
        return scaled(x, parameters["s"]), x

    def backward(self, backend: Any, delta: Any, saved: Any, parameters: Any, gradient: Any, need_dx: bool) -> Any:
        backend.sum(scaled(delta, saved), axis=0, out=gradient["s"])
        return scaled(delta, parameters["s"])


def test_a_custom_layer_has_rates_by_name() -> None:
    nets = [nnkit.Network([Scale(4, 4, factor), nnkit.Dense(4, 3)], seed=0, dtype="float64") for factor in (1.0, 6.0)]
    steps = []
    for net in nets:
        net.train_step(X, LABELS, nnkit.SGD(0.1))
        steps.append(np.array(net.parameters.layers[0]["s"]) - 1)
    np.testing.assert_allclose(steps[1], 6 * steps[0], rtol=1e-12)
    assert np.array_equal(nets[0].parameters.W[0], nets[1].parameters.W[0])
    with pytest.raises(ValueError, match=r"Scale\.rates contains W; expected s"):
        nnkit.Network([Scale(4, 4, name="W"), nnkit.Dense(4, 3)], seed=0)
    with pytest.raises(ValueError, match=r"Scale\.rates: s is -1\.0; expected a finite number of at least 0"):
        nnkit.Network([Scale(4, 4, -1.0), nnkit.Dense(4, 3)], seed=0)


@pytest.mark.parametrize("kind", [SignDescent, nnkit.SGD])
def test_an_update_without_a_formula_goes_its_share(kind: type[nnkit.SGD]) -> None:
    net, plain = network(), network(((1.0, None),) * 3)
    before = net.parameters.flat.copy()
    for one in (net, plain):
        one.train_step(X, LABELS, kind(0.25))
    factors = net.optimizer_state().factors
    assert factors is not None
    wanted = before + factors.flat * (plain.parameters.flat - before)
    np.testing.assert_allclose(net.parameters.flat, wanted, rtol=0, atol=1e-15)


def test_layers_thaw_in_a_callback() -> None:
    """Gradual unfreezing: the training goes on with the state and the averages that it has."""
    net = network(((0.0, None), (1.0, None), (1.0, None)))
    start, seen = net.parameters.W[0].copy(), []

    def thaw(network: nnkit.Network, history: nnkit.History) -> None:
        seen.append(np.array_equal(network.parameters.W[0], start))
        if history.epochs == 2:
            network.set_rate(0, 1.0)

    options: dict[str, Any] = {"batch_size": 8, "progress": False}
    net.fit(X, LABELS, epochs=4, optimizer=nnkit.Adam(0.01, ema=0.9), callbacks=[thaw], **options)
    assert seen == [True, True, False, False]
    other = network(((0.0, None), (1.0, None), (1.0, None)))
    other.fit(X, LABELS, epochs=2, optimizer=nnkit.Adam(0.01, ema=0.9), averaged=False, **options)
    other.set_rate(0, 1.0)
    other.fit(X, LABELS, epochs=2, **options)
    assert np.array_equal(net.parameters.vector, other.parameters.vector)


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
def test_a_training_whose_callback_sets_rates_is_resumed(tmp_path: Path, killed_after: int) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")

    def freeze(network: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs in (2, 4):
            network.set_rate(0, 0.0 if history.epochs == 2 else 0.5, bias_rate=0.25)

    options: dict[str, Any] = {"optimizer": nnkit.Adam(0.01, ema=0.9), "callbacks": [freeze], "progress": False}
    whole, resumed = network(), network()
    whole.fit(X, LABELS, epochs=6, **options)
    options |= {"checkpoint": tmp_path / "run.safetensors", "resume": True}
    network().fit(X, LABELS, epochs=killed_after, **options)
    again = nnkit.load(tmp_path / "run.safetensors")  # has the rates of the checkpoint
    for epochs in (5, 6):
        resumed.fit(X, LABELS, epochs=epochs, **options)
    assert resumed.layers == resumed.dense == whole.layers
    assert resumed.parameters.flat.tobytes() == whole.parameters.flat.tobytes()
    again.fit(X, LABELS, epochs=6, **options)
    assert again.parameters.flat.tobytes() == whole.parameters.flat.tobytes()
    with pytest.raises(ValueError, match="its layers is"):
        network(((0.1, 0.25), *RATES[1:])).fit(X, LABELS, epochs=7, **options)
