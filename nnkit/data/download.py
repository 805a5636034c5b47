"""Downloads of data sets with pooch: only complete and correct files are kept."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from nnkit.files import replacing

# The mirrors of MNIST, in the order of attempts.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_CHUNK = 1 << 16  # bytes per read


def cache_folder() -> Path:
    r"""nnkit's cache directory, the same as `pooch.os_cache("nnkit")`, without importing pooch.

    As defined by platformdirs, which pooch uses: %LOCALAPPDATA%\nnkit\nnkit\Cache on Windows; elsewhere nnkit in the
    directory XDG_CACHE_HOME if that is set, or else in ~/Library/Caches on macOS and in ~/.cache on other systems.
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or os.path.join("~", "AppData", "Local")
        return Path(os.path.expanduser(local), "nnkit", "nnkit", "Cache")
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    usual = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(chosen if os.path.isabs(chosen) else os.path.expanduser(usual), "nnkit")


def download_file(name: str, folder: Path, check: Callable[[bytes, str], object]) -> Path:
    """Download the file `name` from the first mirror that has it to a directory, which is created if missing.

    Args:
        name: the name of the file at the mirrors and in the directory.
        folder: the target directory; the file is written completely or not at all.
        check: a function of the file's content and its URL that raises ValueError if the file is wrong.

    Returns the path of the file. Raises ImportError if pooch is not installed, ConnectionError, with the error for each
    mirror, if none provided the right file, and OSError if it cannot be written.
    """
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
            check(content.getvalue(), url)
        except (OSError, ValueError) as error:  # exceptions of requests are OSErrors
            problems.append(str(error) if url in str(error) else f"{url}: {error}")
            continue
        with replacing(folder / name) as file:
            file.write(content.getvalue())
        return folder / name
    raise ConnectionError("\n  ".join([f"{name} could not be downloaded to {folder}:", *problems]))
