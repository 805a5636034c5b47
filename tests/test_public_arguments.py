"""Arguments of every public function: what cannot be used is refused, by the argument's name."""

import inspect
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import data, initializers, metrics, optimizers, plots, schedules
from nnkit.backends import backend_names, get_backend, register_backend, use_backend, using_backend

X, Y = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
Z = np.random.default_rng(1).normal(size=(5, 3))
HISTORY = {"cost": [0.9, 0.5], "validation_cost": [0.8, 0.6]}


def net(**options: Any) -> nnkit.Network:
    return nnkit.Network([4, 3], seed=0, **options)


def _layer() -> dict[str, Any]:
    return {"x": X, "W": np.ones((3, 4)), "b": np.zeros(3), "activation": "relu"}


def _backward() -> dict[str, Any]:
    return {"delta": np.ones((6, 3)), "x": X, "W": np.ones((3, 4)), "h": np.ones((6, 3)), "activation": "relu"}


@dataclass(frozen=True)
class OwnLayer(nnkit.Layer):
    """Its methods are not called here."""

    inputs: int
    units: int


def _folder() -> Path:
    return Path(tempfile.mkdtemp())


def _npy() -> Path:
    path = _folder() / "x.npy"
    np.save(path, X)
    return path


def _saved() -> Path:
    path = _folder() / "net.safetensors"
    net().save(path)
    return path


# A call of each public function that works, as its arguments by name.
CALLS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "Network": (nnkit.Network, lambda: {
        "layers": [4, 5, 3], "activation": "tanh", "cost": "quadratic", "output_activation": "identity",
        "init": "zeros", "seed": 1, "dtype": "float64", "backend": "numpy", "preprocessing": data.Normalization.fit(X),
        "target_scaling": data.Normalization.fit(X[:, :3]), "classes": ["a", "b", "c"],
        "features": ["p", "q", "r", "s"],
    }),
    "fit": (lambda **o: net().fit(**o), lambda: {
        "X": X, "y": Y, "epochs": 1, "batch_size": 2, "optimizer": "adam", "schedule": "cosine",
        "validation_data": (X, Y), "metrics": ["top_2"], "sample_weight": np.ones(6), "class_weight": {0: 2.0},
        "early_stopping": nnkit.EarlyStopping(), "gradient_accumulation_steps": 2, "shuffle": True,
        "checkpoint": _folder() / "run.safetensors", "checkpoint_every": 1, "resume": True, "progress": False,
        "callbacks": [], "averaged": True, "comm": None, "shards": 2, "sharded": False,
    }),
    "partial_fit": (lambda **o: net().partial_fit(**o), lambda: {"X": X, "y": Y, "batch_size": 2}),
    "train_step": (lambda **o: net().train_step(**o), lambda: {
        "x": X, "y": Y, "optimizer": nnkit.SGD(), "sample_weight": np.ones(6),
    }),
    "explain_step": (lambda **o: net().explain_step(**o), lambda: {"batch_size": 4, "optimizer": "adam"}),
    "gradients": (lambda **o: net().gradients(**o), lambda: {
        "x": X, "y": Y, "sample_weight": np.ones(6), "training": False,
    }),
    "evaluate": (lambda **o: net().evaluate(**o), lambda: {
        "x": X, "y": Y, "metrics": ["top_2"], "sample_weight": np.ones(6), "class_weight": {0: 2.0},
    }),
    "predict": (lambda **o: net().predict(**o), lambda: {"x": X}),
    "predict_proba": (lambda **o: net().predict_proba(**o), lambda: {"x": X, "training": False}),
    "forward": (lambda **o: net().forward(**o), lambda: {"x": X, "training": True}),
    "score": (lambda **o: net().score(**o), lambda: {"x": X, "y": Y, "sample_weight": np.ones(6)}),
    "set_rate": (lambda **o: net().set_rate(**o), lambda: {"layer": 0, "rate": 0.5, "bias_rate": 0.0}),
    "logits": (lambda **o: net().logits(**o), lambda: {"x": X}),
    "save": (lambda **o: net().save(**o), lambda: {"path": _folder() / "n.safetensors"}),
    "to": (lambda **o: net().to(**o), lambda: {"backend": "numpy"}),
    "load": (nnkit.load, lambda: {"path": _saved(), "backend": "numpy"}),
    "Dense": (nnkit.Dense, lambda: {
        "inputs": 2, "units": 3, "activation": "relu", "init": "zeros", "rate": 0.5, "bias_rate": 0.0,
    }),
    "Scaling": (nnkit.Scaling, lambda: {"inputs": 2, "rate": 0.5}),
    "coslog": (schedules.coslog, lambda: {"cycles": 2}),
    "tabular": (nnkit.tabular, lambda: {
        "X": X, "y": Y, "regression": False, "hidden": [3], "seed": 0, "dtype": "float64", "backend": "numpy",
    }),
    "Dropout": (nnkit.Dropout, lambda: {"rate": 0.5}),
    "EarlyStopping": (nnkit.EarlyStopping, lambda: {
        "monitor": "cost", "patience": 2, "min_delta": 0.1, "restore_best": True, "mode": "min",
    }),
    "SGD": (nnkit.SGD, lambda: {
        "learning_rate": 0.1, "momentum": 0.5, "nesterov": True, "l1": 0.1, "l2": 0.1, "weight_decay": 0.1,
        "clip_value": 1.0, "clip_norm": 1.0, "ema": 0.5,
    }),
    "RMSprop": (nnkit.RMSprop, lambda: {"learning_rate": 0.1, "alpha": 0.9, "epsilon": 1e-8, "momentum": 0.1}),
    "Adagrad": (nnkit.Adagrad, lambda: {"learning_rate": 0.1, "epsilon": 1e-8}),
    "Adam": (nnkit.Adam, lambda: {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8}),
    "AdamW": (nnkit.AdamW, lambda: {"learning_rate": 0.1, "weight_decay": 0.1}),
    "Lion": (nnkit.Lion, lambda: {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99}),
    "get_optimizer": (optimizers.get_optimizer, lambda: {"name": "sgd", "learning_rate": 0.1}),
    "get_cost": (nnkit.get_cost, lambda: {"name": "huber", "delta": 1.5}),
    "get_cost of classes": (nnkit.get_cost, lambda: {"name": "cross_entropy", "label_smoothing": 0.1}),
    "dense_forward": (nnkit.dense_forward, _layer),
    "dense_backward": (nnkit.dense_backward, _backward),
    "check_gradients": (nnkit.check_gradients, lambda: {"network": net(), "x": X, "y": Y, "entries": 2, "seed": 0}),
    "derivative": (nnkit.derivative, lambda: {"function": np.sum, "at": Z, "method": "complex"}),
    "verify": (nnkit.verify.verify, lambda: {"backend": "numpy", "seed": 0}),
    "formula": (nnkit.formula, lambda: {"function": lambda xp, z: xp.exp(z)}),
    "set_matmul_precision": (nnkit.set_matmul_precision, lambda: {"precision": "highest"}),
    "get_backend": (get_backend, lambda: {"name": "numpy"}),
    "use_backend": (use_backend, lambda: {"name": "numpy"}),
    "using_backend": (using_backend, lambda: {"name": "numpy"}),
    "mnist": (data.mnist, lambda: {"directory": _folder(), "download": False}),
    "split": (data.split, lambda: {"X": X, "y": Y, "test_fraction": 0.5, "seed": 0}),
    "one_hot": (data.one_hot, lambda: {"labels": Y, "classes": 3, "dtype": "float32"}),
    "open_npy": (data.open_npy, lambda: {"path": _npy()}),
    "read": (data.read, lambda: {"path": _npy(), "target": "0"}),
    "Normalization": (data.Normalization, lambda: {"mean": [0.0], "deviation": [1.0], "features": ["a"]}),
    "Normalization.fit": (data.Normalization.fit, lambda: {"X": X, "per_feature": False}),
    "Normalization.pixels": (data.Normalization.pixels, lambda: {"width": 3, "largest": 255.0}),
    "Whitening.fit": (data.Whitening.fit, lambda: {"X": X}),
    "top_k": (metrics.top_k, lambda: {"k": 2}),
    "schedules.step": (schedules.step, lambda: {"every": 2, "factor": 0.5}),
    "halving": (schedules.halving, lambda: {"every": 2}),
    "exponential": (schedules.exponential, lambda: {"factor": 0.5}),
    "cosine": (schedules.cosine, lambda: {"final": 0.1}),
    "warmup": (schedules.warmup, lambda: {"epochs": 2, "then": "cosine", "start": 0.1}),
    "one_cycle": (schedules.one_cycle, lambda: {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4}),
    "reduce_on_plateau": (schedules.reduce_on_plateau, lambda: {
        "monitor": "cost", "factor": 0.5, "patience": 1, "min_factor": 0.1, "min_delta": 0.1,
        "mode": "min",
    }),
    "uniform": (initializers.uniform, lambda: {"a": 0.1}),
    "normal": (initializers.normal, lambda: {"s": 0.1}),
    "orthogonal": (initializers.orthogonal, lambda: {"gain": 1.0}),
    "confusion_matrix": (plots.confusion_matrix, lambda: {
        "y": Y, "predicted": Y, "classes": ["a", "b", "c"], "path": _folder() / "p.png", "title": "t",
    }),
    "learning_curve": (plots.learning_curve, lambda: {
        "history": HISTORY, "path": _folder() / "p.png", "title": "t", "metrics": ["cost"],
    }),
    "seed_spread": (plots.seed_spread, lambda: {"histories": [HISTORY] * 2, "path": _folder() / "p.png", "title": "t"}),
    "predictions": (plots.predictions, lambda: {
        "ensemble": nnkit.Ensemble([2, 1], seeds=[0, 1], cost="quadratic"), "X": [[0.0, 1.0]], "y": [1.0],
        "path": _folder() / "p.png", "title": "t",
    }),
    "disagreement": (plots.disagreement, lambda: {
        "ensemble": nnkit.Ensemble([2, 3], seeds=[0, 1]), "X": [[0.0, 1.0]], "y": [1], "path": _folder() / "p.png",
        "title": "t",
    }),
    "first_layer": (plots.first_layer, lambda: {
        "network": np.ones((2, 4)), "shape": (2, 2), "path": _folder() / "p.png", "title": "t",
    }),
    "misclassified": (plots.misclassified, lambda: {
        "X": X, "y": Y, "predicted": Y[::-1], "shape": (2, 2), "count": 2, "path": _folder() / "p.png", "title": "t",
    }),
    "denoised": (plots.denoised, lambda: {
        "clean": Z[0], "noisy": Z[1], "restored": Z[2], "t": Z[3], "path": _folder() / "p.png", "title": "t",
    }),
    "register_activation": (nnkit.register_activation, lambda: {
        "name": "cube", "forward": lambda xp, z: z**3, "gradient": lambda xp, z, d: 3 * z**2 * d,
        "gradient_from": "preactivation",
    }),
    "register_cost": (nnkit.register_cost, lambda: {
        "name": "half", "terms": lambda xp, h, y, scale: (h - y) ** 2 * scale / 2,
        "delta": lambda xp, h, y, scale: (h - y) * scale, "output": "tanh", "classifies": True, "threshold": 0.5,
    }),
    "register_layer": (nnkit.register_layer, lambda: {"kind": OwnLayer}),
    "register_backend": (register_backend, lambda: {
        "name": "mine", "make": lambda detail: None, "owner": lambda array: None,
    }),
    "jacobian": (lambda **o: net().jacobian(**o), lambda: {"x": X}),
    "input_gradient": (lambda **o: net().input_gradient(**o), lambda: {"x": X, "output": 1}),
    "state_dict": (lambda **o: net().state_dict(**o), lambda: {"names": ["a"]}),
    "load_state_dict": (lambda **o: net().load_state_dict(**o), lambda: {
        "state": net().state_dict(["a"]), "names": ["a"],
    }),
    "value_and_gradient": (lambda **o: net().value_and_gradient(**o), lambda: {
        "X": X, "y": Y, "sample_weight": np.ones(6),
    }),
}  # fmt: skip
if find_spec("onnx") is not None:
    CALLS["from_onnx"] = (
        nnkit.from_onnx,
        lambda: {"source": nnkit.Network([4, 3], seed=0).to_onnx(), "cost": "quadratic"},
    )
    CALLS["to_onnx"] = (lambda **o: net().to_onnx(**o), lambda: {"path": _folder() / "net.onnx", "opset": 13})
if find_spec("scipy") is not None:
    CALLS["minimize"] = (lambda **o: net().minimize(**o), lambda: {
        "X": X, "y": Y, "method": "CG", "sample_weight": np.ones(6), "l2": 0.1,
    })  # fmt: skip
COSTS = nnkit.cost_names()
COMMON = {"l1", "l2", "weight_decay", "clip_value", "clip_norm", "ema"}
EACH = [(call, name) for call, (_, arguments) in CALLS.items() for name in arguments()]


# What errors call an argument that has another name there.
SAID = {
    ("Network", "output_activation"): "unknown activation",
    ("get_optimizer", "name"): "unknown optimizer",
    ("get_cost", "name"): "unknown cost",
    ("get_cost of classes", "name"): "unknown cost",
    ("first_layer", "network"): "W is a",
    ("register_activation", "forward"): "cube is a Junk; expected a function",
    ("register_activation", "gradient"): "cube_grad is a Junk; expected a function",
    ("register_cost", "terms"): "half is a Junk; expected a function",
    ("register_cost", "output"): "unknown activation",
    ("from_onnx", "cost"): "unknown cost",
}


class Junk:
    """What no argument can be."""

    def __repr__(self) -> str:
        return "junk"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    use_backend(None)
    nnkit.set_matmul_precision("highest")
    if "cube" in nnkit.activation_names():
        nnkit.unregister_activation("cube")
    if "half" in nnkit.cost_names():
        nnkit.unregister_cost("half")
    with suppress(KeyError):
        nnkit.unregister_layer("OwnLayer")
    if "mine" in backend_names():
        nnkit.backends.unregister_backend("mine")


@pytest.mark.parametrize("call", CALLS)
def test_the_calls_work(call: str) -> None:
    function, arguments = CALLS[call]
    try:
        function(**arguments())
    except FileNotFoundError:
        assert call == "mnist"


@pytest.mark.parametrize(("call", "name"), EACH)
def test_invalid_arguments_are_refused_by_name(call: str, name: str) -> None:
    function, arguments = CALLS[call]
    with pytest.raises((TypeError, ValueError)) as caught:
        function(**arguments() | {name: Junk()})
    assert SAID.get((call, name), name) in str(caught.value)


# Arguments whose effect is tested elsewhere, or that any object may be.
LEFT_OUT = {
    "dense_forward": {"out", "z"},
    "dense_backward": {"z", "out", "need_dx", "overwrite_delta"},
    "RMSprop": COMMON, "Adagrad": COMMON, "Adam": COMMON, "Lion": COMMON,
    "AdamW": COMMON - {"weight_decay"} | {"beta1", "beta2", "epsilon"},
    "get_optimizer": {"numbers"}, "get_cost": {"label_smoothing", "constants"},
    "get_cost of classes": {"constants"}, "fit": {"validation_split"},
    "partial_fit": {"options"}, "minimize": {"options"},
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_every_argument_is_covered(call: str) -> None:
    function, arguments = CALLS[call]
    method = getattr(nnkit.Network, call, None)
    signature = inspect.signature(function if method is None else method)
    names = (
        {*signature.parameters}
        - {"self", "model"}
        - ({"network"} if method is not None else set())
        - LEFT_OUT.get(call, set())
    )
    given = {*arguments()} - ({"learning_rate", "delta"} if call.startswith("get_") else set())
    assert given == names


def test_every_function_is_covered() -> None:
    """But for the kernels, whose arguments are arrays, and what takes nothing."""
    modules = (nnkit, nnkit.backends, data, metrics, optimizers, plots, schedules, initializers)
    public = {name for module in modules for name in module.__all__ if inspect.isroutine(getattr(module, name))}
    kernels = {name for name in public if name.endswith(("_grad", "_delta")) or name.removesuffix("_delta") in COSTS}
    elsewhere = {name for name in public if name.endswith("_names") or name.startswith(("unregister_", "get_"))}
    elsewhere |= {"backend_of", "softmax", "digits", "preprocessing_from", "constant", "step", "as_schedule"}
    elsewhere |= {"accuracy", "r2", "mean_absolute_error", "root_mean_squared_error", "zeros"}  # functions of arrays
    elsewhere |= {name for name in public if name.startswith(("glorot_", "he_", "lecun_", "nielsen_"))}
    assert public - kernels - elsewhere <= {*CALLS, "from_onnx"}  # which needs onnx


def arrays() -> list[Any]:
    objects = np.array([object(), None], object)
    return [np.array([[0.5, 1.5], [2.0, 3.0]]), np.array(["adam", "relu"]), objects, b"abc", [[1, 2], [3]], {1, 2}]


def tables() -> list[Any]:
    pandas, polars = (pytest.importorskip(name, reason=f"{name} is not installed") for name in ("pandas", "polars"))
    return [pandas.DataFrame({"a": [1.0, 2.0]}), pandas.Series([1.0, 2.0]), polars.Series(["a", "b"])]


@pytest.mark.parametrize("made", [arrays, tables])
@pytest.mark.parametrize(("call", "name"), EACH)
def test_arrays_are_accepted_or_refused_with_a_message(call: str, name: str, made: Callable[[], list[Any]]) -> None:
    """Not by NumPy or pandas, because it was compared with a name, and not by a dict of names."""
    function, arguments = CALLS[call]
    for wrong in made():
        with suppress(FileNotFoundError):
            message = ""
            try:
                function(**arguments() | {name: wrong})
            except (TypeError, ValueError) as error:
                message = str(error)
            assert "ambiguous" not in message
            assert "unhashable" not in message
            assert not message.startswith("setting an array element")


@pytest.mark.parametrize("wrong", [b"abc", bytearray(b"ab"), {3, 4}, {3: "relu"}, "abc", 3])
def test_sizes_are_a_list(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"layers is .*; expected a list of sizes or of layers"):
        nnkit.Network(wrong)


KERNELS: dict[str, Callable[[Any], Any]] = {
    "z": nnkit.sigmoid,
    "b": lambda rows: nnkit.dense_forward(np.ones((2, 3)), np.ones((2, 3)), rows),
    "delta": lambda rows: nnkit.dense_backward(rows, np.ones((2, 3)), np.ones((2, 3))),
    "y": lambda rows: nnkit.quadratic(np.ones((2, 2)), rows),
    "logits": lambda rows: nnkit.cross_entropy(rows, np.ones((2, 2))),
    "h": lambda rows: nnkit.huber(rows, np.ones((2, 2))),
    "h of metrics": lambda rows: metrics.r2(np.ones((2, 2)), rows),
    "sample_weight": lambda rows: metrics.accuracy(np.ones((2, 2)), np.ones((2, 2)), rows),
    "at": lambda rows: nnkit.derivative(np.sum, rows),
}


@pytest.mark.parametrize("name", KERNELS)
def test_rows_of_different_lengths_are_refused_by_name(name: str) -> None:
    argument = name.split()[0]
    with pytest.raises(ValueError, match=f"^{argument}: .*inhomogeneous"):
        KERNELS[name]([[1.0, 2.0], [3.0]])
    with pytest.raises((TypeError, ValueError), match=f"^{argument}"):
        KERNELS[name](["one", "two"])
