"""fit: train for epochs of minibatches, and return a History."""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from os import PathLike, fspath
from typing import Any

import numpy as np

from nnkit.checks import flag, in_range, whole
from nnkit.classes import class_indices
from nnkit.history import History
from nnkit.inputs import on_host
from nnkit.metrics import MetricFunction, get_metrics
from nnkit.model import Model
from nnkit.optimizers import Optimizer, chosen_optimizer
from nnkit.parallel import fastest, team_of
from nnkit.preprocessing import warn_of_scales
from nnkit.schedules import ScheduleLike, as_schedule, in_words
from nnkit.training.best import Best
from nnkit.training.blas_threads import threads_for
from nnkit.training.checkpoints import Keeper, Plan, drawn_before
from nnkit.training.data import is_stream, learned_names, source_of, validation_source
from nnkit.training.divergence import DivergenceError
from nnkit.training.epochs import Epochs
from nnkit.training.fingerprints import functions_of, objects_of
from nnkit.training.loop import Training, carrying
from nnkit.training.options import (
    check_monitor,
    check_team,
    checked_callbacks,
    checked_rule,
    class_weight_in_words,
    numbers_to_come,
    refuse,
)
from nnkit.training.progress import Progress, checked_progress
from nnkit.training.sources import ArraySource
from nnkit.training.start import check_same, cores_for, start_alike
from nnkit.training.stopping import EarlyStopping, interruptible
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
    validation_split: float | None = None,
    metrics: Iterable[str | MetricFunction] = (),
    sample_weight: Any = None,
    class_weight: ClassWeight = None,
    early_stopping: EarlyStopping | None = None,
    gradient_accumulation_steps: int = 1,
    shuffle: bool | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    averaged: bool = True,
    progress: bool | str = True,
    callbacks: Iterable[Callable[[Any, History], object]] = (),
    comm: Any = None,
    shards: int | None = None,
    sharded: bool = False,
) -> History:
    """Train a network on minibatches (eq. 17 for SGD); returns the costs and metrics of the epochs.

    Args:
        model: the network, changed in place.
        X: samples (n, width), anything that `asarray` or DLPack accepts. Images of bytes (uint8) are converted per
            minibatch. Arrays on disk (`numpy.memmap`, `nnkit.data.open_npy`, HDF5) stay there. These are read in place
            during training, and so are, on the CPU, NumPy arrays (X and targets) of bytes or of the network's dtype
            (float32 by default): do not change them meanwhile. Or an iterable of minibatches (X, y) or
            (X, y, sample_weight), or a function that returns a new one for each epoch. From a table (pandas, polars,
            pyarrow) the network learns its `features`, if unset, and then selects columns by these names.
        y: labels (n,), or a column (n, 1) of them for classification; or targets (n, d_out), also (n,) for one output;
            omitted for an iterable. Labels are 0 to k − 1 or class names: text, booleans for two classes, and k other
            integers, such as −1 and 1. The network learns its `classes`, in sorted order, if unset.
        epochs: total number of passes over the samples, including those of a resumed training.
        batch_size: samples per step, 32 if None; the last minibatch of an epoch may be smaller, and its gradient is the
            mean over its samples. The minibatches of an iterable are used as they are.
        optimizer: None continues with the network's optimizer and its state; a different one starts with a new state
            and replaces it. A name, such as "adam", means that optimizer with default parameters
            (`nnkit.optimizer_names`); if the network's optimizer equals it, its state is kept.
        schedule: factor of the learning rate, of which the optimizer's is the maximum (`nnkit.schedules`): a schedule,
            its name, or a function from the epoch, counted from 0, to the factor. The rate may change at each step; for
            an iterable only from the second epoch on, when the number of steps is known.
        validation_data: (X, y), (X, y, sample_weight) or an iterable, to evaluate after each epoch.
        validation_split: instead of that, the share in (0, 1) of the samples to set aside for it, in memory. They are
            drawn by the network's seed, whatever the order of the data, and of labels each class has its share, as by
            `nnkit.data.split`; Keras takes the last samples instead.
        metrics: besides cost and accuracy: "top_5", "r2", "mae", "rmse", ..., or functions of targets and outputs
            (`nnkit.metrics`).
        sample_weight: (n,), at least 0; the cost is Σ w C/Σ w, and so are accuracy and metrics.
        class_weight: a dict from classes to weights, or "balanced", for equal total weights of all classes, including
            the sample weights. For labels and rows of class probabilities (softmax), the class weight multiplies the
            sample weight in the cost. For targets (n, d_out) of separate outputs (cross_entropy, hinge), multi-label or
            one-hot, it multiplies the cost of that output without normalization: a weight of 2 for all classes doubles
            the cost. The weights of an iterable are not normalized in the gradient either, so their mean should be
            about 1; "balanced" is not possible there.
        early_stopping: when to stop before `epochs`, such as `nnkit.EarlyStopping(patience=5)`.
        gradient_accumulation_steps: minibatches per update, by the mean over their samples and with the rate of the
            first, if batches exceed memory.
        shuffle: None or True draws a new order for each epoch on the host, from the network's seed and epoch count:
            the same batches on every backend and in a resumed training.
        checkpoint: a file to which the training is written every `checkpoint_every` epochs (None means 1) and at its
            end, unless Ctrl-C ends it. With `resume`, a killed training continues from the file, bit for bit as if
            uninterrupted; without a file it starts. Without `resume`, a new training replaces an existing file. The
            file has the parameters of the last epoch, not the best.
        averaged: if the optimizer has an `ema`, whether the network ends with the averaged parameters, as in Keras, so
            that more training starts from them; checkpoints contain both. They are validated in any case. If not,
            early stopping restores the parameters themselves, of the best epoch.
        progress: True shows a bar on a terminal or in a notebook, not in a file; "lines" prints about ten lines.
        callbacks: functions called with the network and the history after each epoch; one that returns True stops, and
            a training that it stopped stays so when it is resumed. They run in the thread of `fit`, and may use and
            change the network, other than its backend, preprocessing, classes and features: `train_step` there is an
            additional step.
        comm: train on several processes, or GPUs: an mpi4py communicator whose ranks all call `fit` with the same
            arguments (`nnkit.parallel`). `batch_size` is that of all ranks together, each of which takes its part of
            every minibatch: the result is that of one process, to rounding. All start with rank 0's network; rank 0
            shows the progress and writes the checkpoint, from which any number of ranks can resume. An error on one
            rank is an error on all, RankError on the others.
        shards: cut each minibatch into this many parts, whose gradients are added in a fixed order: then the result has
            the same bits on any number of ranks up to `shards`, on CPUs of one type. A step with 8 shards takes
            1.1 to 1.3 times as long with 128 samples in a shard, 1.4 times with 16, 2 to 3.5 times with few.
        sharded: with an iterable: each rank's X yields minibatches of its own, which together are the minibatch of a
            step. By default all yield the same, of which each rank takes its part.

    Ctrl-C ends the training after the current step: the network keeps its parameters, and the history says
    `interrupted`. A second Ctrl-C does not wait for data, callbacks and files. Whenever training ends, early stopping
    restores the best parameters, if it should and there are any.

    Warns of features that are orders of magnitude larger than others, where nothing normalizes them. Raises ValueError
    and TypeError for invalid arguments, and TypeError for arguments without effect, before anything changes. An
    exception that ends the training has the `history` of the completed epochs as an attribute.
    If the cost becomes NaN or infinite, it is DivergenceError, and the parameters from before that step are restored.
    After any other exception, from the data, the schedule, a metric or device memory (OutOfMemoryError), the network
    and the optimizer's state are those from before the epoch; after one from a callback or a checkpoint, those after
    it. BlockingIOError means that another process writes the checkpoint; RuntimeError, before anything changes, that
    another thread trains or moves the network.

    "Bit for bit" requires the same machine and packages, and on the CPU the same number of BLAS threads
    (OMP_NUM_THREADS, OPENBLAS_NUM_THREADS) if a step takes more than 8 million multiplications, which are
    3 · batch_size · Σ inputs · units over the layers. Smaller steps use one thread.

    A resumed training must be the same: ValueError lists the differences in data (some rows of large data, and nothing
    of iterables, are compared), weights, metrics, functions and options. Functions are compared by their code, the
    numbers, texts and tuples that they read and the functions of their module that they call, not by lists, dicts and
    arrays, which may be logs; initializers, if given, by their names. It may have more epochs, not fewer, unless its
    schedule depends on them. Schedules and metrics that are objects go on with what they remember in their attributes,
    if these are numbers, text, arrays, or lists, tuples, sets and dicts of up to a million of them, or objects with
    such attributes. There is a UserWarning of other attributes, also those of their classes, that are not what they
    were when the file was written, or cannot be compared, such as an open file. What functions, modules and callbacks
    remember is not in the file, nor compared.
    Callbacks may add entries to the history, but not change those of `fit` (ValueError); an entry that a checkpoint
    cannot store, anything but one number per epoch, raises TypeError or ValueError in the epoch where it appears.

    >>> X, y = nnkit.data.digits()
    >>> net = nnkit.Network([64, 30, 10], seed=1)
    >>> history = net.fit(X, y, epochs=3, optimizer=nnkit.SGD(1.0), progress=False)
    >>> history["cost"][-1] < history["cost"][0], history.epochs
    (True, 3)
    """
    team = team_of(comm, shards, sharded)
    communicator = team.communicator
    with ExitStack() as stack, communicator.ending_together(DivergenceError):
        if communicator is not comm:
            stack.callback(communicator.close)
        with communicator.agreed():
            check_team(team, model, X, shards, sharded)
            if is_stream(X):
                refuse("with an iterable", batch_size=batch_size, shuffle=shuffle, validation_split=validation_split)
            if validation_data is not None:
                refuse("with validation_data", validation_split=validation_split)
            if checkpoint is None:
                refuse("without a checkpoint", checkpoint_every=checkpoint_every)
            batch_size = 32 if batch_size is None else whole("", "batch_size", batch_size, 1)
            every = 1 if checkpoint_every is None else whole("", "checkpoint_every", checkpoint_every, 1)
            shuffle = shuffle is None or flag("", "shuffle", shuffle)
            if validation_split is not None:
                validation_split = in_range("", "validation_split", validation_split, 1.0, above=True)
            resume, averaged = flag("", "resume", resume), flag("", "averaged", averaged)
            for name, count in (("epochs", epochs), ("gradient_accumulation_steps", gradient_accumulation_steps)):
                whole("", name, count, 1)
            progress = checked_progress(progress)
            callbacks = checked_callbacks(callbacks)
            if checkpoint is not None:
                used = {"X": X, "y": y, "sample_weight": sample_weight}
                if isinstance(validation_data, tuple | list):
                    used |= {f"validation_data[{i}]": given for i, given in enumerate(validation_data)}
                _check_apart(checkpoint, used | {f"callbacks[{i}]": c for i, c in enumerate(callbacks)})
            optimizer = None if optimizer is None else chosen_optimizer(optimizer, model.optimizer)
            rates = None if schedule is None else as_schedule(schedule)
            measured = get_metrics(metrics, model.d_out, model.classifies, model.cost.threshold)
        seed = communicator.broadcast(lambda: _seed_of_split(model, validation_split, checkpoint if resume else None))
        with communicator.agreed():
            stack.enter_context(learned_names(model, X, y))
            if validation_split is not None and y is not None:
                given = {"X": X, "y": y, "sample_weight": sample_weight}
                (X, y, sample_weight), validation_data = _split(model, validation_split, seed, given)
            prints = checkpoint is not None or communicator.size > 1
            source = source_of(model, X, y, sample_weight, class_weight, learns=True, prints=prints, team=team)
            if (
                type(source) is ArraySource
                and model.preprocessing is None
                and model.epochs_trained == 0 == communicator.rank
            ):
                warn_of_scales(model.backend, source.X, model.features)
            if is_stream(X) and isinstance(validation_data, tuple | list) and len(validation_data) in (2, 3):
                model.learn(*validation_data[:2])  # the columns of its tables: the first minibatch comes later
            validation = validation_source(model, validation_data, prints, team)
            to_come = numbers_to_come(model, measured, validation is not None)
            check_monitor("schedule", None if rates is None else rates.monitor, to_come)
            best = Best(model, checked_rule(early_stopping, to_come))
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
                validation_split=validation_split,
                class_weight=class_weight_in_words(class_weight),
                data={**source.prints, **({} if validation is None else validation.prints)},
                functions=functions_of(model, optimizer or model.optimizer, rates, measured) if prints else {},
                shards=team.shards,
                averaged=averaged if early_stopping is not None else None,
            )
            objects = objects_of(rates, measured)
            keeper = Keeper(model, best, plan, checkpoint, every, resume, epochs, optimizer, communicator, objects)
        team = team._replace(communicator=fastest(communicator, model.backend))
        communicator = team.communicator
        check_same(team, model, plan, optimizer, epochs=int(epochs), checkpoint_every=every, resume=resume)
        stack.enter_context(keeper)
        interrupt = stack.enter_context(interruptible(communicator))
        with communicator.agreed():
            history = keeper.begin()
        start_alike(communicator, model)
        limit = threads_for(model, -(-plan.batch_size // team.divisor), cores_for(team))
        with carrying(history), limit:  # which reads the optimizer's state
            with communicator.agreed():
                passes = Epochs(model, source, measured, plan, rates, epochs, interrupt, keeper.steps, team)
            training = Training(model, history, passes, validation, measured, best, keeper, callbacks, averaged)
            shown = progress if communicator.rank == 0 else False
            with Progress(shown, epochs, passes.steps, history.epochs) as bar:
                training.run(bar, interrupt)
    return history


def _check_apart(checkpoint: str | PathLike[str], users: dict[str, Any]) -> None:
    """Raise ValueError if the checkpoint would replace the file of an array, which is read, or of a logger."""
    for name, user in users.items():
        file = getattr(user, "path", getattr(user, "filename", None))  # of open_npy and CSVLogger, of numpy.memmap
        if isinstance(file, str | PathLike) and os.path.realpath(file) == os.path.realpath(checkpoint):
            raise ValueError(f"checkpoint: {fspath(checkpoint)} is the file of {name}; give another path")


def _seed_of_split(model: Model, share: float | None, path: str | PathLike[str] | None) -> int:
    """The seed by which samples are set aside: of the checkpoint to resume from, if the network has drawn its own."""
    found = drawn_before(path) if share is not None and model.seed_is_drawn else None
    return model.seed if found is None else found


def _split(model: Model, share: float, seed: int, given: dict[str, Any]) -> list[list[Any]]:
    """Set a share of samples aside; returns (X, y, sample_weight) of both parts."""
    from nnkit.data.splitting import split_off  # imports all of nnkit.data, often not needed

    labels = np.asarray(on_host(model.answers(given["y"])))
    if not model.classifies:  # integers are amounts there, such as prices
        labels = np.zeros(labels.shape)
    elif model.classes is not None and labels.ndim == 1:  # of any kind, such as a list or a column of categories
        indices = class_indices(model.classes, labels, "y")
        labels = indices if model.classes.dtype.kind not in "biuU" else model.classes[indices]
    return split_off(labels, share, seed, **given)
