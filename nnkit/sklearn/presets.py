"""The estimators' preset for tables: settings of `nnkit.presets` where parameters have their defaults."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier

from nnkit.data.encoding import TableEncoding
from nnkit.data.preprocessing import Normalization
from nnkit.data.splitting import split_off
from nnkit.history import History
from nnkit.kernels.costs import get_cost
from nnkit.network import Network
from nnkit.presets import ACTIVATIONS, EPOCHS, HIDDEN, SMOOTHING, VALIDATION, tabular_layers, tabular_options
from nnkit.sklearn.solvers import scaled, score_of
from nnkit.training.divergence import DivergenceError

# Parameters that the preset keeps if they differ from their defaults.
_KEPT = (
    "hidden_layer_sizes", "activation", "batch_size", "learning_rate_init", "max_iter", "random_state", "verbose",
    "shuffle", "validation_fraction", "dropout", "class_weight", "dtype", "backend", "preset",
)  # fmt: skip
_FEW = 50  # samples of which none are set aside


def check_preset(estimator: Any) -> None:
    """Raise ValueError for a parameter that has no effect with a preset."""
    for name, value in _given(estimator).items():
        if name not in _KEPT:
            raise ValueError(f"{name} is {value!r}, which has no effect with preset={estimator.preset!r}; leave it out")


def preset_network(
    estimator: Any,
    encoding: TableEncoding,
    targets: NDArray[Any],
    outputs: int,
    cost: str,
    seed: int,
    about: dict[str, Any],
    called: Mapping[str, str],
) -> Network:
    """The network of the preset, for checked targets; `called` has nnkit's names of scikit-learn's activations."""
    given, classifies = _given(estimator), is_classifier(estimator)
    hidden = np.atleast_1d(given.get("hidden_layer_sizes", HIDDEN)).tolist()
    names = given.get("activation", ACTIVATIONS[classifies])
    names = [names] * len(hidden) if isinstance(names, str) else list(names)
    if len(names) != len(hidden):
        raise ValueError(f"activation has {len(names)} names; expected one for each of {len(hidden)} hidden layers")
    names = [called.get(name, name) for name in names]
    layers = tabular_layers(encoding.outputs, outputs, hidden, names, estimator.dropout)
    if classifies:
        about = about | {"cost": get_cost(cost, label_smoothing=SMOOTHING)}
    else:
        about = about | {"cost": cost, "target_scaling": Normalization.fit(targets.reshape(len(targets), -1))}
    dtype = "float32" if estimator.dtype == "auto" else estimator.dtype
    return Network(layers, seed=seed, dtype=dtype, **about)


def train_by_preset(
    estimator: Any,
    network: Network,
    X: Any,
    y: Any,
    weight: NDArray[np.float64] | None,
    plain: NDArray[np.float64] | None,
    validation: tuple[Any, ...] | None,
    after: Callable[[int], bool],
) -> None:
    """Train the preset's network, and set the estimator's attributes; raises like `train_by_minibatches`.

    `plain` are the weights without class weights, which are for the training alone.
    """
    given = _given(estimator)
    options = tabular_options(network.classifies, len(y), given.get("max_iter", EPOCHS))
    if "learning_rate_init" in given:
        options["optimizer"].learning_rate = given["learning_rate_init"]
    options["metrics"] = [score_of(estimator)]
    options["batch_size"] = given.get("batch_size", options["batch_size"])
    del options["validation_split"]
    share = given.get("validation_fraction", VALIDATION)
    if validation is None and (len(y) < _FEW or share == 0):
        del options["early_stopping"]
    elif validation is None:
        X, y, weight, validation = _set_aside(network, share, X, y, weight, plain)

    def note(network: Network, history: History) -> bool:
        _note_epoch(estimator, network, history, len(y))
        return after(history.epochs - 1)

    try:
        history = network.fit(
            X, y, sample_weight=weight, validation_data=validation, shuffle=estimator.shuffle, progress=False,
            callbacks=[note], **options,
        )  # fmt: skip
    except DivergenceError as error:
        raise ValueError(f"{type(estimator).__name__}: {error}") from error
    if history.interrupted:
        raise KeyboardInterrupt


def _note_epoch(estimator: Any, network: Network, history: History, samples: int) -> None:
    """Set the estimator's numbers after an epoch, so that an interrupted training has them, too."""
    estimator.n_iter_ = history.epochs
    estimator.t_ += samples
    estimator.loss_ = scaled(network, history["cost"][-1])
    estimator.loss_curve_.append(estimator.loss_)
    estimator.best_loss_ = min(estimator.best_loss_, estimator.loss_)
    if estimator.verbose:
        print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
    if "validation_cost" in history:
        estimator.validation_loss_curve_.append(scaled(network, history["validation_cost"][-1]))
        estimator.validation_scores_ = list(history["validation_score"])
        estimator.best_validation_score_ = max(estimator.validation_scores_)


def _set_aside(
    network: Network, share: float, X: Any, y: Any, weight: NDArray[Any] | None, plain: NDArray[Any] | None
) -> tuple[Any, Any, NDArray[Any] | None, tuple[Any, ...]]:
    """The training and the validation part, with `plain` weights, of the samples, as `Network.fit` divides them."""
    labels = y if network.classifies else np.zeros(len(y))
    (*training, _), (X, y, _, plain) = split_off(labels, share, network.seed, X=X, y=y, weight=weight, plain=plain)
    return *training, (X, y) if plain is None else (X, y, plain)


def _given(estimator: Any) -> dict[str, Any]:
    """The parameters that differ from their defaults."""
    defaults = inspect.signature(type(estimator).__init__).parameters
    values = estimator.get_params(deep=False)
    return {name: value for name, value in values.items() if not _equal(value, defaults[name].default)}


def _equal(value: Any, default: Any) -> bool:
    try:
        return bool(np.array_equal(value, default))
    except (TypeError, ValueError):
        return False
