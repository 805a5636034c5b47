"""Encoding of tables with columns of several kinds: numbers, truth values, categories, and missing values in them."""

import warnings
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.checks import FixedList, first_of, one_of
from nnkit.data.cells import is_number
from nnkit.data.moments import Real, feature_names
from nnkit.data.preprocessing import Fitted, Normalization, checked_array
from nnkit.inputs import on_host
from nnkit.kernels.arithmetic import encoded
from nnkit.tables import as_samples, column_values, columns_of, is_category, is_missing, is_table

BOUND = 3.0  # of robust scaling
_IDS = 20  # texts in a column where most differ, of which a warning says that they may be identifiers
_UNKNOWN = -1.0  # the code of a category that was not in the table; a missing value is NaN
EXACT = 2.0**53  # below it, float64 holds every whole number
_MISSING_FROM = np.inf  # in `_codes`: this output tells whether the value is missing

Names = tuple[str | int | float | bool, ...]


class Column(NamedTuple):
    """How a column is encoded: the numbers of `TableEncoding`'s arrays, and its categories, None for a number."""

    mean: float = 0.0
    deviation: float = 1.0
    inverse_bound: float = 0.0
    flagged: bool = False
    categories: Names | None = None


class TableEncoding(Fitted):
    """Numbers (n, outputs) from a table of n rows with columns of several kinds.

    - A column of numbers or truth values becomes (x − μ)/σ, with 0 for a missing value, which is the mean.
    - A column of text, or of pandas' and polars' categories, becomes one column for each category of the fitted table
      (one-hot, in sorted order). A category that was not there gives zeros. Outer spaces of text do not count. Numbers,
      also in text, are compared by value with categories that are numbers; so are numbers with categories that are
      text: 7.0 is "7", or "007".
    - A column in which values were missing has one more, 1 where a value is missing and 0 elsewhere.

    `fit` determines the columns; the network with this preprocessing takes tables (pandas, polars, pyarrow or another
    library that narwhals reads), whose columns are matched by name, and is saved with it, as text and numbers.

    Args:
        mean: μ, (d,).
        deviation: σ, (d,), above 0.
        inverse_bound: c, (d,); z = (x − μ)/σ becomes z/√(1 + (c z)²), which is below 1/c.
        flagged: (d,), whether a column has one for missing values.
        categories: for each column its categories, or None for numbers.
        features: the names of the d columns, if any.

    Attributes:
        inputs: d, the columns of the table.
        outputs: the columns of the result.
        output_names: their names.
        categories, features: as given.

    >>> import pandas
    >>> X = pandas.DataFrame({"age": [20, None, 40], "city": ["Bonn", "Rome", "Bonn"]})
    >>> encoding = nnkit.data.TableEncoding.fit(X)
    >>> encoding.output_names
    ['age', 'age missing', 'city Bonn', 'city Rome']
    >>> encoding.transform(pandas.DataFrame({"city": ["Rome", "Oslo"], "age": [None, 40.0]}))
    array([[0., 1., 0., 1.],
           [1., 0., 0., 0.]])
    """

    kind = "table"
    array_names = ("mean", "deviation", "inverse_bound", "flagged")
    keeps_finite = False

    def __init__(
        self,
        mean: ArrayLike,
        deviation: ArrayLike,
        inverse_bound: ArrayLike,
        flagged: ArrayLike,
        categories: Sequence[Sequence[Any] | None],
        features: Sequence[str] | None = None,
    ) -> None:
        self.mean = checked_array("mean", mean, 1)
        width = self.mean.size
        self.deviation = checked_array("deviation", deviation, 1, width, positive=True)
        self.inverse_bound = checked_array("inverse_bound", inverse_bound, 1, width)
        self.flagged = checked_array("flagged", flagged, 1, width)
        self.categories = FixedList(
            None if names is None else _checked(names, at) for at, names in enumerate(categories)
        )
        if len(self.categories) != width:
            raise ValueError(f"categories has {len(self.categories)} entries; expected {width}, one for each column")
        self._source, self._codes = self._layout()
        arrays = {"mean": self.mean, "deviation": self.deviation, "inverse_bound": self.inverse_bound}
        super().__init__(len(self._source), features, **arrays, flagged=self.flagged)

    def _layout(self) -> tuple[NDArray[np.int64], Real]:
        """For each output its column, and what it tells: NaN a number, otherwise whether the code is this one."""
        source, codes = [], []
        for at, (names, flag) in enumerate(zip(self.categories, self.flagged, strict=True)):
            own = [np.nan] if names is None else [float(code) for code in range(len(names))]
            own += [_MISSING_FROM] if flag else []
            source += [at] * len(own)
            codes += own
        if not codes:
            raise ValueError("categories is empty for every column; expected at least one category or number")
        return np.array(source, np.int64), np.array(codes)

    @property
    def output_names(self) -> list[str]:
        """The names of the columns of the result, from those of the table or their numbers."""
        features = self.features or list(map(str, range(self.inputs)))
        found = []
        for at, code in zip(self._source.tolist(), self._codes.tolist(), strict=True):
            names, name = self.categories[at], features[at]
            what = " missing" if code == _MISSING_FROM else "" if names is None else f" {names[int(code)]}"
            found.append(f"{name}{what}")
        return found

    @classmethod
    def fit(
        cls, X: Any, scaling: Literal["standard", "robust"] = "standard", categories: Collection[str | int] = ()
    ) -> Self:
        """Determine the columns of a table, or of an array (n, d) of numbers, text and missing values.

        Args:
            scaling: "standard": μ and σ are mean and standard deviation of the values that are not missing. "robust": μ
                is the median, σ the distance of the quartiles (or half the range, if that is 0), and the result is
                bounded smoothly by ±3, so that outliers do no harm (Holzmüller et al. 2024, arXiv 2407.04491).
            categories: columns whose numbers are categories, such as postal codes: their names, or indices, where no
                column has the number as its name.

        Raises TypeError for dates and other objects and for a column that mixes text and numbers, ValueError for
        infinities, for a column without values and an unknown name. Warns of a column of text that may be identifiers.
        """
        one_of("TableEncoding.fit", "scaling", scaling, ("standard", "robust"))
        if not isinstance(categories, Collection | int):
            raise TypeError(f"categories is {categories!r}; expected names of columns of X")
        columns = _columns(X, "X")
        wanted = {categories} if isinstance(categories, str | int) else set(categories)
        own = {name for name, _ in columns}
        if unknown := [name for name in wanted - own if name not in range(len(columns))]:
            raise ValueError(f"categories contains {unknown[0]!r}; expected names of columns of X")
        forced = [name in wanted or at in wanted - own for at, (name, _) in enumerate(columns)]
        found = [_fitted(name, values, scaling, forced[at]) for at, (name, values) in enumerate(columns)]
        mean, deviation, inverse_bound, flagged, names = zip(*found, strict=True)
        return cls(mean, deviation, inverse_bound, flagged, names, feature_names(X))

    def __repr__(self) -> str:
        texts = sum(names is not None for names in self.categories)
        missing = int(self.flagged.sum())
        parts = [f"{self.inputs - texts} of numbers", f"{texts} of categories", f"{missing} with missing values"]
        return f"TableEncoding({self.inputs} columns, {', '.join(parts)} → {self.outputs} features)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TableEncoding) and super().__eq__(other) and self.categories == other.categories

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.arrays.values(), self.categories, self.features)

    def transform(self, X: Any) -> Real:
        """Encode a table, or an array (n, inputs); returns (n, outputs), float64 on the host. Raises like `encode`."""
        return np.asarray(self.apply(get_backend("numpy"), np.asarray(self.encode(X, "X"), np.float64)))

    def encode(self, X: Any, name: str) -> Any:
        """The numbers (n, inputs) of a table or array, called `name` in errors, for `apply`.

        Categories become their codes 0, 1, ..., or −1 for another one; missing values become NaN. Raises ValueError for
        missing or unknown columns and for infinities, TypeError for text where numbers were fitted, dates and bytes.
        """
        if not is_table(X) and all(names is None for names in self.categories):
            array = as_samples(X, name)
            if array.dtype != object:
                return array
        columns = _columns(X, name, self.features)
        if len(columns) != self.inputs:
            raise ValueError(f"{name} has {len(columns)} columns; expected {self.inputs}")
        codes = np.empty((len(columns[0][1]), self.inputs))
        for at, ((column, values), names) in enumerate(zip(columns, self.categories, strict=True)):
            codes[:, at] = _numbers(values, name, column) if names is None else _coded(values, names, name, column)
        return codes

    def backward(self, backend: Backend, delta: Array) -> Array:
        raise TypeError(
            "the preprocessing is a TableEncoding, whose outputs have no derivatives by the table's columns"
        )

    def _constants(self) -> tuple[Any, ...]:
        numbers = (array[self._source] for array in (self.mean, self.deviation, self.inverse_bound))
        return self._source, *numbers, self._codes

    def _compute(self, backend: Backend, x: Array, *constants: Array, out: Array) -> None:
        source, *rows = constants
        found = backend.take(x.mT, source).mT
        backend.elementwise(encoded, (found, *rows), out=out)

    @staticmethod
    def _bound(deviations: Real, scale: Real) -> Real:
        raise NotImplementedError  # `keeps_finite` is False


def is_mixed(X: Any) -> bool:
    """Whether this is a table that only an encoding turns into numbers: with text, categories or missing values."""
    if not is_table(X):
        return False
    for _, column in columns_of(X, "X"):
        values = column_values(column)
        if (
            is_category(column)
            or values.dtype.kind not in "biuf"
            or (values.dtype.kind == "f" and np.isnan(values).any())
        ):
            return True
    return False


def _columns(X: Any, name: str, features: Sequence[str] | None = None) -> list[tuple[Any, Any]]:
    """The names and values of the columns of a table, in the order of the features; of an array, their numbers."""
    if is_table(X):
        return columns_of(X, name, features, "TableEncoding")
    array = as_samples(np.array(X, object) if isinstance(X, list | tuple) else on_host(X), name)
    if len(array.shape) != 2 or 0 in array.shape:
        raise ValueError(f"{name} has shape {tuple(array.shape)}; expected (samples, columns) with at least one sample")
    array = np.asarray(array)
    return [(at, array[:, at]) for at in range(array.shape[1])]


def _fitted(name: Any, column: Any, scaling: str, forced: bool) -> Column:
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
    numbers = _numbers(values, "X", name)
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


def _checked(names: Iterable[Any], column: int) -> Names:
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


def _numbers(column: Any, name: str, where: Any) -> Real:
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


def _coded(column: Any, names: Names, name: str, where: Any) -> Real:
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
