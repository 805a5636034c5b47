"""What somebody found who had not read the code: each fault with its right value."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.cli import main

X = np.random.default_rng(0).normal(size=(24, 3))
LABELS = np.arange(24) % 3


def test_nan_in_the_padding_is_cleared() -> None:
    """A clipped step on NaN leaves NaN everywhere, by its documentation; parameters that are put back train again."""
    net = nnkit.Network([3, 5, 3], "relu", seed=0)
    views = [*net.parameters.W, *net.parameters.b]
    saved, bad = [np.array(view) for view in views], X.copy()
    bad[0, 0] = np.nan
    net.train_step(bad, LABELS, nnkit.SGD(0.1, clip_norm=1.0))
    for view, values in zip(views, saved, strict=True):
        view[...] = values
    net.fit(X, LABELS, epochs=1, optimizer=nnkit.SGD(0.1), progress=False)
    fresh = nnkit.Network([3, 5, 3], "relu", seed=0)
    fresh.fit(X, LABELS, epochs=1, optimizer=nnkit.SGD(0.1), progress=False)
    assert np.array_equal(net.parameters.flat, fresh.parameters.flat)


def test_trained_outputs_get_no_class_names() -> None:
    net, some = nnkit.Network([3, 3], seed=0), LABELS < 2
    net.partial_fit(X[some], LABELS[some] + 1)  # taken for the classes 1 and 2 of 0 to 2
    with pytest.raises(ValueError, match=r"y holds label 3 at \[2\]; expected 0 to 2"):
        net.partial_fit(X, LABELS + 1)
    with pytest.raises(TypeError, match="y holds 'a'"):
        net.fit(X, np.array(["a", "b", "c"])[LABELS], progress=False)
    assert net.classes is None


@pytest.mark.parametrize("cost", ["cross_entropy", "hinge", "softmax_cross_entropy"])
def test_equal_class_weights_change_nothing(cost: str) -> None:
    net = nnkit.Network([3, 3], cost=cost, seed=0, dtype="float64")
    for y in (LABELS, np.eye(3)[LABELS]) if cost == "softmax_cross_entropy" else (LABELS,):
        plain = net.evaluate(X, y)["cost"]
        assert net.evaluate(X, y, class_weight={0: 7.0, 1: 7.0, 2: 7.0})["cost"] == pytest.approx(plain, rel=1e-12)
    with pytest.raises(ValueError, match="class_weight: all weights are 0"):
        net.evaluate(X, LABELS, class_weight={0: 0, 1: 0, 2: 0})


@pytest.mark.parametrize(
    ("cost", "y", "message"),
    [
        ("cross_entropy", np.where(X[:, :1] > 0, 1.0, -1.0), r"y holds -1.0 at .*; expected targets in \[0, 1\]"),
        ("poisson", X[:, :1], "expected targets of at least 0"),
        ("quadratic", X[:, :1] * np.nan, "y holds nan"),
    ],
)
def test_train_step_checks_targets_like_fit(cost: str, y: Any, message: str) -> None:
    net = nnkit.Network([3, 1], cost=cost, seed=0)
    before = np.array(net.parameters.flat)
    for ask in (net.train_step, net.gradients):
        with pytest.raises(ValueError, match=message):
            ask(X, y)
    assert np.array_equal(net.parameters.flat, before)


def test_columns_of_targets_are_matched_by_name() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    net = nnkit.Network([3, 3], seed=0, classes=["u", "v", "w"])
    table = pd.DataFrame(np.eye(3)[LABELS], columns=["u", "v", "w"])
    expected = net.evaluate(X, np.eye(3)[LABELS])
    assert net.evaluate(X, table) == net.evaluate(X, table[["w", "u", "v"]]) == expected


def test_nan_is_never_correct() -> None:
    net = nnkit.Network([3, 2], seed=0)
    net.parameters.W[0][:] = np.nan
    measured = net.evaluate(np.ones((2, 3)), [0, 0])
    assert np.isnan(measured["accuracy"])
    assert np.isnan(measured["cost"])
    with pytest.raises(ValueError, match="the outputs of sample 0 are NaN"):
        net.predict(np.ones((2, 3)))
    assert nnkit.metrics.accuracy(np.eye(2), np.array([[np.nan, 0.0], [0.0, 1.0]])) == 0.5


def test_weights_in_minibatches_are_relative_when_nothing_trains() -> None:
    net, w = nnkit.Network([3, 3], seed=0, dtype="float64"), np.arange(24) * 3.0
    minibatches = ((X[i : i + 6], LABELS[i : i + 6], w[i : i + 6]) for i in range(0, 24, 6))
    found, expected = net.evaluate(minibatches), net.evaluate(X, LABELS, sample_weight=w)
    assert found == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="sample_weight: all weights are 0"):
        net.evaluate(iter([(X, LABELS, 0 * w)]))


def test_the_slope_of_gelu_tanh_at_large_arguments() -> None:
    for dtype in ("float16", "float32", "float64"):
        far = np.array([1e4, np.sqrt(np.finfo(dtype).max), np.finfo(dtype).max], dtype)
        assert nnkit.gelu_tanh_grad(far, np.ones(3, dtype)).tolist() == [1, 1, 1]
        assert nnkit.gelu_tanh_grad(-far, np.ones(3, dtype)).tolist() == [0, 0, 0]


SET: dict[str, tuple[Any, type[Exception], str]] = {
    "classes": ([[1], [2], [3]], TypeError, r"classes holds \[1\]"),
    "features": ({"a", "b", "c"}, TypeError, "features is .*; expected the names of 3 features"),
    "preprocessing": (3, TypeError, "preprocessing is a int"),
    "optimizer": (5, TypeError, "optimizer is 5"),
    "vector_targets": ("no", TypeError, "vector_targets is 'no'; expected True or False"),
    "seed": ("s", ValueError, "seed is 's'"),
    "epochs_trained": (-1, ValueError, "epochs_trained is -1"),
} | {
    name: (None, AttributeError, f"{name} of a network cannot be changed|has no setter")
    for name in ("layers", "cost", "dtype", "output", "classifies", "backend", "parameters", "gradient")
}


@pytest.mark.parametrize("name", SET)
def test_invalid_attributes_are_refused_when_set(name: str) -> None:
    """It was an error of `save`, after the training, or none: a new cost changed the smoothing but not the gradient."""
    value, error, message = SET[name]
    net = nnkit.Network([3, 5, 3], seed=0)
    before = getattr(net, name)
    with pytest.raises(error, match=message):
        setattr(net, name, value)
    assert getattr(net, name) is before
    with pytest.raises(ValueError, match="vector_targets is True, but the network has 3 outputs"):
        net.vector_targets = True


def test_attributes_can_be_set_to_valid_values(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net = nnkit.Network([3, 5, 3], seed=0)
    net.classes, net.features, net.seed, net.optimizer = ("u", "v", "w"), ("a", "b", "c"), np.int64(4), "adam"  # type: ignore[assignment]
    net.preprocessing = nnkit.data.Normalization.fit(X)
    net.epochs_trained, net.vector_targets = np.int64(2), np.bool_(False)  # type: ignore[assignment]
    net.fit(X, np.array(["u", "v", "w"])[LABELS], epochs=1, progress=False, checkpoint=tmp_path / "run.safetensors")
    again = nnkit.load(tmp_path / "run.safetensors")
    assert (again.seed, again.epochs_trained, again.optimizer, again.features) == (4, 3, nnkit.Adam(), ["a", "b", "c"])
    assert again.predict(X).tolist() == net.predict(X).tolist()
    wide = nnkit.data.Whitening(np.zeros(4), np.eye(4)[:, :3], np.ones(3))
    with pytest.raises(ValueError, match=r"features is .*; expected the names of 4 features"):
        net.preprocessing = wide


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize(
    "preprocessing",
    [
        nnkit.data.Normalization([0.0, 0.0], [1e-300, 1.0]),
        nnkit.data.Whitening([0.0, 0.0], np.eye(2), [1e-300, 1.0]),
    ],
)
def test_predict_refuses_samples_that_the_preprocessing_makes_infinite(preprocessing: Any, dtype: str) -> None:
    """As `evaluate` does: a saturated hidden unit would hide the infinity, and a class would come out."""
    net = nnkit.Network([2, 4, 2], seed=0, preprocessing=preprocessing)
    net.parameters.W[0][...] = 1.0
    x, message = np.array([[0, 3], [10**18, 1]], dtype), f"the {preprocessing.kind} of sample 1 holds inf"
    with pytest.raises(ValueError, match=message):
        net.evaluate(x, [0, 1])
    for _ in range(3):  # the first one is not recorded
        with pytest.raises(ValueError, match=message):
            net.predict(x)
    assert not preprocessing.keeps_finite
    assert nnkit.data.Normalization([1e9, 0.0], [1e-9, 1.0]).keeps_finite
    assert nnkit.data.Whitening([1e9, 0.0], np.eye(2), [1e-9, 1.0]).keeps_finite


def test_predictions_with_a_carriage_return_are_read_back(tmp_path: Path) -> None:
    names = ["a\rb", "c"]
    net = nnkit.Network([3, 2], seed=0, classes=names)
    net.save(tmp_path / "net.safetensors")
    np.save(tmp_path / "x.npy", X)
    written = tmp_path / "predicted.csv"
    arguments = [str(tmp_path / "net.safetensors"), str(tmp_path / "x.npy"), "--output", str(written)]
    assert main(["predict", *arguments]) == 0
    with written.open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == net.predict(X).tolist()


@pytest.mark.parametrize("path", [1, True, None, np.zeros(2), ["a"]])
def test_invalid_paths_are_named(path: Any) -> None:
    with pytest.raises(TypeError, match=r"path is .*; expected the path of a file"):
        nnkit.Network([3, 3], seed=0).save(path)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "bool", "float16"])
def test_preprocessing_is_fitted_on_tensors_of_each_type(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.random.default_rng(0).integers(0, 2, (9, 2)).astype(dtype)
    for kind in (nnkit.data.Normalization, nnkit.data.Whitening):
        found, expected = kind.fit(torch.tensor(x)), kind.fit(x)
        assert found == expected
        assert np.array_equal(found.transform(torch.tensor(x)), expected.transform(x))
