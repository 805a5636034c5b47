"""The cells of CSV files: numbers, and the labels of the target column, which are numbers of one kind or text."""

import math
from array import array
from typing import Any

import numpy as np

_MISSING = {sign + word for word in ("nan", "inf", "infinity") for sign in ("", "+", "-")}

_SHOWN = 60  # characters of a cell in an error


class AnotherKindError(Exception):
    """A label is not of the kind that was tried."""


class TextCellError(ValueError):
    """A cell that should hold a number holds text."""


class WholeNumbers:
    """Labels that are whole numbers, as int64."""

    def __init__(self) -> None:
        self.values = array("q")

    def add(self, cell: str) -> None:
        """Take a label; `AnotherKindError` if it is of another kind, ValueError if there are none like it in int64."""
        if not is_number(cell):
            raise AnotherKindError
        try:
            number = int(cell)
        except ValueError:
            raise AnotherKindError from None
        if not -(2**63) <= number < 2**63:
            raise ValueError(f"{shown(cell)} is too large for a whole number of 64 bits")
        self.values.append(number)

    def array(self) -> Any:
        """The labels, (n,)."""
        return np.frombuffer(self.values, np.int64)


class RealNumbers:
    """Labels that are real numbers, as float64."""

    def __init__(self) -> None:
        self.values = array("d")

    def add(self, cell: str) -> None:
        """Take a label; `AnotherKindError` if it is text, ValueError if it is not finite."""
        if not is_number(cell):
            raise AnotherKindError
        self.values.append(finite_number(cell))

    def array(self) -> Any:
        """The labels, (n,)."""
        return np.frombuffer(self.values, np.float64)


class Text:
    """Labels that are text, each different one kept once; NaN and the like are missing values here too."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.values = array("q")
        self.text: str | None = None  # the first label that is no number
        self.fraction: str | None = None  # the first that is a number and not a whole one

    def add(self, cell: str) -> None:
        """Take a label; ValueError for NaN and infinities, and for text beside decimal fractions."""
        if cell not in self.numbers:
            self._check(cell)
            self.numbers[cell] = len(self.numbers)
        self.values.append(self.numbers[cell])

    def _check(self, cell: str) -> None:
        if cell.lower() in _MISSING:
            finite_number(cell)
        if not is_number(cell):
            self.text = self.text or cell
        elif not cell.lstrip("+-").isdigit():
            self.fraction = self.fraction or cell
        # Classes may be called 1, 2 and 3a; in a column of measured numbers, text is a slip or a missing value.
        if self.text and self.fraction:
            if cell == self.fraction:
                raise ValueError(f"{shown(cell)} is a number, as {shown(self.text)} is not")
            raise ValueError(f"{shown(cell)} is not a number, as {shown(self.fraction)} is")

    def array(self) -> Any:
        """The labels, (n,)."""
        return np.array(list(self.numbers))[np.frombuffer(self.values, np.int64)]


Labels = WholeNumbers | RealNumbers | Text
KINDS = (WholeNumbers, RealNumbers, Text)


def finite_number(cell: str) -> float:
    """The number in a cell; ValueError, saying what is there instead, if there is none or it is not finite."""
    if not cell.strip():
        raise ValueError("no value")
    if not is_number(cell):
        raise TextCellError(f"{shown(cell)} is not a number")
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(f"{shown(cell)} is not finite")
    return value


def shown(cell: str) -> str:
    """A cell as errors show it, which may be a whole file where a quote is not closed.

    >>> shown(" a ")
    "'a'"
    """
    text = cell.strip()
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, NaN and infinities included; Python's 1_000 is nobody else's.

    >>> [is_number(cell) for cell in ("1e3", " -2", "NaN", "1_000", "0x1", "")]
    [True, True, True, False, False, False]
    """
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
