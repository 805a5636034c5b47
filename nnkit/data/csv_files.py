"""CSV files: an optional header line of names, and numbers in all cells except the target's."""

import csv
import itertools
import math
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from nnkit.data.cells import KINDS, AnotherKindError, Labels, TextCellError, finite_number, is_number
from nnkit.data.table import Table, column_as_number, column_number


def read_csv(
    path: Path, target: int | str | None, text: bool = False, features: Collection[str] | None = None
) -> Table:
    """Read a CSV file; see `nnkit.data.read` for the arguments. With `text`, all labels are text.

    A first line that contains all `features` is a header, even if they are numbers, such as years. If it contains some,
    it may be a header or a sample: a ValueError asks for the other columns, or for a header.
    """
    kinds = KINDS[-1:] if text else KINDS
    clean = _read_clean(path, target, kinds, features or ())
    if clean is not None:
        return clean
    # The first label usually determines the kind. Otherwise the file is read again: the text of converted labels is
    # not kept.
    for kind in kinds:
        try:
            return _read(path, target, kind(), features or ())
        except AnotherKindError:
            continue
    raise AssertionError("every label is at least text")


def _read_clean(
    path: Path, target: int | str | None, kinds: Sequence[type[Labels]], features: Collection[str]
) -> Table | None:
    """Read a file without quotes and errors in NumPy's compiled loop; None for another, which is then read by rows.

    What that loop accepts is a number for `is_number`, too; both round correctly.
    """
    rows = rows_of_csv(path)
    try:
        line, first = next(rows)
        layout = layout_of(path, first, line, target, features)
        if layout.names:
            next(rows)  # NumPy warns if there is none
        before = layout.width if layout.target is None else layout.target
        parts = [("before", "f8", (before,)), ("label", "O"), ("after", "f8", (layout.width - before - 1,))]
        with open(path, encoding="utf-8-sig", newline="") as file:
            separator = _separator(file)
            for _ in range(line if layout.names else 0):
                file.readline()
            kept = np.dtype(parts if layout.target is not None else parts[:1])
            cells = np.loadtxt(file, kept, delimiter=separator, comments=None, ndmin=1)
        X = np.hstack([cells[name] for name in kept.names or () if name != "label"])
        if not np.isfinite(X).all():
            return None
        labels = [] if layout.target is None else list(map(str.strip, cells["label"].tolist()))
        if not all(labels) or any('"' in label for label in set(labels)):
            return None
        for kind in kinds:
            with suppress(AnotherKindError):
                return layout.table(X, kind.of(labels))
    except (ValueError, StopIteration):  # reading by rows finds the place
        pass
    return None


class Layout(NamedTuple):
    """The structure of a file's lines: `names` is () without a header, `target` a column number."""

    path: Path
    width: int
    names: tuple[str, ...]
    target: int | None

    def at(self, line: int, column: int) -> str:
        name = repr(self.names[column]) if self.names else column
        return f"{self.path}, line {line}, column {name}"

    def column(self, at: int) -> str:
        """The name or number of a column, as in a command."""
        return self.names[at] if self.names else str(at)

    def check(self, row: list[str], line: int) -> None:
        """Raise ValueError for a row of another length."""
        if len(row) != self.width:
            cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
            raise ValueError(f"{self.path}, line {line}: {cells}; expected {self.width}")

    def add_label(self, labels: Labels, cell: str, line: int) -> None:
        """Add the target's cell to the labels; raises ValueError that names it."""
        label = cell.strip()
        try:
            if not label:
                raise ValueError("no value")
            labels.add(label)
        except ValueError as error:
            raise ValueError(f"{self.at(line, self.target)}: {error}") from None  # type: ignore[arg-type]

    def table(self, X: NDArray[Any], labels: Labels) -> Table:
        """The contents of the file, with labels if there is a target."""
        column, names = self.target, self.names
        if column is None:
            return Table(X, None, list(names) or None, None)
        kept = [name for number, name in enumerate(names) if number != column]
        return Table(X, labels.array(), kept or None, names[column] if names else str(column))


def _read(path: Path, target: int | str | None, labels: Labels, features: Collection[str]) -> Table:
    numbers, layout = array("d"), None
    try:
        for line, row in rows_of_csv(path):
            if layout is None:
                layout = layout_of(path, row, line, target, features)
                if layout.names:
                    continue
            _add(row, line, layout, numbers, labels)
    except TextCellError as error:
        if target is not None:
            raise
        raise TextCellError(f"{error}; if this column contains the labels, name it as the target") from None
    if layout is None:
        raise ValueError(f"{path}: empty")
    if not numbers:
        raise ValueError(f"{path}: a header line but no samples")
    X = np.frombuffer(numbers, np.float64).reshape(-1, layout.width - (layout.target is not None))
    return layout.table(X, labels)


def line_of(path: Path, sample: int, header: bool) -> int | None:
    """The last line of a sample, counted from 0, in a CSV file; None if the file has fewer samples now."""
    return next((line for line, _ in itertools.islice(rows_of_csv(path), sample + header, None)), None)


def rows_of_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with its last line; raises ValueError that names the line of damaged text."""
    end = 0  # the last line of the previous row
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = _reader(file)
            for row in reader:
                end = reader.line_num
                if row:
                    yield end, row
    except csv.Error as error:
        several = f"; is a quote not closed? It goes on to line {reader.line_num}"
        raise ValueError(f"{path}, line {end + 1}: {error}{several if reader.line_num > end + 1 else ''}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}{_not_utf8(path)}") from None


def _reader(file: TextIO) -> Any:
    lines = (line if line.strip(" \r\n") else "\n" for line in file)  # a line of spaces counts as blank
    return csv.reader(lines, delimiter=_separator(file), strict=True, skipinitialspace=True)


def _separator(file: TextIO) -> str:
    """The most frequent of comma, semicolon and tab in the first line outside quotes.

    In a tie, the semicolon precedes the comma, which may be a decimal point.
    """
    line = next((line for line in file if line.strip()), "")
    file.seek(0)
    outside = "".join(line.split('"')[::2])
    separator = max("\t;,", key=outside.count)
    return separator if separator in outside else ","


def layout_of(path: Path, first: list[str], line: int, target: int | str | None, features: Collection[str]) -> Layout:
    """Determine whether the first line is a header, and the target's column."""
    width = len(first)
    names = tuple(cell.strip() for cell in first)
    texts = [number for number, cell in enumerate(names) if not is_number(cell)]
    number = None if target is None or target in names else column_as_number(target)
    known = bool(features) and set(features) <= set(names)
    if number is not None and width > 1 and texts == [number % width] and not known:
        raise ValueError(
            f"{path}, line {line}: numbers and {names[texts[0]]!r}: if this is a header, give the target by name; if "
            "it is a sample, add a header line above it"
        )
    numbers = tuple(map(str, range(width)))
    if (width > 1 and names == numbers) or (known and set(names) == set(numbers)):
        raise ValueError(
            f"{path}, line {line}: {', '.join(names[:3])}{', ...' if width > 3 else ''}: if this is a header of column "
            "numbers, as written by pandas, name the columns or save without it (header=False); if it is a sample, "
            "add a header line above it"
        )
    lacking = [name for name in features if name not in names]
    if not texts and 0 < len(lacking) < len(features) and len(set(names)) == width:
        some = next(name for name in features if name in names)
        raise ValueError(
            f"{path}, line {line}: the network has a column {some!r}, as here, but also {lacking[0]!r}: if this is a "
            "header, add that column; if it is a sample, add a header line above it"
        )
    if texts or known:
        _check_names(f"{path}, line {line}", names)
    else:
        names = ()
    column = None if target is None else column_number(path, target, width, names)
    if column is not None and width == 1:
        raise ValueError(f"{path}, line {line}: the target is the only column; none is left for X")
    return Layout(path, width, names, column)


def _check_names(where: str, names: tuple[str, ...]) -> None:
    if "" in names:
        at = names.index("")
        raise ValueError(f"{where}: column {at} has no name (pandas writes its index so, without index=False)")
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise ValueError(f"{where}: two columns are called {twice!r}")


def _add(row: list[str], line: int, layout: Layout, numbers: "array[float]", labels: Labels) -> None:
    """Add the cells of a row; runs once per line and must be fast."""
    layout.check(row, line)
    if layout.target is not None:
        layout.add_label(labels, row.pop(layout.target), line)
    try:
        values = list(map(float, row))
    except ValueError:
        _blame(row, line, layout)
        values = list(map(finite_number, row))
    # Check each cell only if the sum is not finite, or if float() may have accepted 1_000.
    if not math.isfinite(sum(values)) or "_" in "".join(row):
        _blame(row, line, layout)
    numbers.fromlist(values)


def _blame(row: list[str], line: int, layout: Layout) -> None:
    """Raise ValueError for the first cell that is not a finite number, if any."""
    columns = (column for column in range(layout.width) if column != layout.target)
    for column, cell in zip(columns, row, strict=True):
        try:
            finite_number(cell)
        except ValueError as error:
            raise type(error)(f"{layout.at(line, column)}: {error}") from None


def _not_utf8(path: Path) -> str:
    """The first line that is not UTF-8, for an error."""
    with open(path, "rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode()
            except UnicodeDecodeError as error:
                return f", line {line}: not UTF-8 text (byte {content[error.start]:#04x}); save it as UTF-8"
    return ": not UTF-8 text"
