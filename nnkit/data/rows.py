"""Rows of a .npy file, read when they are asked for: for sets that are larger than memory.

They are read, not mapped: mapped files count against a limit of address space (`ulimit -v`) as if they were in memory.
"""

import os
from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nnkit.data.table import existing_file


class Rows:
    """The rows of a matrix in a .npy file; make one with `nnkit.data.open_npy`. Several threads may read it.

    Attributes:
        shape: (n, d). dtype: NumPy's dtype of the entries.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.path.abspath(existing_file(path))  # the working directory may change
        with open(self.path, "rb") as file:
            self.shape, self.dtype, self._start = _header(file, self.path)
        self._row = self.shape[1] * self.dtype.itemsize
        size = os.path.getsize(self.path)
        if size < self._start + self.shape[0] * self._row:
            raise ValueError(f"{self.path}: cut short: {size} bytes, too few for an array of shape {self.shape}")

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Rows({self.path!r}, shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """The rows of a slice or of row numbers (k,), in that order, as a new matrix (k, d)."""
        numbers = self._row_numbers(key)
        rows = np.empty((len(numbers), self.shape[1]), self.dtype)
        # Opened anew each time, in 10 µs: threads, and processes that were forked, share no place in it.
        with open(self.path, "rb", buffering=0) as file:
            for start, stop in _runs(numbers):
                file.seek(self._start + int(numbers[start]) * self._row)
                self._fill(file, rows[start:stop].view(np.uint8).data.cast("B"))
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self.path}: rows on a disk cannot become an array without a copy")
        return np.asarray(self[:], dtype)

    def _row_numbers(self, key: Any) -> NDArray[np.int64]:
        """Row numbers, 0 to n − 1, as NumPy has them: negative ones count from the end, booleans say which."""
        n = len(self)
        if isinstance(key, slice):
            return np.arange(*key.indices(n))
        numbers = np.asarray(key)
        if numbers.shape == (0,):
            return np.empty(0, np.int64)
        if numbers.dtype.kind == "b" and numbers.shape == (n,):
            return np.flatnonzero(numbers)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise IndexError(f"{self.path}: rows are asked for by a slice or an array of row numbers, not {key!r}")
        lowest, highest = int(numbers.min()), int(numbers.max())
        if lowest < -n or highest >= n:
            raise IndexError(f"{self.path}: no row {lowest if lowest < -n else highest}; there are {n}")
        numbers = numbers.astype(np.int64)
        return np.where(numbers < 0, numbers + n, numbers) if lowest < 0 else numbers

    def _fill(self, file: Any, memory: memoryview) -> None:
        while memory.nbytes:  # a system gives 2 GB at most at a time
            count = file.readinto(memory)
            if not count:
                raise ValueError(f"{self.path}: cut short while it was read")
            memory = memory[count:]


def open_npy(path: str | PathLike[str]) -> Rows:
    """The rows of a matrix in a .npy file, to be read when they are needed; `fit`, `predict` and `evaluate` take them.

    Args:
        path: a .npy file with a matrix (n, d) of real numbers, as `numpy.save` writes it, in C order.

    Returns:
        Rows with shape, dtype and len(). `rows[3:10]` and `rows[numbers]`, row numbers (k,) in any order, are new
        arrays (k, d); neighbouring rows are read in one go. `numpy.asarray(rows)` reads everything.

    Raises:
        TypeError: path is not a path.
        FileNotFoundError, IsADirectoryError: path is no file.
        ValueError: the file is no .npy file, cut short, not a matrix of numbers, or in Fortran order.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "samples.npy"
        >>> np.save(path, np.arange(6.0).reshape(3, 2))
        >>> rows = nnkit.data.open_npy(path)
        >>> rows.shape, rows[[2, 0]]
        ((3, 2), array([[4., 5.],
               [0., 1.]]))

    """
    return Rows(path)


def _header(file: Any, path: str) -> tuple[tuple[int, int], np.dtype[Any], int]:
    """The shape and dtype that a .npy file says it has, and where its entries start."""
    try:
        version = npy.read_magic(file)
        # Version 3 is for fields with names that are not Latin: no matrix of numbers.
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
    except Exception as error:  # it is parsed as Python, and what a damaged one leads to has no one type
        raise ValueError(f"{path}: not a .npy file: {error}") from None
    if dtype.hasobject:
        raise ValueError(f"{path}: holds Python objects, which are not read; save numbers")
    if dtype.kind not in "biuf":
        raise ValueError(f"{path}: holds {dtype}; expected real numbers")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{path}: holds an array of shape {shape}; expected a matrix (samples, features)")
    if fortran and 1 not in shape:
        raise ValueError(f"{path}: is in Fortran order; save it with np.save(path, np.ascontiguousarray(X))")
    return (int(shape[0]), int(shape[1])), dtype, file.tell()


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where neighbouring rows start and stop in these numbers, which are read in one go."""
    breaks = (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
    starts = [0, *breaks] if len(numbers) else []
    yield from zip(starts, [*breaks, len(numbers)], strict=False)
