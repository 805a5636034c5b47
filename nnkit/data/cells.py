"""Cells of CSV files: numbers, and columns of labels."""

import math
from array import array
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")  # cells without a value
_NOT_FINITE = {sign + word for word in ("nan", "inf", "infinity") for sign in ("", "+", "-")}

_SHOWN = 60  # characters of a cell in an error


class AnotherKindError(Exception):
    """A label is not of the expected kind."""


class TextCellError(ValueError):
    """A cell contains text instead of a number."""


class NoValueError(ValueError):
    """A cell has no value."""


class Labels:
    """Labels, (n,): integers, as int64."""

    code = "q"  # as of `array` and NumPy's dtypes

    def __init__(self) -> None:
        self.values: array[Any] = array(self.code)

    @classmethod
    def of(cls, cells: Iterable[str]) -> Self:
        """The labels in these cells; raises like `add`."""
        labels = cls()
        for cell in cells:
            labels.add(cell)
        return labels

    def add(self, cell: str) -> None:
        """Add a label; raises `AnotherKindError` if it is of another kind, ValueError if it cannot be represented."""
        if not is_number(cell):
            raise AnotherKindError
        self.values.append(self.number(cell))

    def number(self, cell: str) -> float:
        """The label in a cell that holds a number."""
        try:
            number = int(cell)
        except ValueError:
            raise AnotherKindError from None
        if not -(2**63) <= number < 2**63:
            raise ValueError(f"{shown(cell)} is too large for a 64-bit integer")
        return number

    def array(self) -> Any:
        """The labels, (n,)."""
        return np.frombuffer(self.values, self.code)


class RealNumbers(Labels):
    """Real labels, as float64."""

    code = "d"

    def number(self, cell: str) -> float:
        return finite_number(cell)


class Text(Labels):
    """Text labels, each distinct one stored once; cells in `MISSING`, NaN and infinities are errors."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}
        self.text: str | None = None  # the first label that is not a number
        self.fraction: str | None = None  # the first non-integer number

    def add(self, cell: str) -> None:
        """Add a label; raises ValueError for NaN, infinities, and text mixed with decimal fractions."""
        if cell not in self.numbers:
            self._check(cell)
            self.numbers[cell] = len(self.numbers)
        self.values.append(self.numbers[cell])

    def _check(self, cell: str) -> None:
        if cell.lower() in _NOT_FINITE:
            finite_number(cell)
        if cell in MISSING:
            raise NoValueError(f"{shown(cell)} means no value; give the class another name")
        if not is_number(cell):
            self.text = self.text or cell
        elif not cell.lstrip("+-").isdigit():
            self.fraction = self.fraction or cell
        # Classes may be called 1, 2 and 3a; in a column of measurements, text is a typo or a missing value.
        if self.text and self.fraction:
            if cell == self.fraction:
                raise ValueError(f"{shown(cell)} is a number, but {shown(self.text)} is not")
            raise ValueError(f"{shown(cell)} is not a number, but {shown(self.fraction)} is")

    def array(self) -> Any:
        return np.array(list(self.numbers))[super().array()]


KINDS = (Labels, RealNumbers, Text)


def finite_number(cell: str) -> float:
    """The number in a cell; raises ValueError that shows the cell if it is not a finite number."""
    if not cell.strip():
        raise NoValueError("no value")
    if not is_number(cell):
        raise TextCellError(f"{shown(cell)} is not a number")
    value = float(cell.strip())
    if not math.isfinite(value):
        raise (NoValueError if math.isnan(value) else ValueError)(f"{shown(cell)} is not finite")
    return value


def shown(cell: str) -> str:
    """A cell as shown in errors, abbreviated: with an unclosed quote it may be a whole file.

    >>> shown(" a ")
    "'a'"
    """
    text = cell.strip()
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"


def is_number(cell: str) -> bool:
    """Whether a cell contains a number, NaN and infinities included, but not Python's 1_000.

    >>> [is_number(cell) for cell in ("1e3", " -2", "NaN", "1_000", "0x1", "")]
    [True, True, True, False, False, False]
    """
    try:
        float(cell.strip())  # float() itself refuses some of the white space that str.strip and NumPy remove
    except ValueError:
        return False
    return "_" not in cell
