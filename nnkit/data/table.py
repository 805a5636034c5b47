"""Table: the contents of a data file and the names of its columns."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import unknown_name


class Table(NamedTuple):
    """Samples and targets from a file, as returned by `nnkit.data.read`.

    X: the samples, (n, d).
    y: the labels or targets, (n,) or (n, ...): integers, real numbers or text; None if there are none.
    features: the column names of X, or None.
    target: the name of y in the file, or a column number as text; None if y is None.
    """

    X: NDArray[Any]
    y: NDArray[Any] | None
    features: list[str] | None
    target: str | None


def column_number(path: Path, target: int | str, width: int, names: tuple[str, ...] = ()) -> int:
    """The index of a file's column, given by its name or its number, possibly as text; -1 is the last column.

    Raises ValueError, naming the file and its columns, if there is no such column.

    >>> column_number(Path("a.csv"), "width", 2, ("width", "length")), column_number(Path("a.csv"), "-1", 2)
    (0, 1)
    """
    if isinstance(target, str) and target in names:
        return names.index(target)
    number = column_as_number(target)
    if number is None:
        if names:
            raise ValueError(f"{path}: {unknown_name('column', target, names)}")
        raise ValueError(f"{path}: no column {target!r}: the columns have no names; give a number, 0 to {width - 1}")
    if not -width <= number < width:
        raise ValueError(f"{path}: no column {number}; the columns are 0 to {width - 1}, or -{width} to -1")
    return number % width


def column_as_number(target: object) -> int | None:
    """A column number, possibly given as text; None for other text. Raises TypeError for other types."""
    if isinstance(target, bool) or not isinstance(target, int | np.integer | str):
        raise TypeError(f"target is {target!r}; expected the name or the number of a column")
    if isinstance(target, str) and not re.fullmatch(r"[+-]?[0-9]{1,9}", target.strip()):
        return None
    return int(target)
