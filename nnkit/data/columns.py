"""Columns of tables: how one becomes numbers when it is fitted, and the codes of its entries afterwards."""

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import first_of
from nnkit.data.cells import is_number
from nnkit.data.moments import Real
from nnkit.data.preprocessing import Normalization
from nnkit.inputs import on_host
from nnkit.tables import as_samples, column_values, columns_of, is_category, is_missing, is_table

BOUND = 3.0  # of robust scaling
_IDS = 20  # texts in a column where most differ, of which a warning says that they may be identifiers
_UNKNOWN = -1.0  # the code of a category that was not in the table; a missing value is NaN
EXACT = 2.0**53  # below it, float64 holds every whole number

Names = tuple[str | int | float | bool, ...]


class Column(NamedTuple):
    """How a column is encoded: the numbers of `TableEncoding`'s arrays, and its categories, None for a number."""

    mean: float = 0.0
    deviation: float = 1.0
    inverse_bound: float = 0.0
    flagged: bool = False
    categories: Names | None = None


def table_columns(X: Any, name: str, features: Sequence[str] | None = None) -> list[tuple[Any, Any]]:
    """The names and values of the columns of a table, in the order of the features; of an array, their numbers."""
    if is_table(X):
        return columns_of(X, name, features, "TableEncoding")
    array = as_samples(np.array(X, object) if isinstance(X, list | tuple) else on_host(X), name)
    if len(array.shape) != 2 or 0 in array.shape:
        raise ValueError(f"{name} has shape {tuple(array.shape)}; expected (samples, columns) with at least one sample")
    array = np.asarray(array)
    return [(at, array[:, at]) for at in range(array.shape[1])]


def fitted_column(name: Any, column: Any, scaling: str, forced: bool) -> Column:
    """How a column is encoded."""
    values = _plain(column, "X", name)
    if len(values) == 0:
        raise ValueError("X has no samples; expected at least one")
    if forced or is_category(column) or values.dtype.kind in "OUT":
        entries = [_entry(value) for value in _listed(column, values) if not is_missing(value)]
        names = _sorted(set(entries), name)
        if len(names) > max(_IDS, len(entries) / 2) and (forced or isinstance(names[0], str)):
            kind = "texts" if isinstance(names[0], str) else "numbers"
            warnings.warn(
                f"column {name!r} has {len(names)} different {kind} in {len(entries)} rows: if they identify the rows, "
                "leave it out",
                stacklevel=4,
            )
        return Column(flagged=len(entries) < len(values), categories=names)
    numbers = numbers_of(values, "X", name)
    known = numbers[~np.isnan(numbers)]
    if known.size == 0:
        raise ValueError(f"X has no value in column {name!r}, only missing ones; leave it out")
    flagged = known.size < numbers.size
    if scaling == "standard":
        fitted = Normalization.fit(known[:, None])
        return Column(fitted.mean[0], fitted.deviation[0], flagged=flagged)
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    deviation = high - low or (known.max() - known.min()) / 2 or 1.0
    return Column(float(middle), float(deviation), 1 / BOUND, flagged)


def _sorted(found: set[Any], column: Any) -> Names:
    for value in found:
        if not isinstance(value, str | int | float):
            raise _unknown_kind(value, "X", column)
    texts = [value for value in found if isinstance(value, str)]
    if texts and len(texts) < len(found):
        other = next(value for value in found if not isinstance(value, str))
        raise TypeError(
            f"X has text and numbers in column {column!r}, such as {texts[0]!r} and {other!r}; use one kind"
        )
    if not found:
        raise ValueError(f"X has no value in column {column!r}, only missing ones; leave it out")
    return tuple(sorted(found))


def _unknown_kind(value: Any, name: str, where: Any) -> TypeError:
    kind = type(value).__name__
    return TypeError(f"{name} has a {kind} in column {where!r}: {value!r}; expected numbers, text or truth values")


def checked_categories(names: Iterable[Any], column: int) -> Names:
    """The categories of a column; ValueError unless they are distinct texts or numbers."""
    found = tuple(names)
    if not found or len(set(found)) < len(found) or not all(isinstance(name, str | int | float) for name in found):
        raise ValueError(f"categories of column {column} are {list(found)!r}; expected distinct texts or numbers")
    return found


def _plain(column: Any, name: str, where: Any) -> Any:
    """The values (n,) of a column; TypeError for one of lists or records."""
    values = column_values(column)
    entries = values.tolist() if values.dtype.kind == "O" else []
    found = next((value for value in entries if not isinstance(value, Hashable)), None)
    if values.ndim > 1 or found is not None:
        kind = "array" if found is None else type(found).__name__
        raise TypeError(f"{name} has a {kind} in column {where!r}; expected numbers, text or truth values")
    return values


def _listed(column: Any, values: NDArray[Any]) -> list[Any]:
    """The entries of a column, as they are.

    Whole numbers are those of the table where a missing one makes them float64, which does not hold them all; short
    decimal numbers, such as 0.1, are the same in float16, float32 and float64. Truth values are numbers in `values`
    where one is missing, but not here.
    """
    convert = getattr(column, "to_pylist", None) or getattr(column, "to_list", None) or column.tolist
    kind = str(getattr(column, "dtype", getattr(column, "type", ""))).lower()
    if values.dtype.kind == "f" and not kind.startswith(("float", "double", "half")):
        entries = list(convert())
        if all(isinstance(entry, bool | np.bool_) or is_missing(entry) for entry in entries):
            return [np.nan if is_missing(entry) else bool(entry) for entry in entries]
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        distinct, where = np.unique(values, return_inverse=True)
        exact = [float(value if value == np.floor(value) else str(value)) for value in distinct]
        decimal: list[Any] = np.array(exact)[where].tolist()
        return decimal
    if values.dtype.kind != "f" or not (np.abs(values) >= EXACT).any():
        listed: list[Any] = values.tolist()
        return listed
    return list(convert())


def numbers_of(column: Any, name: str, where: Any) -> Real:
    """The numbers (n,) of a column, NaN where they are missing."""
    values = _plain(column, name, where)
    if values.dtype.kind not in "biuf":
        shown = next((repr(value) for value in values.tolist() if isinstance(value, str)), f"dtype {values.dtype}")
        raise TypeError(f"{name} has {shown} in column {where!r}; expected numbers or truth values")
    numbers: Real = values.astype(np.float64)
    if np.isinf(numbers).any():
        (row,) = first_of(np.isinf(numbers))
        raise ValueError(f"{name} holds {numbers[row]} at [{row}, {where!r}]; expected finite or missing numbers")
    return numbers


def _whole(value: Any) -> Any:
    """A whole float as an integer: in pandas, a missing value makes floats of integers."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value


def _entry(value: Any) -> Any:
    """A category without its outer spaces, which cells of CSV files do not have, or the number of a code."""
    return value.strip() if isinstance(value, str) else _whole(value)


def codes_of(column: Any, names: Names, name: str, where: Any) -> Real:
    """The code (n,) of each category of a column."""
    codes: dict[Any, float] = {name: float(code) for code, name in enumerate(names)}
    text = isinstance(names[0], str)
    rounded = {} if text else {float(np.float32(name)): code for name, code in codes.items() if isinstance(name, float)}
    same: dict[float, list[str]] = {}  # the texts of each number
    for own in names:
        if isinstance(own, str) and is_number(own):
            same.setdefault(float(own), []).append(own)

    def code(value: Any) -> float:
        if is_missing(value):
            return np.nan
        if not isinstance(value, str | int | float | np.number | np.bool_):
            raise _unknown_kind(value, name, where)
        if not text and isinstance(value, str):
            if not is_number(value) or not np.isfinite(float(value)):
                raise TypeError(f"{name} has {value!r} in column {where!r}; expected numbers or truth values")
            whole = value.strip().lstrip("+-").isdecimal()  # also beyond the whole numbers of float64
            value = int(value) if whole else float(value)
        elif text and isinstance(value, int | float):
            number, value = value, str(_whole(value))
            found = [] if value in codes else same.get(number, [])
            if isinstance(number, bool) and value not in codes:
                found = [own for own in map(str, names) if own.lower() == value.lower()]
            if len(found) > 1:
                raise ValueError(f"{name} has {number!r} in column {where!r}, where {found} differ; expected text")
            value = found[0] if found else value
        known = codes.get(value, codes.get(_entry(value)))
        if known is None and isinstance(value, float) and float(np.float32(value)) == value:
            known = rounded.get(value)  # 0.1 of float32, in float64
        return _UNKNOWN if known is None else known

    plain = _plain(column, name, where)
    if plain.dtype.kind not in "OUTbiuf":
        raise TypeError(f"{name} has dtype {plain.dtype} in column {where!r}; expected numbers, text or truth values")
    values = _listed(column, plain)
    found: Mapping[Any, float] = {value: code(value) for value in dict.fromkeys(values)}
    return np.array([found[value] for value in values])
