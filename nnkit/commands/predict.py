"""nnkit predict: predictions for the samples in a file, as CSV text or a .npy file."""

import argparse
import csv
import io
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import check_finite, printable
from nnkit.commands.arguments import Commands, add_backend, add_command, add_flag, add_model, add_option
from nnkit.commands.dataset import read_file
from nnkit.commands.models import encoding_of, in_order
from nnkit.commands.outputs import inputs, output_path, picture_title, place, placing
from nnkit.data.cells import TextCellError, is_number
from nnkit.data.mixed_files import Mixed, Wanted
from nnkit.data.rows import open_npy
from nnkit.data.table import Table
from nnkit.ensembles.ensemble import Ensemble
from nnkit.files import is_special, replacing
from nnkit.inputs import check_samples, on_host
from nnkit.model import ROWS
from nnkit.network import Network, load
from nnkit.plots.figure import picture_path
from nnkit.tables import is_table, rows_of

_DESCRIPTION = """
Prints CSV: a header and one line per sample. Large .npy files are read in blocks of some thousand rows."""
_EPILOG = """examples:
  nnkit predict nnkit-model.safetensors new-flowers.csv
  nnkit predict nnkit-model.safetensors flowers.csv --target species --probabilities --output shares.csv
  nnkit predict ensemble.safetensors new-flowers.csv --ensemble --picture sure.png"""


def add(commands: Commands) -> None:
    """Add the command and its arguments."""
    purpose = "predict classes or numbers for the samples in a file"
    parser = add_command(commands, "predict", purpose, run, _DESCRIPTION, _EPILOG)
    add_model(parser)
    add_option(parser, "file", "FILE", Path, "the samples: .csv, .parquet, .npz or .npy")
    add_option(parser, "--target", "NAME", str, "the column to exclude from FILE: the targets")
    add_option(
        parser, "--id", "NAME", str, "a column of a .csv or .parquet FILE that begins each line of the predictions"
    )
    add_flag(parser, "--probabilities", "give the probability of each class")
    add_flag(
        parser, "--ensemble", "MODEL is of nnkit train --ensemble: predict the mean, and add how far members differ"
    )
    add_option(
        parser, "--picture", "FILE", Path, "with --ensemble: draw predictions and their spread: .png, .svg or .pdf"
    )
    add_option(parser, "--output", "FILE", Path, "write to a .csv or .npy file and print nothing; - prints")
    add_backend(parser)


def run(options: argparse.Namespace) -> int:
    """Predict blocks of some thousand rows and write each at once."""
    output: Path | None = None if options.output == Path("-") else options.output
    sources = inputs(options.model, options.file, options.target)
    if output is not None:
        output_path(output, "--output", sources)
        # Special files, such as /dev/stdout, get CSV.
        if output.suffix.lower() not in (".csv", ".npy") and not is_special(output):
            raise ValueError(f"--output: {output} ends in {output.suffix!r}; expected .csv or .npy")
    if options.picture is not None and not options.ensemble:
        raise ValueError("--picture has no effect without --ensemble")
    if picture_path(options.picture, "--picture") is not None:
        output_path(options.picture, "--picture", [*sources, *([output] if output else [])])
    ensemble = Ensemble.load(options.model, options.backend) if options.ensemble else None
    network = load(options.model, options.backend) if ensemble is None else ensemble.members[0]
    has_probabilities = network.classifies and network.dense[-1].activation in ("sigmoid", "softmax")
    if options.probabilities and not has_probabilities:
        raise ValueError(f"--probabilities: a network with the cost {network.cost.name} has none")
    binary = output is not None and output.suffix.lower() == ".npy"
    if binary and options.id is not None:
        raise ValueError(f"--output: {output} is an array, which has no place for --id {options.id}; give a .csv file")
    table, ids = _samples(options, network)
    X, features = table.X, table.features
    X = in_order(network, options.model, X, features, options.file)
    parts = _predictions(network, X, options.file, features, options.probabilities, ensemble)
    header = _header(network, options.probabilities, ensemble is not None)
    if binary and network.classes is not None and ensemble is not None and not options.probabilities:
        raise ValueError(f"--output: {output} cannot hold names and numbers; expected .csv, or --probabilities")
    if options.picture is not None and ensemble is not None:
        from nnkit import plots

        draw = plots.disagreement if network.classifies else plots.predictions
        draw(ensemble, X, path=options.picture, title=picture_title(str(options.file)))
    if ids is not None:
        header = [options.id, *header]
    if not binary:
        _warn_of_formulas(network)
    # Readers treat a carriage return as the end of a line, but Python before 3.13 does not quote it.
    written = itertools.chain(() if network.classes is None else network.classes.tolist(), ids or ())
    quoted = any("\r" in str(name) for name in written)
    if output is None:
        _write_csv(sys.stdout, header, parts, quoted, ids)
    elif not binary:
        with replacing(output) as file:
            text = io.TextIOWrapper(file, "utf-8", newline="")
            _write_csv(text, header, parts, quoted, ids)
            text.detach()  # otherwise it would close the file, which `replacing` flushes to the disk first
    else:
        predictions = np.concatenate(list(parts))
        with replacing(output) as file:
            np.save(file, _without_objects(predictions), allow_pickle=False)
    return 0


def _samples(options: argparse.Namespace, network: Network) -> Mixed:
    """The samples (n, d) of a file, its column names, and its ids, if any; the network's features show a header.

    .npy files in C order are opened without reading them.
    """
    path, target = options.file, options.target
    if target is None and options.id is None and path.suffix.lower() == ".npy" and path.is_file():
        try:
            return Mixed(Table(open_npy(path), None, None, None), None)  # type: ignore[arg-type]
        except ValueError:  # in Fortran order, and readable as a whole; otherwise reading raises the same error
            pass
    try:
        return read_file(path, Wanted(target, options.id, encoding_of(network), features=network.features))
    except TextCellError as error:
        raise ValueError(f"{error}{', with --target NAME' if target is None else ''}") from None


def _predictions(
    network: Network,
    X: Any,
    path: Path,
    features: list[str] | None,
    probabilities: bool,
    ensemble: Ensemble | None,
) -> Iterator[NDArray[Any]]:
    """The classes (n,), numbers (n, d_out) or probabilities (n, k) of blocks of some thousand samples.

    With an ensemble, columns for its spread or disagreement follow.
    """
    asked = network if ensemble is None else ensemble
    for start in range(0, X.shape[0], ROWS):
        rows = rows_of(X, np.arange(start, min(start + ROWS, X.shape[0])))
        if encoding_of(network) is None and not is_table(rows):
            check_finite(rows, f"{path}:", first=start)
        with placing({"": lambda row, start=start: place(path, start + row, features)}):  # type: ignore[misc]
            check_samples(network.backend, network.checked(rows), network.samples(rows), network.preprocessing, "X")
            part = on_host(asked.predict_proba(rows) if probabilities else asked.predict(rows))
            if probabilities and part.shape[1] == 1:
                part = np.hstack([1 - part, part])
            if ensemble is not None:
                differ = on_host(ensemble.disagreement(rows) if network.classifies else ensemble.spread(rows))
                columns = [a if a.ndim == 2 else a[:, None] for a in (part, differ)]
                kind = None if part.dtype.kind == "f" else object
                part = np.hstack([a.astype(kind or a.dtype) for a in columns])
        yield part


def _without_objects(predictions: NDArray[Any]) -> NDArray[Any]:
    """The predictions as an array of numbers: whole ones beyond int64 as uint64, others as float64."""
    if predictions.dtype != object:
        return predictions
    whole = all(isinstance(value, int) for value in predictions.flat)
    return np.array(predictions.tolist(), np.uint64 if whole else float)


def _header(network: Network, probabilities: bool, several: bool) -> list[str]:
    names = _names(network, probabilities)
    if not several:
        return names
    return [*names, "disagreement"] if network.classifies else [*names, *(f"spread{n[10:]}" for n in names)]


def _names(network: Network, probabilities: bool) -> list[str]:
    outputs = network.d_out
    if probabilities:
        classes = range(max(outputs, 2)) if network.classes is None else network.classes.tolist()
        return [str(name) for name in classes]
    if network.classifies or outputs == 1:
        return ["prediction"]
    return [f"prediction_{column}" for column in range(outputs)]


def _warn_of_formulas(network: Network) -> None:
    """Warn of class names that a spreadsheet would evaluate. They stay unchanged: a changed name is another class."""
    names = [] if network.classes is None else network.classes.tolist()
    found = [name for name in names if str(name)[:1] in ("=", "+", "-", "@", "\t", "\r") and not is_number(str(name))]
    if found:
        warnings.warn(
            f"classes holds {found[0]!r}, which a spreadsheet treats as a formula: import the predictions as text",
            stacklevel=2,
        )


def _write_csv(
    file: TextIO, header: list[str], parts: Iterable[NDArray[Any]], quoted: bool, ids: list[str] | None
) -> None:
    """Write a header and one line per sample, which begins with its id, if any.

    Floats have the shortest digits that identify them in their dtype. Control characters are escaped on a terminal, but
    not in files and pipes. `quoted` puts every cell in quotes.
    """
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    text: Callable[[Any], str] = (lambda value: printable(str(value))) if file.isatty() else str
    parts = iter(parts)
    first_part = list(itertools.islice(parts, 1))  # before the header, as samples may be refused
    writer.writerow(map(text, header))
    first = itertools.repeat([]) if ids is None else ([name] for name in ids)
    for part in itertools.chain(first_part, parts):
        rows = part if part.ndim == 2 else part[:, None]
        writer.writerows([text(value) for value in (*own, *row)] for row, own in zip(rows, first, strict=False))
    file.flush()
