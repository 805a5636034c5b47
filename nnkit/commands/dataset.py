"""The data of a command: samples, targets, and their split into parts."""

import argparse
import difflib
import os
import warnings
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit import data
from nnkit.commands.outputs import place
from nnkit.data.cells import NoValueError, TextCellError
from nnkit.data.csv_files import read_csv
from nnkit.data.encoding import TableEncoding, is_mixed
from nnkit.data.files import read
from nnkit.data.mixed_files import Mixed, Wanted, read_mixed
from nnkit.files import existing_file
from nnkit.kernels.costs import get_cost
from nnkit.tables import is_table, rows_of

_MANY = 100  # classes; more distinct integers may be quantities
_FAR = 100.0  # from 0, for targets


class Targets(NamedTuple):
    """Targets for splitting and training, and what they require of the network."""

    y: NDArray[Any]  # labels (n,), or targets (n,) or (n, d_out)
    classes: NDArray[Any] | None  # the distinct labels (k,)
    outputs: int
    cost: str


def targets_of(y: NDArray[Any], cost: str | None, name: str, scaled: bool = False) -> Targets:
    """Determine classes, outputs and cost from labels (n,) or targets (n,), (n, d_out), called `name` in messages.

    Warns of targets far from 0, unless they are `scaled` later.

    Without a cost, text and integers are labels with softmax cross-entropy; real numbers get the quadratic cost.
    Raises ValueError for a single class, text with a regression cost, a matrix of text, and more than two axes.
    """
    text = y.dtype.kind in "US"
    if text and y.ndim > 1:
        raise ValueError(f"{name} is text of shape {y.shape}; expected ({len(y)},), one class for each sample")
    if y.ndim > 2:
        raise ValueError(f"{name} has shape {y.shape}; expected ({len(y)},) or ({len(y)}, outputs)")
    labels = y.ndim == 1 and y.dtype.kind != "f"
    cost = cost or ("softmax_cross_entropy" if labels else "quadratic")
    if not get_cost(cost).classifies:
        if text:
            raise ValueError(f"--cost {cost} is for numbers, and {name} is text, such as {str(y[0])!r}")
        y = y.astype(np.float64)
        if not scaled:
            _warn_of_scale(y, name)
        return _numbers(y, cost)
    y = whole_labels(y)
    if y.ndim > 1 or y.dtype.kind == "f":
        return _numbers(y, cost)
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(f"{name} holds a single class, {classes[0]}; expected at least two")
    if len(classes) > _MANY and not text:
        warnings.warn(
            f"{name} holds {len(classes)} different integers, which are treated as classes; if they are quantities, "
            "give --cost quadratic",
            stacklevel=2,
        )
    return Targets(y, classes, len(classes), cost)


def whole_labels(y: NDArray[Any]) -> NDArray[Any]:
    """Convert integral labels (n,) of a floating-point dtype to int64; return anything else unchanged.

    >>> whole_labels(np.array([1.0, 3.0])), whole_labels(np.array([0.5, 1.0]))
    (array([1, 3]), array([0.5, 1. ]))
    """
    whole = y.ndim == 1 and y.dtype.kind == "f" and np.array_equal(y, np.floor(y)) and np.all(np.abs(y) < 2**53)
    return y.astype(np.int64) if whole else y


def _numbers(y: NDArray[Any], cost: str) -> Targets:
    return Targets(y, None, 1 if y.ndim == 1 else y.shape[1], cost)


def _warn_of_scale(y: NDArray[np.float64], name: str) -> None:
    with np.errstate(all="ignore"):
        mean, deviation = float(np.mean(y)), float(np.std(y))
    if abs(mean) > _FAR or deviation > _FAR:
        warnings.warn(
            f"{name} has mean {mean:.3g} and standard deviation {deviation:.3g}; a network learns best with mean 0 "
            "and standard deviation 1: give --scale-targets, or training may diverge",
            stacklevel=2,
        )


def read_file(path: Path, wanted: Wanted, mixed: bool = False) -> Mixed:
    """Read a file: .npy, .npz and .csv files of numbers strictly, as `read`, and others as `read_mixed`.

    With `mixed`, a CSV file may have text and empty cells; with an encoding, an id column or categories it always may.
    """
    suffix, special = path.suffix.lower(), wanted.identity is not None or bool(wanted.categories)
    if suffix == ".parquet" or (suffix == ".csv" and (special or wanted.encoding is not None)):
        return read_mixed(existing_file(path), wanted)
    if special:
        option = "--id" if wanted.identity is not None else "--categories"
        raise ValueError(f"{path}: {option} is for .csv and .parquet files")
    if suffix != ".csv":
        return Mixed(read(path, wanted.target), None)
    try:
        return Mixed(read_csv(existing_file(path), wanted.target, wanted.text, wanted.features), None)
    except (TextCellError, NoValueError):
        if not mixed:  # a network for numbers, of which true and false are some
            with suppress(ValueError):
                found = read_mixed(path, wanted)
                if not is_mixed(found.table.X):
                    return found
            raise
    return read_mixed(path, wanted)


Part = tuple[Any, NDArray[Any]]  # samples, an array or a table, and labels or targets


class Dataset(NamedTuple):
    """Samples X (n, width), an array or a table, and labels y (n,), or targets (n,) or (n, d_out)."""

    name: str  # in messages
    X: Any
    y: NDArray[Any]
    target: str = "y"  # the name of y in messages
    preprocessing: str = "none"  # the default
    test: Part | None = None  # a separate test part
    features: list[str] | None = None
    path: Path | None = None

    def place(self, sample: int) -> str:
        """The location of a sample, counted from 0, in the user's file."""
        return f"{self.name}, sample {sample}" if self.path is None else place(self.path, sample, self.features)


def load_dataset(
    options: argparse.Namespace,
    source: str,
    text: bool = False,
    features: Collection[str] | None = None,
    encoding: TableEncoding | None = None,
    mixed: bool = False,
) -> Dataset:
    """Load `source` as --target, --id, --data-dir and --download say; the other arguments are those of `read_file`.

    Raises ValueError for incompatible options or unreadable data, FileNotFoundError if there is no such file.
    """
    target, data_dir, download = options.target, options.data_dir, options.download
    if source != "mnist" and (download or data_dir is not None):
        raise ValueError(f"{'--download' if download else '--data-dir'} is for --data mnist")
    if source in ("digits", "mnist") and target is not None:
        raise ValueError(f"--target is for files; {source} has its labels")
    wanted = Wanted(target, options.id, encoding, text, features, getattr(options, "categories", None) or ())
    if source in ("digits", "mnist") and (wanted.identity is not None or wanted.categories):
        raise ValueError(f"{'--categories' if wanted.categories else '--id'} is for files")
    if source == "digits":
        return Dataset("digits", *data.digits())
    if source == "mnist":
        try:
            mnist = data.mnist(data_dir, download=download)
        except FileNotFoundError as error:
            found = str(error).partition(";")[0]
            raise FileNotFoundError(f"{found}; give --data-dir FOLDER, or --download") from None
        except ConnectionError as error:
            raise ConnectionError(f"{error}; or give --data-dir FOLDER with the four files") from None
        return Dataset("mnist", mnist.X_train, mnist.y_train, "y", "pixels", (mnist.X_test, mnist.y_test))
    path = Path(source)
    if not source or not os.path.lexists(path):
        near = difflib.get_close_matches(source.lower(), ("digits", "mnist"), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise FileNotFoundError(f"{source or repr(source)} does not exist; expected a file, digits or mnist{hint}")
    existing_file(path)
    if target is None:
        raise ValueError(f"{source}: --target must name the labels or targets")
    table = read_file(path, wanted, mixed).table
    assert table.y is not None  # because there is a target
    y = table.y[:, 0] if table.y.shape[1:] == (1,) else table.y  # (n, 1) also means labels
    fitted = "table" if is_table(table.X) else "normalization"
    return Dataset(path.name, table.X, y, f"target {table.target!r}", fitted, None, table.features, path)


class Parts(NamedTuple):
    """A data set, split; `validation` is None without a separate validation part."""

    training: Part
    validation: Part | None
    test: Part
    rows: list[NDArray[np.int64]]  # indices (n, 1) of the three parts into the data set, or into its own test part

    def counts(self) -> dict[str, int]:
        """The number of samples in each part."""
        parts = {"training": self.training, "validation": self.validation, "test": self.test}
        return {name: 0 if part is None else part[0].shape[0] for name, part in parts.items()}

    def places(self, dataset: Dataset) -> list[Callable[[int], str]]:
        """Functions that locate a sample of the training, validation and test part in the user's file."""
        return [lambda row, numbers=numbers: dataset.place(int(numbers[row, 0])) for numbers in self.rows]  # type: ignore[misc]


def divide(dataset: Dataset, targets: Targets, fraction: float, seed: int, validated: bool) -> Parts:
    """Split off a fraction for testing and, if `validated`, the same fraction of the rest for validation.

    Raises ValueError for a fraction outside (0, 1) or one that leaves a part empty.
    """
    y, test, validation = targets.y, dataset.test, None
    rows = np.arange(dataset.X.shape[0])[:, None]  # split instead of X, to keep the indices
    if test is None:
        rows, y, of_test, y_test = data.split(rows, y, fraction, seed)
        test = rows_of(dataset.X, of_test[:, 0]), y_test
    else:
        of_test = np.arange(test[0].shape[0])[:, None]
    of_validation = of_test
    if validated:
        rows, y, of_validation, y_validation = data.split(rows, y, fraction, seed)
        validation = rows_of(dataset.X, of_validation[:, 0]), y_validation
    return Parts((rows_of(dataset.X, rows[:, 0]), y), validation, test, [rows, of_validation, of_test])
