"""nnkit: dense neural networks with hand-written gradients; the same kernels on NumPy and CuPy.

Every equation of the lecture "Introduction to Neural Networks in Python" is a function of `nnkit.kernels`; the public
names are here. Start with `Network`, or with `dense_forward` and `dense_backward`.
"""

import os
import signal
import sys

if (
    (sys.orig_argv[1:3] == ["-m", "nnkit"] or os.path.basename("".join(sys.argv[:1])) in ("nnkit", "nnkit.exe"))
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):  # in the command line, Ctrl-C during these imports exits without a traceback; see nnkit.cli
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import importlib
from typing import TYPE_CHECKING, Any

from nnkit import backends, initializers, kernels, optimizers
from nnkit.backends import (
    BackendError,
    BackendFallbackWarning,
    BackendMismatchError,
    BackendUnavailableError,
    FormulaError,
    OutOfMemoryError,
    get_backend,
    use_backend,
    using_backend,
)
from nnkit.backends.formula import formula
from nnkit.backends.precision import get_matmul_precision, set_matmul_precision
from nnkit.history import History
from nnkit.kernels.activations import activation_names, register_activation, unregister_activation
from nnkit.kernels.classification import (
    cross_entropy,
    cross_entropy_delta,
    hinge,
    hinge_delta,
    softmax_cross_entropy,
    softmax_cross_entropy_delta,
)
from nnkit.kernels.costs import cost_names, get_cost, register_cost, unregister_cost
from nnkit.kernels.dense import dense_backward, dense_forward
from nnkit.kernels.rectifiers import (
    elu,
    elu_grad,
    identity,
    identity_grad,
    leaky_relu,
    leaky_relu_grad,
    relu,
    relu_grad,
    selu,
    selu_grad,
)
from nnkit.kernels.regression import (
    gamma,
    gamma_delta,
    huber,
    huber_delta,
    log_cosh,
    log_cosh_delta,
    mean_absolute,
    mean_absolute_delta,
    poisson,
    poisson_delta,
    quadratic,
    quadratic_delta,
    quantile,
    quantile_delta,
    tweedie,
    tweedie_delta,
)
from nnkit.kernels.sigmoidal import (
    hard_sigmoid,
    hard_sigmoid_grad,
    sigmoid,
    sigmoid_grad,
    softsign,
    softsign_grad,
    tanh,
    tanh_grad,
)
from nnkit.kernels.smooth import (
    exponential,
    exponential_grad,
    gelu,
    gelu_grad,
    gelu_tanh,
    gelu_tanh_grad,
    mish,
    mish_grad,
    silu,
    silu_grad,
    softplus,
    softplus_grad,
)
from nnkit.kernels.softmax import softmax, softmax_grad
from nnkit.layers import Dense, Dropout, Layer, Scaling, register_layer, unregister_layer
from nnkit.network import Network, load
from nnkit.optimizers import SGD, Adagrad, Adam, AdamW, Lion, RMSprop, get_optimizer, optimizer_names
from nnkit.training.divergence import DivergenceError
from nnkit.training.stopping import EarlyStopping
from nnkit.version import __version__

if TYPE_CHECKING:
    from nnkit import callbacks, data, doctor, metrics, plots, schedules, verify
    from nnkit.ensembles.ensemble import Ensemble
    from nnkit.onnx_import import from_onnx
    from nnkit.presets import tabular
    from nnkit.verify.derivatives import derivative
    from nnkit.verify.gradient_check import check_gradients

__all__ = [
    "SGD", "Adagrad", "Adam", "AdamW", "BackendError", "BackendFallbackWarning", "BackendMismatchError",
    "BackendUnavailableError", "Dense", "DivergenceError", "Dropout", "EarlyStopping", "Ensemble", "FormulaError",
    "History", "Layer", "Lion", "Network", "OutOfMemoryError", "RMSprop", "Scaling", "__version__", "activation_names",
    "backends", "callbacks", "check_gradients", "cost_names", "cross_entropy", "cross_entropy_delta", "data",
    "dense_backward",
    "dense_forward", "derivative", "doctor", "elu", "elu_grad", "exponential", "exponential_grad", "formula",
    "from_onnx", "gamma", "gamma_delta", "gelu", "gelu_grad", "gelu_tanh", "gelu_tanh_grad", "get_backend",
    "get_cost", "get_matmul_precision", "get_optimizer", "hard_sigmoid", "hard_sigmoid_grad", "hinge",
    "hinge_delta", "huber", "huber_delta", "identity", "identity_grad", "initializers", "kernels", "leaky_relu",
    "leaky_relu_grad", "load", "log_cosh", "log_cosh_delta", "mean_absolute", "mean_absolute_delta", "metrics",
    "mish", "mish_grad", "optimizer_names", "optimizers", "plots", "poisson", "poisson_delta", "quadratic",
    "quadratic_delta", "quantile", "quantile_delta", "register_activation", "register_cost", "register_layer",
    "relu", "relu_grad", "schedules", "selu", "selu_grad", "set_matmul_precision", "sigmoid", "sigmoid_grad",
    "silu", "silu_grad", "softmax", "softmax_cross_entropy", "softmax_cross_entropy_delta", "softmax_grad",
    "softplus", "softplus_grad", "softsign", "softsign_grad", "tabular", "tanh", "tanh_grad", "tweedie",
    "tweedie_delta", "unregister_activation", "unregister_cost", "unregister_layer", "use_backend", "using_backend",
    "verify",
]  # fmt: skip

# Imported on first use: not every program reads files or plots.
_MODULES = ("callbacks", "data", "doctor", "metrics", "plots", "schedules", "verify")
_FUNCTIONS = {
    "check_gradients": "nnkit.verify.gradient_check", "derivative": "nnkit.verify.derivatives",
    "from_onnx": "nnkit.onnx_import", "tabular": "nnkit.presets", "Ensemble": "nnkit.ensembles.ensemble",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"nnkit.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'nnkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
