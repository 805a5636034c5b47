"""Settings that are good untuned: `tabular`, for tables."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnkit.backends import Backend
from nnkit.checks import check_finite, flag
from nnkit.classes import names_in
from nnkit.data.encoding import TableEncoding
from nnkit.data.preprocessing import Normalization
from nnkit.inputs import is_label_column, on_host
from nnkit.kernels.costs import get_cost
from nnkit.layers import Dense, Dropout, Layer, Scaling
from nnkit.network import Network
from nnkit.optimizers import Adam
from nnkit.tables import as_array
from nnkit.training.stopping import EarlyStopping

EPOCHS, BATCH_SIZE, VALIDATION, HIDDEN = 256, 256, 0.2, (256, 256, 256)
RATES = {True: 0.04, False: 0.07}  # of classification and regression
ACTIVATIONS = {True: "selu", False: "mish"}
SMOOTHING, SMOOTHED = 0.1, ("softmax_cross_entropy", "cross_entropy")


def tabular(
    X: Any,
    y: Any,
    *,
    regression: bool | None = None,
    hidden: Sequence[int] = HIDDEN,
    seed: int | None = None,
    dtype: str = "float32",
    backend: str | Backend | None = None,
) -> tuple[Network, dict[str, Any]]:
    """A network for a table, and the options of its `fit`, which are good without tuning.

    After RealMLP-TD-S (Holzmüller et al. 2024, arXiv 2407.04491): robustly scaled and bounded numbers, one-hot
    categories, flags of missing values (`nnkit.data.TableEncoding`); a learned scale of the features, three hidden
    layers of 256 units with SELU, for regression Mish, and standardized targets; Adam with β₂ = 0.95 and rates by layer
    as in the neural tangent parametrization, the schedule `coslog`, label smoothing, and the parameters of the best of
    256 epochs on a fifth of the samples.

    Args:
        X: a table (pandas, polars, pyarrow), or an array (n, d), with NaN for missing values.
        y: labels (n,) of any kind, or targets (n,) or (n, k).
        regression: whether y are real-valued targets; None means that they are if they are floating-point numbers.
        hidden: the sizes of the hidden layers.
        seed: as of `nnkit.Network`.
        dtype: as of `nnkit.Network`.
        backend: as of `nnkit.Network`.

    Returns:
        The network, whose preprocessing is fitted to X, and the options as a dict, which may be changed. Without
        `validation_split` and `early_stopping`, all samples are used, and the parameters are the last ones.

    Raises ValueError and TypeError like `TableEncoding.fit` and `nnkit.Network`, and ValueError for a single class.

    >>> X, y = nnkit.data.digits()
    >>> net, options = nnkit.tabular(X[:1000], y[:1000], hidden=[64], seed=0)
    >>> history = net.fit(X[:1000], y[:1000], **options | {"epochs": 20, "progress": False})
    >>> bool(net.evaluate(X[1000:], y[1000:])["accuracy"] > 0.8)
    True
    """
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise TypeError(f"tabular: hidden is {hidden!r}; expected the sizes of the hidden layers, such as [256, 256]")
    targets = as_array(y, "y")
    targets = targets[:, 0] if is_label_column(targets) else targets
    host = np.asarray(on_host(targets))
    number = next((value for value in host.flat if isinstance(value, float)), None) if host.dtype == object else None
    if number is not None:
        raise TypeError(
            f"y holds {number!r} in an array of objects; expected numbers, as by y.astype(float), or labels"
        )
    if regression is None:
        regression = host.dtype.kind == "f"
    regression = flag("tabular", "regression", regression)
    if regression and host.dtype.kind in "biuf":
        check_finite(host, "y")
    elif host.dtype.kind == "f" or regression:
        expected = "numbers" if regression else "integers or text as labels"
        raise TypeError(f"y has dtype {host.dtype}, and regression is {regression}; expected {expected}")
    encoding = TableEncoding.fit(X, "robust")
    samples = X.shape[0] if hasattr(X, "shape") else len(X)
    if len(host) != samples:
        raise ValueError(f"X has {samples} samples, and y has {len(host)}; expected as many")
    about: dict[str, Any] = {"seed": seed, "dtype": dtype, "backend": backend, "preprocessing": encoding}
    if regression:
        table = host.reshape(len(host), -1)
        about |= {"cost": "quadratic", "target_scaling": Normalization.fit(table)}
        outputs = table.shape[1]
    else:
        found = np.unique([*map(str, host.flat)] if host.dtype == object else host)
        if host.ndim != 1 or len(found) < 2:
            raise ValueError(f"y has shape {host.shape} and {len(found)} classes; expected labels (n,) of at least two")
        cost = get_cost("softmax_cross_entropy", label_smoothing=SMOOTHING)
        about |= {"cost": cost, "classes": names_in(host, len(found))}
        outputs = len(found)
    layers = tabular_layers(encoding.outputs, outputs, hidden, [ACTIVATIONS[not regression]] * len(hidden))
    return Network(layers, **about), tabular_options(not regression, len(host))


def tabular_layers(
    inputs: int, outputs: int, hidden: Sequence[int], activations: Sequence[str], dropout: float = 0.0
) -> list[Layer]:
    """The layers of the preset: a step changes the output of a layer as much whatever the number of its inputs."""
    layers: list[Layer] = [Scaling(inputs, rate=6.0)]
    for units, activation in zip(hidden, activations, strict=True):
        rates = {"rate": 1 / math.sqrt(inputs), "bias_rate": 0.1}
        layers.append(Dense(inputs, units, activation, "nielsen_new", **rates))
        layers += [Dropout(dropout)] if dropout else []
        inputs = units
    return [*layers, Dense(inputs, outputs, None, "zeros", rate=1 / math.sqrt(inputs), bias_rate=0.1)]


def tabular_options(classifies: bool, samples: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """The options of `fit` of the preset, for a number of samples."""
    return {
        "epochs": epochs,
        "batch_size": min(BATCH_SIZE, samples),
        "optimizer": Adam(RATES[classifies], beta2=0.95),
        "schedule": "coslog",
        "validation_split": VALIDATION,
        "metrics": [] if classifies else ["r2"],
        "early_stopping": EarlyStopping("validation_cost", patience=epochs),
    }
