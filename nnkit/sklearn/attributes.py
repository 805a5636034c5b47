"""The attributes of a fitted estimator: those of its network, and what a refused `fit` leaves."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import check_finite
from nnkit.network import Network
from nnkit.optimizers import Optimizer
from nnkit.tables import column_names, is_table
from nnkit.training.divergence import DivergenceError

# scikit-learn's names beside nnkit's.
ACTIVATIONS = {"logistic": "sigmoid", "exp": "exponential"}
NAMES = {nnkit: name for name, nnkit in ACTIVATIONS.items()}

Method = TypeVar("Method", bound=Callable[..., Any])


def unchanged_if_refused(fit: Method) -> Method:
    """Let a method of an estimator that trains leave the estimator as it was, if it refuses its arguments."""

    @wraps(fit)
    def checked(estimator: Any, *arguments: Any, **named: Any) -> Any:
        with _restored_if_refused(estimator):
            return fit(estimator, *arguments, **named)

    return cast(Method, checked)


@contextmanager
def _restored_if_refused(estimator: Any) -> Iterator[None]:
    """Restore all attributes after an error or Ctrl-C before the end of the first epoch, except for a divergence.

    After Ctrl-C in a first fit, the network stays, if there is one. Not all checks can come first: those of
    `Network.fit`, such as of numbers in the network's dtype, need the network.
    """
    before = dict(vars(estimator))
    network: Network | None = before.get("network_")
    used = None if network is None else (network.optimizer, network.state)
    estimator.n_iter_ = 0  # of this training
    try:
        yield
    except BaseException as error:
        undone = isinstance(error, Exception) or network is not None
        if undone and estimator.n_iter_ == 0 and not isinstance(error.__cause__, DivergenceError):
            vars(estimator).clear()
            vars(estimator).update(before)
            if network is not None and used is not None:  # partial_fit with another `alpha` has replaced them
                network.optimizer, network.state = used
        raise


def text_columns(table: Any) -> list[str] | None:
    """The column names of a table if all are text; else None, as scikit-learn takes such tables by position."""
    names = column_names(table) if is_table(table) else []
    return names if names and all(isinstance(name, str) for name in names) else None


class NetworkAttributes:
    """The attributes of an estimator that are those of its network, by scikit-learn's names."""

    network_: Network

    @property
    def coefs_(self) -> tuple[NDArray[Any], ...]:
        """The weights of each layer, (inputs, units), on the host: views for NumPy, copies for a GPU.

        A tuple, as an assignment to an element of a list would not change the network; that of all layers does.
        """
        return tuple(self._host(W).T for W in self.network_.parameters.W)

    @coefs_.setter
    def coefs_(self, values: Sequence[Any]) -> None:
        self._assign("coefs_", self.network_.parameters.W, [np.asarray(value).T for value in values])

    @property
    def intercepts_(self) -> tuple[NDArray[Any], ...]:
        """The biases of each layer, (units,), like `coefs_`."""
        return tuple(self._host(b) for b in self.network_.parameters.b)

    @intercepts_.setter
    def intercepts_(self, values: Sequence[Any]) -> None:
        self._assign("intercepts_", self.network_.parameters.b, [np.asarray(value) for value in values])

    def _assign(self, name: str, views: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
        """Set the arrays of each layer; ValueError for other shapes or numbers that are not finite."""
        network = self.network_
        if [value.shape for value in values] != [tuple(view.shape) for view in views]:
            shapes = [[a.T.shape for a in arrays] for arrays in (values, views)]
            raise ValueError(f"{name} has the shapes {shapes[0]}; expected {shapes[1]}")
        for i, value in enumerate(values):
            check_finite(value, f"{name}[{i}]")
        with network.turn:
            for value, view in zip(values, views, strict=True):
                network.backend.copy(network.backend.asarray(value, network.dtype), view)

    @property
    def out_activation_(self) -> str:
        """The activation of the output layer, by scikit-learn's name."""
        activation = str(self.network_.dense[-1].activation)
        return NAMES.get(activation, activation)

    @property
    def n_layers_(self) -> int:
        """The number of layers, with the input layer."""
        return len(self.network_.dense) + 1

    @property
    def n_outputs_(self) -> int:
        """The number of outputs."""
        return self.network_.d_out

    @property
    def _optimizer(self) -> Optimizer:
        """Private in scikit-learn, too, and often read for its `learning_rate`."""
        return self.network_.optimizer

    def _host(self, array: Any) -> NDArray[Any]:
        return self.network_.backend.to_numpy(array)
