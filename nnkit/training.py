"""fit: epochs of minibatches, validation, and a History."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nnkit.backends.base import Array
from nnkit.history import History
from nnkit.inputs import check_finite, check_probabilities
from nnkit.meter import Meter
from nnkit.model import Model
from nnkit.optimizers import Optimizer
from nnkit.step import step_for

_EVALUATION_BATCH = 4096  # samples at a time: enough for full speed, little memory


def fit(
    model: Model,
    X: Any,
    y: Any,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    optimizer: Optimizer | None = None,
    validation_data: tuple[Any, Any] | None = None,
    shuffle: bool = True,
    progress: bool = True,
    callbacks: Iterable[Callable[[Any, History], object]] = (),
) -> History:
    """Train a network by minibatches (eq. 17 for SGD); the epochs' costs and accuracies come back.

    Args:
        model: the network, changed in place.
        X: samples (n, d_in); y: integer labels (n,) or targets (n, d_out). Anything that `asarray` or DLPack takes.
        epochs: how often all samples are seen. batch_size: samples a step; the last batch of an epoch is what is left,
            and its gradient is the mean over its own samples.
        optimizer: None goes on with the network's own and its state; another one starts afresh and stays.
        validation_data: (X, y) to evaluate after each epoch.
        shuffle: a new order each epoch, drawn on the host from the network's seed and its count of epochs, so that a
            seed gives the same batches on every backend and in a continued training.
        progress: a bar on a terminal (never in a file or a pipe).
        callbacks: functions called with the network and the history after each epoch.

    Ctrl-C ends the training: the network keeps its parameters, and the history says `interrupted`. Raises ValueError
    and TypeError for data that do not fit, before anything changes.

    >>> X, y = nnkit.data.digits()
    >>> net = nnkit.Network([64, 30, 10], seed=1)
    >>> history = net.fit(X, y, epochs=3, optimizer=nnkit.SGD(1.0), progress=False)
    >>> history["cost"][-1] < history["cost"][0], history.epochs
    (True, 3)
    """
    _check_count("epochs", epochs)
    _check_count("batch_size", batch_size)
    X, y = _checked(model, X, y, "")
    validation = None if validation_data is None else _checked(model, *_pair(validation_data), "validation ")
    model.optimizer_state(optimizer)
    callbacks, history = list(callbacks), History()
    batch_size = min(batch_size, X.shape[0])
    meter = Meter(model, y, batch_size)
    with _bar(epochs, progress) as bar:
        try:
            for _ in range(epochs):
                started = time.perf_counter()
                measured = _epoch(model, X, y, batch_size, shuffle, meter)
                if validation is not None:
                    measured |= {f"validation_{k}": v for k, v in evaluate(model, *validation).items()}
                seconds = time.perf_counter() - started
                model.epochs_trained += 1
                history.add(**measured, learning_rate=model.optimizer.learning_rate, seconds=seconds)
                bar.set_postfix({name: f"{value:.4f}" for name, value in measured.items()}, refresh=False)
                bar.update()
                for callback in callbacks:
                    callback(model, history)
        except KeyboardInterrupt:
            history.interrupted = True
    return history


def evaluate(model: Model, X: Array, y: Array) -> dict[str, float]:
    """The mean cost over samples and targets of the network's backend, and the accuracy if it classifies."""
    n = X.shape[0]
    batch = min(n, _EVALUATION_BATCH)
    meter = Meter(model, y, batch)
    meter.start(model.backend.asarray(np.arange(n)))
    for start in range(0, n, batch):
        meter.add(model.logits(X[start : min(start + batch, n), ...]))
    return meter.read()


def _epoch(model: Model, X: Array, y: Array, batch_size: int, shuffle: bool, meter: Meter) -> dict[str, float]:
    """One pass over the samples, in an order that is drawn on the host."""
    backend, n = model.backend, X.shape[0]
    order = np.arange(n)
    if shuffle:
        np.random.default_rng([model.seed, 1, model.epochs_trained]).shuffle(order)
    on_device = backend.asarray(order)
    meter.start(on_device)
    state = model.optimizer_state()
    for start in range(0, n, batch_size):
        indices = on_device[start : min(start + batch_size, n)]
        step = step_for(model, indices.shape[0], state)
        backend.take(X, indices, out=step.x)
        backend.take(y, indices, out=step.y)
        step.run()
        meter.add(step.logits)
    return meter.read()


def _checked(model: Model, X: Any, y: Any, which: str) -> tuple[Array, Array]:
    X = model.samples(X, f"{which}X")
    y = model.targets(y, X.shape[0], f"{which}y")
    check_finite(model.backend, X, f"{which}X")
    check_finite(model.backend, y, f"{which}y")
    if model.cost.classifies:
        check_probabilities(model.backend, y, model.cost.name == "softmax_cross_entropy", f"{which}y")
    return X, y


def _pair(validation_data: Any) -> tuple[Any, Any]:
    if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
        raise TypeError("validation_data: expected a pair (X, y)")
    return validation_data[0], validation_data[1]


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")


def _bar(epochs: int, progress: bool) -> Any:
    from tqdm import tqdm

    # disable=None leaves the bar out where standard error is no terminal.
    return tqdm(total=epochs, desc="training", unit="epoch", disable=None if progress else True)
