"""Checkpoints, from which a killed training can be resumed."""

import json
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from numbers import Real
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from nnkit import checkpoint, state, tensor_files
from nnkit.backends.cpu.native.compiler import enabled
from nnkit.checkpoint import Saved
from nnkit.checks import FixedList
from nnkit.files import locked, writable
from nnkit.history import History
from nnkit.layers import Dense, Layer, dense_layers, layer_description
from nnkit.model import Model
from nnkit.optimizers import Optimizer, get_optimizer
from nnkit.parallel.communicator import ALONE, Communicator
from nnkit.placement import Placement
from nnkit.state import Arrays
from nnkit.training.best import Best
from nnkit.training.fingerprints import differ
from nnkit.training.remembered import recall, remembered


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a training that must be the same when it is resumed.

    Attributes:
        epochs: the length of the training, if its schedule depends on it.
        metrics: their names. validation_data: "given" or "None". validation_split: its share, if it was split off.
        class_weight: as text. data: fingerprints of samples, targets and weights, by name.
        functions: fingerprints of custom schedules and metrics, by name.
        averaged: whether early stopping keeps averages, if there are any.
    """

    samples: int | None
    batch_size: int
    gradient_accumulation_steps: int
    shuffle: bool
    schedule: str
    early_stopping: str
    epochs: int | None = None
    metrics: list[str] = field(default_factory=list)
    validation_data: str = "None"
    validation_split: float | None = None
    class_weight: str = "None"
    data: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    shards: int | None = None
    averaged: bool | None = None


class Keeper:
    """Writes checkpoints of a training, and reads one to resume from. As a context manager it locks the file.

    Entering the context reads the checkpoint. Raises ValueError if it belongs to a different training, TypeError if
    later checkpoints could not be written, such as with class names that files do not support, and BlockingIOError if
    another process writes it.

    Attributes:
        stopped: whether a callback has ended the training.
        steps: number of steps of an iterable, from the checkpoint.
    """

    def __init__(
        self,
        model: Model,
        best: Best,
        plan: Plan,
        path: str | PathLike[str] | None,
        every: int,
        resume: bool,
        epochs: int,
        optimizer: Optimizer | None,
        communicator: Communicator = ALONE,
        objects: Mapping[str, Any] | None = None,
    ) -> None:
        self._communicator, self._objects, self._epochs = communicator, objects or {}, epochs
        self.model, self.best, self.plan, self.every = model, best, plan, every
        self._resumes, self._optimizer = resume, optimizer
        self.stopped = False
        self.steps: int | None = None
        self._path = None if path is None else _writable(path)
        self._file = None if self._path is None else self._path.absolute()  # a callback may change the directory
        self._lock = ExitStack()
        self._saved: Saved | None = None
        if resume and self._path is None:
            raise ValueError("resume needs the path of a checkpoint, such as checkpoint='run.safetensors'")

    def __enter__(self) -> "Keeper":
        if self._path is None or self._file is None:
            return self
        with ExitStack() as stack:
            content = self._communicator.broadcast(partial(self._locked, stack, self._file))
            with self._communicator.agreed():
                if content is not None:
                    self._saved = checkpoint.parsed(str(self._path), *content)
                if self._communicator.rank == 0:  # of the same training as on the others, but for what functions read
                    self._check(self._optimizer)
            self._lock = stack.pop_all()
        return self

    def _locked(self, stack: ExitStack, file: Path) -> tuple[Arrays, dict[str, Any]] | None:
        """Lock the file; returns what it contains to resume from. Rank 0 alone needs it."""
        try:
            stack.enter_context(locked(file))
        except BlockingIOError:
            raise BlockingIOError(
                f"checkpoint: another process is training to {self._path}; give another path"
            ) from None
        return tensor_files.read_tensors(str(self._path)) if self._resumes and file.exists() else None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.close()

    def _check(self, optimizer: Optimizer | None) -> None:
        given = self.model.optimizer if optimizer is None else optimizer
        checkpoint.check_describable(self.model, self._about(given, None, History()))
        if self._saved is None:
            return
        training, model = self._saved.training, self.model
        if training is None:
            raise ValueError(f"{self._path}: a network without training state, which cannot be resumed")
        with checkpoint.damage(str(self._path)):
            differences = [*self._other_network(self._saved), *self._other_training(training, optimizer)]
        if differences:
            raise ValueError(f"{self._path}: {'; '.join(differences)}")
        with checkpoint.damage(str(self._path)):
            history = History.of(training["history"])
            self._check_history(history)
        if history.epochs > self._epochs:
            raise ValueError(
                f"{self._path}: it has {history.epochs} epochs of training, epochs is {self._epochs}; give as many or "
                "more, or another checkpoint"
            )
        with checkpoint.damage(str(self._path)):
            place = model.placement
            state.fill(place, _optimizer_of(training, optimizer).start(place.parameters), self._saved.arrays)

    def _check_history(self, history: History) -> None:
        """Raise ValueError for a stored history without the numbers of this training."""
        names = ["cost", *(["accuracy"] if self.model.classifies else []), *self.plan.metrics]
        validated = [] if self.plan.validation_data == "None" else [f"validation_{name}" for name in names]
        for name in (*names, *validated) if history.epochs else ():
            if name not in history:
                raise ValueError(f"its history has no {name!r}")

    def _other_network(self, saved: Saved) -> list[str]:
        """Descriptions of the differences between the network of a checkpoint and this one."""
        there, here = map(_comparable, (saved.arguments, state.arguments(self.model)))
        given = {} if saved.training is None else saved.training
        if here["layers"] == given.get("given_layers"):  # the checkpoint has those that `set_rate` made of them
            there["layers"] = here["layers"]
        names = ("layers", "cost", "dtype", "classes")
        found = [_different(name, there[name], here[name]) for name in names if there[name] != here[name]]
        fitted = (name for name in ("preprocessing", "target_scaling") if there[name] != here[name])
        found += [f"its {name} is a different one, or was fitted to different samples" for name in fitted]
        columns = {"features": (there["features"], here["features"])}
        columns["target_names"] = (saved.target_names, self.model.target_names)
        found += [_different(of, a, b) for of, (a, b) in columns.items() if None not in (a, b) and a != b]
        seed = given.get("given_seed", there["seed"])  # a callback may have set another one
        if here["seed"] not in (seed, there["seed"]) and not self.model.seed_is_drawn:
            found.append(_different("seed", seed, here["seed"]))
        return found

    def _other_training(self, training: dict[str, Any], optimizer: Optimizer | None) -> list[str]:
        """Descriptions of the differences between the training of a checkpoint and this one."""
        here = asdict(self.plan)
        there = here | dict(training["plan"])  # a checkpoint of an earlier version has fewer entries
        pairs = [(name, there[name], here[name]) for name in here.keys() - {"data", "functions", "epochs"}]
        data, now = there["data"], here["data"]
        pairs += [(name, data.get(name, "None"), now.get(name, "None")) for name in data.keys() | now.keys()]
        if optimizer is not None:
            given = training.get("given_optimizer", training["optimizer"])
            pairs.append(("optimizer", given, _as_stored(optimizer.describe())))
        if self.model.init is not None:  # without one, as in a loaded network, that of the checkpoint holds
            pairs.append(("init", training.get("init", self.model.init), self.model.init))
        found = [_different(*pair) for pair in pairs if pair[1] != pair[2]]
        found += [
            f"its {name} was a different function of this name, or one that read different values"
            for name in there["functions"].keys() & here["functions"].keys()
            if differ(there["functions"][name], here["functions"][name])
        ]
        if not found and there["epochs"] != here["epochs"]:
            found.append(
                f"its epochs are {there['epochs']}, but this training's are {here['epochs']}, and the schedule "
                f"{self.plan.schedule} depends on them: the learning rate would jump. Give epochs={there['epochs']}; "
                "to train for longer, load the file and fit the network without resume"
            )
        return sorted(found)

    def begin(self) -> History:
        """Set the network's optimizer, or restore the network from the checkpoint; returns the history to continue."""
        self.model.optimizer_state(self._optimizer)
        if self._file is None:
            return History()
        self._given, self._init, self._given_seed = self.model.optimizer.describe(), self.model.init, self.model.seed
        self._given_layers = list(map(layer_description, self.model.layers))
        if self._saved is None or self._saved.training is None:
            return History()
        saved, training, model = self._saved, self._saved.training, self.model
        there, here = training.get("arithmetic"), _arithmetic(model)
        if there != here and None not in (there, here):
            warnings.warn(
                f"{self._path}: its numbers were computed by {there}, and now by {here}: they differ by rounding from "
                "those of an uninterrupted training (NNKIT_NATIVE, and whether numba is installed, decide)",
                stacklevel=4,
            )
        with checkpoint.damage(str(self._path)):
            history = History.of(training["history"])
            self.stopped = training["stopped"] in ("callback", True)
            self.steps = training.get("steps")
            self._given = training.get("given_optimizer", training["optimizer"])
            self._init = training.get("init", self._init)
            self._given_seed = training.get("given_seed", saved.arguments["seed"])
            seed = saved.arguments["seed"]
            self._given_layers = training.get("given_layers", self._given_layers)
            layers = list(map(_rated, model.layers, saved.arguments["layers"]))
            own = model.parameters
            # Dropout depends on the seed.
            place = Placement(model.backend, layers, model.dtype, seed, by_columns=own.order == "by columns")
            used = resume(place, saved.arrays, training, self._optimizer)
            recall(self._objects, training.get("remembered", {}), str(self._path), model)
            if "best" in saved.arrays:
                kept = [saved.arrays.get(name) for name in ("best", "best_average")]
                self.best.hold(*(None if a is None else place.parameters.restored(a) for a in kept))
                self.best.stops(history)  # finds the best epoch
            model.seed, model.seed_is_drawn = seed, model.seed_is_drawn
            model.epochs_trained = saved.epochs_trained
            model.features = saved.arguments["features"] if model.features is None else model.features
            model.target_names = saved.target_names if model.target_names is None else model.target_names
            if self.plan.samples is None:  # learned from an iterable's minibatches, of which none has come yet
                model.vector_targets = saved.vector_targets
            vars(model).update(layers=FixedList(layers), dense=FixedList(dense_layers(layers)))
            carried = place.carried_to(own.with_rates(place.parameters.rates))
            model.backend.copy(place.parameters.flat, own.flat)  # the user's views of the parameters stay views
            model.optimizer, model.placement = used, carried  # last, for other threads that use the network
        return history

    def keep(self, history: History, steps: int | None, last: bool) -> None:
        """Write a checkpoint if it is due.

        TypeError or ValueError if a callback added an unsupported entry to the history; it is written without that.
        """
        if self._file is None:
            return
        wrong = _made_plain(history)
        if self._communicator.rank == 0 and (last or wrong is not None or history.epochs % self.every == 0):
            used = self.model.optimizer_state().optimizer
            about = self._about(used, steps, history) | {"given_optimizer": self._given, "init": self._init}
            about |= {"given_layers": self._given_layers, "given_seed": self._given_seed}
            checkpoint.save(self.model, self._file, about, self.best.arrays)
        if wrong is not None:
            raise wrong

    def _about(self, optimizer: Optimizer, steps: int | None, history: History) -> dict[str, Any]:
        kept = {name: numbers for name, numbers in history.items() if _why_not(history, name) is None}
        about: dict[str, Any] = {"optimizer": optimizer.describe(), "plan": asdict(self.plan), "history": kept}
        about |= {"stopped": "callback" if self.stopped else history.stopped, "steps": steps}
        about |= {"remembered": remembered(self._objects, self.model)}
        return about | {"arithmetic": _arithmetic(self.model)}


def _rated(layer: Layer, saved: Layer) -> Layer:
    """A layer with the rates of a checkpoint's, which a callback may have set."""
    if isinstance(layer, Dense) and isinstance(saved, Dense):
        return replace(layer, rate=saved.rate, bias_rate=saved.bias_rate)
    return layer


def _arithmetic(model: Model) -> str | None:
    """What computes formulas, if results depend on that: native code and ufuncs round differently."""
    return None if model.backend.name != "numpy" else "native code" if enabled() else "ufuncs"


def _different(name: str, there: Any, here: Any) -> str:
    if name in ("cost", "optimizer") and there["name"] != here["name"]:
        there, here = there["name"], here["name"]
    elif name in ("cost", "optimizer"):
        changed = [key for key in there | here if there.get(key) != here.get(key)]
        there, here = (", ".join(f"{key} {about.get(key)}" for key in changed) for about in (there, here))
        return f"its {name} has {there}, but this training's has {here}"
    return f"its {name} is {there}, but this training's is {here}"


def _comparable(arguments: dict[str, Any]) -> dict[str, Any]:
    classes = arguments["classes"]
    return arguments | {
        "cost": arguments["cost"].describe(),
        "layers": _as_stored(list(map(layer_description, arguments["layers"]))),
        "classes": classes.tolist() if isinstance(classes, np.ndarray) else classes,
    }


def _as_stored(description: Any) -> Any:
    """What a file has of it: lists for tuples."""
    return json.loads(json.dumps(description))


def _made_plain(history: History) -> Exception | None:
    """Convert a history's numbers to Python floats; returns an error if an entry is not one number per epoch."""
    wrong = None
    for name, numbers in history.items():
        found = _why_not(history, name)
        if found is None:
            numbers[:] = map(float, numbers)
        wrong = wrong or found
    return wrong


def _why_not(history: History, name: str) -> Exception | None:
    """Why a checkpoint cannot contain this entry of the history; None if it can."""
    numbers = history[name]
    expected = "a checkpoint contains lists of one number per epoch, from the first on"
    if not isinstance(name, str) or not isinstance(numbers, list):
        return TypeError(f"history[{name!r}] is {numbers!r}; {expected}")
    for epoch, number in enumerate(numbers):
        single = number.item() if isinstance(number, np.ndarray) and number.shape == () else number
        if not isinstance(single, Real):
            return TypeError(f"history[{name!r}] contains {number!r} at [{epoch}]; {expected}")
        try:
            float(single)
        except OverflowError:
            return ValueError(f"history[{name!r}] contains a number beyond float64 at [{epoch}]; {expected}")
    if len(numbers) != history.epochs:
        return ValueError(f"history[{name!r}] has {len(numbers)} numbers after {history.epochs} epochs; {expected}")
    return None


def resume(place: Placement, arrays: Arrays, training: dict[str, Any], optimizer: Optimizer | None = None) -> Optimizer:
    """Restore a placement's arrays and optimizer state from a checkpoint; returns the optimizer.

    Raises ValueError for arrays of a different shape.
    """
    used = _optimizer_of(training, optimizer)
    used.learning_rate = training["optimizer"]["learning_rate"]  # a callback may have changed it
    place.state = used.start(place.parameters)
    state.restore(place, arrays)
    return used


def drawn_before(path: str | PathLike[str] | None) -> int | None:
    """The seed with which the training in a checkpoint began; None if there is no file."""
    if path is None or not Path(path).exists():
        return None
    saved = checkpoint.read(path)
    seed: int = (saved.training or {}).get("given_seed", saved.arguments["seed"])
    return seed


def _optimizer_of(training: dict[str, Any], optimizer: Optimizer | None) -> Optimizer:
    """The optimizer to continue with: the given one, unless a callback has replaced it."""
    there = training["optimizer"]
    rate = {"learning_rate": there["learning_rate"]}
    same = optimizer is not None and _as_stored(optimizer.describe()) | rate == there
    return optimizer if same and optimizer is not None else get_optimizer(**there)


def _writable(path: str | PathLike[str]) -> Path:
    """The path of a checkpoint; raises before the training if it cannot be written there."""
    tensor_files.check_safetensors()
    target = writable(path, "checkpoint")
    if target.is_fifo():
        raise OSError(f"checkpoint: {path} is a pipe; expected a file")
    return target
