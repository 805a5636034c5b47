"""Rows of a .npy file that are read on access, for data sets larger than memory.

They are read instead of memory-mapped, as mapped files count towards the limit of address space (`ulimit -v`).
"""

import os
from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nnkit.files import existing_file


class Rows:
    """The rows of a matrix in a .npy file; created by `nnkit.data.open_npy`. Safe to read from several threads.

    Attributes:
        shape: (n, d).
        dtype: the NumPy dtype.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.path.abspath(existing_file(path))  # the working directory may change
        with open(self.path, "rb") as file:
            self.shape, self.dtype, self._start = _header(file, self.path)
            self._version = _version(file)
        self._row = self.shape[1] * self.dtype.itemsize
        size = os.path.getsize(self.path)
        if size < self._start + self.shape[0] * self._row:
            raise ValueError(f"{self.path}: truncated: {size} bytes, too few for an array of shape {self.shape}")

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Rows({self.path!r}, shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Rows as new arrays: (d,) of an index, (k, d) of a slice or an array of indices (k,), in that order."""
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            row: NDArray[Any] = self[np.array([key])][0]
            return row
        numbers = self._row_numbers(key)
        rows = np.empty((len(numbers), self.shape[1]), self.dtype)
        # Opened for each access, in 10 µs: threads and forked processes must not share a file position.
        with open(self.path, "rb", buffering=0) as file:
            self._check_version(file)
            for start, stop in _runs(numbers):
                file.seek(self._start + int(numbers[start]) * self._row)
                self._fill(file, rows[start:stop].view(np.uint8).data.cast("B"))
        return rows

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """The rows (d,), read some hundreds at a time."""
        return (row for start in range(0, len(self), 512) for row in self[start : start + 512])

    def _check_version(self, file: Any) -> None:
        """Raise ValueError if the file has been written again with another shape or dtype."""
        version = _version(file)
        if version != self._version:
            found = _header(file, self.path)
            if found != (self.shape, self.dtype, self._start):
                what = f"was rewritten, with shape {found[0]} and dtype {found[1]}"
                raise ValueError(f"{self.path} {what}; expected {self.shape} and {self.dtype}, or open it again")
            self._version = version

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self.path}: copy is False; expected True or None, as rows on disk must be copied")
        return np.asarray(self[:], dtype)

    def _row_numbers(self, key: Any) -> NDArray[np.int64]:
        """Row indices from 0 to n − 1, as in NumPy: negative ones count from the end, booleans are a mask."""
        n = len(self)
        if isinstance(key, slice):
            return np.arange(*key.indices(n))
        numbers = np.asarray(None if isinstance(key, tuple) else key)  # which has an index for each axis
        if numbers.shape == (0,):
            return np.empty(0, np.int64)
        if numbers.dtype.kind == "b" and numbers.shape == (n,):
            return np.flatnonzero(numbers)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise IndexError(
                f"{self.path}: index is {key!r}; expected an index, a slice or an array of indices of rows"
            )
        lowest, highest = int(numbers.min()), int(numbers.max())
        if lowest < -n or highest >= n:
            wrong = lowest if lowest < -n else highest
            raise IndexError(f"{self.path}: index is {wrong}; expected row indices from {-n} to {n - 1}")
        numbers = numbers.astype(np.int64)
        return np.where(numbers < 0, numbers + n, numbers) if lowest < 0 else numbers

    def _fill(self, file: Any, memory: memoryview) -> None:
        while memory.nbytes:  # operating systems return at most 2 GB per read
            count = file.readinto(memory)
            if not count:
                raise ValueError(f"{self.path}: truncated while it was read")
            memory = memory[count:]


def open_npy(path: str | PathLike[str]) -> Rows:
    """Open a matrix in a .npy file whose rows are read on access, for `fit`, `predict` and `evaluate`.

    The file has a matrix (n, d) of real numbers in C order, as `numpy.save` writes it. `rows[3:10]` and
    `rows[indices]`, with indices (k,) in any order, return new arrays (k, d), and `rows[3]` one (d,); adjacent rows are
    read together.
    `numpy.asarray(rows)` reads the whole file. Raises TypeError and OSError if the path is not a file, and
    ValueError for any other file.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "samples.npy"
    >>> np.save(path, np.arange(6.0).reshape(3, 2))
    >>> rows = nnkit.data.open_npy(path)
    >>> rows.shape, rows[[2, 0]]
    ((3, 2), array([[4., 5.],
           [0., 1.]]))
    """
    return Rows(path)


def _version(file: Any) -> tuple[int, ...]:
    """What changes with an open file's content."""
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns


def _header(file: Any, path: str) -> tuple[tuple[int, int], np.dtype[Any], int]:
    """The shape and dtype in the header of a .npy file, and the offset of its entries."""
    try:
        version = npy.read_magic(file)
        # Version 3 is for field names outside Latin-1, which a matrix of numbers does not have.
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
    except Exception as error:  # the header is parsed as Python; a corrupt one may raise any exception
        raise ValueError(f"{path}: not a .npy file: {error}") from None
    if dtype.hasobject:
        raise ValueError(f"{path}: holds Python objects; expected real numbers")
    if dtype.kind not in "biuf":
        raise ValueError(f"{path}: holds {dtype}; expected real numbers")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{path}: holds an array of shape {shape}; expected a matrix (samples, features)")
    if fortran and 1 not in shape:
        raise ValueError(f"{path}: is in Fortran order; expected C order: np.save(path, np.ascontiguousarray(X))")
    return (int(shape[0]), int(shape[1])), dtype, file.tell()


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The start and stop positions of runs of consecutive row indices, which are read together."""
    breaks = (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
    starts = [0, *breaks] if len(numbers) else []
    yield from zip(starts, [*breaks, len(numbers)], strict=False)
