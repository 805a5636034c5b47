"""The parameters of the best epoch, which early stopping restores."""

from nnkit.backends.base import Array
from nnkit.history import History
from nnkit.model import Model
from nnkit.parameters import Parameters
from nnkit.state import Arrays
from nnkit.training.stopping import EarlyStopping, Improvement


class Best:
    """The parameters of the best epoch, if early stopping restores them, and their averages where these are others.

    Attributes:
        parameters, average: copies of these vectors; None if there is none.
    """

    def __init__(self, model: Model, rule: EarlyStopping | None) -> None:
        self.model, self.rule = model, rule
        self._improvement = None if rule is None else Improvement(rule)
        self._arrangement = model.parameters
        self.parameters: Array | None = None
        self.average: Array | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch, from 1, of the saved parameters; None if there are none."""
        if self.parameters is None or self._improvement is None or self._improvement.best is None:
            return None
        return self._improvement.best + 1

    def note(self, history: History, parameters: Parameters, average: Parameters | None) -> None:
        """Save these parameters, and their averages if given, if the last epoch is the best."""
        if self.rule is not None and self._improvement is not None:
            best = self._improvement.follow(history).best
            if self.rule.restore_best and best == history.epochs - 1:
                self.hold(parameters.flat, None if average is None else average.flat)

    def hold(self, flat: Array, average: Array | None) -> None:
        """Save a copy of these vectors; the previous copy is valid until this one is complete."""
        backend, dtype = self.model.backend, self.model.dtype
        copies = [None if a is None else backend.copy(a, backend.empty(a.shape, dtype)) for a in (flat, average)]
        (self.parameters, self.average), self._arrangement = copies, self.model.parameters

    @property
    def arrays(self) -> Arrays:
        """The saved vectors in the layout of files, by name."""
        named = {"best": self.parameters, "best_average": self.average}
        return {name: self.model.parameters.saved(flat) for name, flat in named.items() if flat is not None}

    def stops(self, history: History) -> bool:
        """Whether the rule ends the training now."""
        return self._improvement is not None and self._improvement.follow(history).stops

    def restore(self) -> None:
        """Restore the saved parameters, if any, on the network's current backend."""
        if self.parameters is None:
            return
        parameters, state = self.model.parameters, self.model.current_state
        vectors = [self.parameters, self.average]
        if parameters.backend is not self._arrangement.backend:
            vectors = [None if a is None else parameters.restored(self._arrangement.saved(a)) for a in vectors]
        self.model.backend.copy(vectors[0], parameters.flat)
        self.model.average_anew()
        if vectors[1] is not None and state is not None and state.averaged is not None:
            self.model.backend.copy(vectors[1], state.averaged.flat)
