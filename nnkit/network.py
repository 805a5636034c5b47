"""Network: a model with methods to predict, train, evaluate, move and save."""

import warnings
from collections.abc import Iterable
from copy import copy, deepcopy
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import IO, TYPE_CHECKING, Any

from nnkit import checkpoint, tensor_files
from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.checks import FixedList, UnknownNameError, flag, whole
from nnkit.history import History
from nnkit.inputs import checked_weights, labels_of
from nnkit.jacobian import input_gradient, jacobian
from nnkit.layers import Dense, dense_layers, rates_of, trainable_layers
from nnkit.memory import LOWER_BATCH, LOWER_SAMPLES, LOWER_SIZES, LOWER_STEP, explains_memory, raise_if_full
from nnkit.metrics import MetricFunction, get_metrics
from nnkit.minimize import minimize, value_and_gradient
from nnkit.model import Model
from nnkit.optimizers import Optimizer, OptimizerState
from nnkit.placement import Placement
from nnkit.state import arrays, pickled, restore, unpickle
from nnkit.state_dict import load_state_dict, state_dict
from nnkit.step import Step, StepExplanation, explain_step, step_for
from nnkit.training.checkpoints import resume
from nnkit.training.data import source_of
from nnkit.training.fit import fit
from nnkit.training.meter import evaluate
from nnkit.training.weights import ClassWeight, weights_of, without_masked

if TYPE_CHECKING:
    from nnkit.summary import Summary


class Network(Model):
    """A network of dense layers.

    Args:
        layers: sizes such as `[784, 100, 10]`, or `Dense` layers with matching widths and `Dropout` between them.
        activation: activation of the hidden layers, if sizes are given; None means "sigmoid".
        cost: a name (`nnkit.cost_names`), such as "cross_entropy" (eq. 18), "softmax_cross_entropy" or "quadratic"
            (eq. 3); or a cost with parameters from `nnkit.get_cost`. None is for classification: cross_entropy for a
            single output, softmax_cross_entropy for more; if the output activation is given, the one of the two paired
            with it. Regression needs another, such as "quadratic"; ten sigmoids, as in the lecture, "cross_entropy".
        output_activation: activation of the last layer, unless that is a `Dense` with its own; None means the one
            paired with the cost (eq. 19): sigmoid, softmax, identity. "sigmoid" without a cost is for multi-label
            classification (cross_entropy). One for whose outputs the cost has no meaning is a ValueError.
        init: a name or function of `nnkit.initializers`, for layers without their own; None depends on the activation.
        seed: seed of the initial parameters and the batch orders; None draws one, stored in `seed`.
        dtype: "float32" or "float64".
        backend: a name; None means the selected one.
        preprocessing: a fitted `nnkit.data.Normalization` or `Whitening` (eq. 20 to 22), or `TableEncoding`, for tables
            of mixed columns. It is applied to all samples passed to the network, in their precision, and saved with the
            network.
        target_scaling: for a regression, `nnkit.data.Normalization.fit(Y)` of the training targets Y (n, d_out): the
            last layer learns (y − μ)/σ; outputs, targets and metrics keep their units. Costs are those of (y − μ)/σ:
            the quadratic one is ½ for the mean as prediction. It is saved with the network.
        classes: class names, in the order of the outputs: labels can then be names, and `predict` returns names.
            `fit` learns them from labels that are text, or integers other than 0 to k − 1.
        features: feature names, in the order of the columns of X; saved with the network. The columns of a table
            (pandas, polars, pyarrow) are reordered by name. They default to those of a table in `fit` or preprocessing,
            if these are text: as in scikit-learn, columns with numbers or a MultiIndex as names go by position, and
            names that are only in part text (TypeError) or not distinct (ValueError) are refused.

    Attributes:
        layers, cost, target_scaling, dtype, backend: as given, with defaults filled in; read-only (AttributeError), but
            see `to`.
        seed, preprocessing, classes, features: as given, with defaults filled in; can be set, and are validated then.
        parameters, gradient: flat vectors with views `W` and `b` for each layer (`nnkit.parameters`). A step may leave
            `gradient` unchanged if its update is fused with the gradient's product; use `gradients` to compute them.
        optimizer: the default of `train_step` and `fit`.
        epochs_trained: number of epochs completed by `fit`.
        target_names: the columns of targets, of a table in `fit`; those of other tables are put in this order.
        vector_targets: whether `predict` returns (n,), after training on targets (n,), for a single regression output.

    Raises ValueError for invalid sizes, names and numbers, TypeError for an argument that would have no effect,
    BackendUnavailableError, and OutOfMemoryError if device memory does not suffice; so do its methods, which then leave
    the network unchanged.

    Any number of threads can use a network at the same time (`predict`, `forward`, `evaluate`, `gradients`, `save`),
    also while one thread changes it (`fit`, `partial_fit`, `train_step`, `to`); a second thread that changes it gets
    RuntimeError at once. Calls during a step see the parameters as that step writes them: those of one layer may be
    newer than those of the next. A network that moves, or resumes a training, is seen in its state before or after
    that. The handler of a signal, which runs in the middle of a call, can use the network and train others. Networks
    can share an optimizer, a schedule and an early stopping rule.

    >>> net = nnkit.Network([2, 3, 1], seed=0)
    >>> net
    Network(2 → 3 sigmoid → 1 sigmoid, cross_entropy, 13 parameters in float32 on numpy, seed 0)
    >>> net.forward([[0.0, 1.0]]).shape
    (1, 1)
    >>> nnkit.Network([2, 3, 10], "relu", seed=0)
    Network(2 → 3 relu → 10 softmax, softmax_cross_entropy, 49 parameters in float32 on numpy, seed 0)
    """

    predict_proba = Model.forward
    jacobian = explains_memory(LOWER_SAMPLES)(jacobian)
    input_gradient = explains_memory(LOWER_SAMPLES)(input_gradient)

    def predict(self, x: Any) -> Array:
        """The class (n,) of each sample, the largest output; for regression, the outputs h.

        Classes are integers on this network's backend, or a NumPy array of names if `classes` is set. A single output
        gives class 1 above the cost's threshold (½ for probabilities, 0 for the margins of hinge), else 0. h is
        (n, d_out), or (n,) if the network was trained on targets (n,).
        Raises ValueError, like `evaluate`, for samples with NaN or infinities.
        """
        if not self.classifies:
            h = self.ask(x, activated=True, finite=True)
            return h[:, 0] if self.vector_targets else h
        place, output = self.placement, self.output
        numbers = self.ask(x, not output.by_logits, partial(labels_of, output=output), finite=True, placement=place)
        return numbers if self.classes is None else self.classes[place.backend.to_numpy(numbers)]

    @explains_memory(LOWER_SAMPLES)
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        metrics: Iterable[str | MetricFunction] = (),
        sample_weight: Any = None,
        class_weight: ClassWeight = None,
    ) -> dict[str, float]:
        """Mean cost on samples x (n, width) with labels or targets y, accuracy for classification, and metrics.

        The accuracy is the share of samples whose largest output is that of their class; for multi-label targets, whose
        rows do not sum to 1, the share of samples with all outputs on the right side of ½ (of 0 for margins).
        `sample_weight` applies to accuracy and metrics, too, `class_weight` does not. The arguments are those of `fit`.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> sorted(net.evaluate([[0.0, 1.0], [1.0, 0.0]], [0, 1], metrics=["mae"]))
        ['accuracy', 'cost', 'mae']
        """
        measured = get_metrics(metrics, self.d_out, self.classifies, self.cost.threshold)
        this = self.snapshot()
        return evaluate(this, source_of(this, x, y, sample_weight, class_weight), measured)

    def score(self, x: Any, y: Any, *, sample_weight: Any = None) -> float:
        """The accuracy for classification, R² for regression, the mean over the outputs: as `score` of scikit-learn.

        >>> nnkit.Network([2, 2], init="zeros", seed=0).score([[0.0, 1.0], [1.0, 0.0]], [0, 1])
        0.5
        """
        name = "accuracy" if self.classifies else "r2"
        metrics = () if self.classifies else ("r2",)
        return self.evaluate(x, y, metrics=metrics, sample_weight=sample_weight)[name]

    # --- training -----------------------------------------------------------------------------------------------

    fit = explains_memory(LOWER_BATCH, changes=True)(fit)

    def partial_fit(self, X: Any, y: Any = None, *, batch_size: int | None = None, **options: Any) -> History:
        """Continue training with one epoch over new samples, keeping the optimizer's state; options as for `fit`.

        With an optimizer that has an `ema`, the network goes on from its own parameters, though the averages are
        validated: `averaged()` is a copy with these, or give `averaged=True` at the end of the training.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> for _ in range(3):
        ...     history = net.partial_fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
        >>> net.epochs_trained
        3
        """
        return self.fit(X, y, epochs=1, batch_size=batch_size, **{"progress": False, "averaged": False} | options)

    @explains_memory(LOWER_STEP, changes=True)
    def train_step(
        self, x: Any, y: Any, optimizer: Optimizer | str | None = None, *, sample_weight: Any = None
    ) -> Array:
        """One step on a minibatch: forward, backward, update. Returns the mean cost before the update, a 0-d array.

        For custom training loops. `optimizer` is as in `fit`; the same object or name can be passed in each step, while
        another object, also an equal one, starts with a new state. With
        `sample_weight` (n,) the cost is Σ w C/Σ w. The step is recorded for each new number of samples and replayed
        afterwards; on a GPU it is asynchronous until the cost is read, with `float(cost)`.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> before = net.train_step([[0.0, 1.0]], [0], optimizer=nnkit.SGD(1.0))
        >>> after = net.train_step([[0.0, 1.0]], [0])
        >>> bool(after < before)
        True
        """
        inputs, targets, weights = self._checked(x, y, sample_weight)
        cost = self.backend.empty((), self.dtype)  # before the update, which must not happen if this allocation fails
        before = self.features, self.target_names, self.vector_targets
        try:
            self.learn(x, y)
            state = self.optimizer_state(optimizer)
        except BaseException:
            self.features, self.target_names, self.vector_targets = before
            raise
        return self._run(inputs, targets, weights, state, drops=True).cost(out=cost)

    @explains_memory(LOWER_STEP)
    def gradients(
        self, x: Any, y: Any, *, sample_weight: Any = None, training: bool = False
    ) -> tuple[Array, list[tuple[Array, ...]]]:
        """The mean cost, 0-d, and [(δW, δb), ...] of each layer, the mean over the samples (eq. 10, 12); new arrays.

        For a custom layer: the gradients of its parameters, in the order of its `shapes`. With `sample_weight` (n,),
        both are weighted means. With `training`, dropout is active as in `train_step` and consumes the random numbers
        of the next step; RuntimeError is raised if another thread trains.
        """
        training = flag("gradients", "training", training)
        place = self.placement
        lent = place.take_beside()
        beside = lent.it
        mine = self.snapshot(beside)
        x, y, weights = mine._checked(x, y, sample_weight)
        if training and place.dropout is not None:
            with self.turn.queue, self.turn:
                step = mine._run(x, y, weights, None, drops=True)
        else:
            step = mine._run(x, y, weights, None, drops=False)
        backend = place.backend
        found = [
            tuple(backend.copy(a, backend.empty(a.shape, self.dtype)) for a in own.values())
            for own in beside.gradient.layers
        ]
        cost = step.cost()
        place.leave(lent)
        return cost, found

    value_and_gradient = value_and_gradient
    minimize = explains_memory(LOWER_SAMPLES, changes=True)(minimize)

    def averaged(self) -> "Network":
        """A copy with the moving averages of the parameters, which an optimizer with an `ema` computes in each step.

        Raises ValueError without an `ema` or before the first step.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> history = net.partial_fit([[0.0, 1.0]], [0], optimizer=nnkit.SGD(0.5, ema=0.75))
        >>> first = net.parameters.vector
        >>> history = net.partial_fit([[0.0, 1.0]], [0])
        >>> bool(np.allclose(net.averaged().parameters.vector, 0.75 * first + 0.25 * net.parameters.vector))
        True
        """
        made: Network = copy(self)
        averages = None if made.current_state is None else made.current_state.averaged
        if averages is None:
            hint = "train with an optimizer that has an ema, such as nnkit.Adam(ema=0.999)"
            raise ValueError(f"averaged: this network has no averages; {hint}")
        made.backend.copy(averages.flat, made.parameters.flat)
        return made

    def summary(self) -> "Summary":
        """A table of the layers: their units, parameters, and rates if some are not 1; print the result.

        >>> nnkit.Network([nnkit.Dense(784, 100, "relu"), nnkit.Dropout(0.2), nnkit.Dense(100, 10)], seed=0).summary()
        Network(784 → 100 relu → dropout 0.2 → 10 softmax, softmax_cross_entropy, 79510 parameters
            in float32 on numpy, seed 0)
           layer        units  parameters
           inputs         784
        0  relu           100      78,500
        1  dropout 0.2    100
        2  softmax         10       1,010
           total                   79,510  0.3 MB
        """
        from nnkit.summary import Summary

        return Summary.of(self)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    @explains_memory(LOWER_STEP)
    def explain_step(self, batch_size: int, optimizer: Optimizer | str | None = None) -> StepExplanation:
        """The nodes of a training step on `batch_size` samples, in order; print the result for a table.

        Each node is a kernel, product or call, with the shapes of its arrays and the bytes that it reads and writes;
        scalars are counted, but not shown. On a GPU these nodes become one CUDA graph. `optimizer` is as in
        `train_step`. The step is recorded, not run: the network does not change. Attributes of the result: `nodes`,
        `bytes_read` and `bytes_written`. Raises ValueError if batch_size is not an integer of at least 1.

        >>> nnkit.Network([784, 30, 10], "relu", seed=0).explain_step(10, "adam")
        Network(784 → 30 relu → 10 softmax, softmax_cross_entropy, 23860 parameters
            in float32 on numpy, seed 0): a step on 10 samples with Adam(learning_rate=0.001)
            node           reads                  writes        bytes read  written
         1  matmul         (10, 784), (784, 30)   (10, 30)         125,440    1,200
         2  biased_relu    (10, 30), (30,)        (10, 30)           1,320    1,200
         3  matmul         (10, 30), (30, 10)     (10, 10)           2,400      400
         4  biased         (10, 10), (10,)        (10, 10)             440      400
         5  max            (10, 10)               (10, 1)              400       40
         6  shifted_exp    (10, 10), (10, 1)      (10, 10)             440      400
         7  sum            (10, 10)               (10, 1)              400       40
         8  softmax_delta  2 × (10, 10), (10, 1)  (10, 10)             844      400
         9  matmul         (10, 10), (10, 30)     (10, 30)           1,600    1,200
        10  sum            (10, 10)               (10,)                400       40
        11  matmul         (10, 10), (10, 30)     (10, 30)           1,600    1,200
        12  relu_grad      2 × (10, 30)           (10, 30)           2,400    1,200
        13  matmul         (30, 10), (10, 784)    (30, 784)         32,560   94,080
        14  sum            (10, 30)               (30,)              1,200      120
        15  adam_clock                                                  12       12
        16  adam           4 × (23872,)           3 × (23872,)     381,964  286,464
            total                                                  553,420  388,396
        """
        return explain_step(self.snapshot(), batch_size, optimizer)

    def set_rate(self, layer: int, rate: float, bias_rate: float | None = None) -> None:
        """Set the factor of the learning rate of `layers[layer]`, a `Dense`, from the next step on; 0 freezes it.

        `bias_rate` is that of its biases, None the same. The optimizer's state is kept. Raises TypeError and ValueError
        for other layers and numbers, RuntimeError if another thread trains, or within an epoch of `fit`.

        >>> net = nnkit.Network([2, 3, 1], seed=0)
        >>> net.set_rate(0, 0.0)
        >>> before = net.parameters.vector
        >>> cost = net.train_step([[0.0, 1.0]], [1])
        >>> (net.parameters.vector == before).tolist()  # W, b of the first layer, then of the last
        [True, True, True, True, True, True, True, True, True, False, False, False, False]
        """
        index = whole("set_rate", "layer", layer, -len(self.layers))
        if index >= len(self.layers):
            raise ValueError(f"set_rate: layer is {index}; expected an index below {len(self.layers)}")
        if not isinstance(self.layers[index], Dense):
            raise ValueError(f"set_rate: layer {index} is {self.layers[index]}; expected a Dense layer")
        changed: Any = replace(self.layers[index], rate=rate, bias_rate=bias_rate)  # type: ignore[type-var]
        with self.turn:
            self.turn.check_between_epochs("set_rate")
            layers = [changed if i == index % len(self.layers) else own for i, own in enumerate(self.layers)]
            parameters = self.parameters.with_rates(rates_of(trainable_layers(layers)))
            carried = self.placement.carried_to(parameters)  # first, as it may fail
            vars(self).update(layers=FixedList(layers), dense=FixedList(dense_layers(layers)), placement=carried)

    # --- moving, copying and saving -----------------------------------------------------------------------------

    def to(self, backend: str | Backend) -> "Network":
        """Move parameters and the optimizer's state to a backend; returns this network.

        Calls from other threads use the previous backend meanwhile. Raises RuntimeError if another thread trains.
        """
        target = get_backend(backend)
        with self.turn:
            if target is not self.backend:
                self.turn.check_between_epochs("to")
                try:
                    self.placement = self._moved(target)
                except Exception as error:
                    raise_if_full(target, error, LOWER_SIZES)
                    raise
        return self

    # For pickle, copy and deepcopy: a copy has its own arrays and the same class.

    def __copy__(self) -> "Network":
        made = object.__new__(type(self))
        made.__setstate__(self._shared(self.__getstate__()))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> "Network":
        memo[id(self)] = made = object.__new__(type(self))
        made.__setstate__(self._shared(deepcopy(self.__getstate__(), memo)))
        return made

    def _shared(self, parts: Any) -> Any:
        """The state with this network's cost, not its name, which another one may have by now."""
        return parts | {"cost": self.cost} if isinstance(parts, dict) and "arguments" in parts else parts

    def __getstate__(self) -> dict[str, Any]:
        return pickled(self.snapshot())

    def __setstate__(self, parts: dict[str, Any]) -> None:
        unpickle(self, parts)

    def save(self, path: str | PathLike[str] | IO[bytes]) -> None:
        """Write the network, without its optimizer, to a `.safetensors` file: a path, or a file open for writing.

        A checkpoint of `fit` and a pickle also have the optimizer and its state. Raises TypeError for class names that
        are not text, numbers or NumPy's dates, ValueError for an open file with more old content than it replaces.
        """
        checkpoint.save(self.snapshot(), path)

    state_dict = state_dict
    load_state_dict = load_state_dict

    def to_onnx(self, path: str | PathLike[str] | None = None, *, opset: int = 13) -> Any:
        """Return the network as an `onnx.ModelProto`, and write it to `path` if given; see `nnkit.onnx.to_onnx`."""
        from nnkit.onnx import to_onnx

        return to_onnx(self.snapshot(), path, opset=opset)

    def _moved(self, target: Backend) -> Placement:
        """The arrays of this network on another backend."""
        new = Placement(target, self.layers, self.dtype, self.seed)
        if self.current_state is not None:
            new.state = self.optimizer.start(new.parameters)
        restore(new, arrays(self))
        return new

    def _run(self, x: Array, y: Array, weights: Array | None, state: OptimizerState | None, drops: bool) -> Step:
        """Run a step on a minibatch; without an optimizer's state it stops at the gradients."""
        step = step_for(self, x.shape[0], state, 0 if weights is None else 1, drops)
        _ = step.measured  # allocates before the update
        copy = step.backend.copy
        copy(x, step.x)
        copy(y, step.y)
        if weights is not None:
            copy(weights, step.scale)
        step.run()
        return step

    def _checked(self, x: Any, y: Any, sample_weight: Any, check: bool = False) -> tuple[Array, Array, Array | None]:
        x = self.samples(x)
        y = self.answers(y)
        # On a GPU of CuPy, checking real numbers would synchronize.
        y = self.targets(y, x.shape[0], check=check or not self.backend.name.startswith("cupy"))
        weights = weights_of(self, y, True, sample_weight, None, "sample_weight")
        if weights is not None:
            y = without_masked(self, y, checked_weights(sample_weight, x.shape[0], "sample_weight")[:, None])
        return x, self.cost.smoothed(self.backend, y), None if weights is None else weights / x.shape[0]


def load(path: tensor_files.Source, backend: str | Backend | None = None) -> Network:
    """Load a network written by `save` or `fit(checkpoint=...)` onto a backend; None means the selected one.

    `path` can also be a file that is open for reading, or the content of one as bytes.

    A checkpoint includes the optimizer and its state, as of the last epoch written, to continue from there: it gives
    the parameters of that epoch, not the best ones, which `fit` restores at its end and `save` writes then, nor their
    averages (`averaged`). A custom optimizer is left out, with a UserWarning. Register custom activations and costs
    before loading (`nnkit.register_activation`, `register_cost`). Raises FileNotFoundError; ValueError for unknown
    names and a file that is not a network (truncated, foreign, later format); ImportError without safetensors.

    >>> import tempfile, pathlib
    >>> net = nnkit.Network([2, 3, 1], seed=0)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> net.save(path)
    >>> nnkit.load(path)
    Network(2 → 3 sigmoid → 1 sigmoid, cross_entropy, 13 parameters in float32 on numpy, seed 0)
    """
    target = get_backend(backend)
    saved = checkpoint.read(path)
    with checkpoint.damage(tensor_files.called(path)):
        network = Network(**saved.arguments, backend=target)
        saved.tell(network)
        if saved.training is None:
            restore(network.placement, saved.arrays, training=False)
            return network
        try:
            network.optimizer = resume(network.placement, saved.arrays, saved.training)
        except UnknownNameError as error:
            if error.kind != "optimizer" or not isinstance(error.name, str):
                raise
            restore(network.placement, saved.arrays)  # all but the optimizer's state
            what = f"{tensor_files.called(path)} is loaded without its optimizer {error.name!r}, which is unknown here"
            hint = "fit(..., optimizer=..., checkpoint=..., resume=True) continues its training"
            warnings.warn(f"{what}; {hint}", stacklevel=2)
    return network
