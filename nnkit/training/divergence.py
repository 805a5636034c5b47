"""Training that diverges: the cost is no number any more, and the parameters are put back."""

import math

from nnkit.backends.base import Array
from nnkit.history import History
from nnkit.model import Model
from nnkit.optimizers import OptimizerState
from nnkit.state import training_arrays


class DivergenceError(ArithmeticError, ValueError):
    """The cost or the parameters became NaN or infinite; the network has the parameters from before that step.

    Where early stopping restores the best parameters it has these.

    Attributes:
        epoch: in which epoch, from 1. step: in which step of it, from 1. history: the epochs before.
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
    """A copy of all that training changes: parameters, the optimizer's state, dropout's counter."""

    def __init__(self, model: Model, state: OptimizerState) -> None:
        self._backend = model.backend
        self._arrays: list[Array] = [model.parameters.flat, *training_arrays(model.placement, state).values()]
        self._copies = [self._backend.empty(a.shape, model.dtype) for a in self._arrays]

    def take(self) -> None:
        """Keep how everything is now."""
        for array, copy in zip(self._arrays, self._copies, strict=True):
            self._backend.copy(array, copy)

    def restore(self) -> None:
        """Make everything as it was."""
        for array, copy in zip(self._arrays, self._copies, strict=True):
            self._backend.copy(copy, array)


class Undo:
    """The way back from an epoch: to how all was before it, or before the latest step that was marked.

    Attributes:
        open: whether there is an epoch to take back. moving: whether the parameters may be those of half a step.
    """

    def __init__(self, model: Model, state: OptimizerState) -> None:
        self._model, self._state = model, state
        self._epoch = self._latest = Snapshot(model, state)
        self._step: Snapshot | None = None
        self.open = self.moving = False

    def begin(self) -> None:
        """An epoch begins."""
        self._epoch.take()
        self._latest, self.open = self._epoch, True

    def mark(self) -> None:
        """A step begins, and the way back leads here."""
        if self._step is None:
            self._step = Snapshot(self._model, self._state)
        self._step.take()
        self._latest = self._step

    def back(self, whole: bool = False) -> None:
        """Undo what was done since the latest mark, or the `whole` epoch."""
        self.moving = True
        (self._epoch if whole else self._latest).restore()
        self.moving = False

    def close(self) -> None:
        """The epoch counts: it cannot be taken back any more."""
        self.open = False

    def take_back(self, error: BaseException) -> None:
        """Undo what an open epoch that ended by this error has changed.

        After Ctrl-C only a step that is half done, and after a divergence no more than has been put back.
        """
        if not isinstance(error, KeyboardInterrupt | DivergenceError):
            self.back(whole=True)
        elif self.moving:
            self.back()
        elif not bool(parameters_are_finite(self._model)):  # an epoch diverges, which its end would have shown
            self.back(whole=True)
        self.open = False


def what_is_not_finite(model: Model, cost: float) -> str | None:
    """What of the cost and the parameters is NaN or infinite, in words; None if nothing is. Waits for the device."""
    if not math.isfinite(cost):
        return f"the cost is {cost}"
    return None if bool(parameters_are_finite(model)) else "a parameter is not finite"


def parameters_are_finite(model: Model) -> Array:
    """Whether none of the parameters is NaN or infinite, a 0-d array on the device."""
    xp = model.backend.xp
    return xp.all(xp.isfinite(model.parameters.flat))
