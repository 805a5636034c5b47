"""Model: layers with their parameters, a cost and an optimizer's state: what steps, training and files work on."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.backends.precision import get_matmul_precision
from nnkit.backends.tape import active_tape
from nnkit.classes import checked_classes, class_indices
from nnkit.dropout import DropoutState
from nnkit.forward import ForwardPass
from nnkit.initializers import Initializer
from nnkit.inputs import (
    are_labels,
    check_samples,
    check_targets,
    checked_samples,
    is_label_column,
    on_disk,
    surely_finite,
    targets,
)  # fmt: skip
from nnkit.kernels.costs import Cost
from nnkit.kernels.dense import dense_forward
from nnkit.kernels.output import output_pair
from nnkit.layers import Dropout, Layer, build_layers, dense_layers, initializers_of
from nnkit.memory import LOWER_SAMPLES, LOWER_SIZES, explains_memory, raise_if_full
from nnkit.model_arguments import checked_dtype, checked_features
from nnkit.optimizers import SGD, Optimizer, OptimizerState, chosen_optimizer
from nnkit.parameters import Parameters
from nnkit.preprocessing import Preprocessing, checked_preprocessing, preprocessed
from nnkit.ranges import whole
from nnkit.tables import as_array, is_table, table_numbers, text_names, unmasked

FEW = 256  # samples whose forward pass takes less time than the decisions about it
ROWS = 4096  # samples that pass through a network together, where not all are there: full speed, little memory


class Model:
    """What a `Network` is, without what one does with it; see there for the arguments and attributes."""

    _asked: int  # how many samples a question was last about
    _forward: ForwardPass | None

    def __init__(
        self,
        layers: Sequence[int | Layer],
        activation: str | None = None,
        cost: str | Cost | None = None,
        *,
        output_activation: str | None = None,
        init: str | Initializer | None = None,
        seed: int | None = None,
        dtype: str = "float32",
        backend: str | Backend | None = None,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[Any] | np.ndarray | None = None,
        features: Sequence[str] | None = None,
    ) -> None:
        self.layers, self.cost = build_layers(layers, activation, output_activation, cost)
        self.dense = dense_layers(self.layers)
        self.output = output_pair(self.cost, self.dense[-1].activation)
        self.dtype = checked_dtype(dtype)
        self.seed = int.from_bytes(os.urandom(4), "little") if seed is None else whole("", "seed", seed, 0)
        self.classifies = self.cost.classifies
        self.preprocessing = checked_preprocessing(preprocessing, self.dense[0].inputs)
        self.classes = None if classes is None else checked_classes(classes, self.dense[-1].units)
        self.features = None if features is None else checked_features(features, self.width)
        self.vector_targets = False
        self.epochs_trained = 0
        self.optimizer: Optimizer = SGD()
        self.state: OptimizerState | None = None
        rng = np.random.default_rng([self.seed, 0])
        makers = initializers_of(self.dense, init)
        values = (make(rng, d.units, d.inputs) for make, d in zip(makers, self.dense, strict=True))
        target = get_backend(backend)
        try:
            self.place(target)
            self.parameters.assign(values)
        except Exception as error:
            raise_if_full(target, error, LOWER_SIZES)
            raise

    def __repr__(self) -> str:
        chain = " → ".join([str(self.dense[0].inputs), *(layer.label for layer in self.layers)])
        return (
            f"{type(self).__name__}({chain}, {self.cost.name}, {self.parameters.count} parameters in {self.dtype} "
            f"on {self.backend.name}, seed {self.seed})"
        )

    @property
    def width(self) -> int:
        """How many features a sample has, before any preprocessing."""
        return self.dense[0].inputs if self.preprocessing is None else self.preprocessing.inputs

    def samples(self, x: Any, name: str = "X") -> Array:
        """Samples (n, width) of any kind as this model's array (n, d_in), checked (`nnkit.inputs`) and preprocessed."""
        return self.preprocessed(self.checked(x, name))

    def checked(self, x: Any, name: str = "X") -> Any:
        """Samples of any kind as an array (n, width), checked; columns of a table in the order of `features`."""
        return checked_samples(self.width, table_numbers(x, name, self.features) if is_table(x) else x, name)

    def learn_features(self, x: Any) -> None:
        """Take the names of a table's columns as `features`, if there are none yet and they are text."""
        if self.features is None and is_table(x):
            names = text_names(x)
            self.features = names if names is not None and len(names) == self.width else None

    def learn_shape(self, y: Any) -> None:
        """Note whether the targets of a single output that does not classify are (n,): predictions are then, too."""
        if not self.classifies and self.dense[-1].units == 1:
            self.vector_targets = len(y.shape) == 1

    def preprocessed(self, x: Any, out: Array | None = None) -> Array:
        """Checked samples (n, width) of any type as the first layer gets them, (n, d_in); in `out` if it is given."""
        return preprocessed(self.backend, self.dtype, self.preprocessing, x, out)

    def answers(self, y: Any, name: str = "y") -> Any:
        """Labels (n,) or targets (n, d_out) of any kind as an array.

        Where this network classifies, a column (n, 1) of integers, text or other objects is one of labels.
        """
        y = unmasked(as_array(y, name), name)
        return y[:, 0] if self.classifies and is_label_column(y) else y

    def targets(self, y: Any, n: int, name: str = "y", check: bool = False) -> Array:
        """Labels (n,), class names or targets (n, d_out) of any kind as targets (n, d_out), checked, not smoothed yet.

        `check` also looks at each number, which waits for the device (`nnkit.inputs`).
        """
        y = self.answers(y, name)
        if self.classes is not None and are_labels(y, name):
            y = class_indices(self.classes, y, name)
        units, labels = self.dense[-1].units, self.cost.domain == "unit"
        array = targets(self.backend, self.dtype, units, y, n, name, labels)
        if check:
            check_targets(self.backend, array, self.cost, name)
        return array

    def forward(self, x: Any) -> Array:
        """The outputs h of the last layer for samples x (n, width): (n, d_out) on this network's backend (eq. 2, 7, 9).

        Probabilities for sigmoid and softmax. A sample with NaN gives NaN. Raises ValueError for another width, for
        columns of a table that this network does not know and for missing values there, TypeError for another dtype.
        """
        return self.ask(x, lambda logits: self.output.outputs(self.backend, logits))

    def logits(self, x: Any) -> Array:
        """The last layer's h̄, before its activation, for samples x (n, width): (n, d_out); rows on a disk in pieces."""
        return self.ask(x, lambda logits: logits)

    @explains_memory(LOWER_SAMPLES)
    def ask(self, x: Any, question: Callable[[Array], Array], finite: bool = False) -> Array:
        """What a question says of the logits of samples x (n, width), as a new array (n, ...).

        With `finite` samples that hold NaN or infinities are refused, which may wait for the device.
        Rows on a disk are read in pieces. The second time that a few samples come in the same number, their forward
        pass is recorded, and replayed from then on, unless another thread is just using it.
        """
        rows = self.checked(x)
        if on_disk(rows):
            pieces = range(0, rows.shape[0], ROWS)
            parts = [self.ask(np.asarray(rows[start : start + ROWS]), question, finite) for start in pieces]
            return self.backend.xp.concat(parts, axis=0)
        h = self.preprocessed(rows)
        if finite and not surely_finite(h if isinstance(h, np.ndarray) else rows):
            check_samples(self.backend, rows, h, self.preprocessing, "X")
        forward = self._forward_pass(h.shape[0])
        if forward is None or not forward.lock.acquire(blocking=False):
            return question(self.propagate(h))
        try:
            logits = forward.run(h)
            answer = question(logits)
            return (
                self.backend.copy(answer, self.backend.empty(answer.shape, self.dtype)) if answer is logits else answer
            )
        finally:
            forward.lock.release()

    def _forward_pass(self, n: int) -> ForwardPass | None:
        """The recorded pass for n samples, if they are few and came in this number before."""
        if n > FEW or active_tape() is not None:
            return None
        if n != self._asked:
            self._asked = n
            return None
        found = self._forward
        if found is None or found.logits.shape[0] != n or found.precision != get_matmul_precision():
            shape = (n, self.dense[0].inputs)
            found = self._forward = ForwardPass(self.backend, self.dtype, shape, self.propagate)
        return found

    def propagate(self, h: Array) -> Array:
        """The logits (n, d_out) of samples that are as the first layer gets them, (n, d_in)."""
        for layer, W, b in zip(self.dense[:-1], self.parameters.W, self.parameters.b, strict=False):
            h = dense_forward(h, W, b, str(layer.activation))
        return dense_forward(h, self.parameters.W[-1], self.parameters.b[-1])

    @property
    def current_state(self) -> OptimizerState | None:
        """The state of the optimizer in use, if it has one."""
        return None if self.state is None or self.state.optimizer is not self.optimizer else self.state

    def optimizer_state(self, optimizer: Optimizer | str | None = None) -> OptimizerState:
        """The state of the optimizer in use; another optimizer takes its place and starts afresh."""
        wanted = chosen_optimizer(optimizer, self.optimizer)
        if self.state is None or self.state.optimizer is not wanted:
            self.state = wanted.start(self.parameters)  # if there is no memory for it, nothing has changed
        self.optimizer = wanted
        return self.state

    def place(self, backend: Backend) -> None:
        """Make room for parameters and gradients on a backend; recorded steps and the optimizer's state go."""
        shapes = [(d.units, d.inputs) for d in self.dense]
        drops = any(isinstance(layer, Dropout) for layer in self.layers)
        parameters, gradient = (Parameters(backend, shapes, self.dtype) for _ in range(2))
        dropout = DropoutState(backend, self.dtype, self.seed) if drops else None
        self.backend, self.parameters, self.gradient, self.dropout = backend, parameters, gradient, dropout
        self.state = None
        self.recorded: dict[Any, Any] = {}  # steps, by what they are recorded for; see nnkit.step
        self._asked, self._forward = 0, None
