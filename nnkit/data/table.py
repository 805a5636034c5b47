"""Table: what a data file holds, and how its columns are called."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import unknown_name


class Table(NamedTuple):
    """Samples and targets from a file, as `nnkit.data.read` gives them.

    X: the samples, (n, d).
    y: the labels or targets, (n,) or (n, ...): whole numbers, real numbers or text; None where there are none.
    features: the names of the columns of X, or None if they have none.
    target: what y is called in the file, a column's number as text; None where y is.
    """

    X: NDArray[Any]
    y: NDArray[Any] | None
    features: list[str] | None
    target: str | None


def column_number(path: Path, target: int | str, width: int, names: tuple[str, ...] = ()) -> int:
    """Which of a file's columns is meant by a name or by a number, perhaps as text; -1 is the last one.

    ValueError, naming the file and what there is, if there is none like it.

    >>> column_number(Path("a.csv"), "width", 2, ("width", "length")), column_number(Path("a.csv"), "-1", 2)
    (0, 1)
    """
    if isinstance(target, str) and target in names:
        return names.index(target)
    number = column_as_number(target)
    if number is None:
        if names:
            raise ValueError(f"{path}: {unknown_name('column', target, names)}")
        raise ValueError(f"{path}: no column {target!r}: the columns have no names, only numbers, 0 to {width - 1}")
    if not -width <= number < width:
        raise ValueError(f"{path}: no column {number}; the columns are 0 to {width - 1}, or -{width} to -1")
    return number % width


def column_as_number(target: object) -> int | None:
    """A column's number that may be given as text; None for other text. TypeError for anything else."""
    if isinstance(target, bool) or not isinstance(target, int | np.integer | str):
        raise TypeError(f"target is {target!r}; expected the name or the number of a column")
    if isinstance(target, str) and not re.fullmatch(r"[+-]?[0-9]{1,9}", target.strip()):
        return None
    return int(target)
