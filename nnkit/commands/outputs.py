"""Output files: paths are checked before the computation, and files are written atomically."""

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
    """The line in a CSV file of a sample, counted from 0, or its index in other files; features are the header."""
    line = line_of(path, sample, features is not None) if path.suffix.lower() == ".csv" else None
    return f"{path}, sample {sample}" if line is None else f"{path}, line {line}"


@contextmanager
def placing(places: Mapping[str, Callable[[int], str]]) -> Iterator[None]:
    """Add the location in the user's file, a function of the row, to errors about a row of X, y or the outputs.

    The keys are prefixes of X and y in errors, such as "validation ".

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


def check_packages(needed: Mapping[str, str]) -> None:
    """Raise ImportError, with one installation command, if packages are missing; `needed` has them by option."""
    missing = {option: package for option, package in needed.items() if importlib.util.find_spec(package) is None}
    if missing:
        needs = ", ".join(f"{option} needs {package}" for option, package in missing.items())
        without = " ".join(f"--no-{option[2:]}" for option in missing)
        hint = f"   (or give {without})" if missing.keys() <= {"--model", "--picture"} else ""
        raise ImportError(f"{needs}: python -m pip install {' '.join(dict.fromkeys(missing.values()))}{hint}")


def output_path(path: Path, option: str, others: Iterable[str | Path] = ()) -> Path:
    """Return the path if it is writable and differs from the command's other files.

    Raises OSError or ValueError that names the option.
    """
    writable(path, option)
    if is_special(path):  # /dev/null takes any number of files
        return path
    if any(os.path.realpath(path) == os.path.realpath(other) for other in others):
        raise ValueError(f"{option}: {path} is already another of this command's files")
    return path


def inputs(*given: str | Path | None) -> list[str | Path]:
    """Those of a command's sources that are files of its own, which no result may replace.

    They may also be None, names of data sets, or, for --target, names of columns.
    """
    return [source for source in given if source is not None and (Path(source).suffix or os.path.exists(source))]


def picture_title(text: str) -> str:
    """A title with a file name in it: on one line, and not parsed as mathematics by Matplotlib."""
    return one_line(text).replace("$", r"\$")


def as_json(content: Any) -> str:
    """JSON text, in ASCII for any terminal; numbers that are not finite become null, paths become text.

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
