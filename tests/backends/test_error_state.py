"""Programs in which NumPy raises an error for every overflow, underflow and NaN: those inside nnkit are meant."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import metrics
from nnkit.backends.formula import list_formulas
from nnkit.cli import main
from nnkit.data import Normalization, Whitening, open_npy
from tests.backends.test_odd_arrays import FORMULAS

# Zeros, subnormal numbers of both types, what e^x overflows and underflows for, ends of the ranges, no numbers.
EXTREME = [0, -0.0, 1e-310, 1e-42, -1e-42, 1, -1, 88, -88, 104, -104, 710, -710, 1e30, -1e30, 1e300, -1e300, 1e-300]
EXTREME += [np.inf, -np.inf, np.nan]
SCALES = [1, 1e-30, 1e-42, 1e-200, 1e30, 1e150]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    with np.errstate(all="raise"):
        yield


def extreme(dtype: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.array(EXTREME).astype(dtype)


@pytest.mark.usefixtures("ufuncs")  # native code raises nothing
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name: str, dtype: str) -> None:
    formula = list_formulas()[name]
    e = extreme(dtype)
    rng = np.random.default_rng(0)
    operands = [e, *(rng.permutation(e) for _ in formula.operands[1:])]
    if "dropout" in name:
        operands = [np.zeros_like(e) for _ in operands]
    with np.errstate(all="ignore"):
        wanted = formula(*operands)
    np.testing.assert_array_equal(formula(*operands), wanted)


@pytest.mark.usefixtures("ufuncs")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_and_costs(dtype: str) -> None:
    e = extreme(dtype)
    column, other = e[:, None], e[::-1, None].copy()
    W = np.array([[1e-30], [1e30]], dtype)
    for name in nnkit.activation_names():
        nnkit.dense_forward(column, W, np.ones(2, dtype), name)
        nnkit.dense_backward(column, other, W[:1], column, name, z=other)
    z = np.stack([e[:13], e[12::-1]])
    np.testing.assert_allclose(nnkit.softmax(z).sum(axis=1), 1, rtol=1e-5)
    nnkit.softmax_grad(z, z)
    for cost, end in itertools.product(nnkit.cost_names(), ("", "_delta")):
        kernel = getattr(nnkit, cost + end, None)
        if kernel is not None:
            kernel(z, np.full_like(z, 1 / 13))


def samples(scale: float, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    z = np.random.default_rng(0).normal(size=(120, 3))
    with np.errstate(all="ignore"):
        return (z * scale).astype(dtype), (z[:, 0] > 0).astype(int)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", [Normalization, Whitening])
def test_preprocessing_and_training(kind: Any, scale: float, dtype: str, tmp_path: Path) -> None:
    X, y = samples(scale, "float32" if 1e-40 < scale < 1e38 and dtype == "float32" else "float64")
    if kind is Whitening and scale == 1e-200:
        with pytest.raises(ValueError, match="squares are too small for float64; multiply them first"):
            kind.fit(X)
        return
    fitted = kind.fit(X)
    np.testing.assert_allclose(fitted.transform(X).std(axis=0), 1, rtol=1e-6)
    np.save(tmp_path / "X.npy", X)
    options: Any = {"epochs": 2, "progress": False, "optimizer": nnkit.Adam(0.01), "metrics": ["r2", "mae"]}
    options |= {"sample_weight": np.linspace(1e-300, 1, 120), "class_weight": "balanced", "schedule": "cosine"}
    for given in (X, np.load(tmp_path / "X.npy", mmap_mode="r"), open_npy(tmp_path / "X.npy")):
        net = nnkit.Network([3, 4, 2], "tanh", "softmax_cross_entropy", seed=0, dtype=dtype, preprocessing=fitted)
        net.fit(given, y, validation_data=(given, y), **options)
        net.evaluate(given, y, metrics=["top_1", "r2"])
        net.predict(given)
        net.predict_proba(X[:1])
    net.gradients(X, y)
    net.train_step(X, y)
    net.save(tmp_path / "net.safetensors")
    assert np.array_equal(nnkit.load(tmp_path / "net.safetensors").logits(X), net.logits(X))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"])
def test_optimizers(optimizer: str, tmp_path: Path) -> None:
    X, y = samples(1, "float32")
    options = {"clip_norm": 1e-20, "l2": 1e-30, "l1": 1e-40} if optimizer == "sgd" else {}
    layers = [nnkit.Dense(3, 5, "gelu"), nnkit.Dropout(0.3), nnkit.Dense(5, 2)]
    net = nnkit.Network(layers, cost="cross_entropy", seed=0)
    keeping: Any = {"checkpoint": tmp_path / "c.safetensors", "gradient_accumulation_steps": 2, "progress": False}
    net.fit(X, y, epochs=2, optimizer=nnkit.get_optimizer(optimizer, **options), **keeping)
    net.fit(X, y, epochs=3, resume=True, **keeping)
    assert nnkit.check_gradients(net, X[:4], y[:4]).max_error < 1e-10


def test_metrics() -> None:
    y = np.array([[1e-200, 1e200, 1.0], [1.0, 1e-200, 2.0], [1e-300, 3.0, 1e308]])
    h = -y[::-1]
    labels = np.eye(3)[[1, 2, 2]]
    assert metrics.accuracy(labels, h) == 0
    assert metrics.top_k(2)(labels, h) == pytest.approx(2 / 3)
    assert metrics.mean_absolute_error(y, h) == np.inf  # 2e308 over 9
    exact = []
    for targets, outputs in zip(y.T.tolist(), h.T.tolist(), strict=True):
        mean = sum(map(Fraction, targets)) / 3
        left = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(targets, outputs, strict=True))
        exact.append(1 - left / sum((Fraction(a) - mean) ** 2 for a in targets))
    assert metrics.r2(y, h) == pytest.approx(float(sum(exact) / 3), rel=1e-12)
    tiny = np.array([[1e-170], [2e-170], [3e-170]])
    for function in (metrics.r2, metrics.mean_absolute_error):
        assert function(tiny, tiny) == (function is metrics.r2)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    monkeypatch.chdir(tmp_path)
    lines = [f"{i * 1e-310},{i * 1e-42},{i % 7 * 1e-200}" for i in range(1, 60)]
    Path("t.csv").write_text("\n".join(["a,b,t", *lines]))
    given = ["--data", "t.csv", "--target", "t", "--cost", "quadratic", "--epochs", "2", "--metrics", "r2", "mae"]
    assert main(["train", *given, "--no-picture"]) == 0
    assert main(["predict", "nnkit-model.safetensors", "t.csv", "--target", "t"]) == 0
    assert main(["verify"]) == 0
    assert "within the bound" in capsys.readouterr().out


def test_numpy_error_state_is_restored() -> None:
    seen = []
    X, y = samples(1e-30, "float64")
    net = nnkit.Network([3, 2], seed=0, preprocessing=Normalization.fit(X))
    net.fit(X, y, epochs=1, progress=False, callbacks=[lambda *_: seen.append(np.geterr())])
    net.predict(X)
    assert seen == [np.geterr()] == [dict.fromkeys(("divide", "over", "under", "invalid"), "raise")]
