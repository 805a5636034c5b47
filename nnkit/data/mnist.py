"""Handwritten digits: small ones that come with the package, and MNIST, read from its four IDX files or downloaded."""

import gzip
import hashlib
import io
import math
import os
import sys
import zlib
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.selection import cache_folder
from nnkit.checks import flag
from nnkit.files import replacing

# The mirrors of MNIST, in the order of attempts.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_CHUNK = 1 << 16  # bytes per read


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the 1797 handwritten digits of the UCI repository, 8 × 8 pixels each.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0 (see DIGITS-LICENSE.md in this directory).

    Returns:
        The images, (1797, 64) float32 in [0, 1], each row by row: 0 is paper, 1 is ink (the number of set pixels in a
        4 × 4 block, divided by 16); and their labels, (1797,) int64, 0 to 9. Each call returns new arrays.

    >>> X, y = digits()
    >>> X.shape, y[:10].tolist()
    ((1797, 64), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    # As a resource instead of a path, so that it also works from a zip file.
    resource = resources.files("nnkit.data") / "digits.npz"
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return archive["images"].astype(np.float32) / np.float32(16), archive["labels"].astype(np.int64)


class MNIST(NamedTuple):
    """The 70 000 handwritten digits of MNIST.

    The images are (60000, 784) and (10000, 784) uint8, row by row, 0 (paper) to 255 (ink); the labels 0 to 9.
    """

    X_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    X_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]


class _Original(NamedTuple):
    """A file of MNIST: its name, the shape of its array, and the SHA-256 of its decompressed bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """The size of the decompressed file in bytes."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    def find(self, folders: list[Path]) -> Path | None:
        """Its path, or that of the gzipped file, in the first of these directories that has it."""
        paths = (folder / file for folder in folders for file in (self.name, f"{self.name}.gz"))
        return next((path for path in paths if path.is_file()), None)

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The array in a file."""
        size, most = path.stat().st_size, 2 * self.size + 4096  # gzip makes random data slightly larger
        if size > most:
            raise ValueError(f"{path}: has {size} bytes; expected {self.size} for {self.name}")
        return self.array(path.read_bytes(), str(path))

    def array(self, content: bytes, source: str) -> NDArray[np.uint8]:
        """The array in a file's content; raises ValueError if it is not the original."""
        content = self._decompressed(content, source)
        array = _parse_idx(content, source)
        self._check_shape(array.shape, source)
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{source}: not the original {self.name}: its decompressed bytes have the SHA-256 {found}; "
                f"expected {self.sha256} (other data sets, such as Fashion-MNIST, use the same file names)"
            )
        return array

    def _decompressed(self, content: bytes, source: str) -> bytes:
        # By content, not by suffix: some programs decompress a download and keep the suffix .gz.
        if not content.startswith(b"\x1f\x8b"):
            return content
        try:
            # Limited to slightly more than the original, enough for any header: 3 MB of gzip can expand to 3 GB.
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                found = file.read(self.size + 16)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{source}: corrupt gzip file: {error}") from error
        if len(found) > self.size:
            self._check_shape(_idx_shape(found, source), source)
            raise ValueError(f"{source}: decompresses to more than the {self.size} bytes of {self.name}")
        return found

    def _check_shape(self, shape: tuple[int, ...], source: str) -> None:
        if shape != self.shape:
            raise ValueError(f"{source}: holds an array of shape {shape}; expected {self.shape}")


_ORIGINALS = tuple(
    _Original(f"{name}-ubyte", shape, sha256)
    for name, shape, sha256 in (
        ("train-images-idx3", (60000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        ("train-labels-idx1", (60000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        ("t10k-images-idx3", (10000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        ("t10k-labels-idx1", (10000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    )
)

_HELP = (
    "mnist(download=True) downloads it with pooch (python -m pip install pooch); or use mnist(directory), or set the "
    "environment variable NNKIT_DATA to the directory with the four IDX files, or to the parent of such a directory "
    "named mnist"
)


def mnist(directory: str | os.PathLike[str] | None = None, download: bool = False) -> MNIST:
    """Read MNIST from its four IDX files, gzipped or not, and verify that they are the original files.

    Source: Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database of handwritten digits.

    Args:
        directory: the directory with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, each with or without .gz. By default, the directory in the environment variable
            NNKIT_DATA, its subdirectory mnist, and mnist in nnkit's cache directory, such as ~/.cache/nnkit/mnist, are
            searched.
        download: download missing files, 12 MB in total, to the first of these directories. This needs pooch:
            `python -m pip install pooch`.

    Returns:
        MNIST(X_train, y_train, X_test, y_test): images (60000, 784) and (10000, 784), uint8, 0 to 255, row by row;
        labels (60000,) and (10000,), int64, 0 to 9. Divide the images by 255 before training.

    Raises:
        TypeError: directory is not a path.
        FileNotFoundError: a file is in none of the directories.
        ValueError: a file is corrupt or not the original; the message names it. The file is not changed.
        ImportError: a file must be downloaded and pooch is not installed.
        ConnectionError: no mirror provided the original file; the message gives the error for each mirror. Wrong files
            are not kept.

    >>> X_train, y_train, X_test, y_test = mnist("data/mnist")  # doctest: +SKIP
    >>> mnist("a folder without it")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: train-images-idx3-ubyte (or train-images-idx3-ubyte.gz) is not in ...
    """
    folders = _folders(directory)
    if flag("mnist", "download", download):
        for original in _ORIGINALS:
            if original.find(folders) is None:
                _download(original, folders[0])
    paths = [original.find(folders) for original in _ORIGINALS]
    for original, path in zip(_ORIGINALS, paths, strict=True):  # before any is read, which takes seconds
        if path is None:
            looked = " or ".join(repr(str(folder)) for folder in folders)
            raise FileNotFoundError(f"{original.name} (or {original.name}.gz) is not in {looked}; {_HELP}")
    arrays = [original.read(path) for original, path in zip(_ORIGINALS, paths, strict=True) if path is not None]
    X_train, X_test = (images.reshape(len(images), -1) for images in arrays[::2])
    y_train, y_test = (labels.astype(np.int64) for labels in arrays[1::2])
    return MNIST(X_train, y_train, X_test, y_test)


def is_on_disk(directory: str | os.PathLike[str] | None) -> bool:
    """Whether `mnist` finds all four files without a download."""
    return all(original.find(_folders(directory)) for original in _ORIGINALS)


def _folders(directory: str | os.PathLike[str] | None) -> list[Path]:
    if directory is not None:
        if not isinstance(directory, str | os.PathLike):
            raise TypeError(f"directory is {directory!r}; expected a path or None")
        return [Path(directory)]
    data = os.environ.get("NNKIT_DATA")
    return ([Path(data), Path(data) / "mnist"] if data else []) + [cache_folder() / "mnist"]


def _download(original: _Original, folder: Path) -> None:
    """Download a file from the first mirror that has it to a directory, which is created if missing.

    Raises ImportError if pooch is not installed, ConnectionError, with the error for each mirror, if none provided the
    right file, and OSError if it cannot be written.
    """
    name = f"{original.name}.gz"
    try:
        from pooch import HTTPDownloader
    except ImportError:
        raise ImportError(f"downloading {name} needs pooch: python -m pip install pooch") from None
    folder.mkdir(parents=True, exist_ok=True)
    fetch = HTTPDownloader(progressbar=sys.stderr is not None and sys.stderr.isatty(), chunk_size=_CHUNK, timeout=30)
    problems = []
    for mirror in MIRRORS:
        url, content = mirror + name, io.BytesIO()
        try:
            fetch(url, content, None)
            original.array(content.getvalue(), url)
        except (OSError, ValueError) as error:  # exceptions of requests are OSErrors
            reason = _reason(error)
            problems.append(reason if url in reason else f"{url}: {reason}")
            continue
        with replacing(folder / name) as file:
            file.write(content.getvalue())
        return
    raise ConnectionError(f"{name} could not be downloaded to {folder}:\n  " + ";\n  ".join(problems))


def _reason(error: BaseException) -> str:
    """The message of the innermost error: those of requests and urllib3 around it repeat the address."""
    around = (getattr(error, "reason", None), error.__cause__, *error.args)
    inner = next((each for each in around if isinstance(each, BaseException)), None)
    if inner is None or isinstance(error, ValueError):
        return getattr(error, "strerror", None) or str(error)
    return _reason(inner)


def _parse_idx(content: bytes, source: str) -> NDArray[np.uint8]:
    r"""Return the bytes in an IDX file as a new array; `source` is its name in error messages.

    The format: two zero bytes, the type (8: unsigned byte), the number of axes (here 1 to 3); the length of each axis
    as 4 bytes, big-endian; the elements in C order.

    >>> _parse_idx(b"\0\0\x08\x02" + b"\0\0\0\x01" + b"\0\0\0\x03" + b"\x05\x06\x07", "example")
    array([[5, 6, 7]], dtype=uint8)
    """
    shape = _idx_shape(content, source)
    start = 4 + 4 * len(shape)
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"{source}: has {len(content)} bytes; expected {expected} for shape {shape} in its header")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()


def _idx_shape(content: bytes, source: str) -> tuple[int, ...]:
    """The shape in the header of an IDX file of bytes."""
    if len(content) < 4 or content[:3] != b"\0\0\x08" or content[3] not in (1, 2, 3):
        raise ValueError(
            f"{source}: not an IDX file of bytes: it starts with {content[:4].hex(' ') or 'nothing'}; "
            "expected 00 00 08 and the number of axes, 1 to 3"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{source}: truncated: has {len(content)} bytes; expected {start} for the header alone")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if 0 in shape:
        raise ValueError(f"{source}: has shape {shape} in its header; expected at least one element")
    return shape
