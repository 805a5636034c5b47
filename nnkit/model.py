"""Model: layers with their parameters, a cost and an optimizer's state, for steps, training and files."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np

from nnkit.attributes import Checked
from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.backends.recording import active_tape
from nnkit.checks import FixedList, checked_dtype, flag
from nnkit.classes import class_indices
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
from nnkit.kernels.cost import ScaledTargets, output_pair
from nnkit.kernels.costs import Cost
from nnkit.layers import Dropout, Layer, chain, dense_layers, outputs, trainable_layers
from nnkit.memory import LOWER_SAMPLES, LOWER_SIZES, explains_memory, raise_if_full
from nnkit.optimizers import SGD, Optimizer, OptimizerState, chosen_optimizer
from nnkit.parameters import Parameters
from nnkit.placement import DropoutState, ForwardPass, Placement, Turn
from nnkit.preprocessing import Preprocessing, preprocessed
from nnkit.structure import (
    build_layers,
    check_own_layer,
    checked_target_scaling,
    initialized,
    initializers_in_words,
    started,
    tried,
    warn_of_rounded_targets,
)
from nnkit.tables import as_array, column_names, in_order, is_table, table_numbers, text_names

FEW = 256  # samples whose forward pass takes less time than its Python overhead
ROWS = 4096  # samples of a chunk, if not all are in memory: full speed, little memory


class Model(Checked):
    """The data of a `Network`, without its public methods; see there for the arguments and attributes."""

    seed: int
    seed_is_drawn: bool
    preprocessing: Preprocessing | None
    target_scaling: Preprocessing | None
    classes: np.ndarray | None
    features: list[str] | None
    target_names: list[str] | None
    vector_targets: bool
    epochs_trained: int
    optimizer: Optimizer

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
        target_scaling: Preprocessing | None = None,
        classes: Sequence[Any] | np.ndarray | None = None,
        features: Sequence[str] | None = None,
    ) -> None:
        made, self.cost = build_layers(layers, activation, output_activation, cost)
        self.layers, self.dense = FixedList(made), FixedList(dense_layers(made))
        last = self.dense[-1]
        self.d_in, self.d_out = trainable_layers(self.layers)[0].inputs, last.units
        self.to_logits = [*self.layers[:-1], replace(last, activation="identity")]  # the last one belongs to the cost
        self.target_scaling = checked_target_scaling(target_scaling, self.cost, last)
        pair, scaling = output_pair(self.cost, last.activation), self.target_scaling
        self.output = pair if scaling is None else ScaledTargets(pair, *scaling.arrays.values())
        self.dtype = checked_dtype(dtype)
        if scaling is not None and self.dtype == "float32":
            warn_of_rounded_targets(scaling)
        self.seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        self.seed_is_drawn = seed is None  # a resumed training then takes the seed of its checkpoint
        self.init = initializers_in_words(self.dense, init)  # compared with that of a checkpoint
        self.classifies = self.cost.classifies
        given = {"preprocessing": preprocessing, "classes": classes, "features": features}
        for name, value in given.items():
            setattr(self, name, value)
        self.vector_targets = False
        self.target_names = getattr(target_scaling, "features", None) if self.d_out > 1 else None  # of a table
        self.epochs_trained, self.optimizer, self.turn = 0, SGD(), Turn()
        rng = np.random.default_rng([self.seed, 0])
        trainable = enumerate(initialized(self.layers, init))
        values = [started(layer, rng, self.dtype, i) for i, layer in trainable]
        target = get_backend(backend)
        try:
            self.placement = Placement(target, self.layers, self.dtype, self.seed)
            self.parameters.assign(values)
            for i, (layer, own) in enumerate(zip(trainable_layers(self.layers), values, strict=True)):
                check_own_layer(target, layer, own, self.dtype, i)
        except Exception as error:
            raise_if_full(target, error, LOWER_SIZES)
            raise

    def __repr__(self) -> str:
        on = f"in {self.dtype} on {self.backend.name}, seed {self.seed}"
        about = f"{chain(self.layers)}, {self.cost.name}, {self.parameters.count} parameters {on}"
        return f"{type(self).__name__}({about})"

    @property
    def width(self) -> int:
        """Number of features of a sample, before any preprocessing."""
        return self.d_in if self.preprocessing is None else self.preprocessing.inputs

    def samples(self, x: Any, name: str = "X") -> Array:
        """Samples (n, width) of any type as this model's array (n, d_in), checked (`nnkit.inputs`) and preprocessed."""
        return self.preprocessed(self.checked(x, name))

    def checked(self, x: Any, name: str = "X") -> Any:
        """Samples of any type as a checked array (n, width); columns of a table in the order of `features`."""
        encode = getattr(self.preprocessing, "encode", None)  # of a table's text, categories and missing values
        if encode is not None:
            if self.features is not None and is_table(x) and getattr(self.preprocessing, "features", None) is None:
                x = in_order(x, name, self.features)  # it was fitted to an array, and takes columns by position
            x = encode(x, name)
        elif type(x) is np.ndarray and x.ndim == 2 and x.dtype.char in "fd" and x.shape[1] == self.width and len(x):
            return x  # as below, sooner
        elif is_table(x):
            x = table_numbers(x, name, self.features)
        return checked_samples(self.width, x, name)

    def learn(self, x: Any, y: Any = None) -> None:
        """Set `features` and `target_names` to the column names of tables, if unset and text; raises like `text_names`.

        Remember whether the targets of a single regression output are (n,): predictions are then, too.
        """
        if self.features is None and is_table(x):
            names = text_names(x, "X")
            self.features = names if names is not None and len(names) == self.width else None
        if self.target_names is None and is_table(y) and y.shape[1] == self.d_out > 1 and not self._are_classes(y):
            self.target_names = text_names(y, "y")
        if not self.classifies and self.d_out == 1 and y is not None:
            self.vector_targets = len(self.answers(y).shape) == 1

    def _are_classes(self, y: Any) -> bool:
        """Whether the columns of a table are called like the classes."""
        return self.classes is not None and {*column_names(y)} == {*self.classes.tolist()}

    def preprocessed(self, x: Any, out: Array | None = None) -> Array:
        """Checked samples (n, width) of any dtype as inputs of the first layer, (n, d_in); in `out` if it is given."""
        return preprocessed(self.backend, self.dtype, self.preprocessing, x, out)

    def answers(self, y: Any, name: str = "y") -> Any:
        """Labels (n,) or targets (n, d_out) of any type as an array.

        For classification, a column (n, 1) of integers, text or other objects contains labels. Several columns of a
        table are put in the order of the classes, if they have their names, or of `target_names`.
        """
        if is_table(y) and y.shape[1] > 1:
            order = self.classes.tolist() if self.classes is not None and self._are_classes(y) else self.target_names
            y = table_numbers(y, name, order, of="target_names")
        y = as_array(y, name)
        return y[:, 0] if self.classifies and is_label_column(y) else y

    def targets(self, y: Any, n: int, name: str = "y", check: bool = False) -> Array:
        """Labels (n,), class names or targets (n, d_out) of any type as checked targets (n, d_out), before smoothing.

        `check` also checks each number, which synchronizes with the device (`nnkit.inputs`).
        """
        y = self.answers(y, name)
        if self.classes is not None and are_labels(y, name):
            y = class_indices(self.classes, y, name)
        array = targets(self.backend, self.dtype, self.cost, self.d_out, y, n, name)
        if check and not (self.d_out > 1 and are_labels(y, name)):  # which `targets` has checked
            check_targets(self.backend, array, self.cost, name)
        return array

    def forward(self, x: Any, training: bool = False) -> Array:
        """The outputs h of the last layer for samples x (n, width): (n, d_out) on this network's backend (eq. 2, 7, 9).

        Probabilities for sigmoid and softmax. A sample with NaN gives NaN. With `training`, dropout is active: each
        call draws new masks, the random numbers of the next training step, and the spread of several calls estimates
        the uncertainty of a prediction (Gal and Ghahramani, ICML 2016). Raises ValueError for a wrong width, unknown
        columns of a table and missing values in it, TypeError for an unsupported dtype; with `training`, RuntimeError
        if another thread trains.
        """
        if training is False or not flag("forward", "training", training) or self.dropout is None:
            return self.ask(x, activated=True)
        with self.turn.queue, self.turn:
            return self._dropped(x)

    @explains_memory(LOWER_SAMPLES)
    def _dropped(self, x: Any) -> Array:
        """The outputs with dropout; rows on disk in chunks."""
        backend, dropout, rows, outputs = self.backend, self.placement.dropout, self.checked(x), []
        size = ROWS if on_disk(rows) else rows.shape[0]
        for start in range(0, rows.shape[0], size):
            h, parameters = self.preprocessed(rows[start : start + size]), iter(self.parameters.layers)
            for number, layer in enumerate(self.to_logits):
                if isinstance(layer, Dropout):
                    h, _ = dropout.apply(h, layer.rate, number)  # type: ignore[union-attr]
                else:
                    h = layer.outputs(backend, h, next(parameters))
            dropout.advance()  # type: ignore[union-attr]
            outputs.append(self.output.outputs(backend, h))
        return outputs[0] if len(outputs) == 1 else backend.xp.concat(outputs, axis=0)

    def logits(self, x: Any) -> Array:
        """The last layer's h̄, before its activation and `target_scaling`, for samples x (n, width): (n, d_out).

        Rows on disk are read in chunks.
        """
        return self.ask(x, activated=False)

    def ask(
        self,
        x: Any,
        activated: bool,
        question: Callable[[Backend, Array], Array] | None = None,
        finite: bool = False,
        placement: Placement | None = None,
    ) -> Array:
        """Apply `question` to the logits, or the outputs, of samples x (n, width); returns a new array (n, ...).

        Without a question, returns the logits or outputs. With `finite`, samples with NaN or infinities raise
        ValueError, which may synchronize with the device. Rows on disk are read in chunks.
        """
        place = self.placement if placement is None else placement
        try:
            rows = self.checked(x)
            if type(rows) is not np.ndarray and on_disk(rows):
                pieces = (np.asarray(rows[i : i + ROWS]) for i in range(0, rows.shape[0], ROWS))
                return place.backend.xp.concat(
                    [self.ask(p, activated, question, finite, place) for p in pieces], axis=0
                )
            if finite:
                self._check_finite(place.backend, rows)
            values = self.computed(place, rows, self.preprocessing, activated)
            return values if question is None else question(place.backend, values)
        except Exception as error:
            raise_if_full(place.backend, error, LOWER_SAMPLES)
            raise

    def _check_finite(self, backend: Backend, rows: Any) -> None:
        bounded = getattr(self.preprocessing, "keeps_finite", self.preprocessing is None)
        if not (bounded and surely_finite(rows)):
            h = preprocessed(backend, self.dtype, self.preprocessing, rows)
            check_samples(backend, rows, h, self.preprocessing, "X")

    def computed(
        self, place: Placement, x: Any, preprocessing: Preprocessing | None = None, activated: bool = False
    ) -> Array:
        """The logits, or `activated` the outputs, of checked samples: a new array (n, d_out).

        For few samples, the pass is recorded at the second call with as many, and replayed then; each thread has its
        own recording. Compiled code computes others in chunks of `FEW`, also the first time: the bits of a product can
        depend on its size.
        """
        n = x.shape[0]
        if n <= FEW:
            lent = None if active_tape() is not None else place.take("pass", n, self._pass, place, n)
            if lent is not None:
                values = lent.it.of(x, preprocessing, activated)
                place.leave(lent)
                return values
        elif place.backend.compiles and active_tape() is None:
            values = self._in_chunks(place, x, preprocessing, activated)
            if values is not None:
                return values
        values = self.propagate(preprocessed(place.backend, self.dtype, preprocessing, x), place.parameters)
        return self.output.outputs(place.backend, values) if activated else values

    def _in_chunks(
        self, place: Placement, x: Any, preprocessing: Preprocessing | None, activated: bool
    ) -> Array | None:
        """`computed` by compiled code; None if a part of the pass has none."""
        lent = place.take("pass", FEW, self._pass, place, FEW, at_once=True)
        function = None if lent is None else lent.it.function(activated)
        if lent is None or function is None:
            return None
        n, backend = x.shape[0], place.backend
        x = np.ascontiguousarray(preprocessed(backend, self.dtype, preprocessing, x))
        values, whole = backend.empty((n, self.d_out), self.dtype), n - n % FEW
        function.of(x[:whole], values[:whole])
        place.leave(lent)
        if whole < n:
            values[whole:] = self.computed(place, x[whole:], None, activated)
        return values

    def _pass(self, place: Placement, n: int) -> ForwardPass:
        propagate = partial(self.propagate, parameters=place.parameters)
        activate = partial(self.output.outputs, place.backend)
        return ForwardPass(place.backend, self.dtype, (n, self.d_in), propagate, activate)

    def propagate(self, h: Array, parameters: Parameters | None = None) -> Array:
        """The logits (n, d_out) for inputs of the first layer, (n, d_in)."""
        p = self.parameters if parameters is None else parameters
        return outputs(self.to_logits, p.backend, p.layers, h)

    @property
    def current_state(self) -> OptimizerState | None:
        """The state of the optimizer in use, if it has one."""
        return None if self.state is None or self.state.optimizer is not self.optimizer else self.state

    def average_anew(self) -> None:
        """Let the averages of an optimizer start from the parameters, which are not the result of its last step."""
        averages = None if self.current_state is None else self.current_state.averaged
        if averages is not None:
            self.backend.copy(self.parameters.flat, averages.flat)

    def optimizer_state(self, optimizer: Optimizer | str | None = None) -> OptimizerState:
        """The state of the optimizer in use; a different optimizer replaces it and starts with a new state."""
        wanted, place = chosen_optimizer(optimizer, self.optimizer), self.placement
        state = place.state
        if wanted is not self.optimizer:
            self.turn.check_between_epochs("optimizer")
        if state is None or state.optimizer is not wanted:
            state = place.state = tried(wanted.start(place.parameters), place.parameters)  # first, as it may fail
        if wanted is not self.optimizer:
            self.optimizer = wanted
        return state

    def snapshot(self, placement: Placement | None = None) -> Self:
        """A shallow copy with the same arrays, or those of `placement`; it is not affected if this network moves."""
        made = object.__new__(type(self))
        state: Any = object.__getstate__(self)
        attributes, slots = state if isinstance(state, tuple) else (state, {})
        vars(made).update(attributes)
        for name, value in slots.items():
            object.__setattr__(made, name, value)
        if placement is not None:
            made.placement = placement
        return made

    @property
    def backend(self) -> Backend:
        """The backend of the parameters."""
        return self.placement.backend

    @property
    def parameters(self) -> Parameters:
        """The weights and biases of the dense layers."""
        return self.placement.parameters

    @property
    def gradient(self) -> Parameters:
        """The gradients by the parameters, as written by a step."""
        return self.placement.gradient

    @property
    def dropout(self) -> DropoutState | None:
        """The state of the dropout masks; None without dropout."""
        return self.placement.dropout

    @property
    def recorded(self) -> dict[Any, Any]:
        """Recorded steps by their key (`nnkit.step`)."""
        return self.placement.recorded

    @property
    def state(self) -> OptimizerState | None:
        """The latest optimizer's state."""
        return self.placement.state

    @state.setter
    def state(self, state: OptimizerState | None) -> None:
        self.placement.state = state
