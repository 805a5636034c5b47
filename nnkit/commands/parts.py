"""Samples divided: a part to train on, one to test with, and where the training looks at one, one to validate with."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from nnkit import data
from nnkit.commands.dataset import Dataset
from nnkit.commands.targets import Targets

Part = tuple[NDArray[Any], NDArray[Any]]


class Parts(NamedTuple):
    """Samples with their labels or targets; without a part of its own, `validation` is None."""

    training: Part
    validation: Part | None
    test: Part

    def counts(self) -> dict[str, int]:
        """How many samples each part has."""
        return {name: 0 if part is None else len(part[0]) for name, part in self._asdict().items()}


def divide(dataset: Dataset, targets: Targets, fraction: float, seed: int, validated: bool) -> Parts:
    """A data set in parts, by a seed: a share to test with, and if `validated` the same share of the rest for that.

    Raises ValueError for a fraction that is no share or leaves a part empty.
    """
    X, y, test, validation = dataset.X, targets.y, dataset.test, None
    if test is None:
        X, y, X_test, y_test = data.split(X, y, fraction, seed)
        test = X_test, targets.named(y_test)
    if validated:
        X, y, X_validation, y_validation = data.split(X, y, fraction, seed)
        validation = X_validation, targets.named(y_validation)
    return Parts((X, targets.named(y)), validation, test)
