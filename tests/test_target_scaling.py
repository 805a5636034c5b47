"""Networks that learn standardized targets, against the same training on targets standardized by hand."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.data import Normalization

X = np.random.default_rng(0).normal(size=(60, 3))
Y = 1000 + 50 * np.c_[X[:, 0] * X[:, 1], np.sin(X[:, 2])] + [0, 5000]
SCALING = Normalization.fit(Y)


def network(dtype: str = "float64", **options: Any) -> nnkit.Network:
    return nnkit.Network([3, 8, 2], "tanh", "quadratic", seed=1, dtype=dtype, **options)


def test_it_is_a_training_on_standardized_targets_in_other_units() -> None:
    net, plain = network(target_scaling=SCALING), network()
    options: Any = {"epochs": 20, "optimizer": "adam", "metrics": ["r2", "mae"], "progress": False}
    Z = SCALING.transform(Y)
    history = net.fit(X, Y, validation_data=(X[:20], Y[:20]), **options)
    other = plain.fit(X, Z, validation_data=(X[:20], Z[:20]), **options)
    np.testing.assert_allclose(net.parameters.vector, plain.parameters.vector, rtol=1e-9)
    h = net.predict(X)
    np.testing.assert_allclose(h, plain.predict(X) * SCALING.deviation + SCALING.mean, rtol=1e-12)
    for name in ("cost", "r2", "validation_cost"):
        np.testing.assert_allclose(history[name], other[name], rtol=1e-9)
    assert net.evaluate(X, Y, metrics=["mae"])["mae"] == pytest.approx(np.abs(h - Y).mean(), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_copies_moves_and_onnx_keep_it(tmp_path: Path, dtype: str) -> None:
    net = network(dtype, target_scaling=SCALING, preprocessing=Normalization.fit(X))
    net.fit(X, Y, epochs=2, progress=False)
    expected = net.forward(X)
    assert abs(expected - Y).mean() < 500  # in the targets' units
    net.save(tmp_path / "net.safetensors")
    made = [nnkit.load(tmp_path / "net.safetensors"), copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    made += [copy.copy(net).to("array_api_strict")] if "array_api_strict" in nnkit.backends.backend_names() else []
    for other in made:
        assert other.target_scaling == SCALING
        np.testing.assert_allclose(other.forward(X), expected, rtol=1e-6 if dtype == "float32" else 1e-14)
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(net.to_onnx().SerializeToString())
    (found,) = session.run(None, {"X": X.astype(dtype)})
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == "float32" else 1e-13)


def test_derivatives() -> None:
    net = network(target_scaling=SCALING)
    assert nnkit.check_gradients(net, X, Y).max_error < 1e-13
    e = np.array([1e-6, 0, 0])
    slope = (net.forward(X + e) - net.forward(X - e)) / 2e-6
    np.testing.assert_allclose(net.jacobian(X)[:, :, 0], slope, rtol=1e-6, atol=1e-4)
    assert net.minimize(X, Y, options={"maxiter": 200}).fun < 0.1


def test_a_training_is_resumed_only_with_the_same_scaling(tmp_path: Path) -> None:
    options: Any = {"checkpoint": tmp_path / "run.safetensors", "resume": True, "progress": False}
    network(target_scaling=SCALING).fit(X, Y, epochs=1, **options)
    with pytest.raises(ValueError, match="its target_scaling is a different one, or was fitted to different samples"):
        network(target_scaling=Normalization.fit(Y[:50])).fit(X, Y, epochs=2, **options)
    resumed, whole = network(target_scaling=SCALING), network(target_scaling=SCALING)
    resumed.fit(X, Y, epochs=2, **options)
    whole.fit(X, Y, epochs=2, progress=False)
    assert np.array_equal(resumed.parameters.vector, whole.parameters.vector)


class OwnScaling(Normalization):
    """Its code would be ignored."""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target_scaling": Y}, TypeError, "target_scaling is a ndarray; expected a fitted nnkit.data.Normalization"),
        ({"target_scaling": Normalization}, TypeError, "target_scaling is Normalization; expected a fitted"),
        (
            {"target_scaling": OwnScaling.fit(Y)},
            TypeError,
            "is a OwnScaling, whose own code would not run; expected an",
        ),
        ({"target_scaling": Normalization.fit(Y[:, :1])}, ValueError, "has 1 columns, but the network has 2 outputs"),
        ({"cost": "cross_entropy"}, ValueError, "for a regression with linear outputs.*the cost is cross_entropy and"),
        ({"cost": "poisson"}, ValueError, "for a regression with linear outputs.*; the cost is poisson and"),
        ({"output_activation": "tanh"}, ValueError, "linear outputs.* quadratic and the output activation tanh"),
    ],
)
def test_networks_without_real_valued_targets_refuse_it(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        nnkit.Network([3, 2], **{"cost": "quadratic", "target_scaling": SCALING} | options)
    net = network(target_scaling=SCALING)
    with pytest.raises(AttributeError, match="target_scaling of a network cannot be changed"):
        net.target_scaling = None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_ensemble_evaluates_and_saves_it(tmp_path: Path, dtype: str) -> None:
    options: Any = {"dtype": dtype, "target_scaling": SCALING, "preprocessing": Normalization.fit(X)}
    ensemble = nnkit.Ensemble([3, 8, 2], "tanh", "quadratic", seeds=[0, 1, 2], **options)
    ensemble.fit(X, Y, epochs=3, optimizer="adam", progress=False)
    h = np.mean([member.forward(X) for member in ensemble.members], axis=0, dtype=np.float64)
    cost = 0.5 * np.square((h - Y) / SCALING.deviation).sum(axis=1).mean()
    found = ensemble.evaluate(X, Y, metrics=["mae"])
    rtol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose([found["cost"], found["mae"]], [cost, np.abs(h - Y).mean()], rtol=rtol)
    ensemble.save(tmp_path / "ensemble.safetensors")
    loaded = nnkit.Ensemble.load(tmp_path / "ensemble.safetensors")
    assert [member.target_scaling for member in loaded.members] == [SCALING] * 3
    np.testing.assert_array_equal(loaded.predict(X), ensemble.predict(X))


def test_targets_of_a_table_go_by_name() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame(Y, columns=["u", "v"])
    nets = [network(target_scaling=Normalization.fit(table)) for _ in range(2)]
    for net, order in zip(nets, (["u", "v"], ["v", "u"]), strict=True):
        net.fit(X, table[order], epochs=2, progress=False)
        assert net.target_names == ["u", "v"]
    np.testing.assert_array_equal(nets[0].parameters.vector, nets[1].parameters.vector)
    with pytest.raises(ValueError, match="y has columns that differ from the target_names of this network"):
        nets[0].fit(X, table.rename(columns={"u": "w"}), epochs=1, progress=False)


def test_targets_that_float32_rounds_are_warned_of() -> None:
    targets = Y + np.array([0, 1e9])
    far = Normalization.fit(targets)
    with pytest.warns(
        UserWarning, match="target_scaling: column 1 has mean 1e.09 and standard deviation .*float32 rou"
    ):
        network("float32", target_scaling=far)
    net = network("float64", target_scaling=far)
    net.fit(X, targets, epochs=300, optimizer="adam", progress=False)
    assert net.score(X, targets) > 0.5
