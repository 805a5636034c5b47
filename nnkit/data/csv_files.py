"""CSV files: a header line of names, or none, and in every cell but the target's a number."""

import csv
import itertools
import math
from array import array
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

import numpy as np

from nnkit.data.table import Table, column_as_number, column_number

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


def read_csv(path: Path, target: int | str | None, text: bool = False) -> Table:
    """The table in a CSV file; see `nnkit.data.read`, which takes these arguments. With `text` all labels are text."""
    # The kind of the labels shows at the first of them, as a rule. Where it does not, the file is read again: what
    # has been taken for numbers no longer has its text.
    for kind in KINDS[-1:] if text else KINDS:
        try:
            return _read(path, target, kind())
        except AnotherKindError:
            continue
    raise AssertionError("every label is text at least")


class _Layout(NamedTuple):
    """How the lines of a file are made up: `names` is () without a header, `target` a column's number."""

    path: Path
    width: int
    names: tuple[str, ...]
    target: int | None

    def at(self, line: int, column: int) -> str:
        name = repr(self.names[column]) if self.names else column
        return f"{self.path}, line {line}, column {name}"


def _read(path: Path, target: int | str | None, labels: Labels) -> Table:
    numbers = array("d")
    layout, end = None, 0  # the last line of the row before
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = _reader(file)
            try:
                for row in reader:
                    end = reader.line_num
                    if not row:  # a blank line is no sample
                        continue
                    if layout is None:
                        layout = _layout(path, row, end, target)
                        if layout.names:
                            continue
                    _add(row, end, layout, numbers, labels)
            except TextCellError as error:
                if target is not None:
                    raise
                raise TextCellError(f"{error}; if this column is the answer, name it as the target") from None
            except csv.Error as error:
                several = f"; is a quote not closed? It goes on to line {reader.line_num}"
                hint = several if reader.line_num > end + 1 else ""
                raise ValueError(f"{path}, line {end + 1}: {error}{hint}") from None
    except UnicodeDecodeError:
        _blame_encoding(path)
    if layout is None:
        raise ValueError(f"{path}: empty")
    if not numbers:
        raise ValueError(f"{path}: a header line and no samples")
    return _table(layout, numbers, labels)


def line_of(path: Path, sample: int, header: bool) -> int | None:
    """The line on which a sample, from 0, of a CSV file ends; None where the file has no longer so many."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = _reader(file)
        lines = (reader.line_num for row in reader if row)
        return next(itertools.islice(lines, sample + header, None), None)


def _reader(file: TextIO) -> Any:
    lines = (line if line.strip(" \r\n") else "\n" for line in file)  # a line of spaces is a blank one
    return csv.reader(lines, delimiter=_separator(file), strict=True, skipinitialspace=True)


def _separator(file: TextIO) -> str:
    """The separator: the one of comma, semicolon and tab that is most often in the first line, outside of quotes.

    As often as commas, semicolons are it: the commas may be decimal points.
    """
    line = next((line for line in file if line.strip()), "")
    file.seek(0)
    outside = "".join(line.split('"')[::2])
    separator = max("\t;,", key=outside.count)
    return separator if separator in outside else ","


def _layout(path: Path, first: list[str], line: int, target: int | str | None) -> _Layout:
    """Whether the first line is a header, and which column the target is."""
    width = len(first)
    names = tuple(cell.strip() for cell in first)
    texts = [number for number, cell in enumerate(names) if not is_number(cell)]
    number = None if target is None or target in names else column_as_number(target)
    if number is not None and width > 1 and texts == [number % width]:
        raise ValueError(
            f"{path}, line {line}: numbers and {names[texts[0]]!r}: if it is a header, give the target by its name; "
            "if it is a sample, add a header line above it"
        )
    if width > 1 and names == tuple(map(str, range(width))):
        raise ValueError(
            f"{path}, line {line}: {', '.join(names[:3])}{', ...' if width > 3 else ''}: if it is a header of column "
            "numbers, as pandas writes it, give the columns names or save without it (header=False); if it is a "
            "sample, add a header line above it"
        )
    if texts:
        _check_names(f"{path}, line {line}", names)
    else:
        names = ()
    column = None if target is None else column_number(path, target, width, names)
    if column is not None and width == 1:
        raise ValueError(f"{path}, line {line}: one column, the target; none is left for X")
    return _Layout(path, width, names, column)


def _check_names(where: str, names: tuple[str, ...]) -> None:
    if "" in names:
        at = names.index("")
        raise ValueError(f"{where}: column {at} has no name (pandas writes its index so, unless told index=False)")
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise ValueError(f"{where}: two columns are called {twice!r}")


def _add(row: list[str], line: int, layout: _Layout, numbers: "array[float]", labels: Labels) -> None:
    """Take the cells of a row: this runs once a line and must be quick."""
    if len(row) != layout.width:
        cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
        raise ValueError(f"{layout.path}, line {line}: {cells}; expected {layout.width}")
    target = layout.target
    if target is not None:
        label = row.pop(target).strip()
        try:
            if not label:
                raise ValueError("no value")
            labels.add(label)
        except ValueError as error:
            raise ValueError(f"{layout.at(line, target)}: {error}") from None
    try:
        values = list(map(float, row))
    except ValueError:
        _blame(row, line, layout)
        raise
    # The sum is finite where all numbers are. Where it is not, and where float() may have taken 1_000, look at each.
    if not math.isfinite(sum(values)) or "_" in "".join(row):
        _blame(row, line, layout)
    numbers.fromlist(values)


def _blame(row: list[str], line: int, layout: _Layout) -> None:
    """Raise ValueError for the first cell that is no finite number, if there is one."""
    columns = (column for column in range(layout.width) if column != layout.target)
    for column, cell in zip(columns, row, strict=True):
        try:
            finite_number(cell)
        except ValueError as error:
            raise type(error)(f"{layout.at(line, column)}: {error}") from None


def _blame_encoding(path: Path) -> NoReturn:
    """Raise ValueError for the first line that is not UTF-8."""
    with open(path, "rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode()
            except UnicodeDecodeError as error:
                wrong = f"byte {content[error.start]:#04x}"
                raise ValueError(f"{path}, line {line}: not UTF-8 text ({wrong}); save it as UTF-8") from None
    raise ValueError(f"{path}: not UTF-8 text")


def _table(layout: _Layout, numbers: "array[float]", labels: Labels) -> Table:
    names, target = layout.names, layout.target
    X = np.frombuffer(numbers, np.float64).reshape(-1, layout.width - (target is not None))
    if target is None:
        return Table(X, None, list(names) or None, None)
    features = [name for number, name in enumerate(names) if number != target]
    return Table(X, labels.array(), features or None, names[target] if names else str(target))
