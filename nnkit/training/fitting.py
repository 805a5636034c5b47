"""fit: epochs of minibatches, with all that goes with them, and a History."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import Any

import numpy as np

from nnkit.classes import names_in
from nnkit.history import History
from nnkit.metrics import MetricFunction, get_metrics
from nnkit.model import Model
from nnkit.optimizers import Optimizer, chosen_optimizer
from nnkit.ranges import flag, whole
from nnkit.schedules import ScheduleLike, as_schedule
from nnkit.training.blas_threads import threads_for
from nnkit.training.checks import check_monitor, checked_callbacks, checked_rule, in_words, numbers_to_come, refuse
from nnkit.training.divergence import DivergenceError
from nnkit.training.early_stopping import EarlyStopping
from nnkit.training.epoch import Epochs
from nnkit.training.evaluation import evaluate
from nnkit.training.interrupt import interruptible
from nnkit.training.keeping import Best, Keeper, Plan
from nnkit.training.meter import Meter
from nnkit.training.minibatches import Source
from nnkit.training.progress import Progress, check_progress
from nnkit.training.sources import source_of
from nnkit.training.streams import is_stream
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
            are gathered. Arrays on a disk (`numpy.memmap`, `nnkit.data.open_npy`, HDF5) stay there. Or an iterable of
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
        sample_weight: (n,), at least 0; the cost is Σ w C/Σ w, and so are accuracy and metrics. class_weight: a dict
            from classes to weights that multiply them in the cost, or "balanced", which makes all classes count alike.
            In an iterable weights count as they are: let their mean be about 1; they cannot be "balanced".
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
    `interrupted`. Raises ValueError and TypeError for arguments that do not fit, and TypeError for such as would have
    no effect, before anything changes;
    DivergenceError where the cost becomes NaN or infinite, with the parameters from before that step; OutOfMemoryError
    where a device's memory does not suffice, with the parameters from before that epoch; BlockingIOError if another
    process writes the checkpoint; RuntimeError, before anything changes, if another thread trains or moves the network.

    >>> X, y = nnkit.data.digits()
    >>> net = nnkit.Network([64, 30, 10], seed=1)
    >>> history = net.fit(X, y, epochs=3, optimizer=nnkit.SGD(1.0), progress=False)
    >>> history["cost"][-1] < history["cost"][0], history.epochs
    (True, 3)
    """
    if is_stream(X):
        refuse("beside an iterable of minibatches", batch_size=batch_size, shuffle=shuffle)
    if checkpoint is None:
        refuse("without a checkpoint", checkpoint_every=checkpoint_every)
    batch_size = 32 if batch_size is None else whole("", "batch_size", batch_size, 1)
    every = 1 if checkpoint_every is None else whole("", "checkpoint_every", checkpoint_every, 1)
    shuffle = shuffle is None or flag("", "shuffle", shuffle)
    resume = flag("", "resume", resume)
    for name, count in (("epochs", epochs), ("gradient_accumulation_steps", gradient_accumulation_steps)):
        whole("", name, count, 1)
    check_progress(progress)
    callbacks = checked_callbacks(callbacks)
    optimizer = None if optimizer is None else chosen_optimizer(optimizer, model.optimizer)
    rates = None if schedule is None else as_schedule(schedule)
    measured = get_metrics(metrics, model.dense[-1].units, model.classifies)
    stack = ExitStack()
    with _names(model, X, y):
        source = source_of(model, X, y, sample_weight, class_weight, learns=True)
        validation = _validation(model, validation_data)
        to_come = numbers_to_come(model, measured, validation is not None)
        check_monitor("schedule", None if rates is None else rates.monitor, to_come)
        best = Best(model, checked_rule(early_stopping, to_come))
        shuffle = shuffle and source.samples is not None
        size = batch_size if source.samples is None else min(batch_size, source.samples)
        rule = repr(early_stopping)
        plan = Plan(source.samples, size, int(gradient_accumulation_steps), shuffle, in_words(rates), rule)
        keeper = Keeper(model, best, plan, checkpoint, every, resume)
        keeper.check(optimizer)
        stack.enter_context(keeper)
        model.optimizer_state(optimizer)
    with stack, threads_for(model, size), interruptible() as interrupt:
        history = keeper.resumed(optimizer)
        passes = Epochs(model, source, Meter(model, source.samples or size, size, measured), plan, rates, epochs)
        with Progress(progress, epochs, passes.steps, history.epochs) as bar:
            try:
                while history.epochs < epochs and not keeper.stopped and not best.stops(history):
                    started = time.perf_counter()
                    try:
                        numbers = passes.run(history.epochs, history, bar, interrupt)
                        if validation is not None:
                            numbers |= {f"validation_{k}": v for k, v in evaluate(model, validation, measured).items()}
                    except MemoryError:  # such as for the smaller last minibatch, which comes when others are done
                        passes.undo()
                        raise
                    history.add(**numbers, learning_rate=passes.rate, seconds=time.perf_counter() - started)
                    _finish_epoch(model, history, best, keeper, callbacks, last=history.epochs == epochs)
                    bar.epoch(history.epochs, numbers)
                    interrupt.check()
            except KeyboardInterrupt:
                history.interrupted = True
            except DivergenceError as error:
                error.history = history
                raise
    best.restore()
    return history


def _finish_epoch(
    model: Model,
    history: History,
    best: Best,
    keeper: Keeper,
    callbacks: Iterable[Callable[[Any, History], object]],
    last: bool,
) -> None:
    """Count an epoch, hold its parameters if they are the best, ask the callbacks, write a checkpoint if it is time."""
    model.epochs_trained += 1
    best.note(history)
    answers = [callback(model, history) for callback in callbacks]
    keeper.stopped = any(isinstance(answer, bool | np.bool_) and answer for answer in answers)
    keeper.keep(history, last or best.stops(history))


@contextmanager
def _names(model: Model, X: Any, y: Any) -> Iterator[None]:
    """Let a network learn the names of features and classes, if it has none, and the shape of targets.

    All is put back if an argument turns out to be wrong.
    """
    before = model.features, model.classes, model.vector_targets
    try:
        model.learn_features(X)
        if y is not None:
            labels = model.answers(y)
            model.learn_shape(labels)
            if model.classifies and model.classes is None:
                model.classes = names_in(labels, model.dense[-1].units)
        yield
    except BaseException:
        model.features, model.classes, model.vector_targets = before
        raise


def _validation(model: Model, data: Any) -> Source | None:
    if data is None:
        return None
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        X, y, weight = (*data, None)[:3]
        return source_of(model, X, y, weight, which="validation ")
    if not is_stream(data):
        raise TypeError("validation_data: expected (X, y), (X, y, sample_weight) or an iterable of minibatches")
    return source_of(model, data, None, which="validation ")
