"""A layer of the user's own: trained, recorded, saved, resumed, moved and verified like the built-in ones.

It is a dense layer whose outputs are scaled, h = s ⊙ (Wx + b), with a residual that shows that layers may have no
parameters at all.
"""

import copy
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends.base import Array, Backend
from nnkit.step import step_for
from tests.conftest import Arrays


@nnkit.formula
def scaled(xp: Any, product: Any, b: Any, s: Any) -> Any:
    """s ⊙ (product + b)."""
    return s * (product + b)


@nnkit.formula
def times(xp: Any, a: Any, b: Any) -> Any:
    """a ⊙ b."""
    return a * b


@nnkit.formula
def scaled_squares(xp: Any, x: Any, rate: Any) -> Any:
    """x + rate x²."""
    return x + rate * x * x


@nnkit.formula
def scaled_squares_grad(xp: Any, x: Any, delta: Any, rate: Any) -> Any:
    """(1 + 2 rate x) ⊙ Δ."""
    return (1 + 2 * rate * x) * delta


@dataclass(frozen=True)
class Scaled(nnkit.Layer):
    """A dense layer with a scale for each of its units."""

    inputs: int
    units: int
    start_scale: float = 1.0

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"W": (self.units, self.inputs), "b": (self.units,), "s": (self.units,)}

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        W, b = nnkit.initializers.glorot_uniform(rng, self.units, self.inputs)
        return {"W": W, "b": b, "s": np.full(self.units, self.start_scale)}

    def forward(self, backend: Backend, x: Array, parameters: Mapping[str, Array]) -> tuple[Array, Any]:
        product = backend.matmul(x, parameters["W"].mT)
        return scaled(product, parameters["b"], parameters["s"]), (x, product)

    def backward(
        self,
        backend: Backend,
        delta: Array,
        saved: Any,
        parameters: Mapping[str, Array],
        gradient: Mapping[str, Array],
        need_dx: bool,
    ) -> Array:
        x, product = saved
        before = scaled(product, parameters["b"], np.float64(1.0))  # Wx + b
        backend.sum(times(before, delta), axis=0, out=gradient["s"])
        delta = times(delta, parameters["s"])
        backend.sum(delta, axis=0, out=gradient["b"])
        backend.matmul(delta.mT, x, out=gradient["W"])
        return backend.matmul(delta, parameters["W"]) if need_dx else None


@dataclass(frozen=True)
class Curved(nnkit.Layer):
    """x + rate x², without parameters."""

    inputs: int
    units: int
    rate: float = 0.25

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {}

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        return {}

    def forward(self, backend: Backend, x: Array, parameters: Mapping[str, Array]) -> tuple[Array, Any]:
        return scaled_squares(x, self.rate), x

    def backward(
        self,
        backend: Backend,
        delta: Array,
        saved: Any,
        parameters: Mapping[str, Array],
        gradient: Mapping[str, Array],
        need_dx: bool,
    ) -> Array:
        return scaled_squares_grad(saved, delta, self.rate, out=delta)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    for kind in (Scaled, Curved):
        assert nnkit.register_layer(kind) is kind
    yield
    for kind in (Scaled, Curved):
        nnkit.unregister_layer(kind.__name__)


DATA = np.random.default_rng(0).normal(size=(24, 5)), np.arange(24) % 3
LAYERS: dict[str, list[nnkit.Layer]] = {
    "first": [Scaled(5, 7), nnkit.Dense(7, 3)],
    "in the middle": [nnkit.Dense(5, 7, "gelu"), Scaled(7, 6, 0.5), Curved(6, 6), nnkit.Dense(6, 3)],
    "with dropout": [nnkit.Dropout(0.2), Scaled(5, 7), nnkit.Dropout(0.5), Curved(7, 7), nnkit.Dense(7, 3)],
    "without parameters first": [Curved(5, 5), nnkit.Dense(5, 8, "tanh"), nnkit.Dense(8, 3)],
}


def network(kind: str = "in the middle", **options: Any) -> nnkit.Network:
    given: dict[str, Any] = {"seed": 0, "dtype": "float64"} | options
    return nnkit.Network(LAYERS[kind], **given)


def values(net: nnkit.Network) -> list[NDArray[Any]]:
    return [np.array(net.backend.to_numpy(a)) for layer in net.parameters.layers for a in layer.values()]


def assert_equal(found: nnkit.Network, wanted: nnkit.Network) -> None:
    for a, b in zip(values(found), values(wanted), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(found.forward(DATA[0]), wanted.forward(DATA[0]))


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_match_the_complex_step(arrays: Arrays, kind: str) -> None:
    net = network(kind)
    check = nnkit.check_gradients(net, *DATA)
    assert check.max_error < 1e-13
    names = [f"layers.{i}.{name}" for i, layer in enumerate(net.parameters.layers) for name in layer]
    assert list(check.errors) == names


def test_a_scaled_layer_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net, (X, y) = network("first"), DATA
    tensors = [torch.tensor(array, requires_grad=True) for array in values(net)]
    W, b, s, V, c = tensors
    z = (torch.tensor(X) @ W.T + b) * s @ V.T + c
    torch.nn.functional.cross_entropy(z, torch.tensor(y)).backward()
    _, gradients = net.gradients(X, y)
    for found, tensor in zip([g for own in gradients for g in own], tensors, strict=True):
        np.testing.assert_allclose(found, tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.1), nnkit.Adam(0.01, weight_decay=0.1, clip_norm=1.0)])
def test_training_learns_and_replays_its_steps(kind: str, optimizer: nnkit.optimizers.Optimizer) -> None:
    X, y = DATA
    net, by_steps = network(kind), network(kind)
    history = net.fit(X, y, epochs=3, batch_size=24, optimizer=optimizer, shuffle=False, progress=False)
    for _ in range(3):
        by_steps.train_step(X, y, copy.copy(optimizer) if by_steps.state is None else None)
    for a, b in zip(values(net), values(by_steps), strict=True):
        # The BLAS that has one thread, as fit sees to, may add a gradient as it is computed: one rounding less.
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)
    if "dropout" not in kind:
        assert history["cost"][2] < history["cost"][0]


def test_a_scale_is_neither_penalized_nor_decays() -> None:
    net = network("first", seed=1)
    before = values(net)
    X, y = DATA
    _, gradients = net.gradients(X, y)
    net.train_step(X, y, nnkit.SGD(0.1, weight_decay=0.5))
    names = [name for own in net.parameters.layers for name in own]
    found = [g for own in gradients for g in own]
    for name, g, old, new in zip(names, found, before, values(net), strict=True):
        decayed = old * (1 - 0.1 * 0.5) if name == "W" else old
        np.testing.assert_allclose(new, decayed - 0.1 * g, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_saved_network_is_equal(kind: str, tmp_path: Path) -> None:
    net = network(kind)
    net.fit(*DATA, epochs=2, progress=False)
    net.save(tmp_path / "net.safetensors")
    loaded = nnkit.load(tmp_path / "net.safetensors")
    assert loaded.layers == net.layers
    for other in (loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert_equal(other, net)
    moved = copy.copy(net).to("standard:array_api_strict")
    for a, b in zip(values(moved), values(net), strict=True):
        np.testing.assert_array_equal(a, b)


def test_numbers_of_numpy_are_saved_and_other_values_are_named(tmp_path: Path) -> None:
    width: Any = np.prod((2, 2))
    net = nnkit.Network([nnkit.Dense(5, width, "relu"), Scaled(width, width), nnkit.Dense(width, 3)], seed=0)
    net.fit(*DATA, epochs=1, progress=False, checkpoint=tmp_path / "net.safetensors")
    assert_equal(nnkit.load(tmp_path / "net.safetensors"), net)
    odd: Any = complex(1.0)
    wrong = nnkit.Network([Scaled(5, 3, start_scale=1.0), nnkit.Dense(3, 3)], seed=0)
    object.__setattr__(wrong.layers[0], "start_scale", odd)
    with pytest.raises(TypeError, match=r"layers contains Scaled\(.*\), whose start_scale is a complex; a file can"):
        wrong.save(tmp_path / "wrong")


def test_an_unknown_layer_in_a_file_is_named(tmp_path: Path) -> None:
    network("first").save(tmp_path / "net.safetensors")
    nnkit.unregister_layer("Scaled")
    try:
        with pytest.raises(ValueError, match=r"contains the unknown layer 'Scaled'; register it with"):
            nnkit.load(tmp_path / "net.safetensors")
    finally:
        nnkit.register_layer(Scaled)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    (X, y), path = DATA, tmp_path / "run.safetensors"
    options: dict[str, Any] = {"epochs": 6, "batch_size": 8, "progress": False, "optimizer": "adam"}
    whole, interrupted, resumed = (network("with dropout") for _ in range(3))
    whole.fit(X, y, **options)

    def fail(net: nnkit.Network, history: nnkit.History) -> None:
        if len(history["cost"]) == 4:
            raise OSError("the power is gone")

    with pytest.raises(OSError, match="the power is gone"):
        interrupted.fit(X, y, checkpoint=path, callbacks=[fail], **options)
    assert path.exists()
    resumed.fit(X, y, checkpoint=path, resume=True, **options)
    assert resumed.epochs_trained == 6
    assert_equal(resumed, whole)


def test_steps_with_cupy_arrays_agree_with_numpy(host: Any) -> None:
    one_hot = np.eye(3)[DATA[1]]
    nets = [network(), network(backend="cupy")]
    for net in nets:
        step = step_for(net, 24, net.optimizer_state("adam"), 0, True)
        for array, given in ((step.x, DATA[0]), (step.y, one_hot)):
            net.backend.copy(net.backend.asarray(given), array)
        for _ in range(3):
            step.run()
    for found, wanted in zip(*map(values, reversed(nets)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)


@dataclass(frozen=True)
class Forgetful(Scaled):
    """Starts without its scale."""

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"W": np.zeros((self.units, self.inputs)), "b": np.zeros(self.units)}


@dataclass(frozen=True)
class Misshapen(Scaled):
    """Starts with a scale of another shape."""

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        return {**super().start(rng), "s": np.ones(self.units + 1)}


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([Scaled(5, 7), nnkit.Dense(6, 3)], ValueError, r"Scaled\(inputs=5, .* gives 7 values, but Dense\(inputs=6"),
        ([nnkit.Dense(5, 3), Scaled(3, 3)], ValueError, r"the last layer is Scaled\(.*; expected a Dense layer"),
        (
            [Scaled(0, 7), nnkit.Dense(7, 3)],
            ValueError,
            r"^Scaled: inputs is 0; expected a whole number of at least 1$",
        ),
        ([Scaled(5, 7.0), nnkit.Dense(7, 3)], ValueError, r"^Scaled: units is 7.0; expected"),  # type: ignore[arg-type]
        ([Scaled, nnkit.Dense(7, 3)], TypeError, r"layers contains the class Scaled; expected an instance"),
        (
            [Forgetful(5, 7), nnkit.Dense(7, 3)],
            ValueError,
            r"^Forgetful.start of layer 0: returned W, b; exp",
        ),
        (
            [Misshapen(5, 7), nnkit.Dense(7, 3)],
            ValueError,
            r"^Misshapen.start of layer 0: s has shape \(8,\); ",
        ),
    ],
)
def test_unfit_layers_are_refused(layers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nnkit.Network(layers, seed=0)


def test_invalid_registrations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^layer name 'Scaled' is taken$"):
        nnkit.register_layer(Scaled)
    with pytest.raises(TypeError, match=r"^kind is <class 'int'>; expected a dataclass derived from nnkit.Layer$"):
        nnkit.register_layer(int)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="nothing"):
        nnkit.unregister_layer("nothing")


def test_a_network_describes_its_layers() -> None:
    assert repr(network()) == (
        "Network(5 → 7 gelu → 6 Scaled → 6 Curved → 3 softmax, softmax_cross_entropy, 117 parameters in float64 on "
        "numpy, seed 0)"
    )


@dataclass(frozen=True)
class Gain(nnkit.Layer):
    """x ⊙ s, which the faulty layers below compute in ways that cannot be recorded or lose a gradient."""

    inputs: int
    units: int

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"s": (self.units,)}

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"s": 1 + rng.random(self.units)}

    def forward(self, backend: Backend, x: Array, parameters: Mapping[str, Array]) -> tuple[Array, Any]:
        return times(x, parameters["s"]), x

    def backward(
        self,
        backend: Backend,
        delta: Array,
        saved: Any,
        parameters: Mapping[str, Array],
        gradient: Any,
        need_dx: bool,
    ) -> Array:
        backend.sum(times(delta, saved), axis=0, out=gradient["s"])
        return times(delta, parameters["s"])


class Operator(Gain):
    def forward(self, backend: Backend, x: Array, parameters: Mapping[str, Array]) -> tuple[Array, Any]:
        return x * parameters["s"], x


class OperatorBackward(Gain):
    def backward(self, backend: Backend, delta: Array, saved: Any, parameters: Any, gradient: Any, need: bool) -> Array:
        gradient["s"][...] = backend.xp.sum(delta * saved, axis=0)
        return times(delta, parameters["s"])


class Operatorδx(Gain):
    def backward(self, backend: Backend, delta: Array, saved: Any, parameters: Any, gradient: Any, need: bool) -> Array:
        super().backward(backend, delta, saved, parameters, gradient, need)
        return delta * parameters["s"]


class Rebinding(Gain):
    def backward(self, backend: Backend, delta: Array, saved: Any, parameters: Any, gradient: Any, need: bool) -> Array:
        gradient["s"] = backend.sum(times(delta, saved), axis=0)
        return times(delta, parameters["s"])


class Overwriting(Gain):
    def forward(self, backend: Backend, x: Array, parameters: Mapping[str, Array]) -> tuple[Array, Any]:
        return times(x, parameters["s"], out=x), x


class Narrow(Gain):
    def forward(self, backend: Backend, x: Array, parameters: Mapping[str, Array]) -> tuple[Array, Any]:
        return times(x, parameters["s"])[:, :1], x


class Accumulating(Gain):
    def backward(self, backend: Backend, delta: Array, saved: Any, parameters: Any, gradient: Any, need: bool) -> Array:
        times(gradient["s"], gradient["s"], out=gradient["s"])
        return times(delta, parameters["s"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Operator, "outputs of a recorded step differs from that of a call; compute only with formulas"),
        (OperatorBackward, "s of a recorded step differs|backward does not write all of"),
        (Operatorδx, "δx of a recorded step differs from that of a call"),
        (Rebinding, r"backward does not write all of gradient\['s'\]"),
        (Overwriting, "overwrites x, which the layer before it needs"),
        (Narrow, r"outputs of 3 samples: shape \(3, 1\); expected \(3, 4\)"),
        (Accumulating, "s of a recorded step differs"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_that_cannot_be_replayed_is_refused(arrays: Arrays, kind: type[Gain], message: str, dtype: str) -> None:
    for layers in ([kind(4, 4), nnkit.Dense(4, 3)], [nnkit.Dense(4, 4, "tanh"), kind(4, 4), nnkit.Dense(4, 3)]):
        with pytest.raises(ValueError, match=f"{kind.__name__} of layer {len(layers) - 2}.*({message})"):
            nnkit.Network(layers, seed=0, dtype=dtype, backend=arrays.backend)
        layers[-2] = Gain(4, 4)
        nnkit.Network(layers, seed=0, dtype=dtype, backend=arrays.backend)
