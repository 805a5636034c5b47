"""Encoding of tables with columns of several kinds: numbers, truth values, categories, and missing values in them."""

from collections.abc import Collection, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.checks import FixedList, one_of
from nnkit.data.columns import checked_categories, codes_of, fitted_column, numbers_of, table_columns
from nnkit.data.moments import Real, feature_names
from nnkit.data.preprocessing import Fitted, checked_array
from nnkit.kernels.arithmetic import encoded
from nnkit.tables import as_samples, column_values, columns_of, is_category, is_table

_MISSING_FROM = np.inf  # in `_codes`: this output tells whether the value is missing


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
            None if names is None else checked_categories(names, at) for at, names in enumerate(categories)
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
        columns = table_columns(X, "X")
        wanted = {categories} if isinstance(categories, str | int) else set(categories)
        own = {name for name, _ in columns}
        if unknown := [name for name in wanted - own if name not in range(len(columns))]:
            raise ValueError(f"categories contains {unknown[0]!r}; expected names of columns of X")
        forced = [name in wanted or at in wanted - own for at, (name, _) in enumerate(columns)]
        found = [fitted_column(name, values, scaling, forced[at]) for at, (name, values) in enumerate(columns)]
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
        columns = table_columns(X, name, self.features)
        if len(columns) != self.inputs:
            raise ValueError(f"{name} has {len(columns)} columns; expected {self.inputs}")
        codes = np.empty((len(columns[0][1]), self.inputs))
        for at, ((column, values), names) in enumerate(zip(columns, self.categories, strict=True)):
            codes[:, at] = numbers_of(values, name, column) if names is None else codes_of(values, names, name, column)
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
