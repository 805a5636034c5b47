"""`DenseClassifier` and `DenseRegressor`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d

from nnkit.backends import Backend
from nnkit.classes import names_in
from nnkit.data.columns import EXACT
from nnkit.inputs import on_host
from nnkit.kernels.costs import get_cost
from nnkit.sklearn.attributes import unchanged_if_refused
from nnkit.sklearn.dense import DenseEstimator


def _fits_partially(estimator: DenseEstimator) -> bool:
    return bool(estimator.solver != "lbfgs" and estimator.preset is None)


def _has_probabilities(estimator: DenseEstimator) -> bool:
    """Whether the outputs are probabilities: those of sigmoid and softmax, not margins or real numbers.

    The trained network decides; before, the `loss` that it will have.
    """
    fitted = hasattr(estimator, "network_")
    cost = estimator.network_.cost if fitted else get_cost(estimator._cost("cross_entropy"))
    return cost.output in ("sigmoid", "softmax")


def _balanced(y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample weights times class weights for equal totals of all classes, or of both values of each label (n, k)."""
    counts, result = weight > 0, weight.copy()  # a class whose weights are all 0 cannot have this total
    for column in y[counts].reshape(np.count_nonzero(counts), -1).T:
        classes, numbers = np.unique(column, return_inverse=True)
        of_class = compute_class_weight("balanced", classes=classes, y=column, sample_weight=weight[counts])
        result[counts] *= of_class[numbers]
    return result


class DenseClassifier(ClassifierMixin, DenseEstimator):
    """A dense network for two or more classes, or several labels per sample; a drop-in for MLPClassifier.

    Args:
        hidden_layer_sizes: the units of each hidden layer.
        activation: of the hidden layers: "relu", "tanh", "logistic", "identity" or any of `nnkit.activation_names()`;
            or one name per hidden layer.
        solver: "adam", "sgd" or another of `nnkit.optimizer_names()`; "lbfgs" uses all samples at once.
        alpha: λ ≥ 0; λ/(2n) Σ W² is added to the cost of n samples, as in scikit-learn; with weights, n is their sum.
            The samples are those of a minibatch for "adam" and "sgd", all for "lbfgs"; other solvers do not use it.
        batch_size: samples of a minibatch; "auto" means 200, or all if there are fewer.
        learning_rate: for "sgd": "constant", "invscaling" (`learning_rate_init` / (t_ + 1)^`power_t`), or "adaptive",
            a fifth whenever `n_iter_no_change` epochs do not improve by `tol`.
        learning_rate_init: ε, positive.
        power_t: the exponent of "invscaling".
        max_iter: the largest number of epochs, or of iterations of "lbfgs".
        shuffle: whether each epoch draws a new order.
        random_state: of the initial parameters, orders and the validation part. An int gives MLPClassifier's initial
            parameters and validation part.
        tol, n_iter_no_change: training ends if that many epochs do not improve the cost, or with `early_stopping` the
            validation score, by `tol`. For "lbfgs" `tol` bounds the gradient.
        verbose: whether to print a line per epoch.
        warm_start: whether `fit` continues from the last parameters.
        momentum, nesterovs_momentum: of "sgd".
        beta_1, beta_2, epsilon: of "adam".
        early_stopping: whether to hold back `validation_fraction` of the samples, end by their score, and keep the best
            parameters; with `validation_data` in `fit`, these decide.
        max_fun: the largest number of evaluations of "lbfgs".
        loss: "log_loss", the cross-entropy, or another of `nnkit.cost_names()`, or a cost.
        dropout: rate of dropout after each hidden layer.
        class_weight: a dict from classes to weights, or "balanced", for equal total weights of all classes, including
            the sample weights; a class whose sample weights are all 0 does not count.
        schedule: a learning rate schedule of `nnkit.schedules` or its name, instead of `learning_rate`.
        preset: None, or "tabular": a network and a training that are good untuned on tables (`nnkit.tabular`), and a
            validation part, from 50 samples on. Of the other parameters, those that differ from their defaults are
            kept, and ValueError is raised for those without effect, such as `solver`.
        dtype: "float32", "float64", or "auto" for that of X.
        backend: "numpy", "cupy" or another; None means that of X under scikit-learn's `array_api_dispatch`, else the
            selected one.

    Attributes:
        network_: the trained `nnkit.Network`.
        classes_: the labels.
        n_features_in_, feature_names_in_: of X.
        coefs_, intercepts_: the parameters of each layer.
        n_layers_, n_outputs_, out_activation_: of the network.
        loss_, best_loss_, loss_curve_: the cost with its penalty, of the last, the best and each epoch.
        validation_scores_, best_validation_score_: with `early_stopping`.
        validation_loss_curve_: with validation data.
        n_iter_: epochs of the last fit.
        t_: number of samples seen.

    A table (pandas, polars, pyarrow) with text, categories or missing values is encoded by `nnkit.data.TableEncoding`,
    which also normalizes its numbers; arrays with text and NaN are refused, as by scikit-learn.

    `predict_proba` is there for costs whose outputs are probabilities, such as the default, `decision_function` for
    others. `warm_start` and `partial_fit` raise ValueError for parameters of another network, such as another
    `activation`; the optimizer of `partial_fit` is that of its first call, with the current `alpha`.

    Differences from MLPClassifier: sample weights of a minibatch are divided by their mean over all samples; Adam's ε
    is added to √v̂, as in the paper; batch orders come from the network's seed; X must be dense; Ctrl-C raises
    KeyboardInterrupt, and a training that diverges ValueError.

    >>> from sklearn.datasets import load_wine
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_wine(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), DenseClassifier((30,), learning_rate_init=0.01, tol=1e-3))
    >>> model.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **DenseEstimator._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }
    _multilabel: bool

    def __init__(
        self, hidden_layer_sizes: Any = (100,), activation: str | Sequence[str] = "relu", *, solver: str = "adam",
        alpha: float = 0.0001, batch_size: int | str = "auto", learning_rate: str = "constant",
        learning_rate_init: float = 0.001, power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True,
        random_state: Any = None, tol: float = 1e-4, verbose: Any = False, warm_start: bool = False,
        momentum: float = 0.9, nesterovs_momentum: bool = True, early_stopping: bool = False,
        validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
        n_iter_no_change: float = 10, max_fun: int = 15000, loss: Any = "log_loss", dropout: float = 0.0,
        class_weight: Any = None, schedule: Any = None, dtype: str = "auto", backend: str | Backend | None = None,
        preset: str | None = None,
    ) -> None:  # fmt: skip
        self._set(locals())

    @unchanged_if_refused
    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None) -> "DenseClassifier":
        """Train on samples X (n, d) and labels y (n,), or truth values (n, k) of k labels; returns the estimator.

        `sample_weight` is (n,), at least 0. `validation_data`, (X, y) or (X, y, sample_weight), is evaluated after each
        epoch. Raises ValueError for invalid data and parameters, which leave the estimator as it was, and if the
        training diverges.
        """
        return self._fit(X, y, sample_weight, validation_data)

    @available_if(_fits_partially)
    @unchanged_if_refused
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> "DenseClassifier":
        """Train one epoch; `classes`, all labels of all calls, is needed in the first. Raises like `fit`."""
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if classes is not None:
            given = unique_labels(classes)
            if known is not None and not np.array_equal(known, given):
                raise ValueError(f"classes is {given.tolist()}; expected those of the first call, {known.tolist()}")
            self.classes_ = given
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """The label (n,) of each sample, or the truth values (n, k) of several labels."""
        found = self._decided(self._host(self._outputs(X, "predict")))
        found = found if self._multilabel else self.classes_[found]
        return found if found.dtype.kind not in "biuf" else self._returned(self.network_.backend.asarray(found))

    def _decided(self, h: NDArray[Any]) -> NDArray[np.int64]:
        """The numbers (n,) of the classes of outputs h (n, k), or the truth values (n, k) of several labels."""
        if not self._multilabel and h.shape[1] > 1:
            return np.asarray(h.argmax(axis=1), np.int64)
        above = (h > self.network_.cost.threshold).astype(np.int64)
        if self._multilabel:
            return above
        return above[:, 0] if len(self.classes_) > 1 else np.zeros(len(h), np.int64)

    def _score(self, y: NDArray[Any], h: NDArray[Any], sample_weight: Any = None) -> float:
        if self._multilabel:
            right = (self._decided(h) == (y > 0.5)).all(axis=1)
        else:
            right = self._decided(h) == (y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0] > 0.5)
        return float(np.average(right, weights=sample_weight))

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Any:
        """The probability (n, k) of each class, in the order of `classes_`; outputs of a sigmoid over their sum."""
        return self._probabilities(X, "predict_proba")

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> Any:
        """The logarithm of `predict_proba`."""
        p = self._probabilities(X, "predict_log_proba")
        return np.log(p) if isinstance(p, np.ndarray) else self.network_.backend.xp.log(p)

    @available_if(lambda estimator: not _has_probabilities(estimator))
    def decision_function(self, X: Any) -> Any:
        """The outputs, such as the margins of the hinge cost, (n, k), of which the largest decides.

        For two classes (n,) and several labels (n, k) they are less the threshold, so that those above 0 are predicted.
        """
        h, threshold = self._outputs(X, "decision_function"), self.network_.cost.threshold
        if self._multilabel:
            return self._returned(h - threshold)
        return self._returned(h[:, 0] - threshold if h.shape[1] == 1 else h)

    def _probabilities(self, X: Any, method: str) -> Any:
        p, xp = self._outputs(X, method), self.network_.backend.xp
        if p.shape[1] == 1 and not self._multilabel:
            p = xp.concat([1 - p, p], axis=1) if len(self.classes_) > 1 else xp.ones_like(p)
        elif not self._multilabel and self.network_.cost.output == "sigmoid":  # as by OneVsRestClassifier
            total = xp.sum(p, axis=1, keepdims=True)
            p = p / xp.where(total > 0, total, xp.ones_like(total))
        return self._returned(p)

    def _targets(self, y: NDArray[Any], first: bool, incremental: bool) -> tuple[NDArray[Any], int, str]:
        check_classification_targets(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        multilabel = y.ndim == 2 and type_of_target(y).startswith("multilabel")
        if not first and multilabel != self._multilabel:
            expected = "several labels (n, k)" if self._multilabel else "labels (n,)"
            raise ValueError(f"y has shape {y.shape}; expected {expected}, like those of the training")
        self._multilabel = multilabel
        known = {"multiclass"} if y.ndim == 1 else None  # which it would find again
        labels = np.arange(y.shape[1]) if self._multilabel else unique_labels(y, ys_types=known)
        if incremental or not first:
            self._check_labels(labels, incremental)
        else:
            self.classes_ = labels
        if self._multilabel:
            return y, y.shape[1], "cross_entropy"
        several = len(self.classes_) > 2
        numbers = np.searchsorted(self.classes_, y)
        return numbers, len(self.classes_) if several else 1, "softmax_cross_entropy" if several else "cross_entropy"

    def _names(self) -> NDArray[Any] | None:
        labels, d_out = self.classes_, self.network_.d_out
        if labels.dtype.kind == "f" and np.all((labels % 1 == 0) & (abs(labels) < EXACT)):
            labels = labels.astype(np.int64)  # floats are no names, and scikit-learn makes them of pandas' Int64
        return names_in(labels, d_out) if len(labels) == max(2, d_out) else None

    def _check_labels(self, labels: NDArray[Any], incremental: bool) -> None:
        """Raise ValueError for labels that the network was not trained for."""
        if not incremental and not np.array_equal(labels, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {labels}"
            )
        unknown = np.setdiff1d(labels, self.classes_)
        if unknown.size:
            raise ValueError(f"y has the labels {unknown.tolist()}; expected some of {self.classes_.tolist()}")

    def _weights(self, X: Any, y: Any, sample_weight: Any) -> NDArray[np.float64] | None:
        weight = super()._weights(X, y, sample_weight)
        if self.class_weight is None:
            return weight
        if self.class_weight == "balanced" and weight is not None:
            return _balanced(np.asarray(on_host(y)), weight)
        of_class: NDArray[np.float64] = compute_sample_weight(self.class_weight, y)
        return of_class if weight is None else weight * of_class

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class DenseRegressor(RegressorMixin, DenseEstimator):
    """A dense network for one or more real-valued targets; a drop-in for MLPRegressor.

    Args:
        loss: "squared_error", "poisson" (with exponential outputs), or another of `nnkit.cost_names()`, or a cost.
        others: those of `DenseClassifier`, without `class_weight`.

    Attributes and differences from scikit-learn are those of `DenseClassifier`; the score is R². With "poisson",
    `loss_` and `loss_curve_` lack the terms of y alone, y ln y − y.

    >>> from sklearn.datasets import make_friedman1
    >>> X, y = make_friedman1(200, random_state=0)
    >>> model = DenseRegressor(hidden_layer_sizes=(20,), solver="lbfgs", tol=1e-2, max_iter=500, random_state=0)
    >>> model.fit(X, y).score(X, y) > 0.95
    True
    """

    def __init__(
        self, loss: Any = "squared_error", hidden_layer_sizes: Any = (100,), activation: str | Sequence[str] = "relu",
        *, solver: str = "adam", alpha: float = 0.0001, batch_size: int | str = "auto", learning_rate: str = "constant",
        learning_rate_init: float = 0.001, power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True,
        random_state: Any = None, tol: float = 1e-4, verbose: Any = False, warm_start: bool = False,
        momentum: float = 0.9, nesterovs_momentum: bool = True, early_stopping: bool = False,
        validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
        n_iter_no_change: float = 10, max_fun: int = 15000, dropout: float = 0.0, schedule: Any = None,
        dtype: str = "auto", backend: str | Backend | None = None, preset: str | None = None,
    ) -> None:  # fmt: skip
        self._set(locals())

    @unchanged_if_refused
    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None) -> "DenseRegressor":
        """Train on samples X (n, d) and targets y, (n,) or (n, k); returns the estimator. As for `DenseClassifier`."""
        return self._fit(X, y, sample_weight, validation_data)

    @available_if(_fits_partially)
    @unchanged_if_refused
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "DenseRegressor":
        """Train one epoch. Raises like `fit`."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """The outputs, (n,) for a single one, else (n, k)."""
        h = self._returned(self._outputs(X, "predict"))
        return h[:, 0] if h.shape[1] == 1 else h

    def _targets(self, y: NDArray[Any], first: bool, incremental: bool) -> tuple[NDArray[Any], int, str]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return y, 1 if y.ndim == 1 else y.shape[1], "quadratic"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
