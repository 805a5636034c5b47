"""Network: what one does with a model: predict, train, check, move and keep it."""

from collections.abc import Iterable
from functools import partial
from os import PathLike
from typing import Any

from nnkit import checkpoint
from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import FLOATS, dtype_name
from nnkit.checks import flag
from nnkit.history import History
from nnkit.inputs import labels_of
from nnkit.memory import LOWER_BATCH, LOWER_SAMPLES, LOWER_SIZES, LOWER_STEP, explains_memory, raise_if_full
from nnkit.metrics import MetricFunction, get_metrics
from nnkit.model import Model
from nnkit.optimizers import Optimizer, OptimizerState
from nnkit.placement import Placement
from nnkit.state import arrays, pickled, restore, unpickle
from nnkit.step import Step, StepExplanation, explain_step, step_for
from nnkit.training.checkpoints import resume
from nnkit.training.fit import fit
from nnkit.training.meter import evaluate
from nnkit.training.sources import source_of
from nnkit.training.weights import ClassWeight, weights_of


class Network(Model):
    """A network of dense layers.

    Args:
        layers: sizes such as `[784, 100, 10]`, or `Dense` layers whose widths meet, with `Dropout` between them.
        activation: of the hidden layers, where sizes are given; None is "sigmoid". `Dense` layers have their own.
        cost: a name, such as "cross_entropy" (eq. 18), "softmax_cross_entropy" or "quadratic" (eq. 3), see
            `nnkit.cost_names`; or what `nnkit.get_cost` gives, with its numbers. None is for classes: cross_entropy for
            a single output, softmax_cross_entropy for more; where the output activation is given, the one of the two
            that is paired with it. Real numbers as targets need a cost of theirs, such as "quadratic"; the lecture's
            ten sigmoids are cost="cross_entropy".
        output_activation: of the last layer, unless that is a `Dense` with its own; None is the one that the cost is
            paired with (eq. 19): sigmoid, softmax, identity. With "sigmoid" and no cost each output is a class of its
            own, of which a sample may have several (cross_entropy).
        init: a name or function of `nnkit.initializers`, for layers without their own; None takes what suits each
            activation.
        seed: of the initial parameters and the batch orders; None draws one, kept in `seed`.
        dtype: "float32" or "float64". backend: a name; None is the selected one.
        preprocessing: a fitted `nnkit.data.Normalization` or `Whitening` (eq. 20 to 22), which is applied to all
            samples that the network gets, in the precision that they have, and is saved with it.
        classes: names of the classes, in the order of the outputs: labels may then be these, and `predict` gives them.
            Where labels are text, or whole numbers other than 0 to k − 1, `fit` finds them.
        features: names of the features, in the order of the columns of samples; saved with the network. The columns of
            a table (pandas, polars, pyarrow) are put in this order by their names. `fit` learns them from a table, and
            they are those of the preprocessing, if that was fitted on a table.

    Attributes:
        layers, cost, dtype, backend: as given, filled in. They cannot be set (AttributeError); `to` moves a network.
        seed, preprocessing, classes, features: as given, filled in. They may be set, and are checked then.
        parameters, gradient: flat vectors with views `W` and `b` for each layer (`nnkit.parameters`). A step may leave
            `gradient` as it was, where its update is part of the gradient's product; `gradients` gives them.
        optimizer: what `train_step` and `fit` use where they are given none.
        epochs_trained: how many epochs `fit` has finished.
        vector_targets: whether a single output that does not classify was trained on targets (n,): `predict` gives (n,)
            then, and (n, 1) otherwise.

    Raises ValueError for wrong sizes, names and numbers, TypeError for an argument that would have no effect beside
    another, BackendUnavailableError, and OutOfMemoryError where a device's memory does not suffice; so do its methods,
    and the network is then as it was.

    Any number of threads may ask one network at the same time (`predict`, `forward`, `evaluate`, `gradients`, `save`),
    also while another one changes it (`fit`, `partial_fit`, `train_step`, `to`); that is for one thread at a time, and
    a second one gets RuntimeError at once. What is asked while a step runs sees the parameters as that step writes
    them: those of one layer may be newer than those of the next. A network that moves, or resumes a training, is seen
    as it was before or afterwards. Networks may share an optimizer, a schedule and a rule of early stopping.

    >>> net = nnkit.Network([2, 3, 1], seed=0)
    >>> net
    Network(2 → 3 sigmoid → 1 sigmoid, cross_entropy, 13 parameters in float32 on numpy, seed 0)
    >>> net.forward([[0.0, 1.0]]).shape
    (1, 1)
    >>> nnkit.Network([2, 3, 10], "relu", seed=0)
    Network(2 → 3 relu → 10 softmax, softmax_cross_entropy, 49 parameters in float32 on numpy, seed 0)
    """

    predict_proba = Model.forward

    def predict(self, x: Any) -> Array:
        """The class (n,) of each sample, the largest output; for a network that does not classify, h.

        Integers of this network's backend, or where `classes` are known their names, a NumPy array. A single output
        that classifies gives class 1 above ½ and 0 below. h is (n, d_out), or (n,) where the network was trained on
        targets (n,). Raises ValueError, as `evaluate` does, for samples that hold NaN or infinities.
        """
        if not self.classifies:
            h = self.ask(x, activated=True, finite=True)
            return h[:, 0] if self.vector_targets else h
        place, output = self.placement, self.output
        numbers = self.ask(x, not output.paired, partial(labels_of, output=output), finite=True, placement=place)
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
        """The mean cost over samples x (n, width) with labels or targets y, the accuracy if it classifies, and metrics.

        The accuracy is the share of samples whose largest output is that of their class; of targets whose rows do not
        sum to 1, with several classes in a sample, the share for which all outputs are on the right side of ½
        (`nnkit.metrics.accuracy`). `sample_weight` counts in it and in the metrics, too, `class_weight` does not.
        Data, metrics and weights are as `fit` takes them.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> sorted(net.evaluate([[0.0, 1.0], [1.0, 0.0]], [0, 1], metrics=["mae"]))
        ['accuracy', 'cost', 'mae']
        """
        measured = get_metrics(metrics, self.d_out, self.classifies)
        this = self.snapshot()
        return evaluate(this, source_of(this, x, y, sample_weight, class_weight), measured)

    # --- training it --------------------------------------------------------------------------------------------

    fit = explains_memory(LOWER_BATCH, changes=True)(fit)

    def partial_fit(self, X: Any, y: Any = None, *, batch_size: int | None = None, **options: Any) -> History:
        """Go on training with new samples: one epoch over them, with the optimizer's state; options as for `fit`.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> for _ in range(3):
        ...     history = net.partial_fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
        >>> net.epochs_trained
        3
        """
        return self.fit(X, y, epochs=1, batch_size=batch_size, **{"progress": False} | options)

    @explains_memory(LOWER_STEP, changes=True)
    def train_step(
        self, x: Any, y: Any, optimizer: Optimizer | str | None = None, *, sample_weight: Any = None
    ) -> Array:
        """One step on a minibatch: forward, backward, update. Returns the mean cost before it, a 0-d array.

        For custom training loops. `optimizer` is as in `fit`; a name may be given in each step. With `sample_weight`
        (n,) the cost is Σ w C/Σ w. The step is recorded for each new number of samples and replayed afterwards; on a
        GPU nothing waits until the cost is read, with `float(cost)`.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> before = net.train_step([[0.0, 1.0]], [0], optimizer=nnkit.SGD(1.0))
        >>> after = net.train_step([[0.0, 1.0]], [0])
        >>> bool(after < before)
        True
        """
        given, y = x, self.answers(y)
        x, targets, weights = self._checked(x, y, sample_weight)
        self.learn_features(given)
        self.learn_shape(y)
        cost = self.backend.empty((), self.dtype)  # before the update, which must not happen if there is no room for it
        return self._run(x, targets, weights, self.optimizer_state(optimizer), drops=True).cost(out=cost)

    @explains_memory(LOWER_STEP)
    def gradients(
        self, x: Any, y: Any, *, sample_weight: Any = None, training: bool = False
    ) -> tuple[Array, list[tuple[Array, ...]]]:
        """The mean cost, 0-d, and [(δW, δb), ...] of each layer, the mean over the samples (eq. 10, 12); new arrays.

        A layer of your own has the gradients of its parameters, in the order of its `shapes`.

        With `sample_weight` (n,) both are weighted means; with `training` dropout is at work, as in `train_step`: it
        takes the random numbers of the next step, as a step does, so that RuntimeError is raised where another thread
        trains.
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

    @explains_memory(LOWER_STEP)
    def explain_step(self, batch_size: int, optimizer: Optimizer | str | None = None) -> StepExplanation:
        """What a training step on so many samples consists of, in order: print it for a table.

        Each node is a kernel, product or call, with the shapes of its arrays and the bytes that it reads and writes;
        numbers are counted, but not shown. On a GPU these nodes become one CUDA graph. `optimizer` is as in
        `train_step`. The step is recorded, not done: the network stays as it is. Attributes of the result: `nodes`,
        `bytes_read` and `bytes_written`. Raises ValueError if batch_size is not a whole number of at least 1.

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

    # --- keeping it ---------------------------------------------------------------------------------------------

    def to(self, backend: str | Backend) -> "Network":
        """Move parameters and the optimizer's state to a backend; returns this network.

        Other threads that ask meanwhile get answers of the parameters where they were. Raises RuntimeError where
        another thread trains.
        """
        target = get_backend(backend)
        with self.turn:
            if target is not self.backend:
                try:
                    self.placement = self._moved(target)
                except Exception as error:
                    raise_if_full(target, error, LOWER_SIZES)
                    raise
        return self

    # For pickle, copy and deepcopy: a copy has arrays of its own, and is of the same class.

    def __getstate__(self) -> dict[str, Any]:
        return pickled(self.snapshot())

    def __setstate__(self, parts: dict[str, Any]) -> None:
        unpickle(self, parts)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network to a `.safetensors` file; see `nnkit.checkpoint`."""
        checkpoint.save(self.snapshot(), path)

    def _moved(self, target: Backend) -> Placement:
        """The arrays of this network on another backend."""
        new = Placement(target, self.layers, self.dtype, self.seed)
        if self.current_state is not None:
            new.state = self.optimizer.start(new.parameters)
        restore(new, arrays(self))
        return new

    def _run(self, x: Array, y: Array, weights: Array | None, state: OptimizerState | None, drops: bool) -> Step:
        """Do a step on a minibatch; without an optimizer's state it stops at the gradients."""
        step = step_for(self, x.shape[0], state, 0 if weights is None else 1, drops)
        copy = step.backend.copy
        copy(x, step.x)
        copy(y, step.y)
        if weights is not None:
            copy(weights, step.scale)
        step.run()
        return step

    def _checked(self, x: Any, y: Any, sample_weight: Any) -> tuple[Array, Array, Array | None]:
        x = self.samples(x)
        y = self.answers(y)
        # Labels have been looked at; on a device, looking at real numbers would wait for it.
        look = self.backend.name == "numpy" and dtype_name(y.dtype) in FLOATS
        y = self.targets(y, x.shape[0], check=look)
        weights = weights_of(self, y, True, sample_weight, None, "sample_weight")
        return x, self.cost.smoothed(self.backend, y), None if weights is None else weights / x.shape[0]


def load(path: str | PathLike[str], backend: str | Backend | None = None) -> Network:
    """Read a network that `save` or `fit(checkpoint=...)` wrote, onto a backend; None is the selected one.

    With a checkpoint comes the optimizer, with its state, as of the last epoch that was written.

    Activations and costs of your own are registered before loading (`nnkit.register_activation`, `register_cost`).
    Raises FileNotFoundError, ValueError for a file that is not such a network (truncated, foreign, or of a later
    format) or names what is not known here, and ImportError if safetensors is not installed.

    >>> import tempfile, pathlib
    >>> net = nnkit.Network([2, 3, 1], seed=0)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> net.save(path)
    >>> nnkit.load(path)
    Network(2 → 3 sigmoid → 1 sigmoid, cross_entropy, 13 parameters in float32 on numpy, seed 0)
    """
    target = get_backend(backend)
    saved = checkpoint.read(path)
    with checkpoint.damage(path):
        network = Network(**saved.arguments, backend=target)
        network.epochs_trained, network.vector_targets = saved.epochs_trained, saved.vector_targets
        if saved.training is None:
            restore(network.placement, saved.arrays, training=False)
        else:
            network.optimizer = resume(network.placement, saved.arrays, saved.training)
    return network
