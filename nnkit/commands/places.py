"""Where in a user's file the sample is that an error speaks of by its number."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nnkit.data.csv_file import line_of
from nnkit.training.divergence import DivergenceError

_ROW = re.compile(r" at \[(\d+)(?:, \d+)*\]|\bsample (\d+)\b")


def place(path: Path, sample: int, features: list[str] | None) -> str:
    """The line of a sample, from 0, of a CSV file, or its number; features are the names in its header."""
    line = line_of(path, sample, features is not None) if path.suffix.lower() == ".csv" else None
    return f"{path}, sample {sample}" if line is None else f"{path}, line {line}"


@contextmanager
def placing(places: Mapping[str, Callable[[int], str]]) -> Iterator[None]:
    """Let errors that speak of a row of X, of y or of the outputs say where it is, by a function of its number.

    The keys are what the names of X and y begin with in errors, such as "validation ".

    >>> with placing({"": lambda row: f"a.csv, line {row + 2}"}):
    ...     raise ValueError("X holds nan at [1, 0]; expected finite numbers")
    Traceback (most recent call last):
    ValueError: a.csv, line 3: X holds nan; expected finite numbers
    """
    try:
        yield
    except DivergenceError:
        raise
    except ValueError as error:
        text = str(error)
        for before, where in places.items():
            named = re.match(rf"{before}([Xy]: |(?=[Xy] holds )|(?=the outputs of ))", text)
            row = named and _ROW.search(text)
            if named and row:
                text = text[named.end() : row.start()] + ("" if row[1] else "this sample") + text[row.end() :]
                raise ValueError(f"{where(int(row[1] or row[2]))}: {text}") from error
        raise
