"""Ensemble: networks that differ in their seeds, trained together, whose spread shows how sure they are."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import reduce
from os import PathLike
from typing import Any, Self

from nnkit import checkpoint, tensor_files
from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array, quiet
from nnkit.checks import flag, one_of, whole
from nnkit.ensembles.fit import NAMES, OUTPUTS, TRAINED, EnsembleHistory, Training, check_alike, optimizers_of
from nnkit.history import History
from nnkit.inputs import labels_of
from nnkit.kernels.cost import OutputPair, output_pair
from nnkit.layers import Dense, Dropout
from nnkit.memory import LOWER_BATCH, explains_memory
from nnkit.metrics import MetricFunction, get_metrics
from nnkit.model import ROWS
from nnkit.network import Network
from nnkit.optimizers import Optimizer
from nnkit.preprocessing import warn_of_scales
from nnkit.schedules import ScheduleLike, as_schedule, in_words
from nnkit.state import restore
from nnkit.training.blas_threads import threads_for
from nnkit.training.checkpoints import Plan
from nnkit.training.data import learned_names, source_of, validation_source
from nnkit.training.loop import carrying
from nnkit.training.meter import Meter
from nnkit.training.options import check_monitor, checked_callbacks, checked_rule, numbers_to_come
from nnkit.training.progress import Progress, checked_progress
from nnkit.training.sources import ArraySource
from nnkit.training.stopping import EarlyStopping, interruptible
from nnkit.training.weights import ClassWeight

ORDERS = ("shared", "own")


class Ensemble:
    """Networks of one structure with different seeds, trained in one pass (Lakshminarayanan et al., NeurIPS 2017).

    Args:
        layers: as of `nnkit.Network`, without custom layers.
        seeds: the seed of each member's initial parameters, and of its dropout masks: integers, at least one.
        order: "shared": all members take the same minibatches, in the order of the first seed, which is faster and
            needs less memory. "own": each takes those that a network with its seed takes.
        options: the other arguments of `nnkit.Network`, the same for all members, as are dropout rates.

    Attributes:
        members: the networks, each of which can be used, saved and trained by itself; `del ensemble.members[3]` leaves
            one out. `fit` and `evaluate` raise ValueError for one that differs from the first in more than its
            parameters, seed and optimizer, such as in rates (`Network.set_rate`), preprocessing or classes.
        order: as given.

    In float64, a member equals the network of its seed trained alone, up to rounding (10⁻¹²); in "shared" order, one
    trained in the order of the first seed. Raises ValueError and TypeError like `nnkit.Network`, and for no seeds.

    >>> X, y = nnkit.data.digits()
    >>> ensemble = nnkit.Ensemble([64, 30, 10], seeds=range(4))
    >>> history = ensemble.fit(X, y, epochs=3, optimizer=nnkit.SGD(1.0), progress=False)
    >>> len(history.members), history["cost"][-1] < history["cost"][0]
    (4, True)
    >>> ensemble.predict_proba(X[:2]).shape, ensemble.spread(X[:2]).shape
    ((2, 10), (2, 10))
    """

    def __init__(
        self, layers: Sequence[Any], *arguments: Any, seeds: Iterable[int], order: str = "shared", **options: Any
    ) -> None:
        if "seed" in options:
            raise TypeError(f"seed is {options['seed']!r}; expected seeds, one for each member")
        found = list(seeds) if hasattr(seeds, "__iter__") else None
        if not found:
            raise ValueError(f"seeds is {seeds!r}; expected at least one integer, such as range(5)")
        one_of("Ensemble", "order", order, ORDERS)
        self._set([Network(layers, *arguments, seed=seed, **options) for seed in found], order)

    def _set(self, members: list[Network], order: str) -> None:
        own = [layer for layer in members[0].layers if not isinstance(layer, Dense | Dropout)]
        if own:
            raise TypeError(f"layers contains {own[0]!r}; an ensemble has Dense and Dropout layers only")
        self.members, self.order = members, order

    def __repr__(self) -> str:
        return f"Ensemble({len(self.members)} × {self.members[0]!r}, {self.order} order)"

    def __len__(self) -> int:
        return len(self.members)

    @property
    def backend(self) -> Backend:
        """The backend of the members."""
        return self.members[0].backend

    @explains_memory(LOWER_BATCH)
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int = 10,
        batch_size: int | None = None,
        optimizer: Optimizer | str | Sequence[Optimizer | str] | None = None,
        schedule: ScheduleLike = None,
        validation_data: Any = None,
        metrics: Iterable[str | MetricFunction] = (),
        sample_weight: Any = None,
        class_weight: ClassWeight = None,
        early_stopping: EarlyStopping | None = None,
        shuffle: bool | None = None,
        averaged: bool = True,
        progress: bool | str = True,
        callbacks: Iterable[Callable[["Ensemble", History], object]] = (),
        **others: Any,
    ) -> EnsembleHistory:
        """Train all members; returns the means of their costs and metrics, and each one's history in `members`.

        The arguments are those of `Network.fit`, which trains for `epochs` more epochs here. These differ:

        optimizer: also a list with one of the same kind for each member; their learning rates, momentum, `l1`, `l2`,
            `weight_decay` and clipping may differ.
        early_stopping: for each member by its own history; the others go on.
        schedule: `reduce_on_plateau` follows each member's history, and so does a custom `Schedule`, of which each
            member has a copy. A metric is one object for all members.
        callbacks: functions of the ensemble and the mean history; a member that one removes from the ensemble is
            trained and measured until `fit` ends, and has its place in the history's `members`.

        All samples are in memory: minibatches of an iterable, rows on disk, `gradient_accumulation_steps` and
        checkpoints raise TypeError; train the members alone, `ensemble.members[0].fit(...)`.

        A member whose cost or parameters become NaN or infinite keeps the parameters from before that step, with a
        RuntimeWarning that names it, and the others are trained on, with the same bits as without its failure: leave it
        out (`del ensemble.members[3]`), or train it again. If all
        members diverge, DivergenceError is raised.
        """
        for name in others:
            hint = (
                "give validation_data" if name == "validation_split" else "train its members alone: members[0].fit(...)"
            )
            raise TypeError(f"{name} is not possible for an ensemble; {hint}")
        members = list(self.members)  # callbacks may leave some out
        check_alike(members, TRAINED)
        one_of("Ensemble", "order", self.order, ORDERS)  # which can be set
        first = members[0]
        batch_size = 32 if batch_size is None else whole("", "batch_size", batch_size, 1)
        whole("", "epochs", epochs, 1)
        shuffle = shuffle is None or flag("", "shuffle", shuffle)
        averaged = flag("", "averaged", averaged)
        progress, callbacks = checked_progress(progress), checked_callbacks(callbacks)
        rates = None if schedule is None else as_schedule(schedule)
        measured = get_metrics(metrics, first.d_out, first.classifies, first.cost.threshold)
        optimizers = optimizers_of(members, optimizer)
        with ExitStack() as context:
            for member in members:
                member.turn.__enter__()
                context.push(member.turn.__exit__)
            context.enter_context(learned_names(first, X, y))
            check_alike(members, NAMES)
            for member in members[1:]:
                context.enter_context(learned_names(member, None, None))
                for name in ("features", "classes", "target_names", "vector_targets"):
                    setattr(member, name, getattr(first, name))
            source = source_of(first, X, y, sample_weight, class_weight)
            if type(source) is ArraySource and first.preprocessing is None and first.epochs_trained == 0:
                warn_of_scales(first.backend, source.X, first.features)
            if not isinstance(source, ArraySource) or not source.on_device:
                kind = "minibatches" if source.samples is None else "rows read on demand, or too many for the device"
                raise TypeError(f"X has {kind}; an ensemble needs all samples in memory; or train its members alone")
            validation = validation_source(first, validation_data, False)
            to_come = numbers_to_come(first, measured, validation is not None)
            check_monitor("schedule", None if rates is None else rates.monitor, to_come)
            rule = checked_rule(early_stopping, to_come)
            before = [(member.optimizer, member.placement.state) for member in members]
            try:
                for member, chosen in zip(members, optimizers, strict=True):
                    member.optimizer_state(chosen)
            except BaseException:
                for member, (previous, state) in zip(members, before, strict=True):
                    member.optimizer, member.placement.state = previous, state
                raise
            history = EnsembleHistory(len(members))
            with interruptible() as interrupt, carrying(history), threads_for(first, batch_size):
                plan = Plan(source.samples, min(batch_size, source.samples), 1, shuffle, in_words(rates), repr(rule))
                training = Training(
                    members,
                    self.order == "own",
                    source,
                    validation,
                    measured,
                    plan,
                    rates,
                    epochs,
                    rule,
                    history,
                    averaged,
                )
                with Progress(progress, epochs, -(-source.samples // plan.batch_size), 0) as bar:
                    training.run(self, callbacks, bar, interrupt)
        return history

    def predict_proba(self, x: Any) -> Array:
        """The mean of the members' outputs h for samples x (n, width): (n, d_out); probabilities, for classes."""
        outputs = self._outputs(x)
        return self.backend.xp.mean(outputs, axis=0)

    def predict(self, x: Any) -> Array:
        """The class (n,) of each sample by the mean outputs; for regression their mean, (n, d_out) or (n,).

        Classes are as those of `Network.predict`.
        """
        first = self.members[0]
        if not first.classifies:
            mean = self.predict_proba(x)
            return mean[:, 0] if first.vector_targets else mean
        values, pair = self._values(x)
        labels = labels_of(first.backend, _mean(first.backend, values, pair), pair)
        return labels if first.classes is None else first.classes[first.backend.to_numpy(labels)]

    def spread(self, x: Any) -> Array:
        """The standard deviation of the members' outputs, √(Σ (h − mean)²/K), in the shape of `predict_proba`."""
        outputs, xp = self._outputs(x), self.backend.xp
        apart = outputs - xp.mean(outputs, axis=0)
        largest = xp.max(xp.abs(apart), axis=0)  # squares of small or large units would be 0 or infinite
        return largest * xp.sqrt(xp.mean((apart / xp.where(largest > 0, largest, 1.0)) ** 2, axis=0))

    def disagreement(self, x: Any) -> Array:
        """The share of members (n,) that predict another class than the ensemble; TypeError for regression."""
        first = self.members[0]
        if not first.classifies:
            raise TypeError(f"{first.cost.name} does not classify; use spread")
        backend, (values, pair) = first.backend, self._values(x)
        chosen = labels_of(backend, _mean(backend, values, pair), pair)
        others = backend.xp.stack([labels_of(backend, each, pair) != chosen for each in values])
        return backend.xp.mean(backend.xp.astype(others, backend.dtype(first.dtype)), axis=0)

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        metrics: Iterable[str | MetricFunction] = (),
        sample_weight: Any = None,
        class_weight: ClassWeight = None,
    ) -> dict[str, float]:
        """The cost, accuracy and metrics of the mean outputs, like `Network.evaluate`."""
        check_alike(self.members, ("preprocessing", *OUTPUTS, *NAMES))
        first = self.members[0].snapshot(self.members[0].placement.beside())  # whose recordings are of another cost
        measured = get_metrics(metrics, first.d_out, first.classifies, first.cost.threshold)
        source = source_of(first, x, y, sample_weight, class_weight)
        pair = _pair_of_mean(first)
        of_outputs = pair is not first.output
        vars(first)["output"] = pair
        known = source.samples or ROWS
        meter = Meter(first, known, min(known, ROWS), measured)
        meter.start(source.start(None), careful=True)
        for batch in source.batches(ROWS):
            inputs = batch.inputs()
            values = [member.propagate(inputs) for member in self.members]
            if of_outputs:
                values = [m.output.outputs(m.backend, z) for m, z in zip(self.members, values, strict=True)]
            meter.add(_mean(first.backend, values, pair), batch)
        return meter.read()

    def to(self, backend: str | Backend) -> Self:
        """Move all members to a backend; returns this ensemble."""
        for member in self.members:
            member.to(backend)
        return self

    def save(self, path: str | PathLike[str], samples: str | None = None) -> None:
        """Write all members, without optimizers, to one `.safetensors` file, which is replaced atomically.

        `samples` describes the training samples, as `nnkit train` does. Raises ValueError if the members do not share
        their preprocessing and `target_scaling`, which the file has once.
        """
        check_alike(self.members, ("preprocessing", "target_scaling"))
        checkpoint.save_members([member.snapshot() for member in self.members], self.order, path, samples)

    @classmethod
    def load(cls, path: str | PathLike[str], backend: str | Backend | None = None) -> Self:
        """Load an ensemble written by `save`; raises like `nnkit.load`.

        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "ensemble.safetensors"
        >>> nnkit.Ensemble([2, 3, 1], seeds=[0, 1]).save(path)
        >>> len(nnkit.Ensemble.load(path))
        2
        """
        target, (parts, order) = get_backend(backend), checkpoint.read_members(path)
        members = []
        for saved in parts:
            with checkpoint.damage(tensor_files.called(path)):
                member = Network(**saved.arguments, backend=target)
                saved.tell(member)
                restore(member.placement, saved.arrays, training=False)
                members.append(member)
        made = object.__new__(cls)
        made._set(members, order)
        return made

    def _outputs(self, x: Any) -> Array:
        """The outputs of each member, (K, n, d_out)."""
        check_alike(self.members, OUTPUTS)
        first = self.members[0]
        return first.backend.xp.stack([member.ask(x, activated=True, finite=True) for member in self.members])

    def _values(self, x: Any) -> tuple[list[Array], OutputPair]:
        """What decides the class of each member, its logits or outputs (n, d_out), and their pair."""
        check_alike(self.members, OUTPUTS)
        first = self.members[0]
        pair = _pair_of_mean(first)
        of_outputs = pair is not first.output
        return [member.ask(x, activated=of_outputs, finite=True) for member in self.members], pair


def _pair_of_mean(network: Network) -> OutputPair:
    """The pair to which `_mean` belongs: that of the network, or the identity if it is of outputs.

    With a scaling of targets, the mean of logits is that of outputs.
    """
    keeps = _as_logits(network.output) or network.target_scaling is not None
    return network.output if keeps else output_pair(network.cost, "identity")


def _as_logits(pair: OutputPair) -> bool:
    """Whether the mean of outputs is computed as logits: it and its members may round to 0 and 1, or overflow."""
    name = None if pair.activation is None else pair.activation.name
    if name == "exponential":
        return pair.cost.from_logits is not None and pair.cost.output == name
    return pair.by_logits and name in (None, "sigmoid")


@quiet()
def _mean(backend: Backend, values: Sequence[Array], pair: OutputPair) -> Array:
    """The mean of outputs; of logits z, those whose outputs are the mean of the members'.

    These are log Σ σ(z) − log Σ σ(−z) for the sigmoid, log Σ softmax(z) for softmax, and log Σ exp(z)/K for the
    exponential, with Σ over the K members.
    """
    xp = backend.xp
    if len(values) == 1:
        return values[0]
    if not _as_logits(pair):
        return sum(values[1:], values[0]) / len(values)
    logits = [xp.astype(z, xp.float64) for z in values]
    if pair.activation is None:
        shifted = [z - xp.max(z, axis=1, keepdims=True) for z in logits]
        return reduce(xp.logaddexp, [z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True)) for z in shifted])
    if pair.activation.name == "exponential":
        return reduce(xp.logaddexp, logits) - math.log(len(logits))
    above, below = ([-xp.logaddexp(xp.zeros_like(z), -sign * z) for z in logits] for sign in (1, -1))
    return reduce(xp.logaddexp, above) - reduce(xp.logaddexp, below)
