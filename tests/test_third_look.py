"""What strangers found who took the documentation at its word: right values, from independent computations."""

import copy
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends.formula import formula
from tests.support import ROOT

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(60, 4)) * 3, np.arange(60) % 3


def test_a_seed_that_is_set_is_that_of_the_dropout_masks(tmp_path: Path) -> None:
    layers = [nnkit.Dense(4, 20, "relu"), nnkit.Dropout(0.5), nnkit.Dense(20, 3)]

    def made() -> nnkit.Network:
        net = nnkit.Network(layers, seed=0, dtype="float64")
        net.train_step(X[:8], LABELS[:8])  # a recorded step reads the new key, too
        net.seed = 7
        return net

    whole, again, other = made(), made(), nnkit.Network(layers, seed=7, dtype="float64")
    other.load_state_dict(copy.copy(made()).state_dict())
    other.train_step(X[:8], LABELS[:8], nnkit.SGD(1e-300))  # so that both have counted a step
    np.testing.assert_array_equal(made().forward(X, training=True), other.forward(X, training=True))
    options: dict[str, Any] = {"optimizer": "adam", "progress": False}
    whole.fit(X, LABELS, epochs=4, **options)
    again.fit(X, LABELS, epochs=2, checkpoint=tmp_path / "net", **options)
    fresh = made()
    fresh.fit(X, LABELS, epochs=4, checkpoint=tmp_path / "net", resume=True, **options)
    assert np.array_equal(fresh.parameters.vector, whole.parameters.vector)


class Log:
    """A preprocessing that computes with NumPy, which a recording does not see."""

    kind, inputs, outputs = "log", 4, 4
    arrays: dict[str, Any] = {}  # noqa: RUF012

    def precision(self, dtype: str) -> str:
        return dtype

    def apply(self, backend: Any, x: Any, out: Any = None) -> Any:
        result = np.log1p(np.abs(x))
        if out is None:
            return result
        out[...] = result
        return out


class Clipped(nnkit.data.Normalization):
    def apply(self, backend: Any, x: Any, out: Any = None) -> Any:
        result = np.clip(super().apply(backend, x), -1, 1)
        if out is None:
            return result
        out[...] = result
        return out


class Unheeding(Log):
    """It returns an array of its own."""

    def apply(self, backend: Any, x: Any, out: Any = None) -> Any:
        return np.log1p(np.abs(x))


CUSTOM: dict[str, Any] = {
    "log": (Log(), lambda x: np.log1p(np.abs(x))),
    "an array of its own": (Unheeding(), lambda x: np.log1p(np.abs(x))),
    "clipped": (Clipped.fit(X), lambda x: np.clip((x - X.mean(axis=0)) / X.std(axis=0), -1, 1)),
}


@pytest.mark.parametrize("name", CUSTOM)
@pytest.mark.parametrize("kind", ["float64", "uint8"])
def test_a_custom_preprocessing_is_called_each_time(name: str, kind: str) -> None:
    preprocessing, transform = CUSTOM[name]
    samples = X if kind == "float64" else RNG.integers(0, 9, X.shape).astype("uint8")
    net, plain = (
        nnkit.Network([4, 5, 3], "tanh", seed=0, dtype="float64", preprocessing=p) for p in (preprocessing, None)
    )
    for _ in range(3):
        net.fit(samples, LABELS, epochs=1, progress=False)
        plain.fit(transform(samples.astype(float)), LABELS, epochs=1, progress=False)
        for start in (0, 10, 20):  # recorded the second time
            part = samples[start : start + 10]
            expected = plain.predict_proba(transform(part.astype(float)))
            np.testing.assert_allclose(net.predict_proba(part), expected, rtol=1e-12)


class Transforms(nnkit.data.Normalization):
    def transform(self, X: Any) -> Any:
        return super().transform(np.log(X))


def test_a_preprocessing_that_overrides_what_networks_do_not_call_is_refused() -> None:
    net = nnkit.Network([4, 3], seed=0)
    with pytest.raises(TypeError, match=r"Transforms overrides transform, which a network does not call; override"):
        net.preprocessing = Transforms.fit(X)
    assert net.preprocessing is None


@pytest.mark.parametrize("name", CUSTOM)
def test_files_and_derivatives_refuse_a_custom_preprocessing(name: str, tmp_path: Path) -> None:
    net = nnkit.Network([4, 3], seed=0, preprocessing=CUSTOM[name][0])
    before = net.parameters.vector
    with pytest.raises(TypeError, match="which a file cannot contain"):
        net.save(tmp_path / "net")
    with pytest.raises(TypeError, match="which a file cannot contain"):
        net.fit(X, LABELS, epochs=1, checkpoint=tmp_path / "net", progress=False)
    assert np.array_equal(net.parameters.vector, before)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="without a method backward"):
        net.jacobian(X)
    pytest.importorskip("onnx", reason="onnx is not installed")
    with pytest.raises(TypeError, match=r"expected nnkit\.data\.Normalization or Whitening"):
        net.to_onnx()


@formula
def sign_step(xp: Any, p: Any, g: Any, learning_rate: Any) -> Any:
    return p - learning_rate * xp.sign(g)


@dataclass(repr=False)
class SGD(nnkit.optimizers.Optimizer):
    """An optimizer that is called like one of nnkit's."""

    learning_rate: float = 0.001
    formula = sign_step


def test_a_custom_optimizer_called_like_a_built_in_one_is_another_one(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net, path = nnkit.Network([4, 3], seed=0, dtype="float64"), tmp_path / "net"
    net.fit(X, LABELS, epochs=1, optimizer=SGD(), checkpoint=path, progress=False)
    with pytest.warns(UserWarning, match=r"loaded without its optimizer '.*test_third_look\.sgd'"):
        nnkit.load(path)
    again = nnkit.Network([4, 3], seed=0, dtype="float64")
    history = again.fit(X, LABELS, epochs=2, optimizer=SGD(), checkpoint=path, resume=True, progress=False)
    assert history.epochs == 2
    with pytest.raises(ValueError, match="optimizer"):
        nnkit.Network([4, 3], seed=0, dtype="float64").fit(
            X, LABELS, epochs=2, optimizer=nnkit.SGD(0.001), checkpoint=path, resume=True, progress=False
        )


def test_the_area_of_margins_is_that_of_each_class() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for cost in ("hinge", "cross_entropy"):
        net = nnkit.Network([4, 3], cost=cost, seed=0, dtype="float64")
        net.fit(X, LABELS, epochs=2, progress=False)
        h = net.forward(X)
        expected = np.mean([metrics.roc_auc_score(k == LABELS, h[:, k]) for k in range(3)])
        assert net.evaluate(X, LABELS, metrics=["roc_auc"])["roc_auc"] == pytest.approx(expected, rel=1e-12)


def test_class_weights_of_an_estimator_do_not_decide_its_validation_score() -> None:
    pytest.importorskip("sklearn")
    from sklearn.model_selection import train_test_split

    from nnkit.sklearn import DenseClassifier

    y, weights = (X[:, 0] > 2).astype(int), {0: 1.0, 1: 20.0}
    own = RNG.uniform(0.5, 2, 60)
    for sample_weight in (None, own):
        options: dict[str, Any] = {"random_state": 1, "max_iter": 1, "early_stopping": True, "validation_fraction": 0.4}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged
            model = DenseClassifier((6,), class_weight=weights, **options).fit(X, y, sample_weight)
        state = np.random.RandomState(1)
        state.uniform(size=4 * 6 + 6 + 6 + 1)  # the initial parameters
        _, aside = train_test_split(np.arange(60), random_state=state, test_size=0.4, stratify=y)
        w = None if sample_weight is None else sample_weight[aside]
        right = np.average(model.predict(X[aside]) == y[aside], weights=w)
        assert model.validation_scores_ == [pytest.approx(right)]


def test_onnx_models_of_scikit_learn_keep_the_names_of_classes() -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    from sklearn.neural_network import MLPClassifier

    for names in (np.array([1, 2, 3]), np.array(["c", "a", "b"]), np.arange(3)):
        y = names[LABELS]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MLPClassifier((8,), max_iter=20, random_state=0).fit(X.astype("float32"), y)
        net = nnkit.from_onnx(skl2onnx.to_onnx(model, X[:1].astype("float32"), options={"zipmap": False}))
        assert np.array_equal(net.predict(X.astype("float32")), model.predict(X.astype("float32")))


def test_onnx_models_of_estimators_have_their_probabilities() -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    from nnkit.sklearn import DenseClassifier
    from nnkit.sklearn.onnx import register_converters

    register_converters()
    samples = X.astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DenseClassifier((5,), loss="cross_entropy", max_iter=3, random_state=0).fit(samples, LABELS)
    made = skl2onnx.to_onnx(model, samples[:1], options={"zipmap": False})
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    label, p = session.run(None, {session.get_inputs()[0].name: samples})
    np.testing.assert_allclose(p, model.predict_proba(samples), atol=1e-6)
    assert np.array_equal(label, model.predict(samples))


def test_onnx_labels_are_not_larger_than_int64() -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    net = nnkit.Network([4, 2], seed=0)
    net.fit(X, np.array([2**63 + 1, 2**64 - 1], np.uint64)[LABELS % 2], epochs=1, progress=False)
    with pytest.raises(ValueError, match="classes holds 18446744073709551615; the labels of an ONNX model"):
        net.to_onnx()


def test_central_differences_of_float32_are_refused() -> None:
    with pytest.raises(ValueError, match="function returns float32, too coarse for differences"):
        nnkit.derivative(lambda a: np.sum(np.sin(np.asarray(a, np.float32))), [1.0], method="central")


@dataclass(frozen=True)
class Scaling(nnkit.Layer):
    """A layer that is called like one of nnkit's."""

    inputs: int
    units: int

    @property
    def shapes(self) -> Any:
        return {"s": (self.units,)}

    def start(self, rng: np.random.Generator) -> Any:
        return {"s": np.full(self.units, 0.5)}

    def forward(self, backend: Any, x: Any, parameters: Any) -> Any:
        raise NotImplementedError

    def backward(self, backend: Any, delta: Any, saved: Any, parameters: Any, gradient: Any, need_dx: bool) -> Any:
        raise NotImplementedError


class Own(nnkit.Scaling):
    """A layer derived from one of nnkit's."""


def test_layers_that_a_file_would_mistake_for_others_are_refused() -> None:
    from nnkit.layers import layer_description

    with pytest.raises(TypeError, match="custom Scaling; only one with another name"):
        layer_description(Scaling(4, 4))
    assert layer_description(nnkit.Scaling(4))["layer"] == "Scaling"
    pytest.importorskip("onnx", reason="onnx is not installed")
    with pytest.raises(TypeError, match="layer 0 is a Own; only Dense, Dropout and Scaling"):
        nnkit.Network([Own(4), nnkit.Dense(4, 2)], seed=0).to_onnx()


def test_an_early_stopping_with_methods_of_its_own_is_refused() -> None:
    class Threshold(nnkit.EarlyStopping):
        def stops(self, history: Any) -> bool:
            return bool(history["cost"][-1] < 0.5)

    net = nnkit.Network([4, 3], seed=0)
    with pytest.raises(TypeError, match="early_stopping is a Threshold with methods of its own"):
        net.fit(X, LABELS, early_stopping=Threshold("cost"), progress=False)
    assert net.epochs_trained == 0


def test_a_formula_that_compares_a_dtype_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnkit.backends.formula._listed", {})  # or others could not print all formulas

    @formula
    def safe_log(xp: Any, p: Any) -> Any:
        return xp.log(xp.maximum(p, 1e-6 if p.dtype == np.float32 else 1e-30))

    with pytest.raises(nnkit.backends.FormulaError, match="a formula compares a dtype with"):
        safe_log(np.array([0.5]))


@pytest.mark.parametrize("optimizer", [nnkit.Adam(0.01), nnkit.SGD(0.1, momentum=0.9)])
def test_an_additional_step_of_a_member_counts_for_it_alone(optimizer: Any) -> None:
    def extra(net: nnkit.Network, epochs: int) -> None:
        if epochs == 2:
            net.train_step(X[:10], LABELS[:10])

    options: dict[str, Any] = {"epochs": 4, "optimizer": optimizer, "progress": False}
    ensemble = nnkit.Ensemble([4, 5, 3], seeds=[0, 1], dtype="float64", order="own")
    ensemble.fit(X, LABELS, callbacks=[lambda e, history: extra(e.members[0], history.epochs)], **options)
    alone = [nnkit.Network([4, 5, 3], seed=seed, dtype="float64") for seed in (0, 1)]
    alone[0].fit(X, LABELS, callbacks=[lambda net, history: extra(net, history.epochs)], **options)
    alone[1].fit(X, LABELS, **options)
    for member, net in zip(ensemble.members, alone, strict=True):
        np.testing.assert_allclose(member.parameters.vector, net.parameters.vector, rtol=0, atol=1e-12)


NAMES = {
    "dates": np.array(["2024-01-01", "2024-04-01", "2024-07-01"], "M8[D]"),
    "durations": np.array([1, 5, 9], "m8[h]"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_files_keep_dates_and_durations_as_classes(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    names, net, path = NAMES[kind], nnkit.Network([4, 3], seed=0), tmp_path / "net"
    net.fit(X, names[LABELS], epochs=2, checkpoint=tmp_path / "check", progress=False)
    net.save(path)
    for file in (path, tmp_path / "check"):
        again = nnkit.load(file)
        assert again.classes is not None
        assert again.classes.dtype == names.dtype
        assert np.array_equal(again.predict(X), net.predict(X))
        assert again.score(X, names[LABELS]) == net.score(X, names[LABELS])


def test_balanced_weights_of_a_part_are_refused() -> None:
    pytest.importorskip("sklearn")
    from nnkit.sklearn import DenseClassifier

    with pytest.raises(ValueError, match="partial_fit does not support class_weight='balanced'"):
        DenseClassifier(class_weight="balanced").partial_fit(X, LABELS, classes=[0, 1, 2])


def test_a_seed_that_a_callback_sets_holds_for_members_and_resumed_trainings(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    layers = [nnkit.Dense(4, 8, "tanh"), nnkit.Dropout(0.5), nnkit.Dense(8, 3)]

    def reseeded(net: nnkit.Network, epochs: int) -> None:
        if epochs == 2:
            net.seed = 11

    def kill(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 4:
            raise InterruptedError

    options: dict[str, Any] = {"epochs": 6, "progress": False}
    alone, killed, again = (nnkit.Network(layers, seed=1, dtype="float64") for _ in range(3))
    own = lambda net, history: reseeded(net, history.epochs)  # noqa: E731
    alone.fit(X, LABELS, callbacks=[own], **options)
    with pytest.raises(InterruptedError):
        killed.fit(X, LABELS, callbacks=[own, kill], checkpoint=tmp_path / "net", **options)
    again.fit(X, LABELS, callbacks=[own], checkpoint=tmp_path / "net", resume=True, **options)
    assert np.array_equal(again.parameters.vector, alone.parameters.vector)
    other = nnkit.Network(layers, seed=2, dtype="float64")
    with pytest.raises(ValueError, match="its seed is 1, but this training's is 2"):
        other.fit(X, LABELS, callbacks=[own], checkpoint=tmp_path / "net", resume=True, **options)
    ensemble = nnkit.Ensemble(layers, seeds=[1], dtype="float64", order="own")
    ensemble.fit(X, LABELS, callbacks=[lambda e, history: reseeded(e.members[0], history.epochs)], **options)
    np.testing.assert_allclose(ensemble.members[0].parameters.vector, alone.parameters.vector, rtol=0, atol=1e-12)


@pytest.mark.mpi
def test_one_of_several_processes_writes_the_log(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    from tests.parallel.test_mpi import MPIEXEC

    assert MPIEXEC is not None
    program = (
        "import sys, nnkit; from mpi4py import MPI; X, y = nnkit.data.digits()\n"
        "net = nnkit.Network([64, 10], seed=0)\n"
        "log = nnkit.callbacks.CSVLogger(sys.argv[1])\n"
        "net.fit(X, y, epochs=30, comm=MPI.COMM_WORLD, callbacks=[log], progress=False)\n"
    )
    path = tmp_path / "log.csv"
    subprocess.run([MPIEXEC, "-n", "2", sys.executable, "-c", program, path], cwd=ROOT, timeout=240, check=True)
    rows = path.read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, range(1, 31))]
