"""fit: epochs of minibatches, with all that goes with them, and a History."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import Any

import numpy as np

from nnkit.checks import flag, whole
from nnkit.classes import names_in
from nnkit.history import History
from nnkit.metrics import Metric, MetricFunction, get_metrics
from nnkit.model import Model
from nnkit.optimizers import Optimizer, chosen_optimizer
from nnkit.schedules import ScheduleLike, as_schedule, in_words
from nnkit.training.blas_threads import threads_for
from nnkit.training.checkpoints import Best, Keeper, Plan
from nnkit.training.divergence import DivergenceError
from nnkit.training.early_stopping import EarlyStopping
from nnkit.training.epochs import Epochs
from nnkit.training.fingerprints import functions_of
from nnkit.training.interrupt import Interrupt, interruptible
from nnkit.training.meter import evaluate
from nnkit.training.progress import Progress, check_progress
from nnkit.training.sources import Source, is_stream, source_of
from nnkit.training.weights import ClassWeight


def fit(
    model: Model,
    X: Any,
    y: Any = None,
    *,
    epochs: int = 10,
    batch_size: int | None = None,
    optimizer: Optimizer | str | None = None,
    schedule: ScheduleLike = None,
    validation_data: Any = None,
    metrics: Iterable[str | MetricFunction] = (),
    sample_weight: Any = None,
    class_weight: ClassWeight = None,
    early_stopping: EarlyStopping | None = None,
    gradient_accumulation_steps: int = 1,
    shuffle: bool | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    progress: bool | str = True,
    callbacks: Iterable[Callable[[Any, History], object]] = (),
) -> History:
    """Train a network by minibatches (eq. 17 for SGD); the epochs' costs and metrics come back.

    Args:
        model: the network, changed in place.
        X: samples (n, width), anything that `asarray` or DLPack takes. Images of bytes (uint8) stay bytes until they
            are gathered. Arrays on a disk (`numpy.memmap`, `nnkit.data.open_npy`, HDF5) stay there. These are
            read in place while it trains, and so are, on the CPU, NumPy arrays of bytes and of the network's dtype
            (float32 by default), X and targets: do not change them meanwhile. Or an iterable of
            minibatches (X, y) or (X, y, sample_weight), or a function that returns a new one for each epoch. Of a table
            with named columns (pandas, polars, pyarrow) the network learns its `features`, if it has none, and takes
            all others by these names.
        y: labels (n,) or, for a network that classifies, a column (n, 1) of them; or targets (n, d_out), also (n,) for
            one output; nothing for an iterable. Labels are 0 to k − 1 or class names: text, truth values of two
            classes, and other whole numbers if k differ, such as −1 and 1. The network learns their `classes`, in
            sorted order, if it has none.
        epochs: how often all samples are seen, in all, with those of a resumed training.
        batch_size: samples a step, 32 if it is None; the last minibatch of an epoch is what is left, and its gradient
            is the mean over its own samples. An iterable's minibatches are taken as they come.
        optimizer: None goes on with the network's own and its state; another one starts from zero and stays. A name,
            such as "adam", is that optimizer with its default numbers (`nnkit.optimizer_names`); if the network has it
            already, its state goes on.
        schedule: of the learning rate, the optimizer's being the largest (`nnkit.schedules`): a schedule, its name, or
            a function of the epoch, which counts from 0, that returns a factor. It may change from step to step; of an
            iterable only from the second epoch on, when the number of steps is known.
        validation_data: (X, y), (X, y, sample_weight) or an iterable, to evaluate after each epoch.
        metrics: besides cost and accuracy: "top_5", "r2", "mae", or functions of targets and outputs (`nnkit.metrics`).
        sample_weight: (n,), at least 0; the cost is Σ w C/Σ w, and so are accuracy and metrics.
        class_weight: a dict from classes to weights, or "balanced", which makes all classes count alike. Labels, and
            rows of shares in classes (softmax), multiply the weight of their sample by it in the cost. Of a matrix of
            targets where a sample may be of several classes (cross_entropy) it multiplies the cost of that output,
            as it is: there a weight of 2 for all classes doubles the cost. In an iterable weights count as they are,
            too: let their mean be about 1; they cannot be "balanced".
        early_stopping: when to stop before `epochs`, as `nnkit.EarlyStopping(patience=5)`.
        gradient_accumulation_steps: minibatches whose gradients make one update together: the mean over all their
            samples, for batches larger than memory.
        shuffle: None or True is a new order each epoch, drawn on the host from the network's seed and its count of
            epochs, so that a seed gives the same batches on every backend and in a continued training.
        checkpoint: a file that the training is written to every `checkpoint_every` epochs (None is 1), and at its end,
            unless Ctrl-C ends it. With `resume` a training that was killed goes on from there, bit for bit as if it had
            not been; without such a file it starts. The file has the parameters of the last epoch, not the best.
        progress: a bar on a terminal or in a notebook, never in a file or a pipe; "lines" prints about ten lines
            instead.
        callbacks: functions called with the network and the history after each epoch; one that returns True stops. They
            run in the thread of `fit`, and may ask and change the network: `train_step` there is one more step.

    Ctrl-C ends the training after the step that runs: the network keeps its parameters, and the history says
    `interrupted`. The second Ctrl-C does not wait for data, callbacks and files. However a training ends, a network
    whose early stopping restores the best parameters has these, once there are any.

    Raises ValueError and TypeError for arguments that do not fit, and TypeError for such as would have no effect,
    before anything changes. An exception that ends the training has the `history` of the epochs before as an attribute.
    It is DivergenceError where the cost becomes NaN or infinite, with the parameters from before that step. With any
    other one, of the data, the schedule, a metric or a device's memory (OutOfMemoryError), the network and the
    optimizer's state are as they were before that epoch; with one of a callback or of a checkpoint, as they are after
    it. BlockingIOError says that another process writes the checkpoint; RuntimeError, before anything changes, that
    another thread trains or moves the network.

    "Bit for bit" also means: on the same machine and with the same packages, and on the CPU with as many BLAS threads
    (OMP_NUM_THREADS, OPENBLAS_NUM_THREADS) where a step takes more than 8 million multiplications, which are
    3 · batch_size · Σ inputs · units over the layers. Smaller steps use one thread.

    A resumed training must be the same one: ValueError says what differs, of the data (of large ones some rows are
    compared), weights, metrics, functions and options. It may have more epochs, unless its schedule depends on them.
    Callbacks may add to the history; what a checkpoint cannot keep, which is not one number an epoch, is a TypeError or
    ValueError at the epoch where it appears.

    >>> X, y = nnkit.data.digits()
    >>> net = nnkit.Network([64, 30, 10], seed=1)
    >>> history = net.fit(X, y, epochs=3, optimizer=nnkit.SGD(1.0), progress=False)
    >>> history["cost"][-1] < history["cost"][0], history.epochs
    (True, 3)
    """
    if is_stream(X):
        _refuse("beside an iterable of minibatches", batch_size=batch_size, shuffle=shuffle)
    if checkpoint is None:
        _refuse("without a checkpoint", checkpoint_every=checkpoint_every)
    batch_size = 32 if batch_size is None else whole("", "batch_size", batch_size, 1)
    every = 1 if checkpoint_every is None else whole("", "checkpoint_every", checkpoint_every, 1)
    shuffle = shuffle is None or flag("", "shuffle", shuffle)
    resume = flag("", "resume", resume)
    for name, count in (("epochs", epochs), ("gradient_accumulation_steps", gradient_accumulation_steps)):
        whole("", name, count, 1)
    check_progress(progress)
    callbacks = _checked_callbacks(callbacks)
    optimizer = None if optimizer is None else chosen_optimizer(optimizer, model.optimizer)
    rates = None if schedule is None else as_schedule(schedule)
    measured = get_metrics(metrics, model.d_out, model.classifies)
    stack = ExitStack()
    with _names(model, X, y):
        prints = checkpoint is not None
        source = source_of(model, X, y, sample_weight, class_weight, learns=True, prints=prints)
        validation = _validation(model, validation_data, prints)
        to_come = _numbers_to_come(model, measured, validation is not None)
        _check_monitor("schedule", None if rates is None else rates.monitor, to_come)
        best = Best(model, _checked_rule(early_stopping, to_come))
        plan = Plan(
            samples=source.samples,
            batch_size=batch_size if source.samples is None else min(batch_size, source.samples),
            gradient_accumulation_steps=int(gradient_accumulation_steps),
            shuffle=shuffle and source.samples is not None,
            schedule=in_words(rates),
            early_stopping=repr(early_stopping),
            epochs=int(epochs) if rates is not None and rates.uses_epochs else None,
            metrics=[metric.name for metric in measured],
            validation_data="None" if validation is None else "given",
            class_weight=_class_weight_in_words(class_weight),
            data={**source.prints, **({} if validation is None else validation.prints)},
            functions=functions_of(rates, measured),
        )
        keeper = Keeper(model, best, plan, checkpoint, every, resume, optimizer)
        stack.enter_context(keeper)
        with stack, interruptible() as interrupt:
            history = keeper.begin()
            with _carrying(history), threads_for(model, plan.batch_size):  # which asks for the state to be used
                passes = Epochs(model, source, measured, plan, rates, epochs, interrupt, keeper.steps)
                training = _Training(model, history, passes, validation, measured, best, keeper, callbacks)
                with Progress(progress, epochs, passes.steps, history.epochs) as bar:
                    training.run(bar, interrupt)
    return history


class _Training:
    """The epochs of a training, and what is done after each."""

    def __init__(
        self,
        model: Model,
        history: History,
        passes: Epochs,
        validation: Source | None,
        metrics: Sequence[Metric],
        best: Best,
        keeper: Keeper,
        callbacks: Sequence[Callable[[Any, History], object]],
    ) -> None:
        self.model, self.history, self.passes = model, history, passes
        self.validation, self.metrics = validation, metrics
        self.best, self.keeper, self.callbacks = best, keeper, callbacks

    def run(self, bar: Progress, interrupt: Interrupt) -> None:
        """Train until something ends it, which the history says then; the best parameters are put back."""
        history = self.history
        try:
            history.stopped = self._ended()
            while history.stopped is None:
                numbers = self._epoch(bar, interrupt)
                self._finish(interrupt)
                bar.epoch(history.epochs, numbers)
                interrupt.check()
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        except DivergenceError as error:
            history.stopped, error.best = "diverged", self.best.epoch
            raise
        finally:
            interrupt.hold()
            self.best.restore()

    def _ended(self) -> str | None:
        """Why the training is over; None if it is not."""
        if self.keeper.stopped:
            return "callback"
        if self.best.stops(self.history):
            return "early stopping"
        return "epochs" if self.history.epochs >= self.passes.epochs else None

    def _epoch(self, bar: Progress, interrupt: Interrupt) -> dict[str, float]:
        """Do an epoch and count it, or nothing of it; what it measured comes back."""
        model, history, passes, started = self.model, self.history, self.passes, time.perf_counter()
        trained, lengths = model.epochs_trained, {name: len(numbers) for name, numbers in history.items()}
        try:
            numbers = passes.run(history.epochs, history, bar)
            if self.validation is not None:
                with interrupt.at_once:
                    found = evaluate(model, self.validation, self.metrics)
                numbers |= {f"validation_{name}": number for name, number in found.items()}
            history.add(**numbers, learning_rate=passes.rate, seconds=time.perf_counter() - started)
            model.epochs_trained += 1
            self.best.note(history)
            passes.undo.close()
        except BaseException as error:
            interrupt.hold()
            if passes.undo.open:
                passes.undo.take_back(error)
                model.epochs_trained = trained
                for name in list(history):
                    del history[name][lengths.get(name, 0) :]
                    if name not in lengths:
                        del history[name]
            raise
        return numbers

    def _finish(self, interrupt: Interrupt) -> None:
        """Ask the callbacks, and write a checkpoint if it is time."""
        with interrupt.at_once:
            answers = [callback(self.model, self.history) for callback in self.callbacks]
        self.keeper.stopped = any(isinstance(answer, bool | np.bool_) and answer for answer in answers)
        self.passes.check_place()
        self.history.stopped = self._ended()
        with interrupt.at_once:
            self.keeper.keep(self.history, self.passes.steps, last=self.history.stopped is not None)


@contextmanager
def _carrying(history: History) -> Iterator[None]:
    """Give an exception that ends a training the history of it."""
    try:
        yield
    except BaseException as error:
        vars(error)["history"] = history
        raise


@contextmanager
def _names(model: Model, X: Any, y: Any) -> Iterator[None]:
    """Let a network learn the names of features and classes, if it has none, and the shape of targets.

    They, the optimizer and its state are as they were if an argument turns out to be wrong or a training ends by an
    exception before it has finished an epoch; a divergence leaves the steps before it.
    """
    before, used = (model.features, model.classes, model.vector_targets), (model.optimizer, model.state)
    trained = model.epochs_trained
    try:
        model.learn_features(X)
        if y is not None:
            labels = model.answers(y)
            model.learn_shape(labels)
            # Outputs that were trained already stand for 0 to k − 1: names would give them other numbers.
            trains_first = model.epochs_trained == 0 and model.state is None  # nor by train_step
            if model.classifies and model.classes is None and trains_first:
                model.classes = names_in(labels, model.d_out)
        yield
    except BaseException as error:
        if model.epochs_trained == trained and not isinstance(error, DivergenceError):
            model.features, model.classes, model.vector_targets = before
            model.optimizer, model.state = used
        raise


def _validation(model: Model, data: Any, prints: bool) -> Source | None:
    if data is None:
        return None
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        X, y, weight = (*data, None)[:3]
        return source_of(model, X, y, weight, which="validation ", prints=prints)
    if not is_stream(data):
        raise TypeError("validation_data: expected (X, y), (X, y, sample_weight) or an iterable of minibatches")
    return source_of(model, data, None, which="validation ")


def _class_weight_in_words(weight: ClassWeight) -> str:
    if not isinstance(weight, Mapping):
        return str(weight)
    return ", ".join(sorted(f"{name}: {float(number)!r}" for name, number in weight.items()))


def _refuse(reason: str, **arguments: object) -> None:
    """TypeError for the first of these arguments that was given: it would have no effect.

    >>> _refuse("without a checkpoint", checkpoint_every=2)
    Traceback (most recent call last):
    TypeError: checkpoint_every is 2, which has no effect without a checkpoint; leave it out
    """
    for name, value in arguments.items():
        if value is not None:
            raise TypeError(f"{name} is {value!r}, which has no effect {reason}; leave it out")


def _numbers_to_come(model: Model, metrics: Sequence[Metric], validated: bool) -> list[str]:
    """The names of the numbers that the history will have of each epoch."""
    names = ["cost", *(["accuracy"] if model.classifies else []), *(metric.name for metric in metrics)]
    return names + ([f"validation_{name}" for name in names] if validated else [])


def _checked_rule(rule: EarlyStopping | None, numbers: Sequence[str]) -> EarlyStopping | None:
    """A rule of early stopping whose number the history will have, as it is; TypeError or ValueError for others."""
    if not isinstance(rule, EarlyStopping | None):
        raise TypeError(f"early_stopping is {rule!r}; expected nnkit.EarlyStopping(patience=5) or the like")
    _check_monitor("early_stopping", None if rule is None else rule.monitor, numbers)
    return rule


def _check_monitor(option: str, monitor: str | None, numbers: Sequence[str]) -> None:
    """ValueError for a number that the history will not have."""
    if monitor is not None and monitor not in numbers:
        hint = "; give validation_data" if monitor.startswith("validation_") else ""
        raise ValueError(f"{option} monitors {monitor!r}; this training has {', '.join(numbers)}{hint}")


def _checked_callbacks(callbacks: Any) -> list[Callable[[Any, History], object]]:
    """The callbacks as a list; TypeError for what cannot be called."""
    found = list(callbacks) if hasattr(callbacks, "__iter__") else [callbacks]
    for callback in found:
        if not callable(callback):
            raise TypeError(f"callbacks holds {callback!r}; expected functions of the network and its history")
    return found
