"""The preset for tables, its layer of factors and its schedule."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit


def table() -> Any:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    size, kind = rng.normal(size=300), rng.choice(["x", "y", "z"], 300)
    y = 1e4 + 500 * (size * (kind == "x") + (kind == "y"))
    return pandas.DataFrame({"size": np.where(rng.uniform(size=300) < 0.1, np.nan, size), "kind": kind}), y


def test_tabular_regression_in_its_own_units(tmp_path: Path) -> None:
    X, y = table()
    net, options = nnkit.tabular(X, y, hidden=[32, 32], seed=0)
    history = net.fit(X, y, **options | {"epochs": 40, "progress": False})
    assert max(history["validation_r2"]) > 0.75
    assert net.score(X, y) > 0.8
    pytest.importorskip("safetensors")
    net.save(tmp_path / "net.safetensors")
    loaded = nnkit.load(tmp_path / "net.safetensors")
    assert np.array_equal(loaded.predict(X), net.predict(X))
    assert loaded.layers[0] == nnkit.Scaling(X.shape[1] + 3, rate=6.0)


def test_tabular_classification_learns_the_names() -> None:
    X, y = table()
    labels = np.where(y > 1e4, "high", "low")
    net, options = nnkit.tabular(X, labels, hidden=[32], seed=0)
    net.fit(X, labels, **options | {"epochs": 40, "progress": False})
    assert net.classes is not None
    assert net.classes.tolist() == ["high", "low"]
    assert net.evaluate(X, labels)["accuracy"] > 0.85
    with pytest.raises(ValueError, match=r"1 classes; expected labels .n,. of at least two"):
        nnkit.tabular(X, ["a"] * 300)
    assert nnkit.tabular(X, np.arange(300) % 7)[0].d_out == 7  # integers are classes
    assert nnkit.tabular(X, np.arange(300) % 7, regression=True)[0].d_out == 1


def test_rates_and_starts_are_those_of_the_neural_tangent_parametrization() -> None:
    """With z = W x/√d for W from N(0, 1), Adam's step of rate ε moves W/√d by ε/√d."""
    net, _ = nnkit.tabular(np.random.default_rng(0).normal(size=(50, 16)), [0, 1] * 25, hidden=[400], seed=0)
    layer = net.layers[1]
    assert isinstance(layer, nnkit.Dense)
    assert layer.rates == {"W": 0.25, "b": 0.1}
    assert np.std(net.parameters.W[0]) == pytest.approx(0.25, rel=0.03)
    assert np.std(net.parameters.b[0]) == pytest.approx(1, rel=0.1)
    assert not net.parameters.W[1].any()


def test_scaling_is_a_diagonal_layer(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = [nnkit.Scaling(3), nnkit.Dense(3, 5, "tanh"), nnkit.Scaling(5, rate=0.0), nnkit.Dense(5, 2)]
    net = nnkit.Network(layers, seed=0, dtype="float64")
    X, y = rng.normal(size=(20, 3)), rng.integers(2, size=20)
    assert nnkit.check_gradients(net, X, y).max_error < 1e-13
    net.fit(X, y, epochs=3, optimizer="adam", progress=False)
    s = net.parameters.layers[0]["s"]
    assert (s != 1).all()
    assert (net.parameters.layers[2]["s"] == 1).all()
    plain = nnkit.Network([3, 5, 2], "tanh", seed=0, dtype="float64")
    W, b = net.parameters.layers[1].values()
    plain.parameters.assign([(W * s, b), tuple(net.parameters.layers[3].values())])
    np.testing.assert_allclose(net.forward(X), plain.forward(X), rtol=1e-13)
    with pytest.raises(ValueError, match="Scaling: inputs is 0"):
        nnkit.Scaling(0)
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(net.to_onnx().SerializeToString())
    np.testing.assert_allclose(session.run(["probabilities"], {"X": X})[0], net.forward(X), rtol=1e-13)


def test_coslog_is_the_formula_of_the_paper() -> None:
    schedule = nnkit.schedules.coslog()
    t = np.linspace(0, 1, 41)
    expected = 0.5 - 0.5 * np.cos(2 * np.pi * np.log2(1 + 15 * t))
    np.testing.assert_allclose([schedule.factor(50 * share, 50, {}) for share in t], expected, atol=1e-12)
    assert repr(schedule) == "coslog(4)"


@pytest.mark.parametrize(
    ("y", "options", "error", "message"),
    [
        ([1.0] * 299, {}, ValueError, "X has 300 samples, and y has 299; expected as many"),
        ([1.0] * 299 + [np.nan], {}, ValueError, r"y holds nan at \[299\]; expected finite numbers"),
        ([0.0, 1.0] * 150, {"regression": False}, TypeError, "y has dtype float64, .* expected integers or text as la"),
        (["a", "b"] * 150, {"regression": True}, TypeError, "y has dtype .*, and regression is True; expected numbers"),
    ],
)
def test_targets_that_tabular_refuses(y: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        nnkit.tabular(table()[0], y, hidden=[4], **options)


def test_floats_in_an_array_of_objects_are_no_classes() -> None:
    """Such as a column of `to_numpy()` of a table with text."""
    X, y = np.arange(12.0).reshape(6, 2), np.arange(6) / 2
    for regression in (None, True, False):
        with pytest.raises(TypeError, match=r"y holds 0\.0 in an array of objects; .*y\.astype\(float\)"):
            nnkit.tabular(X, y.astype(object), regression=regression)
