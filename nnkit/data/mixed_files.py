"""CSV and Parquet files with columns of several kinds, for the command line; `nnkit.data.read` is for numbers alone."""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.data.cells import KINDS, MISSING, AnotherKindError, Labels, TextCellError, finite_number, is_number
from nnkit.data.columns import EXACT
from nnkit.data.csv_files import Layout, layout_of, rows_of_csv
from nnkit.data.encoding import TableEncoding, is_mixed
from nnkit.data.table import Table, column_number
from nnkit.tables import as_array, is_missing, table_numbers, text_array

_TRUTH = {"true": 1.0, "false": 0.0}


class TextTable:
    """A table from a CSV file: columns of numbers with NaN, or of text with None, by name or number."""

    def __init__(self, columns: dict[Any, NDArray[Any]]) -> None:
        self._columns = columns

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return len(next(iter(self._columns.values()))), len(self._columns)

    @property
    def column_names(self) -> list[Any]:
        """The names of the columns, or their numbers."""
        return list(self._columns)

    def column(self, at: int) -> NDArray[Any]:
        """The values of a column."""
        return list(self._columns.values())[at]

    def select(self, order: Sequence[int]) -> "TextTable":
        """Some columns, in this order."""
        columns = list(self._columns.items())
        return TextTable(dict(columns[at] for at in order))

    def take(self, indices: NDArray[np.int64]) -> "TextTable":
        """Some rows."""
        return TextTable({name: values[indices] for name, values in self._columns.items()})


class Mixed(NamedTuple):
    """A file's table, whose X is a table or, if all columns are numbers, a matrix; and the texts of an id column."""

    table: Table
    ids: list[str] | None


class Wanted(NamedTuple):
    """Which columns to read, and as what.

    Attributes:
        target: the column of the targets, by name or number. identity: the column to carry through.
        encoding: of a trained network: its categories that are text are read as text, its other columns as numbers.
        text: whether all labels are text. features: names that show a header. categories: columns, or the
            texts of their numbers, to read as text, or as numbers where all their values are numbers.
    """

    target: int | str | None = None
    identity: int | str | None = None
    encoding: TableEncoding | None = None
    text: bool = False
    features: Collection[str] | None = None
    categories: Sequence[str] = ()


def read_mixed(path: Path, wanted: Wanted) -> Mixed:
    """Read a .csv or .parquet file.

    In a CSV file, a column is of numbers (or true and false) or of text; cells in `MISSING` have no value. One with
    both numbers and text is an error that names the first cell of the rarer sort, unless it is to be read as text.
    Raises ValueError that names the file, line and column; ImportError without pyarrow for a .parquet file.
    """
    mixed = (_read_parquet if path.suffix.lower() == ".parquet" else _read_csv)(path, wanted)
    X = mixed.table.X
    if wanted.encoding is None and not wanted.categories and not is_mixed(X):
        return mixed._replace(table=mixed.table._replace(X=table_numbers(X, str(path))))
    return mixed


def _read_csv(path: Path, wanted: Wanted) -> Mixed:
    layout, lines, rows = None, [], []
    for line, row in rows_of_csv(path):
        if layout is None:
            layout = layout_of(path, row, line, wanted.target, wanted.features or ())
            if layout.names:
                continue
        layout.check(row, line)
        rows.append(row)
        lines.append(line)
    if layout is None or not rows:
        raise ValueError(f"{path}: {'empty' if layout is None else 'a header line but no samples'}")
    names: Sequence[Any] = layout.names or range(layout.width)
    own = None if wanted.identity is None else column_number(path, wanted.identity, layout.width, layout.names)
    columns_of_cells = enumerate(zip(*rows, strict=True))
    cells = [column if at == own else tuple(map(str.strip, column)) for at, column in columns_of_cells]
    kept = [at for at in range(layout.width) if at not in (layout.target, own)]
    for name in wanted.categories:
        if name not in map(str, names):
            raise ValueError(f"{path}: --categories: no column {name!r}; there are {', '.join(map(str, names))}")
    columns = {}
    for position, at in enumerate(kept):
        as_text, codes = _reading(names[at], position, wanted, cells[at])
        columns[names[at]] = _column(cells[at], lines, layout, at, as_text, codes)
    y, target = None, None
    if layout.target is not None:
        kinds = KINDS[-1:] if wanted.text else KINDS
        y = _labels(cells[layout.target], lines, layout, kinds)
        target = layout.names[layout.target] if layout.names else str(layout.target)
    features = list(columns) if layout.names else None
    ids = None if own is None else list(cells[own])
    return Mixed(Table(TextTable(columns), y, features, target), ids)  # type: ignore[arg-type]


def _reading(name: Any, position: int, wanted: Wanted, cells: Sequence[str]) -> tuple[bool | None, Collection[str]]:
    """Whether a column is text, None if its cells decide; and the codes, if any, that its numbers may be.

    For a trained network its categories decide, not the cells: a row's prediction does not depend on the other rows.
    """
    encoding = wanted.encoding
    if encoding is None:
        return not (_are_codes(cells) or _are_truth(cells)) if str(name) in wanted.categories else None, ()
    if encoding.features is not None:
        position = encoding.features.index(name) if name in encoding.features else encoding.inputs
    if position >= encoding.inputs:
        return True, ()  # a column that the network does not know, which is reported later
    names = encoding.categories[position]
    texts = {name for name in names or () if isinstance(name, str)}
    if texts:
        return True, texts if _are_codes(texts) else ()
    return any(abs(name) >= EXACT for name in names or () if not isinstance(name, str)), ()


def _are_truth(cells: Iterable[str]) -> bool:
    """Whether these are truth values, which are the same ones in other cases of letters and in a Parquet file."""
    found = {cell.lower() for cell in set(cells).difference(MISSING)}
    return bool(found) and found <= _TRUTH.keys()


def _are_codes(cells: Iterable[str]) -> bool:
    """Whether categories are numbers that float64 tells apart as the texts do: "1.0" is "1", but "01" may not be."""
    zeros: dict[float, str] = {}  # those that lead each number
    for cell in set(cells).difference(MISSING):
        if not is_number(cell) or not abs(value := float(cell)) < EXACT:
            return False
        leading = re.match(r"[+-]?(0*)\d", cell)
        own = leading.group(1) if leading else ""
        if zeros.setdefault(value, own) != own:
            return False
    return bool(zeros)


def _entry(cell: str, codes: Collection[str]) -> str | float | None:
    """A cell of a column of text: a number if it may be one of the codes in another spelling."""
    if codes and cell not in codes and is_number(cell) and abs(value := float(cell)) < EXACT:
        return value
    return None if cell in MISSING else cell


def _column(
    cells: Sequence[str], lines: list[int], layout: Layout, at: int, as_text: bool | None, codes: Collection[str]
) -> NDArray[Any]:
    """The numbers or texts of a column."""
    decided = as_text
    if as_text is None:
        found = {cell for cell in cells if cell not in MISSING}
        as_text = bool(found) and not any(is_number(cell) or cell.lower() in _TRUTH for cell in found)
    if as_text:
        return np.array([_entry(cell, codes) for cell in cells], object)
    numbers = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            known = np.nan if cell in MISSING else _TRUTH.get(cell.lower())
            numbers[row] = finite_number(cell) if known is None else known
        except TextCellError as error:
            names = f"; if this column contains categories, give --categories {layout.column(at)}"
            hint = names if decided is None else ""
            raise TextCellError(f"{layout.at(lines[row], at)}: {error}{hint}") from None
        except ValueError as error:
            raise ValueError(f"{layout.at(lines[row], at)}: {error}") from None
    return numbers


def _labels(cells: Sequence[str], lines: list[int], layout: Layout, kinds: Sequence[type[Labels]]) -> Any:
    for kind in kinds:
        labels = kind()
        try:
            for line, cell in zip(lines, cells, strict=True):
                layout.add_label(labels, cell, line)
        except AnotherKindError:
            continue
        return labels.array()
    raise AssertionError("every label is at least text")


def _read_parquet(path: Path, wanted: Wanted) -> Mixed:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            f"{path}: Parquet files need pyarrow: python -m pip install pyarrow", name="pyarrow"
        ) from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a complete Parquet file: {error}") from error
    # The index of a pandas DataFrame, which pandas restores as such, is not a column unless it is asked for by name.
    index = {name for name in (table.schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)}
    table = table.drop_columns([*index & {*table.column_names} - {wanted.target, wanted.identity}])
    names = tuple(table.column_names)
    if len(set(names)) < len(names) or table.num_rows == 0:
        raise ValueError(f"{path}: {'two columns have one name' if table.num_rows else 'no samples'}")
    found = [
        None if name is None else column_number(path, name, len(names), names)
        for name in (wanted.target, wanted.identity)
    ]
    kept = [name for at, name in enumerate(names) if at not in found]
    if not kept:
        raise ValueError(f"{path}: no column is left for X")
    target, own = found
    y = None if target is None else _parquet_labels(table.column(target), f"{path}, column {names[target]!r}")
    ids = None if own is None else list(map(_shown, table.column(own).to_pylist()))
    X = table.select(kept)
    return Mixed(Table(X, y, kept, None if target is None else names[target]), ids)


def _shown(value: Any) -> str:
    """An id as text: older programs write text as bytes."""
    return "" if value is None else value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _parquet_labels(column: Any, where: str) -> NDArray[Any]:
    values = np.asarray(as_array(column, where))
    listed = values.tolist()
    missing = next((row for row, value in enumerate(listed) if is_missing(value)), None)
    if missing is not None:
        raise ValueError(f"{where}, row {missing}: no value")
    if all(isinstance(value, str) for value in listed):
        return text_array(listed)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{where}: holds {listed[0]!r}; expected numbers, text or truth values")
    return values.astype(str) if values.dtype.kind == "b" else values
