"""Where commands write: paths are checked before anything is computed, files appear whole or not at all."""

import importlib.util
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnkit.commands.arguments import one_line
from nnkit.data.csv_files import line_of
from nnkit.files import is_special, replacing, writable
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


def check_package(option: str, package: str) -> None:
    """ImportError, with how to install it, if what an option needs is missing."""
    if importlib.util.find_spec(package) is None:
        hint = f"   (or give --no-{option[2:]})" if option in ("--model", "--picture") else ""
        raise ImportError(f"{option} needs {package}: python -m pip install {package}{hint}")


def output_path(path: Path, option: str, others: Iterable[str | Path] = ()) -> Path:
    """The path, if a file can be written there, and it is none of the others that the command reads or writes.

    Raises OSError or ValueError that names the option.
    """
    writable(path, option)
    if is_special(path):  # /dev/null takes any number of files
        return path
    if any(os.path.realpath(path) == os.path.realpath(other) for other in others):
        raise ValueError(f"{option}: {path} is already another of this command's files")
    return path


def picture_title(text: str) -> str:
    """The title of a picture, with the name of a file in it: on one line, and no mathematics of Matplotlib's."""
    return one_line(text).replace("$", r"\$")


def as_json(content: Any) -> str:
    """JSON text, in ASCII for any terminal; numbers that are not finite, which JSON has not, are null, paths are text.

    >>> print(as_json({"cost": [0.5, float("nan")]}))
    {
      "cost": [
        0.5,
        null
      ]
    }
    """
    return json.dumps(_plain(content), indent=2)


def write_json(path: Path, content: Any) -> None:
    """Write JSON text to a file."""
    with replacing(path) as file:
        file.write(as_json(content).encode() + b"\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
