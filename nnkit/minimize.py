"""The cost of a network on fixed data as a function of one vector, for the minimizers of SciPy and others."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.model import Model
from nnkit.parameters import Parameters
from nnkit.step import Step


def to_vector(parameters: Parameters) -> NDArray[np.float64]:
    """All parameters, or their gradients, in one float64 vector on the host: for each layer W by rows, then b."""
    arrays = (parameters.backend.to_numpy(a) for layer in parameters.layers for a in layer.values())
    return np.concatenate([np.asarray(array, np.float64).reshape(-1) for array in arrays])


def from_vector(parameters: Parameters, vector: NDArray[np.float64]) -> None:
    """Set the parameters to those of a vector, in the order of `to_vector`."""
    start = 0
    for layer in parameters.layers:
        for view in layer.values():
            stop = start + math.prod(view.shape)
            values = np.reshape(vector[start:stop], view.shape)
            parameters.backend.copy(parameters.backend.asarray(values, parameters.dtype), view)
            start = stop


class Objective:
    """The mean cost C on fixed samples, and its gradient (eq. 10, 12), as a function of the parameters in a vector.

    Args:
        model: the network; a call sets its parameters and gradient.
        x: inputs of the first layer (n, d_in). y: targets (n, d_out). weights: the factor (n, 1) of each sample in the
            mean, or None for 1/n. All are arrays of the network's backend and dtype.
    """

    def __init__(self, model: Model, x: Any, y: Any, weights: Any = None) -> None:
        self._model = model
        self._step = Step(model, x.shape[0], weight_columns=0 if weights is None else 1)
        model.backend.copy(x, self._step.x)
        model.backend.copy(y, self._step.y)
        if weights is not None:
            model.backend.copy(weights, self._step.scale)

    def __call__(self, vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The mean cost at these parameters, and its gradient in the order of `to_vector`."""
        from_vector(self._model.parameters, vector)
        self._step.run()
        return float(self._step.cost()), to_vector(self._model.gradient)
