"""Divergence: the cost or parameters become NaN or infinite; the previous parameters are restored."""

import math

from nnkit.backends.base import Array
from nnkit.backends.dtypes import dtype_name
from nnkit.history import History
from nnkit.inputs import surely_finite
from nnkit.model import Model
from nnkit.optimizers import OptimizerState
from nnkit.state import OPTIMIZER, training_arrays


class DivergenceError(ArithmeticError, ValueError):
    """The cost or the parameters became NaN or infinite; the network has the parameters from before that step.

    If early stopping restores the best parameters, the network has those.

    Attributes:
        epoch: the epoch, from 1.
        step: the step in the epoch, from 1.
        history: the epochs before.
        best: the epoch, from 1, whose parameters the network has; None for those from before that step.
    """

    def __init__(self, epoch: int, step: int, found: str, rate: float) -> None:
        super().__init__(epoch, step, found, rate)
        self.epoch, self.step = epoch, step
        self.best: int | None = None
        self.history: History | None = None

    def __str__(self) -> str:
        epoch, step, found, rate = self.args
        kept = "keeps the parameters from before that step"
        if self.best is not None:
            kept = f"has the parameters of epoch {self.best}, the best"
        return (
            f"{found} in epoch {epoch}, step {step}; the network {kept}. Lower the "
            f"learning rate ({rate:g} there), clip gradients (clip_norm=1.0), or normalize X"
        )


class Snapshot:
    """A copy of parameters and training state: the optimizer's state and dropout's counter."""

    def __init__(self, model: Model, state: OptimizerState) -> None:
        self._model, self._state = model, state
        self._copies = {name: self._empty(array) for name, array in self._arrays().items()}

    def _arrays(self) -> dict[str, Array]:
        """Read anew each time: the state of a custom optimizer may assign new ones, or make them in its first step."""
        return {"": self._model.parameters.flat, **training_arrays(self._model.placement, self._state)}

    def _empty(self, array: Array) -> Array:
        return self._model.backend.empty(array.shape, dtype_name(array.dtype))

    def take(self) -> None:
        """Save the current state."""
        arrays = self._arrays()
        for name in self._copies.keys() - arrays.keys():
            del self._copies[name]
        for name, array in arrays.items():
            copy = self._copies.get(name)
            if copy is None or (copy.shape, copy.dtype) != (array.shape, array.dtype):
                self._copies[name] = self._empty(array)
            self._model.backend.copy(array, self._copies[name])

    def restore(self) -> None:
        """Restore the saved state."""
        backend, custom = self._model.backend, self._state.is_custom
        for name, array in self._arrays().items():
            if not (custom and name.startswith(OPTIMIZER)):
                backend.copy(self._copies[name], array)
        if custom:  # which may have other arrays now
            saved = {name: copy for name, copy in self._copies.items() if name.startswith(OPTIMIZER)}
            copies = {name: backend.copy(copy, self._empty(copy)) for name, copy in saved.items()}
            self._state.fill({name.removeprefix(OPTIMIZER): copy for name, copy in copies.items()})


class Undo:
    """Restores the state from before an epoch, or before the last marked step.

    Attributes:
        open: whether an epoch can be undone. moving: whether a step may be half done.
    """

    def __init__(self, model: Model, state: OptimizerState) -> None:
        self._model, self._state = model, state
        self._epoch = self._latest = Snapshot(model, state)
        self._step: Snapshot | None = None
        self.open = self.moving = False

    def begin(self) -> None:
        """Begin an epoch."""
        self._epoch.take()
        self._latest, self.open = self._epoch, True

    def mark(self) -> None:
        """Begin a step, to which `back` returns."""
        if self._step is None:
            self._step = Snapshot(self._model, self._state)
        self._step.take()
        self._latest = self._step

    def back(self, whole: bool = False) -> None:
        """Undo the changes since the last mark, or the `whole` epoch."""
        self.moving = True
        (self._epoch if whole else self._latest).restore()
        self.moving = False

    def close(self) -> None:
        """Complete the epoch: it can no longer be undone."""
        self.open = False

    def take_back(self, error: BaseException) -> None:
        """Undo an open epoch that ended by this error.

        After Ctrl-C, undo only a step that is half done; after a divergence, nothing more than already restored.
        """
        if not isinstance(error, KeyboardInterrupt | DivergenceError):
            self.back(whole=True)
        elif self.moving:
            self.back()
        elif not bool(parameters_are_finite(self._model)):  # the epoch has diverged, found only now
            self.back(whole=True)
        self.open = False


def what_is_not_finite(model: Model, cost: float) -> str | None:
    """A description of a NaN or infinite cost or parameter; None if all are finite. Synchronizes with the device."""
    if not math.isfinite(cost):
        return f"the cost is {cost}"
    return None if bool(parameters_are_finite(model)) else "a parameter is not finite"


def parameters_are_finite(model: Model) -> Array:
    """Whether all parameters are finite, a 0-d array on the device."""
    xp, flat = model.backend.xp, model.parameters.flat
    return xp.asarray(True) if surely_finite(flat) else xp.all(xp.isfinite(flat))
