"""Network: dense layers with their parameters, a cost, and what one does with them."""

import os
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from nnkit import training
from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.initializers import Initializer, get_initializer
from nnkit.inputs import predicted_labels, samples, targets
from nnkit.kernels.costs import Cost, get_cost
from nnkit.kernels.dense import dense_forward
from nnkit.kernels.output import output_pair
from nnkit.layers import Dense, build_layers
from nnkit.optimizers import SGD, Optimizer, OptimizerState
from nnkit.parameters import Parameters
from nnkit.step import Step

_STEPS_KEPT = 4  # batch sizes whose recorded steps are kept: usually the batch, the last batch, and single samples


class Network:
    """A network of dense layers.

    Args:
        layers: sizes such as `[784, 100, 10]`, or `Dense` layers whose widths meet.
        activation: of the hidden layers, where sizes are given.
        cost: "cross_entropy" (eq. 18), "softmax_cross_entropy" or "quadratic" (eq. 3).
        output_activation: of the last layer; None is the one that the cost is paired with (eq. 19): sigmoid, softmax,
            identity.
        init: a name or function of `nnkit.initializers`; None takes what suits each activation.
        seed: of the initial parameters and the batch orders; None draws one, kept in `seed`.
        dtype: "float32" or "float64". backend: a name; None is the selected one.

    Attributes:
        layers, cost, seed, dtype, backend: as given, filled in.
        parameters, gradient: flat vectors with views `W` and `b` for each layer.
        optimizer: what `train_step` and `fit` use where they are given none.
        epochs_trained: how many epochs `fit` has finished.

    Raises ValueError for wrong sizes, names and numbers, and BackendUnavailableError.

    >>> net = nnkit.Network([2, 3, 1], seed=0)
    >>> net
    Network(2 → 3 sigmoid → 1 sigmoid, cross_entropy, 13 parameters in float32 on numpy, seed 0)
    >>> net.forward([[0.0, 1.0]]).shape
    (1, 1)
    """

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
        self._state: OptimizerState | None = None
        self._place(get_backend(backend))
        rng = np.random.default_rng([self.seed, 0])
        initializers = [get_initializer(d.init if d.init is not None else init, str(d.activation)) for d in self.layers]
        self.parameters.assign(make(rng, d.units, d.inputs) for make, d in zip(initializers, self.layers, strict=True))

    def __repr__(self) -> str:
        chain = " → ".join([str(self.layers[0].inputs), *(f"{d.units} {d.activation}" for d in self.layers)])
        return (
            f"Network({chain}, {self.cost.name}, {self.parameters.count} parameters in {self.dtype} "
            f"on {self.backend.name}, seed {self.seed})"
        )

    # --- using it -----------------------------------------------------------------------------------------------

    def forward(self, x: Any) -> Array:
        """The outputs h of the last layer for samples x (n, d_in): (n, d_out) on this network's backend (eq. 2, 7, 9).

        Probabilities for sigmoid and softmax. Raises ValueError for another width, TypeError for another dtype.
        """
        return self.output.outputs(self.backend, self.logits(x))

    def logits(self, x: Any) -> Array:
        """The last layer's h̄, before its activation, for samples x (n, d_in): (n, d_out)."""
        h = samples(self, x)
        for layer, W, b in zip(self.layers[:-1], self.parameters.W, self.parameters.b, strict=False):
            h = dense_forward(h, W, b, str(layer.activation))
        return dense_forward(h, self.parameters.W[-1], self.parameters.b[-1])

    predict_proba = forward

    def predict(self, x: Any) -> Array:
        """The class (n,) of each sample, the largest output, as integers; for a network that does not classify, h.

        A single output that classifies gives 1 above ½ and 0 below.
        """
        if not self.classifies:
            return self.forward(x)
        return predicted_labels(self, self.logits(x))

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        """The mean cost over samples x (n, d_in) with labels or targets y, and the accuracy if it classifies.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> sorted(net.evaluate([[0.0, 1.0], [1.0, 0.0]], [0, 1]))
        ['accuracy', 'cost']
        """
        return training.evaluate(self, *self._checked(x, y))

    # --- training it --------------------------------------------------------------------------------------------

    fit = training.fit

    def train_step(self, x: Any, y: Any, optimizer: Optimizer | None = None) -> Array:
        """One step on a minibatch: forward, backward, update. Returns the mean cost before it, a 0-d array.

        For a loop of one's own. The step is recorded for each new number of samples and replayed afterwards; on a GPU
        nothing waits until the cost is read, with `float(cost)`.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> before = net.train_step([[0.0, 1.0]], [0], optimizer=nnkit.SGD(1.0))
        >>> after = net.train_step([[0.0, 1.0]], [0])
        >>> bool(after < before)
        True
        """
        x, y = self._checked(x, y)
        step = self.step(x.shape[0], self.optimizer_state(optimizer))
        self.backend.copy(x, step.x)
        self.backend.copy(y, step.y)
        step.run()
        return step.cost()

    def gradients(self, x: Any, y: Any) -> tuple[Array, list[tuple[Array, Array]]]:
        """The mean cost, 0-d, and [(δW, δb), ...] of each layer, the mean over the samples (eq. 10, 12); new arrays."""
        x, y = self._checked(x, y)
        step = self.step(x.shape[0], None)
        self.backend.copy(x, step.x)
        self.backend.copy(y, step.y)
        step.run()
        found = [
            tuple(self.backend.copy(a, self.backend.empty(a.shape, self.dtype)) for a in pair)
            for pair in zip(self.gradient.W, self.gradient.b, strict=True)
        ]
        return step.cost(), found

    def step(self, batch_size: int, state: OptimizerState | None) -> Step:
        """The recorded step for a batch size; without an optimizer's state it stops at the gradients."""
        key = (batch_size, state)
        step = self._steps.pop(key, None) or Step(self, batch_size, state)
        self._steps[key] = step  # the latest is last; the oldest goes
        while len(self._steps) > _STEPS_KEPT:
            del self._steps[next(iter(self._steps))]
        return step

    # --- keeping it ---------------------------------------------------------------------------------------------

    def to(self, backend: str | Backend) -> "Network":
        """Move parameters and the optimizer's state to a backend; returns this network."""
        target = get_backend(backend)
        if target is not self.backend:
            old, state = self.parameters, self._state
            self._place(target)
            self.parameters.assign(
                (old.backend.to_numpy(W), old.backend.to_numpy(b)) for W, b in zip(old.W, old.b, strict=True)
            )
            if state is not None:
                self._state = state.optimizer.start(self.parameters)
                for name, array in self._state.arrays.items():
                    target.copy(target.asarray(state.backend.to_numpy(state.arrays[name])), array)
        return self

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network to a `.safetensors` file; see `nnkit.checkpoint`."""
        from nnkit import checkpoint  # needed by those who save only

        checkpoint.save(self, path)

    def optimizer_state(self, optimizer: Optimizer | None = None) -> OptimizerState:
        """The state of the optimizer in use; another optimizer takes its place and starts afresh."""
        if not isinstance(optimizer, Optimizer | None):
            raise TypeError(f"optimizer is {optimizer!r}; expected one of nnkit's, such as nnkit.SGD(0.1)")
        if optimizer is not None and optimizer is not self.optimizer:
            self.optimizer, self._state = optimizer, None
        if self._state is None:
            self._state = self.optimizer.start(self.parameters)
        return self._state

    def _place(self, backend: Backend) -> None:
        shapes = [(d.units, d.inputs) for d in self.layers]
        self.backend = backend
        self.parameters = Parameters(backend, shapes, self.dtype)
        self.gradient = Parameters(backend, shapes, self.dtype)
        self._state = None
        self._steps: dict[tuple[int, OptimizerState | None], Step] = {}

    def _checked(self, x: Any, y: Any) -> tuple[Array, Array]:
        x = samples(self, x)
        return x, targets(self, y, x.shape[0])


def _checked_dtype(dtype: str) -> str:
    for name in ("float32", "float64"):
        if dtype in (name, np.dtype(name)):
            return name
    raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is {seed!r}; expected a whole number of at least 0")
    return int(seed)
