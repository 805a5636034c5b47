"""Callbacks of `fit` that log a training: `CSVLogger` and `TensorBoard`.

A callback is any function of the network and its history, called after each epoch; other loggers need two lines:

    def to_mlflow(network, history):  # with mlflow.start_run():
        mlflow.log_metrics(history.last, step=history.epochs)

    def to_wandb(network, history):  # with wandb.init(project="flowers") as run:
        run.log(history.last, step=history.epochs)

    net.fit(X, y, callbacks=[to_mlflow])
"""

import csv
import io
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from nnkit.files import replacing, writable
from nnkit.history import History, lists_of

__all__ = ["CSVLogger", "TensorBoard"]


class CSVLogger:
    """Write the history to a CSV file after each epoch: a column `epoch`, from 1, and one for each of its numbers.

    The file has the epochs of this training, and of a resumed one also those before, once each; an existing file is
    replaced. A number that another callback adds to the history in some epochs only is in the rows of these epochs.

    Args:
        path: the file.

    Raises OSError and ValueError, before the training, if the file cannot be written.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
    >>> net = nnkit.Network([2, 2], seed=0)
    >>> history = net.fit([[0.0, 1.0], [1.0, 0.0]], [0, 1], epochs=3, callbacks=[nnkit.callbacks.CSVLogger(path)])
    >>> [line.split(",")[:3] for line in path.read_text().splitlines()][0]
    ['epoch', 'cost', 'accuracy']
    """

    is_logger = True  # called on the first of several processes, and told of what later callbacks add

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = writable(path, "path").absolute()
        self._epochs, self._names = _Epochs(), list[str]()

    def __call__(self, network: Any, history: History) -> None:
        """Write the epochs that the file does not contain yet."""
        names, goes_on = list(lists_of(history)), self._epochs.follow(history)
        if goes_on and names == self._names and self.path.exists():
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(self._line(names, history.epochs - 1))
        else:
            self._write_all(names)
        self._names = names

    def catch_up(self, history: History) -> None:
        """Write what callbacks after this one have added to the history in this epoch."""
        if self._epochs.late(history):
            self._names = list(lists_of(history))
            self._write_all(self._names)

    def _write_all(self, names: Sequence[str]) -> None:
        if "epoch" in names:
            raise ValueError("history has an entry 'epoch', the first column of CSVLogger's file; give it another name")
        with replacing(self.path) as whole:
            lines = (self._line(names, epoch) for epoch in range(len(self._epochs.rows)))
            whole.write((_line(["epoch", *names]) + "".join(lines)).encode())

    def _line(self, names: Sequence[str], epoch: int) -> str:
        return _line([epoch + 1, *(self._epochs.rows[epoch].get(name, "") for name in names)])


class _Epochs:
    """The numbers of each epoch: a list of another callback's that grows in some epochs only has numbers of these.

    Attributes:
        rows: for each epoch, its numbers by name.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._history: History | None = None
        self._lengths: dict[str, int] = {}

    def follow(self, history: History) -> bool:
        """Add the last epoch; returns False if the history is another one, whose epochs then are all new."""
        done, goes_on = history.epochs, history is self._history and len(self.rows) == history.epochs - 1
        whole = {name: numbers for name, numbers in lists_of(history).items() if len(numbers) == done}
        if not goes_on:
            before = {name: numbers for name, numbers in lists_of(history).items() if len(numbers) in (done - 1, done)}
            self.rows = [{name: numbers[epoch] for name, numbers in before.items()} for epoch in range(done - 1)]
            self._lengths = _lengths(history)
        self._history = history
        self.rows.append({name: numbers[-1] for name, numbers in whole.items()})
        self.late(history)
        return goes_on

    def late(self, history: History) -> dict[str, float]:
        """What has been added to the history since the last look: numbers of the last epoch, too."""
        found = {name: own[-1] for name, own in lists_of(history).items() if len(own) > self._lengths.get(name, 0)}
        self.rows[-1] |= found
        self._lengths = _lengths(history)
        return found


def _lengths(history: History) -> dict[str, int]:
    return {name: len(numbers) for name, numbers in lists_of(history).items()}


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


class TensorBoard:
    """Write the history for TensorBoard after each epoch, in `folder/train` and `folder/validation`.

    `tensorboard --logdir FOLDER` shows both in one plot for each number. The epochs of an earlier training in the same
    folder are replaced; give each training its own folder to compare them.

    Args:
        folder: where to write; it is created.

    Raises ImportError without the package tensorboard (TensorFlow is not needed), OSError for a folder that cannot be
    written.
    """

    is_logger = True

    def __init__(self, folder: str | PathLike[str]) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            hint = "TensorBoard needs tensorboard: python -m pip install tensorboard"
            raise ImportError(hint, name="tensorboard") from error
        self._event, self._summary, self._writer = event_pb2, summary_pb2, RecordWriter
        if not isinstance(folder, str | PathLike):
            raise TypeError(f"folder is {folder!r}; expected the path of a folder")
        self._folder = Path(folder).absolute()
        if self._folder.exists() and not self._folder.is_dir():
            raise NotADirectoryError(f"folder: {folder} is a file; expected a folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._epochs = _Epochs()

    def __call__(self, network: Any, history: History) -> None:
        """Write the epochs that have not been written yet."""
        if not self._epochs.follow(history):
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.{id(self)}"
            self._name, self._done, self._runs = name, 0, set[str]()
        self._write_both(history)
        self._done = history.epochs

    def catch_up(self, history: History) -> None:
        """Write what callbacks after this one have added to the history in this epoch."""
        self._done = history.epochs - 1
        self._write_both(self._epochs.late(history))
        self._done = history.epochs

    def _write_both(self, names: Iterable[str]) -> None:
        for run, prefix in (("train", ""), ("validation", "validation_")):
            own = [name for name in names if name.startswith("validation_") == bool(prefix)]
            if own:
                self._write(run, {name: name.removeprefix(prefix) for name in own})

    def _write(self, run: str, names: Mapping[str, str]) -> None:
        (self._folder / run).mkdir(exist_ok=True)
        event: Callable[..., Any] = self._event.Event
        with open(self._folder / run / self._name, "ab") as file:
            writer = self._writer(file)
            if run not in self._runs:  # later events than the start's step are those of an earlier training
                self._runs.add(run)
                start = self._event.SessionLog(status=self._event.SessionLog.START)
                for first in (event(file_version="brain.Event:2"), event(step=1, session_log=start)):
                    writer.write(first.SerializeToString())
            for epoch, row in enumerate(self._epochs.rows[self._done :], self._done):
                value: Callable[..., Any] = self._summary.Summary.Value
                values = [value(tag=tag, simple_value=row[name]) for name, tag in names.items() if name in row]
                summary = self._summary.Summary(value=values)
                writer.write(event(wall_time=time.time(), step=epoch + 1, summary=summary).SerializeToString())


def __dir__() -> list[str]:
    return sorted(__all__)
