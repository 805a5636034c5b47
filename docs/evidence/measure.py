"""Measures which optimizer, cost and batch size to choose: `python docs/evidence/measure.py` writes evidence.json.

Every number is the mean over five seeds, with its standard deviation, on samples that were not trained on. It takes a
minute on one core with numba, a few without.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine, make_friedman1

import nnkit

SEEDS, EPOCHS = range(5), 40
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
OPTIMIZERS: dict[str, Callable[[float], nnkit.optimizers.Optimizer]] = {
    "SGD": nnkit.SGD,
    "SGD, momentum 0.9": lambda rate: nnkit.SGD(rate, momentum=0.9),
    "RMSprop": nnkit.RMSprop,
    "Adagrad": nnkit.Adagrad,
    "Adam": nnkit.Adam,
    "AdamW": nnkit.AdamW,
    "Lion": nnkit.Lion,
}
Part = tuple[Any, Any, Any, Any]


def classes(name: str, seed: int) -> Part:
    """A data set of classes, divided with this seed, with normalized features."""
    X, y = {"digits": nnkit.data.digits, "breast cancer": _bunch(load_breast_cancer), "wine": _bunch(load_wine)}[name]()
    return _normalized(*nnkit.data.split(X, y, seed=seed))


def numbers(name: str, seed: int) -> Part:
    """A data set of regression; with outliers, a twentieth of the training targets is off by ten deviations."""
    X, y = make_friedman1(1000, random_state=seed) if name.startswith("friedman") else load_diabetes(return_X_y=True)
    X, y, X_test, y_test = _normalized(*nnkit.data.split(X, y, seed=seed))
    y, y_test = (y - y.mean()) / y.std(), (y_test - y.mean()) / y.std()
    if name.endswith("outliers"):
        rng = np.random.default_rng(seed)
        y = y + np.where(rng.random(y.shape) < 0.05, rng.choice([-10.0, 10.0], y.shape), 0.0)
    return X, y, X_test, y_test


def _bunch(load: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: load(return_X_y=True)


def _normalized(X: Any, y: Any, X_test: Any, y_test: Any) -> Part:
    deviation = np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
    return (X - X.mean(axis=0)) / deviation, y, (X_test - X.mean(axis=0)) / deviation, y_test


def trained(
    data: Part, seed: int, optimizer: Any, *, cost: str | None = None, batch_size: int = 32, **options: Any
) -> Any:
    """A network with a hidden layer of 64 units; None if its training diverges."""
    X, y, _, _ = data
    outputs = 1 if y.dtype.kind == "f" else int(y.max()) + 1
    if outputs == 2 and cost is None:
        outputs = 1
    net = nnkit.Network([X.shape[1], 64, outputs], "relu", cost, seed=seed)
    try:
        net.fit(X, y, epochs=EPOCHS, batch_size=batch_size, optimizer=optimizer, progress=False)
    except nnkit.DivergenceError:
        return None
    return net


def accuracy(net: Any, data: Part) -> float:
    """The accuracy on the test part in percent; 0 for a network that diverged."""
    return 0.0 if net is None else 100 * float(np.mean(np.asarray(net.predict(data[2])) == data[3]))


def spread(found: list[float]) -> list[float]:
    """Mean and standard deviation."""
    return [statistics.fmean(found), statistics.stdev(found)]


def optimizers() -> list[dict[str, Any]]:
    """For each data set and optimizer, the accuracy at each learning rate."""
    rows = []
    for name in ("digits", "breast cancer", "wine"):
        parts = [classes(name, seed) for seed in SEEDS]
        for optimizer, make in OPTIMIZERS.items():
            found = {
                rate: spread([accuracy(trained(data, seed, make(rate)), data) for seed, data in enumerate(parts)])
                for rate in RATES
            }
            rows.append({"data": name, "optimizer": optimizer, "by_rate": {str(rate): f for rate, f in found.items()}})
    return rows


def costs() -> list[dict[str, Any]]:
    """Accuracy by cost for classes, and mean absolute and root mean square errors for numbers."""
    rows: list[dict[str, Any]] = []
    for name in ("digits", "breast cancer", "wine"):
        parts = [classes(name, seed) for seed in SEEDS]
        for cost in ("softmax_cross_entropy", "cross_entropy", "hinge", "quadratic"):
            found = (
                [accuracy(trained(data, seed, nnkit.Adam(0.003), cost=cost), data) for seed, data in enumerate(parts)]
                if cost != "quadratic"
                else [_quadratic(data, seed) for seed, data in enumerate(parts)]
            )
            rows.append({"data": name, "cost": cost, "accuracy": spread(found)})
    for name in ("friedman1", "friedman1 with outliers", "diabetes", "diabetes with outliers"):
        parts = [numbers(name, seed) for seed in SEEDS]
        for cost in ("quadratic", "huber", "log_cosh", "mean_absolute"):
            nets = [trained(data, seed, nnkit.Adam(0.003), cost=cost) for seed, data in enumerate(parts)]
            errors = [np.asarray(net.predict(data[2])) - data[3] for net, data in zip(nets, parts, strict=True)]
            absolute, square = [float(np.mean(abs(e))) for e in errors], [float(np.sqrt(np.mean(e**2))) for e in errors]
            rows.append({"data": name, "cost": cost, "mae": spread(absolute), "rmse": spread(square)})
    return rows


def _quadratic(data: Part, seed: int) -> float:
    """The accuracy of squares of sigmoids against one-hot targets, as before cross-entropy."""
    X, y, X_test, y_test = data
    one_hot = np.eye(int(y.max()) + 1)[y]
    net = nnkit.Network([X.shape[1], 64, one_hot.shape[1]], "relu", "quadratic", output_activation="sigmoid", seed=seed)
    net.fit(X, one_hot, epochs=EPOCHS, optimizer=nnkit.Adam(0.003), progress=False)
    return 100 * float(np.mean(np.asarray(net.predict(X_test)).argmax(axis=1) == y_test))


def batch_sizes() -> list[dict[str, Any]]:
    """Accuracy and time of an epoch by batch size, with the best of three learning rates of Adam."""
    rows = []
    parts = [classes("digits", seed) for seed in SEEDS]
    for size in (1, 4, 16, 32, 64, 128, 256, 1024):
        by_rate = {}
        for rate in (0.0003, 0.001, 0.003, 0.01, 0.03):
            nets = [trained(data, seed, nnkit.Adam(rate), batch_size=size) for seed, data in enumerate(parts)]
            by_rate[rate] = spread([accuracy(net, data) for net, data in zip(nets, parts, strict=True)])
        best = max(by_rate, key=lambda rate: by_rate[rate][0])
        X, y, *_ = parts[0]
        net = nnkit.Network([64, 64, 10], "relu", seed=0)
        net.fit(X, y, epochs=2, batch_size=size, optimizer="adam", progress=False)
        times = []
        for _ in range(9):
            begin = time.perf_counter()
            net.fit(X, y, epochs=20, batch_size=size, progress=False)
            times.append((time.perf_counter() - begin) / 20)
        rows.append({"batch_size": size, "rate": best, "accuracy": by_rate[best], "seconds": min(times)})
    return rows


if __name__ == "__main__":
    begin = time.perf_counter()
    found: dict[str, Any] = {"optimizers": optimizers(), "costs": costs(), "batch_sizes": batch_sizes()}
    found["machine"] = f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    found["nnkit"] = nnkit.__version__
    found["seconds"] = round(time.perf_counter() - begin)
    Path(__file__).with_name("evidence.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(found["seconds"], "s")
