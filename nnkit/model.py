"""Model: layers with their parameters, a cost and an optimizer's state: what steps, training and files work on."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.initializers import Initializer, get_initializer
from nnkit.inputs import samples, targets
from nnkit.kernels.costs import Cost, get_cost
from nnkit.kernels.dense import dense_forward
from nnkit.kernels.output import output_pair
from nnkit.layers import Dense, build_layers
from nnkit.optimizers import SGD, Optimizer, OptimizerState
from nnkit.parameters import Parameters


class Model:
    """What a `Network` is, without what one does with it; see there for the arguments and attributes."""

    def __init__(
        self,
        layers: Sequence[int | Dense],
        activation: str = "sigmoid",
        cost: str | Cost = "cross_entropy",
        *,
        output_activation: str | None = None,
        init: str | Initializer | None = None,
        seed: int | None = None,
        dtype: str = "float32",
        backend: str | Backend | None = None,
    ) -> None:
        self.cost = get_cost(cost)
        self.layers = build_layers(layers, activation, output_activation, self.cost)
        self.output = output_pair(self.cost, self.layers[-1].activation)
        self.dtype = _checked_dtype(dtype)
        self.seed = int.from_bytes(os.urandom(4), "little") if seed is None else _checked_seed(seed)
        self.classifies = self.cost.classifies
        self.epochs_trained = 0
        self.optimizer: Optimizer = SGD()
        self.state: OptimizerState | None = None
        self.place(get_backend(backend))
        rng = np.random.default_rng([self.seed, 0])
        initializers = [get_initializer(d.init if d.init is not None else init, str(d.activation)) for d in self.layers]
        self.parameters.assign(make(rng, d.units, d.inputs) for make, d in zip(initializers, self.layers, strict=True))

    def __repr__(self) -> str:
        chain = " → ".join([str(self.layers[0].inputs), *(f"{d.units} {d.activation}" for d in self.layers)])
        return (
            f"{type(self).__name__}({chain}, {self.cost.name}, {self.parameters.count} parameters in {self.dtype} "
            f"on {self.backend.name}, seed {self.seed})"
        )

    def forward(self, x: Any) -> Array:
        """The outputs h of the last layer for samples x (n, d_in): (n, d_out) on this network's backend (eq. 2, 7, 9).

        Probabilities for sigmoid and softmax. Raises ValueError for another width, TypeError for another dtype.
        """
        return self.output.outputs(self.backend, self.logits(x))

    def samples(self, x: Any, name: str = "X") -> Array:
        """Samples (n, d_in) of any kind as this model's array, checked (`nnkit.inputs`)."""
        return samples(self.backend, self.dtype, self.layers[0].inputs, x, name)

    def targets(self, y: Any, n: int, name: str = "y") -> Array:
        """Labels (n,) or targets (n, d_out) of any kind as this model's targets, checked (`nnkit.inputs`)."""
        return targets(self.backend, self.dtype, self.layers[-1].units, y, n, name)

    def logits(self, x: Any) -> Array:
        """The last layer's h̄, before its activation, for samples x (n, d_in): (n, d_out)."""
        h = self.samples(x)
        for layer, W, b in zip(self.layers[:-1], self.parameters.W, self.parameters.b, strict=False):
            h = dense_forward(h, W, b, str(layer.activation))
        return dense_forward(h, self.parameters.W[-1], self.parameters.b[-1])

    def optimizer_state(self, optimizer: Optimizer | None = None) -> OptimizerState:
        """The state of the optimizer in use; another optimizer takes its place and starts afresh."""
        if not isinstance(optimizer, Optimizer | None):
            raise TypeError(f"optimizer is {optimizer!r}; expected one of nnkit's, such as nnkit.SGD(0.1)")
        if optimizer is not None and optimizer is not self.optimizer:
            self.optimizer, self.state = optimizer, None
        if self.state is None:
            self.state = self.optimizer.start(self.parameters)
        return self.state

    def place(self, backend: Backend) -> None:
        """Make room for parameters and gradients on a backend; recorded steps and the optimizer's state go."""
        shapes = [(d.units, d.inputs) for d in self.layers]
        self.backend = backend
        self.parameters = Parameters(backend, shapes, self.dtype)
        self.gradient = Parameters(backend, shapes, self.dtype)
        self.state = None
        self.recorded: dict[tuple[int, OptimizerState | None], Any] = {}  # steps, by batch size; see nnkit.step


def _checked_dtype(dtype: str) -> str:
    for name in ("float32", "float64"):
        if dtype in (name, np.dtype(name)):
            return name
    raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is {seed!r}; expected a whole number of at least 0")
    return int(seed)
