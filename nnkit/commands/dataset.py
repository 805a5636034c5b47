"""The samples that a command works with: shipped digits, MNIST, or the user's own file."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from nnkit import data
from nnkit.commands.places import place
from nnkit.data.csv_file import read_csv
from nnkit.data.files import read
from nnkit.files import existing_file


class Dataset(NamedTuple):
    """Samples X (n, width) with what belongs to each.

    name: what messages call it. y: labels (n,), numbers or text, or targets (n,) or (n, d_out). target: what messages
    call y. preprocessing: what suits it, by name. test: a test part (X, y) of its own. features: names of the columns.
    path: the file.
    """

    name: str
    X: NDArray[Any]
    y: NDArray[Any]
    target: str = "y"
    preprocessing: str = "none"
    test: tuple[NDArray[Any], NDArray[Any]] | None = None
    features: list[str] | None = None
    path: Path | None = None

    def place(self, sample: int) -> str:
        """Where a sample, from 0, is in the user's file."""
        return f"{self.name}, sample {sample}" if self.path is None else place(self.path, sample, self.features)


def load_dataset(source: str, target: str | None, data_dir: Path | None, download: bool, text: bool = False) -> Dataset:
    """The data that --data, --target, --data-dir and --download ask for; with `text` all labels of CSV are text.

    Raises ValueError for options that do not go together or data that cannot be read, FileNotFoundError for no file.
    """
    if source != "mnist" and (download or data_dir is not None):
        raise ValueError(f"{'--download' if download else '--data-dir'} is for --data mnist")
    if source in ("digits", "mnist") and target is not None:
        raise ValueError(f"--target is for files; {source} has its labels")
    if source == "digits":
        return Dataset("digits", *data.digits())
    if source == "mnist":
        try:
            mnist = data.mnist(data_dir, download=download)
        except FileNotFoundError as error:
            found = str(error).partition(";")[0]
            raise FileNotFoundError(f"{found}; give --data-dir FOLDER, or --download") from None
        return Dataset("mnist", mnist.X_train, mnist.y_train, "y", "pixels", (mnist.X_test, mnist.y_test))
    path = Path(source)
    if not source or not os.path.lexists(path):
        raise FileNotFoundError(f"{source or repr(source)} is no file, and neither digits nor mnist")
    existing_file(path)
    if target is None:
        raise ValueError(f"{source}: --target must say where the answers are")
    table = read_csv(path, target, text=True) if text and path.suffix.lower() == ".csv" else read(path, target)
    assert table.y is not None  # as there is a target
    y = table.y[:, 0] if table.y.shape[1:] == (1,) else table.y  # a column of labels is labels
    return Dataset(path.name, table.X, y, f"target {table.target!r}", "normalization", None, table.features, path)
