"""Data to train on: the user's own files, digits that come with the package, MNIST, splits and label encodings.

All of it is NumPy on the host; a network moves what it is given to its own device.
"""

from nnkit.data.encoding import TableEncoding
from nnkit.data.files import read
from nnkit.data.labels import one_hot
from nnkit.data.mnist import MNIST, digits, mnist
from nnkit.data.preprocessing import Normalization, Whitening, preprocessing_from
from nnkit.data.rows import Rows, open_npy
from nnkit.data.splitting import split
from nnkit.data.table import Table

__all__ = [
    "MNIST", "Normalization", "Rows", "Table", "TableEncoding", "Whitening", "digits", "mnist", "one_hot", "open_npy",
    "preprocessing_from", "read", "split",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
