"""What the two estimators share: parameters, their checks, the network, its attributes and its outputs."""

from collections.abc import Callable, Sequence
from copy import copy
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, is_classifier
from sklearn.callback import CallbackSupportMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._array_api import get_namespace, supported_float_dtypes
from sklearn.utils._param_validation import HasMethods, Hidden, Interval, Options, StrOptions
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from nnkit.backends import Backend, get_backend
from nnkit.backends.selection import owner_of
from nnkit.data.encoding import TableEncoding, is_mixed
from nnkit.inputs import on_host
from nnkit.kernels.costs import Cost, get_cost
from nnkit.layers import Dense, Dropout, Layer
from nnkit.metrics import r2
from nnkit.network import Network
from nnkit.optimizers import optimizer_names
from nnkit.sklearn.attributes import ACTIVATIONS, NetworkAttributes, text_columns
from nnkit.sklearn.presets import check_preset, preset_network, train_by_preset
from nnkit.sklearn.solvers import train_by_lbfgs, train_by_minibatches
from nnkit.tables import is_table

COSTS = {"squared_error": "quadratic"}
OWN_START = ("identity", "logistic", "sigmoid", "tanh", "relu")  # activations that scikit-learn's start is made for

_POSITIVE = Interval(Real, 0, None, closed="neither")
_FRACTION = Interval(Real, 0, 1, closed="left")
_WHOLE = Interval(Integral, 1, None, closed="left")


class DenseEstimator(CallbackSupportMixin, NetworkAttributes, BaseEstimator):
    """The base class of `DenseClassifier` and `DenseRegressor`."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", _WHOLE],
        "activation": [str, list, tuple],
        "solver": [StrOptions({"lbfgs", *optimizer_names()})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), _WHOLE],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [_POSITIVE],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [_WHOLE],
        "loss": [str, Cost],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [_FRACTION],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [_FRACTION],
        "beta_1": [_FRACTION],
        "beta_2": [_FRACTION],
        "epsilon": [_POSITIVE],
        "n_iter_no_change": [_WHOLE, Options(Real, {np.inf})],
        "max_fun": [_WHOLE],
        "dropout": [_FRACTION],
        "schedule": [str, callable, HasMethods("factor"), None],
        "dtype": [StrOptions({"auto", "float32", "float64"})],
        "backend": [str, Hidden(Backend), None],
        "preset": [StrOptions({"tabular"}), None],
    }

    def _set(self, parameters: dict[str, Any]) -> None:
        """Set the constructor's arguments as attributes, unchanged, as scikit-learn expects."""
        for name, value in parameters.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support, tags.input_tags.sparse = True, False
        return tags

    # --- training -----------------------------------------------------------------------------------------------

    def _targets(self, y: NDArray[Any], first: bool, incremental: bool) -> tuple[NDArray[Any], int, str]:
        """Checked labels 0 to k − 1 or targets, the number of outputs, and the default cost's name."""
        raise NotImplementedError

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, validation_data: Any = None, incremental: bool = False
    ) -> "DenseEstimator":
        self._validate_params()
        self._check_unused(validation_data, incremental)
        first = not hasattr(self, "network_") or not (self.warm_start or incremental)
        names = text_columns(X), text_columns(y)
        X, y = self._checked(X, y, reset=first)
        targets, outputs, cost = self._targets(np.asarray(on_host(y)), first, incremental)
        weight = self._weights(X, y, sample_weight)
        rng = check_random_state(self.random_state)
        if first:
            self._start(X, targets, outputs, cost, rng)
            self._name_columns(*names)
        else:
            self._check_continues(cost)
        self._note_numbers()
        validation = None if validation_data is None else self._checked_validation(*validation_data)
        after, end = self._callbacks(X, y) if not incremental else (lambda epoch: False, lambda: None)
        plain = DenseEstimator._weights(self, X, y, sample_weight)  # class weights are for the training alone
        if validation is None and self.preset is None and self.early_stopping and self.solver != "lbfgs":
            X, targets, weight, validation = self._split(X, targets, weight, plain, rng)
        self.network_.classes = None  # here, labels are numbers
        try:
            if self.preset is not None:
                train_by_preset(self, self.network_, X, targets, weight, plain, validation, after)
            elif self.solver == "lbfgs":
                train_by_lbfgs(self, self.network_, X, targets, weight)
            else:
                train_by_minibatches(self, self.network_, X, targets, weight, validation, after, incremental)
        finally:
            self.network_.classes = self._names()
        end()
        return self

    def _score(self, y: NDArray[Any], h: NDArray[Any], sample_weight: Any = None) -> float:
        """The score of targets and outputs of the network, (n, k): that of `score`."""
        return r2(y, h, sample_weight)

    def _names(self) -> NDArray[Any] | None:
        """The class names of the network, if it has any: it is saved and exported with them."""
        return None

    def _checked(self, X: Any, *y: Any, reset: bool = False) -> Any:
        """Samples, and y if it is given: checked arrays, or a table that the network encodes, as it is."""
        if reset:
            self._encodes = is_mixed(X)
        options = {"multi_output": True, "y_numeric": not is_classifier(self)} if y else {}
        if not (self._encodes and is_table(X)):
            return validate_data(self, X, *y, **options, dtype=_floats(X), reset=reset)
        _check_feature_names(self, X, reset=reset)
        _check_n_features(self, X, reset=reset)
        if not y:
            return X
        checked = _check_y(y[0], **options)
        check_consistent_length(X, checked)
        return X, checked

    def _check_unused(self, validation_data: Any, incremental: bool) -> None:
        """Raise ValueError for parameters that exclude each other, or `partial_fit`, which is `incremental`."""
        if incremental and (self.early_stopping or self.preset is not None):
            raise ValueError("partial_fit does not support early_stopping=True and presets")
        if incremental and getattr(self, "class_weight", None) == "balanced":  # of a minibatch it would be another one
            raise ValueError("partial_fit does not support class_weight='balanced'; give a dict, or sample_weight")
        if self.preset is not None:
            check_preset(self)
            return
        if self.schedule is not None and self.learning_rate != "constant":
            raise ValueError(f"schedule is given, and learning_rate is {self.learning_rate!r}; expected 'constant'")
        if self.solver == "lbfgs":
            for name, given in (("schedule", self.schedule), ("validation_data", validation_data)):
                if given is not None:
                    raise ValueError(f"{name} is given, which has no effect with solver='lbfgs'; leave it out")
            if self.dropout:
                raise ValueError(f"dropout is {self.dropout}, which solver='lbfgs' cannot use; expected 0")

    def _weights(self, X: Any, y: Any, sample_weight: Any) -> NDArray[np.float64] | None:
        """The sample weights on the host; a classifier multiplies them by its class weights."""
        if sample_weight is None:
            return None
        return np.asarray(on_host(_check_sample_weight(sample_weight, X, ensure_non_negative=True)), np.float64)

    def _start(self, X: Any, targets: NDArray[Any], outputs: int, cost: str, rng: np.random.RandomState) -> None:
        """Create the network, with scikit-learn's initial parameters for its activations, or that of the preset."""
        sizes, names = self._hidden()
        loss, seed = self._cost(cost), _seed(rng)
        as_scikit_learn = self.preset is None and set(names) <= set(OWN_START)
        if not as_scikit_learn:
            rng.uniform()  # else the next fit with this generator would have the same seed
        encoding = (
            TableEncoding.fit(X, "robust" if self.preset else "standard") if self.preset or self._encodes else None
        )
        about: dict[str, Any] = {"backend": self._backend_for(X), "preprocessing": encoding}
        self.n_iter_ = self.t_ = self._no_improvement_count = 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] = []
        self.validation_scores_: Any = None
        self.best_validation_score_: Any = None
        self.best_loss_: Any = None
        if encoding is not None and self.preset:
            self.network_ = preset_network(self, encoding, targets, outputs, cost, seed, about, ACTIVATIONS)
            return
        dtype = ("float32" if "float32" in _dtype(X) else "float64") if self.dtype == "auto" else self.dtype
        layers: list[Layer] = []
        width = X.shape[1] if encoding is None else encoding.outputs
        for size, name in zip(sizes, names, strict=True):
            layers.append(Dense(width, size, ACTIVATIONS.get(name, name)))
            layers += [Dropout(self.dropout)] if self.dropout else []
            width = size
        layers.append(Dense(width, outputs))
        self.network_ = Network(layers, cost=loss, seed=seed, dtype=dtype, **about)
        if as_scikit_learn:
            _start_as_scikit_learn(self.network_, _is_logistic(names or [self.activation]), rng)

    def _name_columns(self, features: list[str] | None, targets: list[str] | None) -> None:
        """Let the network, which is trained on arrays, match the columns of tables by name."""
        self.network_.features = features
        if targets is not None and len(targets) == self.network_.d_out > 1:
            self.network_.target_names = targets

    def _hidden(self) -> tuple[list[int], list[str]]:
        """The units and activations of the hidden layers."""
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes))
        if sizes.ndim != 1 or (sizes.dtype.kind not in "iu" and sizes.size) or (sizes <= 0).any():
            raise ValueError(f"hidden_layer_sizes must be > 0, got {list(np.atleast_1d(self.hidden_layer_sizes))}.")
        names = [self.activation] * sizes.size if isinstance(self.activation, str) else list(self.activation)
        if len(names) != sizes.size:
            raise ValueError(f"activation has {len(names)} names; expected one for each of {sizes.size} hidden layers")
        return sizes.tolist(), names

    def _check_continues(self, cost: str) -> None:
        """Raise ValueError for parameters of a network other than the one that the training continues."""
        (sizes, names), network = self._hidden(), self.network_
        drops = [layer.rate for layer in network.layers if isinstance(layer, Dropout)]
        pairs: dict[str, tuple[Any, Any]] = {
            "hidden_layer_sizes": (sizes, [layer.units for layer in network.dense[:-1]]),
            "activation": (
                [ACTIVATIONS.get(name, name) for name in names],
                [layer.activation for layer in network.dense[:-1]],
            ),
            "dropout": ([self.dropout] * len(sizes) if self.dropout else [], drops),
            "loss": (get_cost(self._cost(cost)).describe(), network.cost.describe()),
            "dtype": (network.dtype if self.dtype == "auto" else self.dtype, network.dtype),
            "backend": (network.backend if self.backend is None else get_backend(self.backend), network.backend),
        }
        for name, (wanted, found) in pairs.items():
            if wanted != found:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but the training continues {network!r}; "
                    "clone the estimator, or fit without warm_start, for another network"
                )

    def _note_numbers(self) -> None:
        """Create the attributes that decide when a training ends, unless an earlier one has."""
        if self.early_stopping and self.validation_scores_ is None:
            self.validation_scores_, self.best_validation_score_ = [], -np.inf
        if not self.early_stopping and self.best_loss_ is None:
            self.best_loss_ = np.inf
        if self.best_validation_score_ is not None and not (self.early_stopping and self.solver != "lbfgs"):
            self.best_validation_score_ = -np.inf  # this training leaves the network of that score

    def _cost(self, default: str) -> str | Cost:
        """The cost for `loss`, where scikit-learn's names mean the default."""
        loss: str | Cost = self.loss
        return default if loss == "log_loss" else COSTS.get(loss, loss) if isinstance(loss, str) else loss

    def _backend_for(self, X: Any) -> Backend:
        if self.backend is not None:
            return get_backend(self.backend)
        owner = owner_of(X) if get_config()["array_api_dispatch"] else None
        return get_backend() if owner is None else owner

    def _checked_validation(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        """Validation data given by the user, as the network expects it."""
        X, y = self._checked(X, y)
        targets, _, _ = self._targets(np.asarray(on_host(y)), False, True)
        return X, targets, *([] if sample_weight is None else [_check_sample_weight(sample_weight, X)])

    def _split(
        self,
        X: Any,
        y: NDArray[Any],
        weight: NDArray[np.float64] | None,
        plain: NDArray[np.float64] | None,
        rng: np.random.RandomState,
    ) -> tuple[Any, NDArray[Any], NDArray[np.float64] | None, tuple[Any, ...]]:
        """The training and the validation part, with `plain` weights, of the samples, as scikit-learn divides them."""
        arrays = [X, y, *(each for each in (weight, plain) if each is not None)]
        stratify = self.classes_[y] if is_classifier(self) and self.n_outputs_ == 1 and y.ndim == 1 else None
        parts = train_test_split(*arrays, random_state=rng, test_size=self.validation_fraction, stratify=stratify)
        if parts[1].shape[0] < 2:
            raise ValueError(
                "The validation set is too small: it has 1 sample; expected at least 2. Increase validation_fraction"
            )
        aside = parts[1:4:2] + ([] if plain is None else parts[-1:])
        return parts[0], parts[2], None if weight is None else parts[4], tuple(aside)

    def _callbacks(self, X: Any, y: Any) -> tuple[Callable[[int], bool], Callable[[], object]]:
        """What to call after each epoch, and at the end: scikit-learn's callbacks (`set_callbacks`), which can stop."""
        if not getattr(self, "_skl_callbacks", None):
            return (lambda epoch: False), (lambda: None)
        data = {"estimator": self, "X": X, "y": y}
        fitted = {"reconstruction_attributes": lambda: {"network_": copy(self.network_)}}
        context = self._init_callback_context(max_subtasks=0 if self.solver == "lbfgs" else self.max_iter)
        context.call_on_fit_task_begin(**data)

        def after(epoch: int) -> bool:
            part = context.subcontext(task_name="epoch")
            self.network_.classes = self._names()  # for what callbacks save
            try:
                part.call_on_fit_task_begin(**data)
                return bool(part.call_on_fit_task_end(**data, **fitted))
            finally:
                self.network_.classes = None

        return after, lambda: context.call_on_fit_task_end(**data, **fitted)

    # --- prediction ---------------------------------------------------------------------------------------------

    def _outputs(self, X: Any, method: str) -> Any:
        """The network's outputs for samples X, on its backend."""
        check_is_fitted(self)
        here = self.network_.backend
        if get_config()["array_api_dispatch"] and self.backend is None and owner_of(X) is not here:
            raise ValueError(
                f"Inputs passed to {type(self).__name__}.{method}() must use the same namespace and the same device as "
                f"those passed to fit(), {here.name}."
            )
        return self.network_.forward(self._checked(X))

    def _returned(self, array: Any) -> Any:
        """Outputs for the user: of the library of X, or NumPy arrays if a backend was chosen."""
        return array if self.backend is None and get_config()["array_api_dispatch"] else self._host(array)


def _is_logistic(activations: Sequence[str]) -> bool:
    return bool({"logistic", "sigmoid"} & {*activations})


def _start_as_scikit_learn(network: Network, logistic: bool, rng: np.random.RandomState) -> None:
    """Uniform weights and biases in ±√(6/(inputs + units)), or √(2/...) for logistic units (Glorot and Bengio 2010).

    The numbers are drawn in scikit-learn's order, so that one `random_state` starts both from the same parameters.
    """
    values = []
    for W in network.parameters.W:
        units, inputs = W.shape
        bound = np.sqrt((2.0 if logistic else 6.0) / (inputs + units))
        weights = rng.uniform(-bound, bound, (inputs, units))
        values.append((weights.T, rng.uniform(-bound, bound, units)))
    network.parameters.assign(values)


def _seed(rng: np.random.RandomState) -> int:
    """A seed for the network from a generator's state, which stays as it is: MLPClassifier draws no number there."""
    state: Any = rng.get_state(legacy=False)["state"]
    return int(np.random.SeedSequence([state["pos"], *state["key"][:8].tolist()]).generate_state(1)[0])


def _dtype(X: Any) -> str:
    """The dtype of samples as text; float64 for tables."""
    return "float64" if is_table(X) else str(X.dtype)


def _floats(X: Any) -> list[Any]:
    """The dtypes of samples that are kept, float64 first, in the words of X's library."""
    xp, is_array_api = get_namespace(X)
    return [d for d in supported_float_dtypes(xp) if "16" not in str(d)] if is_array_api else [np.float64, np.float32]
