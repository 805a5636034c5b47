"""How the estimators train: minibatches with scikit-learn's stopping rules, or L-BFGS on all samples."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from nnkit.backends.base import Array
from nnkit.backends.formula import formula
from nnkit.history import History
from nnkit.kernels.arithmetic import product
from nnkit.kernels.regularization import squared
from nnkit.metrics import MetricFunction
from nnkit.network import Network
from nnkit.optimizer_state import OptimizerState
from nnkit.optimizers import SGD, Adam, Optimizer, get_optimizer
from nnkit.parameters import Parameters
from nnkit.training.divergence import DivergenceError

SMALLEST_RATE = 1e-6  # "adaptive" ends below, as in scikit-learn
UNSTABLE = (
    "the parameters are no longer finite ({}). Solver produced non-finite parameter weights. The input data may "
    "contain large values and need to be preprocessed."
)


@formula
def compensated_sum(xp: Any, total: Any, lost: Any, x: Any) -> Any:
    """Total + x, and what rounding has added to it (Kahan, 1965): of 10⁶ float32 numbers a plain sum loses digits."""
    given = x - lost
    found = total + given
    return found, found - total - given


class _PenalizedState(OptimizerState):
    """Adds α W/(Σ w) to the gradients, with the sum over the weights of a minibatch, of whatever size it is.

    `total` is the sum of Σ W² before each update, from which the penalties of an epoch's minibatches follow.
    """

    def __init__(self, optimizer: Optimizer, parameters: Parameters) -> None:
        super().__init__(optimizer, parameters)
        self._squares = parameters.backend.zeros(parameters.weights.shape, parameters.dtype)
        self._square, self.total, self._lost = (self.number(0.0) for _ in range(3))

    def record(self, parameters: Parameters, gradients: Parameters) -> None:
        assert self.samples is not None
        backend = self.backend
        backend.elementwise(squared, (parameters.weights,), out=self._squares)
        backend.sum(self._squares, out=self._square)
        sums = (self.total, self._lost)
        backend.elementwise(compensated_sum, (*sums, self._square), out=sums)
        self.numbers["l2"] = self.number(self.optimizer.l2 / self.samples)
        super().record(parameters, gradients)


@dataclass(repr=False)
class PenalizedSGD(SGD):
    """`SGD` whose `l2` is divided by the number of samples of each minibatch, as by scikit-learn."""

    def start(self, parameters: Parameters) -> OptimizerState:
        return _PenalizedState(self, parameters)


@dataclass(repr=False)
class PenalizedAdam(Adam):
    """`Adam` whose `l2` is divided by the number of samples of each minibatch, as by scikit-learn."""

    def start(self, parameters: Parameters) -> OptimizerState:
        return _PenalizedState(self, parameters)


def optimizer_of(estimator: Any, mean_weight: float) -> Optimizer:
    """A new optimizer with the estimator's parameters."""
    rate, penalty = estimator.learning_rate_init, estimator.alpha / mean_weight
    if estimator.solver == "sgd":
        nesterov = bool(estimator.nesterovs_momentum and estimator.momentum)
        return (PenalizedSGD if penalty else SGD)(rate, estimator.momentum, nesterov, l2=penalty)
    if estimator.solver == "adam":
        kind = PenalizedAdam if penalty else Adam
        return kind(rate, estimator.beta_1, estimator.beta_2, estimator.epsilon, l2=penalty)
    return get_optimizer(estimator.solver, learning_rate=rate)


class Monitor:
    """The callback of a training by minibatches: scikit-learn's numbers, rates and stopping rule, after each epoch.

    Args:
        estimator: its attributes are updated.
        samples: the number of samples of an epoch.
        scores: whether the validation score decides, instead of the cost.
        after: called with the number of each epoch, from 0; returns whether to stop.
    """

    def __init__(self, estimator: Any, network: Network, samples: int, scores: bool, after: Callable[[int], bool]):
        self.best: NDArray[np.float64] | None = None  # parameters
        if scores and estimator.best_validation_score_ > -np.inf:
            self.best = network.parameters.vector  # a warm start begins with the parameters of that score
        self.converged = False
        self._estimator, self._samples, self._scores, self._after = estimator, samples, scores, after
        _taken_squares(network)  # of an epoch that did not end
        estimator.n_iter_ = 0

    def __call__(self, network: Network, history: History) -> bool:
        """Note an epoch; returns whether the training should end."""
        own = self._estimator
        own.n_iter_ += 1
        own.t_ += self._samples
        self._note_loss(network, history)
        if own.verbose:
            print(f"Iteration {own.n_iter_}, loss = {own.loss_:.8f}")
        improved = self._score_improved(network, history) if self._scores else self._loss_improved()
        own._no_improvement_count = 0 if improved else own._no_improvement_count + 1
        if own.solver == "sgd" and own.learning_rate == "invscaling":
            _set_rate(network, own.learning_rate_init / (own.t_ + 1) ** own.power_t)
        self.converged = own._no_improvement_count > own.n_iter_no_change and not self._slowed(network)
        return self._after(own.n_iter_ - 1) or self.converged

    def _note_loss(self, network: Network, history: History) -> None:
        """Append the mean of the minibatches' costs, each with the penalty before its update, as in scikit-learn."""
        own = self._estimator
        penalty = 0.5 * network.optimizer.l2 * _taken_squares(network) / self._samples
        own.loss_ = scaled(network, history["cost"][-1]) + penalty
        own.loss_curve_.append(own.loss_)
        if "validation_cost" in history:
            own.validation_loss_curve_.append(scaled(network, history["validation_cost"][-1]))

    def _loss_improved(self) -> bool:
        own = self._estimator
        improved: bool = own.loss_ <= own.best_loss_ - own.tol
        own.best_loss_ = min(own.best_loss_, own.loss_)
        return improved

    def _score_improved(self, network: Network, history: History) -> bool:
        own = self._estimator
        score = history["validation_score"][-1]
        own.validation_scores_.append(score)
        if own.verbose:
            print(f"Validation score: {score:f}")
        improved: bool = score >= own.best_validation_score_ + own.tol
        if score > own.best_validation_score_:
            own.best_validation_score_, self.best = score, network.parameters.vector
        return improved

    def _slowed(self, network: Network) -> bool:
        """Continue an "adaptive" training at a fifth of its rate."""
        own, rate = self._estimator, network.optimizer.learning_rate
        if own.solver != "sgd" or own.learning_rate != "adaptive" or rate <= SMALLEST_RATE:
            return False
        _set_rate(network, rate / 5)
        own._no_improvement_count = 0
        return True


def score_of(estimator: Any) -> MetricFunction:
    """The metric `score`, as the estimator's `score` of a network's outputs."""

    def score(y: NDArray[Any], h: NDArray[Any], sample_weight: Any = None) -> float:
        found: float = estimator._score(y, h, sample_weight)
        return found

    return score


def train_by_minibatches(
    estimator: Any,
    network: Network,
    X: Array,
    y: Any,
    weight: NDArray[np.float64] | None,
    validation: tuple[Any, ...] | None,
    after: Callable[[int], bool],
    incremental: bool,
) -> None:
    """Train a network, and update the estimator's attributes; `partial_fit` is `incremental`.

    Raises ValueError if the training diverges, and KeyboardInterrupt after Ctrl-C.
    """
    n = X.shape[0]
    monitor = Monitor(estimator, network, n, estimator.early_stopping and not incremental, after)
    continues = incremental and network.current_state is not None
    optimizer = optimizer_of(estimator, 1.0 if weight is None else float(weight.mean()))
    if continues:
        _take_penalty(network, optimizer.l2)
    try:
        history = network.fit(
            X,
            y,
            epochs=1 if incremental else estimator.max_iter,
            batch_size=_batch_size(estimator, n),
            optimizer=None if continues else optimizer,
            sample_weight=weight,
            shuffle=estimator.shuffle,
            schedule=estimator.schedule
            if incremental
            else deepcopy(estimator.schedule),  # which may remember something
            validation_data=validation,
            metrics=() if validation is None else [score_of(estimator)],
            progress=False,
            callbacks=[monitor],
        )
    except DivergenceError as error:
        raise ValueError(f"{type(estimator).__name__}: {UNSTABLE.format(error)}") from error
    finally:
        if monitor.best is not None:
            network.parameters.vector = monitor.best
    if history.interrupted:
        raise KeyboardInterrupt
    if not (incremental or monitor.converged) and estimator.n_iter_ == estimator.max_iter:
        _warn(f"the training has not converged after max_iter={estimator.max_iter} epochs")


def train_by_lbfgs(estimator: Any, network: Network, X: Array, y: Any, weight: NDArray[np.float64] | None) -> None:
    """Minimize the cost of all samples with SciPy's L-BFGS-B, and set the estimator's attributes."""
    strength = estimator.alpha / (X.shape[0] if weight is None else weight.sum())
    options = {"maxiter": estimator.max_iter, "maxfun": estimator.max_fun, "gtol": estimator.tol}

    def count(_: Any) -> None:
        estimator.n_iter_ += 1  # for Ctrl-C, after which the best parameters so far stay

    found = network.minimize(X, y, sample_weight=weight, l2=float(strength), options=options, callback=count)
    penalty = 0.5 * float(strength) * _squared_weights(network)
    estimator.n_iter_ = min(found.nit, estimator.max_iter)
    estimator.loss_ = scaled(network, float(found.fun) - penalty) + penalty
    estimator.best_loss_ = None if estimator.early_stopping else estimator.loss_
    if not np.isfinite(found.x).all():
        raise ValueError(f"{type(estimator).__name__}: {UNSTABLE.format(found.message)}")
    if found.status != 0:
        _warn(f"lbfgs has not converged after {estimator.n_iter_} iterations: {found.message}")


def _warn(what: str) -> None:
    hint = "increase max_iter, or scale the features (sklearn.preprocessing.StandardScaler)"
    warnings.warn(f"{what}; {hint}", ConvergenceWarning, stacklevel=5)


def _batch_size(estimator: Any, n: int) -> int:
    return min(200 if estimator.batch_size == "auto" else estimator.batch_size, n)


def scaled(network: Network, cost: float) -> float:
    """scikit-learn's squared error is the mean over the outputs, not their sum."""
    return cost / network.d_out if network.cost.name == "quadratic" else cost


def _squared_weights(network: Network) -> float:
    to_numpy = network.backend.to_numpy
    weights = (np.asarray(to_numpy(W), np.float64).reshape(-1) for W in network.parameters.W)
    return float(sum(W @ W for W in weights))


def _taken_squares(network: Network) -> float:
    """The sum of Σ W² before each update since the last call; 0 without a penalty."""
    state = network.current_state
    if not isinstance(state, _PenalizedState):
        return 0.0
    total = float(network.backend.to_numpy(state.total))
    for number in (state.total, state._lost):
        network.backend.copy(state.number(0.0), number)
    return total


def _take_penalty(network: Network, l2: float) -> None:
    """Continue with another penalty: a new optimizer with all other numbers and the state of the old one."""
    old, state = network.optimizer, network.current_state
    if state is None or old.l2 == l2 or not isinstance(old, SGD | Adam):
        return
    kind = PenalizedAdam if isinstance(old, Adam) else PenalizedSGD
    new = network.optimizer_state(kind(**vars(old) | {"l2": l2})).arrays
    for name, array in state.arrays.items():
        network.backend.copy(array, new[name])


def _set_rate(network: Network, rate: float) -> None:
    """Change the learning rate; scikit-learn's velocities contain it, so that those of nnkit change by the inverse."""
    optimizer, state = network.optimizer, network.current_state
    velocity = None if state is None else state.arrays.get("velocity")
    if velocity is not None:
        ratio = network.backend.asarray(optimizer.learning_rate / rate, network.dtype)
        network.backend.elementwise(product, (velocity, ratio), out=velocity)
    optimizer.learning_rate = rate
