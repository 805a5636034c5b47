"""Trainings that ranks do together, each with what one process makes of it."""

import atexit
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnkit

_RNG = np.random.default_rng(7)
BYTES = _RNG.integers(0, 256, (117, 12), dtype=np.uint8)
X = BYTES / 255.0
Y = (X @ _RNG.normal(size=(12, 3))).argmax(axis=1)
WEIGHTS = _RNG.uniform(0, 2, 117)
TARGETS = X @ _RNG.normal(size=(12, 2))
VALIDATION = (X[:31], Y[:31])


@cache
def _folder() -> Path:
    made = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _file(X: NDArray[Any]) -> Any:
    """The samples in a memory-mapped file."""
    path = _folder() / f"{len(X)}-{threading.get_ident()}.npy"
    if not path.exists():
        np.save(path, X)
    return nnkit.data.open_npy(path)


def minibatches(size: int = 20) -> Iterator[tuple[Any, ...]]:
    """An epoch of minibatches, the last one smaller."""
    for start in range(0, len(X), size):
        yield X[start : start + size], Y[start : start + size]


class Signs(nnkit.SGD):
    """Descent by the signs of the gradient, with an update that cannot be recorded."""

    def start(self, parameters: Any) -> Any:
        return _SignState(self, parameters)


class _SignState(nnkit.optimizers.OptimizerState):
    def update(self, parameters: Any, gradients: Any) -> None:
        parameters.flat -= self.numbers["learning_rate"] * np.sign(np.round(gradients.flat, 3))


def _layers(*hidden: Any, outputs: int = 3) -> list[Any]:
    return [12, *hidden, outputs]


DROPPING = [nnkit.Dropout(0.1), nnkit.Dense(12, 9, "tanh"), nnkit.Dropout(0.4), nnkit.Dense(9, 3)]

# The options of the network and of its training, by name. The first 16 are those of the promise.
CASES: dict[str, Callable[[], tuple[dict[str, Any], dict[str, Any]]]] = {
    "sgd": lambda: ({}, {"optimizer": nnkit.SGD(0.5)}),
    "adam": lambda: ({}, {"optimizer": nnkit.Adam(0.01), "validation_data": VALIDATION}),
    "last of 17": lambda: ({}, {"batch_size": 20}),
    "last of 1": lambda: ({}, {"batch_size": 29, "optimizer": nnkit.Adam(0.01)}),
    "batch of 1": lambda: ({}, {"batch_size": 1, "epochs": 1, "optimizer": nnkit.SGD(0.05)}),
    "sample weights": lambda: ({}, {"sample_weight": WEIGHTS, "validation_data": (*VALIDATION, WEIGHTS[:31])}),
    "class weights": lambda: ({}, {"class_weight": "balanced", "optimizer": nnkit.SGD(0.3, momentum=0.5)}),
    "dropout": lambda: ({"layers": DROPPING}, {"optimizer": nnkit.AdamW(0.01)}),
    "clipped": lambda: ({}, {"optimizer": nnkit.SGD(0.5, momentum=0.9, l2=1e-3, clip_norm=0.2)}),
    "accumulation": lambda: ({"layers": DROPPING}, {"gradient_accumulation_steps": 3, "batch_size": 8}),
    "accumulation, weights": lambda: ({}, {
        "gradient_accumulation_steps": 2, "sample_weight": WEIGHTS, "class_weight": {1: 2.0}, "optimizer": "adam",
    }),
    "schedule": lambda: ({}, {
        "schedule": "cosine", "early_stopping": nnkit.EarlyStopping("validation_top_2", patience=2), "epochs": 5,
        "metrics": ["top_2"], "validation_data": VALIDATION, "optimizer": nnkit.SGD(0.5, momentum=0.9, nesterov=True),
    }),
    "no shuffle": lambda: ({}, {"shuffle": False, "schedule": lambda epoch: 1 / (1 + epoch)}),
    "bytes": lambda: ({"preprocessing": nnkit.data.Normalization.pixels(12)}, {"X": BYTES}),
    "memory-mapped": lambda: ({}, {"X": _file(X), "validation_data": (_file(X[:31]), Y[:31])}),
    "another seed": lambda: ({"seed": None, "layers": DROPPING}, {}),
    # and more
    "stream": lambda: ({}, {"X": minibatches, "y": None, "batch_size": None, "validation_data": minibatches}),
    "regression": lambda: ({"layers": _layers(8, outputs=2), "cost": "quadratic"}, {
        "y": TARGETS, "metrics": ["r2", "mae"], "validation_data": (X[:31], TARGETS[:31]), "optimizer": "rmsprop",
    }),
    "labels": lambda: ({"cost": "cross_entropy"}, {"y": (TARGETS @ np.ones((2, 3)) > 0) * 1.0, "optimizer": "adagrad"}),
    "split, averages": lambda: ({"seed": None}, {
        "validation_split": 0.25, "optimizer": nnkit.Adam(0.01, ema=0.9), "early_stopping": nnkit.EarlyStopping(),
    }),
    "own update": lambda: ({}, {"optimizer": Signs(0.01)}),
    "lion": lambda: ({"layers": [nnkit.Dense(12, 1)]}, {"y": Y > 0, "optimizer": nnkit.optimizers.Lion(0.01)}),
}  # fmt: skip


def train(case: str, dtype: str, seed: int = 3, **options: Any) -> tuple[nnkit.Network, nnkit.History]:
    """Train a case; `options` are those of `fit`."""
    chosen, training = CASES[case]()
    about: dict[str, Any] = {"layers": _layers(8, 6), "seed": seed, "dtype": dtype} | chosen
    if about["seed"] is None and "comm" not in options:
        about["seed"] = seed  # that of rank 0, known afterwards
    net = nnkit.Network(about.pop("layers"), **about)
    given = {"X": X, "y": Y, "epochs": 3, "batch_size": 16, "progress": False} | training | options
    if given["batch_size"] is None:
        del given["batch_size"]
    return net, net.fit(**given)


def state_of(net: nnkit.Network, history: nnkit.History) -> dict[str, NDArray[Any]]:
    """All that must be the same on all ranks, except the time: also the optimizer's state and dropout's counter."""
    numbers = {f"history {name}": np.array(values) for name, values in history.items() if name != "seconds"}
    numbers |= {"stopped": np.array([str(history.stopped)]), "epochs": np.array([net.epochs_trained, net.seed])}
    return nnkit.state.arrays(net) | numbers


def difference(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> float:
    """The largest difference of numbers, infinite if the texts or the lengths differ."""
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        return np.inf
    texts = [name for name in one if one[name].dtype.kind == "U"]
    if any(not np.array_equal(one[name], other[name]) for name in texts):
        return np.inf
    return max(float(np.max(np.abs(one[name] - other[name]), initial=0.0)) for name in one if name not in texts)


LIMITS = {"float64": 1e-13, "float32": 1e-5}
