"""Samples and targets from the user's .csv, .npz and .npy files. Pickles are never read."""

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nnkit.checks import check_finite, unknown_name
from nnkit.data.csv_files import read_csv
from nnkit.data.table import Table, column_as_number, column_number
from nnkit.files import existing_file


def read(path: str | os.PathLike[str], target: int | str | os.PathLike[str] | None = None) -> Table:
    r"""Read samples and, if `target` is given, targets from a .csv, .npz or .npy file.

    - .csv: UTF-8 text; the separator is the most frequent of comma, semicolon and tab in the first line. Cells may be
      in double quotes. The first line contains column names unless all its cells are numbers; 0, 1, 2, ... is
      ambiguous and raises an error. Lines of spaces are blank. `target` is a column's name or its number, from 0, or
      from -1 for the last one. All other cells must be numbers.
    - .npz: `target` is the name of the array of labels, by default y if it exists; X is the array called X or the
      only other one.
    - .npy: a matrix; `target` is a column number, or the path of a second .npy file with the targets.

    Args:
        path: the file, with one of these suffixes.
        target: the labels or targets; a column number may be text, such as "-1". None: there are none, or they are
            the array y.

    Returns:
        Table(X, y, features, target). X is (n, d), float64 from text and in the file's dtype from arrays: bytes stay
        bytes. y is (n,), or (n, ...) if an array has that shape, or None: from text, int64 if all cells are integers,
        float64 if all are numbers, else NumPy strings (text mixed with decimal fractions is an error, and so is a cell
        without a value: empty, NA, N/A, NaN or NULL); a column of a float matrix becomes int64 if all its entries are
        integral; other arrays keep their dtype.

    Raises TypeError and OSError if path is not a file, and ValueError if the suffix is unknown, the target is not in
    the file, or the file is damaged or contains entries that are not finite numbers; the message names the file and,
    for text, the line and the column.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "flowers.csv"
    >>> _ = path.write_text("length,width,species\n5.1,3.5,setosa\n6.2,2.9,virginica\n")
    >>> X, y, features, target = nnkit.data.read(path, "species")
    >>> X.tolist(), y.tolist(), features, target
    ([[5.1, 3.5], [6.2, 2.9]], ['setosa', 'virginica'], ['length', 'width'], 'species')
    """
    file = existing_file(path)
    suffix = file.suffix.lower()
    if suffix == ".npy":
        return _read_npy(file, target)
    if suffix not in (".csv", ".npz"):
        raise ValueError(f"{file}: the suffix is {file.suffix!r}; expected .csv, .npz or .npy")
    if isinstance(target, os.PathLike):
        raise TypeError(f"target is {target!r}; expected the name of the labels in {file}")
    return read_csv(file, target) if suffix == ".csv" else _read_npz(file, target)


def _read_npy(path: Path, target: int | str | os.PathLike[str] | None) -> Table:
    matrix = _samples(_load(path), str(path))
    if target is None:
        return Table(matrix, None, None, None)
    if isinstance(target, os.PathLike) or column_as_number(target) is None:
        labels = existing_file(target, "target")  # type: ignore[arg-type]
        return Table(matrix, _targets(_load(labels), str(labels), len(matrix)), None, str(labels))
    column = column_number(path, target, matrix.shape[1])
    if matrix.shape[1] == 1:
        raise ValueError(f"{path}: the target is the only column; none is left for X")
    return Table(np.delete(matrix, column, axis=1), _whole(matrix[:, column]), None, str(column))


def _read_npz(path: Path, target: int | str | None) -> Table:
    if target is not None and not isinstance(target, str):
        raise TypeError(f"target is {target!r}; expected the name of an array in {path}")
    with _archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if target is None and "y" in names:
            target = "y"
        if target is not None and target not in names:
            raise ValueError(f"{path}: {unknown_name('array', target, names)}")
        others = [name for name in names if name != target]
        if "X" not in others and len(others) != 1:
            listed = ", ".join(map(repr, names)) or "none"
            hint = "give the name of the labels as target" if target is None else "call the samples X"
            raise ValueError(f"{path}: which array contains the samples? It has {listed}; {hint}")
        name = "X" if "X" in others else others[0]
        X = _samples(_member(archive, name, path), f"{path}, array {name!r}")
        if target is None:
            return Table(X, None, None, None)
        y = _targets(_member(archive, target, path), f"{path}, array {target!r}", len(X))
    return Table(X, y, None, target)


def _load(path: Path) -> Any:
    """Read a .npy file. Raises ValueError if it is damaged, not a .npy file, or contains Python objects."""
    with open(path, "rb") as file:
        try:
            _check_size(file, os.path.getsize(path))
            file.seek(0)
            return npy.read_array(file, allow_pickle=False)
        except MemoryError:
            raise
        except Exception as error:  # headers are parsed as Python: damaged ones raise errors of many types
            raise ValueError(f"{path}: not a complete .npy file of numbers: {error}") from error


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # as above
        raise ValueError(f"{path}: not a complete .npz file: {error}") from error


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    """Read an array of an archive, if its header does not claim a larger one than the file can contain."""
    try:
        info = archive.getinfo(name if name in archive.namelist() else f"{name}.npy")
        size = info.file_size
        if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # deflate makes at most 1032 bytes of one
            size = min(size, 1032 * (min(info.compress_size, os.path.getsize(path)) + 64))
        with archive.open(info) as file:
            if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
                return None  # not an array; reported later
        with archive.open(info) as file:
            _check_size(file, size)
        with archive.open(info) as file:
            return npy.read_array(file, allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # from the archive, the compression or the array
        raise ValueError(f"{path}, array {name!r}: damaged, or not numeric: {error}") from error


def _check_size(file: Any, size: int) -> None:
    """Raise ValueError, before memory is allocated, if a .npy file of `size` bytes is too short for its array."""
    version = npy.read_magic(file)
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    needed = file.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or (size < needed and not dtype.hasobject):  # objects raise an error anyway
        raise ValueError(f"truncated: {size} bytes, too few for an array of shape {shape} and dtype {dtype}")


def _samples(X: Any, where: str) -> NDArray[Any]:
    """Return X (n, d); raises ValueError unless it is a matrix of finite real numbers."""
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "biuf":
        raise ValueError(f"{where}: holds {getattr(X, 'dtype', 'no array')}; expected real numbers")
    if X.ndim != 2 or X.size == 0:
        hint = f"; reshape it to ({len(X)}, {X[0].size})" if X.ndim > 2 and X.size else ""
        raise ValueError(f"{where}: has shape {X.shape}; expected a matrix (samples, features){hint}")
    check_finite(X, f"{where}:")
    return X


def _targets(y: Any, where: str, count: int) -> NDArray[Any]:
    """Return y (count, ...); raises ValueError unless it contains finite real numbers or text."""
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biufU":
        raise ValueError(f"{where}: holds {getattr(y, 'dtype', 'no array')}; expected real numbers or text")
    if y.ndim == 0 or len(y) != count:
        raise ValueError(f"{where}: has shape {y.shape}; expected ({count}, ...), one target for each sample")
    if y.dtype.kind == "f":
        check_finite(y, f"{where}:")
    return y


def _whole(column: NDArray[Any]) -> NDArray[Any]:
    """A column (n,) of a matrix, as int64 if all its entries are integral."""
    if column.dtype.kind == "f" and np.all(column == np.floor(column)) and np.all(np.abs(column) < 2**63):
        return column.astype(np.int64)
    return column.copy()
