"""Conversion of tables and single columns to arrays: pandas, polars, pyarrow and similar libraries.

None of these libraries is imported: tables are recognized by their attributes.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.dtypes import resolved
from nnkit.backends.selection import owner_of
from nnkit.checks import first_of

_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating, Decimal)
TIMES = (np.datetime64, np.timedelta64)
_SHOWN = 10  # column names in an error


def is_table(values: Any) -> bool:
    """Whether this is a table with named columns."""
    kind = type(values)  # the instance may have columns called `columns` or `dtype`
    if isinstance(values, np.ndarray) or not hasattr(kind, "shape"):
        return False
    return hasattr(kind, "columns") or hasattr(kind, "column_names")


def column_names(table: Any) -> list[Any]:
    """The column names of a table; in pandas, they may be any objects."""
    return list(table.column_names if hasattr(type(table), "column_names") else table.columns)


def text_names(table: Any, name: str) -> list[str] | None:
    """The column names of a table, called `name` in errors, if they are text; None for numbers or a MultiIndex.

    As in scikit-learn, only names that are all text count: TypeError if only some are, ValueError for duplicates.
    """
    names = column_names(table)
    others = [column for column in names if not isinstance(column, str)]
    if len(others) == len(names):
        return None
    if others:
        hint = f"{name.split()[-1]}.columns = {name.split()[-1]}.columns.map(str)"
        raise TypeError(f"{name} has the column name {others[0]!r} beside text; expected text for all: {hint}")
    _check_distinct(names, name)
    return names


def rows_of(values: Any, indices: NDArray[np.int64]) -> Any:
    """Some rows of a table or a column, as a new one of the same library."""
    if hasattr(type(values), "iloc"):
        return values.iloc[indices]
    return values.take(indices) if hasattr(type(values), "column_names") else values[indices]


def table_numbers(
    table: Any, name: str, features: Sequence[str] | None = None, owner: str = "network", of: str = "features"
) -> NDArray[Any]:
    """The numbers (n, d) of a table, called `name` in errors, with columns in the order of the owner's `features`.

    The order is kept without features, and if no column name is a string (0, 1, 2, ... in pandas). Raises ValueError
    for missing or unknown columns and for missing values, TypeError for columns that are not real numbers.
    """
    names = column_names(table)
    order = None if features is None else _order(names, list(features), name, owner, of)
    if _is_uniform(table):
        array = np.asarray(table)
        array = np.ascontiguousarray(array if order is None else array[:, order])
    else:
        columns = [
            _numbers(_column(table, at), f"{name} has", f"in column {names[at]!r}")
            for at in (range(len(names)) if order is None else order)
        ]
        array = np.empty((table.shape[0], len(columns)), np.result_type(*columns) if columns else np.float64)
        for at, column in enumerate(columns):
            array[:, at] = column
    _check_missing(array, names if order is None else [names[at] for at in order], name)
    return array


def columns_of(
    table: Any, name: str, features: Sequence[str] | None = None, owner: str = "network"
) -> list[tuple[Any, Any]]:
    """The names and columns of a table, called `name` in errors, in the order of the owner's `features`; any kinds.

    Raises ValueError for missing and unknown columns.
    """
    names = column_names(table)
    order = None if features is None else _order(names, list(features), name, owner, "features")
    return [(names[at], _column(table, at)) for at in (range(len(names)) if order is None else order)]


def in_order(table: Any, name: str, features: Sequence[str]) -> Any:
    """A table, called `name` in errors, with its columns in the order of a network's `features`; as `columns_of`."""
    order = _order(column_names(table), list(features), name, "network", "features")
    if order is None:
        return table
    if hasattr(type(table), "iloc"):
        return table.iloc[:, order]
    return table.select(order) if hasattr(type(table), "column_names") else table[:, order]


def is_category(column: Any) -> bool:
    """Whether the dtype of a column says that its values are categories."""
    kind = str(getattr(column, "type", getattr(column, "dtype", ""))).lower()
    return kind.startswith(("category", "categorical", "enum", "dictionary"))


def is_missing(value: Any) -> bool:
    """Whether an entry of a column is a missing one: None, NaN, or pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, Decimal, *TIMES)) and bool(value != value)


def as_samples(values: Any, name: str) -> Any:
    """Convert samples that are not a table to an array; arrays, also on disks and devices, are returned unchanged.

    Raises TypeError for objects without rows of numbers, ValueError for rows of different lengths.
    """
    if type(values) is np.ndarray:
        return values
    if hasattr(values, "toarray"):
        raise TypeError(f"{name} is a sparse matrix; convert it with {name}.toarray()")
    if hasattr(values, "dtype") and hasattr(values, "shape") and not isinstance(values, type):
        return _plain(values, name)
    return _from_python(values, name)


def as_array(values: Any, name: str) -> Any:
    """Convert labels, targets or weights to an array; columns, tables and lists become NumPy arrays.

    Missing numbers become NaN; text and other objects are kept. Arrays are returned unchanged. Raises TypeError for
    masked arrays and for objects that are not array-like, ValueError for rows of different lengths.
    """
    if isinstance(values, np.ndarray):
        return _plain(values, name)
    if is_table(values):
        if values.shape[1] == 1:
            return column_values(_column(values, 0))[:, None]
        return table_numbers(values, name)
    if isinstance(values, list | tuple):
        array = _from_python(values, name)
        return np.array(values, object) if array.dtype.kind in "US" else array  # [1, "a"] would become text
    converts = hasattr(type(values), "__array__")
    is_array = hasattr(values, "dtype") and hasattr(values, "shape") and not isinstance(values, type)
    if is_array and (hasattr(values, "__dlpack__") or not converts):
        return _plain(values, name)
    if not converts:  # a range or a buffer, or not array-like
        array = _from_python(values, name)
        if array.dtype.kind not in "biufc":
            raise _no_array(values, name)
        return array
    return values if owner_of(values) is not None else column_values(values)


def text_array(values: Sequence[str]) -> NDArray[Any]:
    """Text as NumPy strings, or as objects if NumPy would change it: it drops trailing NUL characters."""
    array = np.array(values, str)
    return array if array.tolist() == list(values) else np.array(values, object)


def _plain(values: Any, name: str) -> Any:
    """Remove an empty mask, or PyTorch's gradient tracking and lazy sign; other arrays are returned unchanged.

    Raises TypeError for masked entries and sparse tensors.
    """
    if not str(getattr(values, "layout", "strided")).endswith("strided"):  # PyTorch's sparse and MKL-DNN tensors
        raise TypeError(f"{name} is a tensor of layout {values.layout}; convert it with to_dense()")
    if getattr(values, "requires_grad", False) is True:  # PyTorch does not convert these
        values = values.detach()
    values = resolved(values)
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if np.ma.getmaskarray(values).any():
        hint = f"fill it first, with {name.split()[-1]}.filled(value)"
        raise TypeError(f"{name} is a masked array; its mask would be lost; {hint}")
    return values.data


def _from_python(values: Any, name: str) -> NDArray[Any]:
    """Convert lists, buffers and other objects that NumPy accepts."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name}: {error}") from None
    if array.ndim == 0:
        raise _no_array(values, name)
    return array


def _no_array(values: Any, name: str) -> TypeError:
    todo = "; call its collect() first" if hasattr(values, "collect") else ""
    if isinstance(values, Mapping):
        todo = f"; convert it to a table, for example pandas.DataFrame({name.split()[-1]})"
    given = repr(values) if isinstance(values, str | bytes | Number | None) else f"a {type(values).__name__}"
    return TypeError(f"{name} is {given}; expected an array, a list or a table{todo}")


def _order(names: list[Any], features: list[str], name: str, owner: str, of: str) -> list[int] | None:
    """Column indices of the features; None if they are already in order, or if the columns have no names."""
    if names == features or not any(isinstance(column, str) for column in names):
        return None
    missing = [feature for feature in features if feature not in names]
    unknown = [column for column in names if column not in features]
    if missing or unknown:
        parts = [f"missing: {_listed(missing)}"] if missing else []
        parts += [f"unknown: {_listed(unknown)}"] if unknown else []
        hint = "" if missing else f"; select them with {name.split()[-1]}[{owner}.{of}]"
        raise ValueError(f"{name} has columns that differ from the {of} of this {owner}: {'; '.join(parts)}{hint}")
    for columns in (names, features):
        _check_distinct(columns, name)
    return [names.index(feature) for feature in features]


def _check_distinct(columns: list[Any], name: str) -> None:
    twice = next((column for at, column in enumerate(columns) if column in columns[:at]), None)
    if twice is not None:
        raise ValueError(f"{name}: two columns are called {twice!r}; expected names that differ")


def _listed(names: Iterable[Any]) -> str:
    texts = [repr(name) for name in names]
    return ", ".join(texts[:_SHOWN]) + (f", ... ({len(texts)} in all)" if len(texts) > _SHOWN else "")


def _is_uniform(table: Any) -> bool:
    """Whether all columns have NumPy dtypes, as in pandas, that NumPy combines into a matrix without loss."""
    if not hasattr(type(table), "dtypes"):
        return False
    kinds = {dtype.kind if isinstance(dtype, np.dtype) else "O" for dtype in table.dtypes}
    return bool(kinds) and (kinds <= set("iuf") or kinds == {"b"})


def _column(table: Any, at: int) -> Any:
    if hasattr(type(table), "iloc"):
        return table.iloc[:, at]
    return table.column(at) if hasattr(type(table), "column_names") else table[:, at]


def _numbers(column: Any, owner: str, where: str) -> NDArray[Any]:
    """The numbers (n,) of a column, with NaN for missing ones; raises TypeError for other columns."""
    values = column_values(column)
    if values.dtype.kind in "OUT":
        text = next((value for value in values.tolist() if isinstance(value, str)), None)
        if text is not None:
            hint = "expected real numbers; nnkit.data.TableEncoding.fit(X) encodes text"
            raise TypeError(f"{owner} text {where}, such as {text!r}; {hint}")
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{owner} dtype {values.dtype} {where}; expected real numbers")
    return values


def column_values(column: Any) -> NDArray[Any]:
    """A column as a NumPy array (n, ...); object columns of numbers and missing values become numbers."""
    if is_category(column) and hasattr(column, "to_pylist"):  # pyarrow's array has another value for a missing one
        column = np.array(column.to_pylist(), object)
    values = np.asarray(column)
    if values.dtype.kind != "O" or values.ndim != 1:
        return values
    found: list[Any] = []
    for value in values.tolist():
        if value is None or type(value).__name__ == "NAType":
            found.append(np.nan)
        elif isinstance(value, _NUMBERS):
            found.append(float(value) if isinstance(value, Decimal) else value)
        else:
            return values
    numbers = np.array(found)
    return numbers if numbers.dtype.kind in "biuf" else values


def _check_missing(array: NDArray[Any], names: Sequence[Any], name: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row, column = first_of(~np.isfinite(array))
        raise ValueError(
            f"{name} holds {array[row, column]} at [{row}, {names[column]!r}]; expected finite numbers, none missing; "
            "nnkit.data.TableEncoding.fit(X) fills them in"
        )
