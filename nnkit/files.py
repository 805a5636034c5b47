"""Files that are either whole or as they were before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from typing import IO


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes the place of `path` when the block ends well.

    It is written beside `path`, flushed to the disk and renamed; if the block or the disk fails, `path` is untouched
    and nothing is left over. Raises OSError if it cannot be written.
    """
    target = os.fspath(path)
    folder, name = os.path.split(target)
    # Beside the target, as a rename is atomic within one file system only; the name is no other process's.
    temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
