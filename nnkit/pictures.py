"""Pictures as files, in the format that their name says."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nnkit.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg", ".pdf")


def picture_path(path: str | os.PathLike[str]) -> Path:
    """The path of a picture to be, checked.

    TypeError if it is no path, ValueError for another suffix, FileNotFoundError if its folder does not exist.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a path or None, got {path!r}")
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"path must end in {', '.join(_SUFFIXES)}, got {str(target)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {str(target.parent)!r} does not exist")
    return target


def write_picture(figure: "Figure", target: Path) -> None:
    """Write a figure in the format of its name; a picture that was there stays until the new one is whole."""
    with replacing(target) as file:
        figure.savefig(file, format=target.suffix[1:].lower())
