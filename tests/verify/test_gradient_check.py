"""check_gradients: every activation and cost passes at rounding, and each way of being wrong is caught."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.backends.formula import Formula
from nnkit.kernels import activations
from nnkit.kernels.activations import Activation
from tests.support.pairs import PAIRS

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(5)
X = RNG.normal(size=(6, 4))
LABELS = [0, 1, 2, 0, 1, 2]


def network(activation: str = "tanh", cost: str = "softmax_cross_entropy", **options: Any) -> nnkit.Network:
    return nnkit.Network([4, 6, 5, 3], activation, cost, init="nielsen_new", seed=3, **options)


@pytest.mark.parametrize("activation", nnkit.activation_names())
def test_every_activation(arrays: "Arrays", activation: str) -> None:
    result = nnkit.check_gradients(network(activation), arrays(X), LABELS)
    assert result.max_error <= 1e-13
    assert set(result.errors) == {f"layers.{i}.{name}" for i in range(3) for name in "Wb"}
    assert result.entries == 6 * 5 + 5 * 7 + 3 * 6


@pytest.mark.parametrize(("cost", "output"), [p for p in PAIRS if p[1] in ("identity", "sigmoid", "softmax")])
def test_every_cost(arrays: "Arrays", cost: str, output: str) -> None:
    net = network("silu", cost, output_activation=output)
    assert nnkit.check_gradients(net, arrays(X), np.eye(3)[LABELS] + (cost == "gamma")).max_error <= 1e-13


def test_checking_does_not_change_the_network() -> None:
    net = network()
    net.train_step(X, LABELS, nnkit.SGD(0.1, momentum=0.9))
    state = net.optimizer_state()
    before = [np.array(a) for a in (net.parameters.flat, net.gradient.flat, state.arrays["velocity"])]
    nnkit.check_gradients(net, X, LABELS)
    for a, b in zip((net.parameters.flat, net.gradient.flat, state.arrays["velocity"]), before, strict=True):
        assert a.tobytes() == b.tobytes()
    assert net.dtype == "float32"


def test_a_sample_of_entries_is_checked() -> None:
    net = network()
    few = nnkit.check_gradients(net, X, LABELS, entries=4, seed=1)
    assert few.entries == 4 + 4 + 4 + 4 + 4 + 3
    assert few.max_error <= 1e-13


def replace(monkeypatch: pytest.MonkeyPatch, name: str, gradient: Any) -> None:
    """Give an activation another gradient, past the check of register_activation."""
    f = activations.get_activation(name)
    wrong = Formula(gradient, f"wrong_{name}", ["saved", "delta"])  # in no list of formulas
    monkeypatch.setitem(activations._activations, name, Activation(name, f.forward, wrong, f.gradient_from))


def test_a_slightly_wrong_gradient_is_caught(arrays: "Arrays", monkeypatch: pytest.MonkeyPatch) -> None:
    def almost(xp: Any, h: Any, delta: Any) -> Any:
        return delta * (1 - h**2) * (1 + 1e-10)

    replace(monkeypatch, "tanh", almost)
    result = nnkit.check_gradients(network(), arrays(X), LABELS)
    assert 1e-11 < result.max_error < 1e-9
    # The last layer's gradient does not pass through it.
    assert result.errors["layers.2.W"] <= 1e-13
    assert result.errors["layers.1.W"] > 1e-11


def test_wrong_beyond_the_registered_points_is_caught() -> None:
    def right_to_4(xp: Any, z: Any, delta: Any) -> Any:
        return xp.where(xp.abs(z) <= 4, 2 * z * delta, 0.0)

    nnkit.register_activation("square", lambda xp, z: z**2, right_to_4, gradient_from="preactivation")
    try:
        net = network("square", "quadratic")
        y = np.zeros((6, 3))
        assert nnkit.check_gradients(net, 1e-3 * X, y).max_error <= 1e-13
        assert nnkit.check_gradients(net, 10 * X, y).max_error > 1e-3
    finally:
        nnkit.unregister_activation("square")


def test_a_gradient_of_nan_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the biases only, so that the first error is a good one: Python's max would then pass over NaN."""
    backend = nnkit.get_backend("numpy")
    total = type(backend).sum

    def broken(self: Any, a: Any, axis: int | None = None, keepdims: bool = False, out: Any = None) -> Any:
        return total(self, a * np.nan if axis == 0 else a, axis, keepdims, out)

    monkeypatch.setattr(type(backend), "sum", broken)
    result = nnkit.check_gradients(network(), X, LABELS)
    assert result.errors["layers.0.W"] <= 1e-13
    assert np.isnan(result.max_error)


def test_a_missing_mean_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known bug of hand-written versions: a mean in the cost, a sum in the gradient."""
    net = network()
    delta = type(net.output).delta

    def unscaled(pair: Any, backend: Any, z: Any, y: Any, scale: Any) -> Any:
        return delta(pair, backend, z, y, backend.asarray(1.0, "float64"))

    monkeypatch.setattr(type(net.output), "delta", unscaled)
    result = nnkit.check_gradients(net, X, LABELS)
    assert result.max_error == pytest.approx(5, rel=1e-10)  # six times too large


def test_a_bias_gradient_of_the_wrong_rows_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = nnkit.get_backend("numpy")
    total = type(backend).sum

    def first_rows(self: Any, a: Any, axis: int | None = None, keepdims: bool = False, out: Any = None) -> Any:
        return total(self, a[:-1] if axis == 0 else a, axis, keepdims, out)

    monkeypatch.setattr(type(backend), "sum", first_rows)
    errors = nnkit.check_gradients(network(), X, LABELS).errors
    assert min(errors[f"layers.{i}.b"] for i in range(3)) > 1e-3
    assert max(errors[f"layers.{i}.W"] for i in range(3)) <= 1e-13
