"""The cost of a network on fixed samples as a function of one vector, and its minimization by SciPy."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.backends.base import Array
from nnkit.checks import in_range
from nnkit.inputs import check_finite
from nnkit.model import Model
from nnkit.parameters import in_one_vector
from nnkit.step import Step

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Vector = NDArray[np.float64]

_WITHOUT_GRADIENT = ("nelder-mead", "powell", "cobyla", "cobyqa")


class Objective:
    """The mean cost C on fixed samples, plus λ/2 Σ W², and its gradient (eq. 10, 12), as a function of a vector.

    Args:
        model: the network; a call sets its parameters, from the order of `parameters.vector`, and its gradient.
        x: inputs of the first layer (n, d_in).
        y: targets (n, d_out).
        factors: of each sample in the mean, (n, 1), or None for 1/n. All are arrays of the network's backend and dtype.
        l2: λ.

    Attributes:
        best: the vector that the network will have. lowest: the lowest cost so far.
        restricted: whether `best` is not the vector of the lowest cost, which constraints may exclude.
    """

    restricted = False

    def __init__(self, model: Model, x: Array, y: Array, factors: Array | None = None, l2: float = 0.0) -> None:
        self._model, self._l2 = model, l2
        shapes = [shape for layer in model.parameters.shapes for shape in layer.values()]
        self._are_weights = np.concatenate([np.full(math.prod(shape), len(shape) > 1) for shape in shapes])
        self._step = Step(model, x.shape[0], weight_columns=0 if factors is None else 1)
        self.lowest, self.best = math.inf, model.parameters.vector
        model.backend.copy(x, self._step.x)
        model.backend.copy(y, self._step.y)
        if factors is not None:
            model.backend.copy(factors, self._step.scale)

    def __call__(self, vector: ArrayLike) -> tuple[float, Vector]:
        """The mean cost at these parameters, and its gradient."""
        given = np.asarray(vector, np.float64)
        self._model.parameters.vector = given
        self._step.run()
        weights = np.where(self._are_weights, given, 0)
        cost = float(self._step.cost()) + 0.5 * self._l2 * float(weights @ weights)
        if cost < self.lowest:
            self.lowest, self.best = cost, self.best if self.restricted else given.copy()
        return cost, self._model.gradient.vector + self._l2 * weights

    def watched(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """SciPy's callback, for which the network has the parameters that it gets: others may have been tried since."""

        @functools.wraps(callback)
        def seen(*given: Any, **named: Any) -> Any:
            vector = np.array(given[0] if given else named["intermediate_result"].x, np.float64)
            self._model.parameters.vector = vector
            self.best = vector if self.restricted else self.best
            return callback(*given, **named)

        return seen


def minimize(
    network: Any,
    X: Any,
    y: Any,
    method: str | Callable[..., Any] = "L-BFGS-B",
    *,
    sample_weight: Any = None,
    l2: float = 0.0,
    **options: Any,
) -> "OptimizeResult":
    """Minimize the mean cost on all samples at once with `scipy.optimize.minimize`; returns its result.

    For small data and smooth costs, second-order methods such as L-BFGS need far fewer passes than gradient descent,
    and reach a lower cost. The parameters become those with the lowest cost found, also after Ctrl-C or an exception;
    with `constraints` or `bounds` they become the result, and after an exception the latest that a callback has seen.
    Dropout is inactive.

    Args:
        X, y, sample_weight: as for `fit`, in memory.
        method: of `scipy.optimize.minimize`, such as "L-BFGS-B", "BFGS", "CG" or "TNC".
        l2: λ ≥ 0, adds λ/2 Σ W² over the weights, as `l2` of an optimizer does.
        options: further arguments of `scipy.optimize.minimize`, such as `tol=1e-6`, `options={"maxiter": 500}` or
            `callback`, which finds its parameters in the network. Bounds and vectors are in the order of
            `parameters.vector`.

    Float64 networks (`dtype="float64"`) converge further. Raises ImportError without SciPy, ValueError and TypeError
    for invalid arguments, before anything changes, and RuntimeError if another thread trains.

    >>> X = np.linspace(-1, 1, 21)[:, None]
    >>> net = nnkit.Network([1, 8, 1], "tanh", "quadratic", seed=0, dtype="float64")
    >>> result = net.minimize(X, np.sin(3 * X))
    >>> bool(result.fun < 1e-4), bool(np.isclose(result.fun, net.evaluate(X, np.sin(3 * X))["cost"]))
    (True, True)
    """
    try:
        from scipy.optimize import minimize as scipy_minimize
    except ImportError as error:
        raise ImportError("minimize needs SciPy: python -m pip install scipy", name="scipy") from error
    penalty = in_range("minimize", "l2", l2)
    if not isinstance(method, str) and not callable(method):
        raise TypeError(f"minimize: method is {method!r}; expected a method of scipy.optimize.minimize")
    if network.parameters.rates is not None:
        raise ValueError("minimize: layers have rates other than 1, which only steps of an optimizer apply")
    x, targets, factors = network._checked(X, network.answers(y), sample_weight, check=True)
    check_finite(network.backend, x, "X")
    jac = {} if isinstance(method, str) and method.lower() in _WITHOUT_GRADIENT else {"jac": True}
    with network.turn:
        objective = Objective(network, x, targets, factors, penalty)
        function = objective if jac else lambda vector: objective(vector)[0]
        objective.restricted = options.get("bounds") is not None or options.get("constraints") not in (None, (), [])
        if options.get("callback") is not None:
            options["callback"] = objective.watched(options["callback"])
        before = network.features, network.target_names, network.vector_targets
        try:
            network.learn(X, y)
            result = scipy_minimize(function, objective.best, method=method, **jac, **options)
            if objective.restricted:
                objective.best = np.asarray(result.x, np.float64)
        except BaseException:
            if math.isinf(objective.lowest):  # no cost has been computed
                network.features, network.target_names, network.vector_targets = before
            raise
        finally:
            network.parameters.vector = objective.best
            network.average_anew()
    return result


def value_and_gradient(network: Any, X: Any, y: Any, *, sample_weight: Any = None) -> tuple[float, Vector]:
    """The mean cost, and its gradient in one float64 vector on the host, in the order of `parameters.vector`.

    For minimizers and samplers of other libraries: assign `parameters.vector`, then call this. The arguments and errors
    are those of `gradients`, which returns the same numbers for each layer, on the network's backend.

    >>> net = nnkit.Network([2, 3, 1], seed=0)
    >>> cost, gradient = net.value_and_gradient([[0.0, 1.0]], [1])
    >>> net.parameters.vector -= 0.5 * gradient
    >>> net.value_and_gradient([[0.0, 1.0]], [1])[0] < cost
    True
    """
    cost, gradients = network.gradients(X, y, sample_weight=sample_weight)
    return float(cost), in_one_vector(network.backend, gradients)
