"""Samples divided: a part to train on, one to test with, and where the training looks at one, one to validate with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit import data
from nnkit.commands.dataset import Dataset
from nnkit.commands.targets import Targets

Part = tuple[NDArray[Any], NDArray[Any]]


class Parts(NamedTuple):
    """Samples with their labels or targets; without a part of its own, `validation` is None.

    rows: which samples of the data set, (n, 1), are in the training part, in the one that validates, and in the test
    part, of which those of a part of its own count by themselves.
    """

    training: Part
    validation: Part | None
    test: Part
    rows: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

    def counts(self) -> dict[str, int]:
        """How many samples each part has."""
        parts = {"training": self.training, "validation": self.validation, "test": self.test}
        return {name: 0 if part is None else len(part[0]) for name, part in parts.items()}

    def places(self, dataset: Dataset) -> list[Callable[[int], str]]:
        """Where a sample of the training part, of the validating and of the test part is in the user's file."""
        return [lambda row, numbers=numbers: dataset.place(int(numbers[row, 0])) for numbers in self.rows]  # type: ignore[misc]


def divide(dataset: Dataset, targets: Targets, fraction: float, seed: int, validated: bool) -> Parts:
    """A data set in parts, by a seed: a share to test with, and if `validated` the same share of the rest for that.

    Raises ValueError for a fraction that is no share or leaves a part empty.
    """
    y, test, validation = targets.y, dataset.test, None
    rows = np.arange(len(dataset.X))[:, None]  # divided instead of X, to know which sample is where
    of_test = rows if test is None else np.arange(len(test[0]))[:, None]
    of_validation = None
    if test is None:
        rows, y, of_test, y_test = data.split(rows, y, fraction, seed)
        test = dataset.X[of_test[:, 0]], targets.named(y_test)
    if validated:
        rows, y, of_validation, y_validation = data.split(rows, y, fraction, seed)
        validation = dataset.X[of_validation[:, 0]], targets.named(y_validation)
    training = dataset.X[rows[:, 0]], targets.named(y)
    return Parts(training, validation, test, (rows, of_test if of_validation is None else of_validation, of_test))
