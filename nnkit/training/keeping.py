"""Keeping a training: its best parameters, and checkpoints that it can go on from after it was killed."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from nnkit import checkpoint
from nnkit.backends.base import Array
from nnkit.checkpoint import Saved, Training, layer_description
from nnkit.files import locked, writable
from nnkit.history import History
from nnkit.model import Model
from nnkit.optimizers import Optimizer, get_optimizer
from nnkit.placement import Placement
from nnkit.state_arrays import restore_arrays, restored_arrays, saved_arrays
from nnkit.tensor_file import check_safetensors
from nnkit.training.early_stopping import EarlyStopping


@dataclass(frozen=True, slots=True)
class Plan:
    """How an epoch is cut into steps: a resumed training must do it alike."""

    samples: int | None
    batch_size: int
    accumulate: int
    shuffle: bool
    schedule: str
    early_stopping: str


class Best:
    """The parameters of the best epoch, where a rule asks for them."""

    def __init__(self, model: Model, rule: EarlyStopping | None) -> None:
        self.model, self.rule = model, rule
        self.parameters: Array | None = None  # flat

    def note(self, history: History) -> None:
        """Keep the parameters, if the last epoch is the best."""
        if self.rule is not None and self.rule.restore_best and self.rule.best(history) == history.epochs - 1:
            self.hold(self.model.parameters.flat)

    def hold(self, flat: Array) -> None:
        """Keep a copy of these parameters."""
        backend = self.model.backend
        if self.parameters is None:
            self.parameters = backend.empty(flat.shape, self.model.dtype)
        backend.copy(flat, self.parameters)

    def stops(self, history: History) -> bool:
        """Whether the rule ends the training here."""
        return self.rule is not None and self.rule.stops(history)

    def restore(self) -> None:
        """Give the network the parameters that were kept, if any."""
        if self.parameters is not None:
            self.model.backend.copy(self.parameters, self.model.parameters.flat)


class Keeper:
    """Writes checkpoints of a training, and reads one to go on from. As a context: the only one that writes the file.

    `stopped` says that a callback has ended the training.
    """

    def __init__(
        self, model: Model, best: Best, plan: Plan, path: str | PathLike[str] | None, every: int, resume: bool
    ) -> None:
        self.model, self.best, self.plan, self.every = model, best, plan, every
        self.stopped = False
        self._path = None if path is None else _writable(path)
        self._lock = ExitStack()
        self._saved: Saved | None = None
        if resume and self._path is None:
            raise ValueError("resume needs the path of a checkpoint, as checkpoint='run.safetensors'")
        if resume and self._path is not None and self._path.exists():
            self._saved = checkpoint.read(self._path)

    def __enter__(self) -> "Keeper":
        if self._path is not None:
            try:
                self._lock.enter_context(locked(self._path))
            except BlockingIOError:
                raise BlockingIOError(
                    f"checkpoint: another process is training to {self._path}; give another path"
                ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.close()

    def check(self, optimizer: Optimizer | None) -> None:
        """ValueError unless the checkpoint, if there is one, is of a training like this."""
        if self._saved is None:
            return
        training, model = self._saved.training, self.model
        if training is None:
            raise ValueError(f"{self._path}: a network without the state of a training; it cannot be resumed")
        pairs: dict[str, tuple[Any, Any]] = {
            "layers": (list(map(layer_description, self._saved.layers)), list(map(layer_description, model.layers))),
            "cost": (self._saved.cost, model.cost),
            "dtype": (self._saved.dtype, model.dtype),
            "classes": (self._saved.classes, None if model.classes is None else model.classes.tolist()),
            "plan": (training.about.get("plan"), asdict(self.plan)),
        }
        if optimizer is not None:
            pairs["optimizer"] = (training.about.get("optimizer"), optimizer.describe())
        for name, (there, here) in pairs.items():
            if there != here:
                raise ValueError(f"{self._path}: its {name} is {there}, but this training's is {here}")
        if self._saved.preprocessing != model.preprocessing:
            raise ValueError(f"{self._path}: its preprocessing is another one, or fitted to other samples")
        with checkpoint.damage(str(self._path)):
            History.of(training.about["history"])
            place = model.placement
            restored_arrays(place, _optimizer_of(training, optimizer).start(place.parameters), training.tensors)

    def resumed(self, optimizer: Optimizer | None) -> History:
        """The history to go on with, the network being as it was then; an empty one where nothing is resumed."""
        if self._saved is None or self._saved.training is None:
            return History()
        saved, training, model = self._saved, self._saved.training, self.model
        with checkpoint.damage(str(self._path)):
            history = History.of(training.about["history"])
            self.stopped = bool(training.about["stopped"])
            place = Placement(model.backend, model.layers, model.dtype, saved.seed)  # whose dropout is the seed's
            place.parameters.assign(saved.values)
            used = restore_state(place, training, optimizer)
            if "best" in training.tensors:
                self.best.hold(place.parameters.restored(training.tensors["best"]))
            model.seed, model.epochs_trained = saved.seed, saved.epochs_trained
            model.optimizer, model.placement = used, place  # now that it is complete: other threads may ask meanwhile
        return history

    def keep(self, history: History, last: bool) -> None:
        """Write a checkpoint, if it is time."""
        if self._path is None or not (last or self.stopped or history.epochs % self.every == 0):
            return
        state = self.model.optimizer_state()
        tensors = saved_arrays(self.model.placement, state)
        if self.best.parameters is not None:
            tensors["best"] = self.model.parameters.saved(self.best.parameters)
        about = {"optimizer": state.optimizer.describe(), "plan": asdict(self.plan), "history": dict(history)}
        checkpoint.save(self.model, self._path, Training(tensors, about | {"stopped": self.stopped}))


def restore_state(place: Placement, training: Training, optimizer: Optimizer | None = None) -> Optimizer:
    """Make the optimizer's and dropout's state that of a training, whose optimizer comes back.

    ValueError for arrays that do not fit.
    """
    used = _optimizer_of(training, optimizer)
    place.state = used.start(place.parameters)
    restore_arrays(place, place.state, training.tensors)
    return used


def _optimizer_of(training: Training, optimizer: Optimizer | None) -> Optimizer:
    return optimizer if optimizer is not None else get_optimizer(**training.about["optimizer"])


def _writable(path: str | PathLike[str]) -> Path:
    """The path of a checkpoint, if one can be written there: told before the training."""
    if not isinstance(path, str | PathLike):
        raise TypeError(f"checkpoint is {path!r}; expected a path")
    check_safetensors()
    return writable(path, "checkpoint")
