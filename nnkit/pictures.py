"""Pictures as files, in the format that their name says."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, overload

from nnkit.files import replacing, writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg", ".pdf")


@overload
def picture_path(path: None, name: str = "path") -> None: ...
@overload
def picture_path(path: str | os.PathLike[str], name: str = "path") -> Path: ...
def picture_path(path: str | os.PathLike[str] | None, name: str = "path") -> Path | None:
    """The path of a picture to be, checked; None, for no file, stays None. Errors call it `name`.

    TypeError if it is no path, ValueError for another suffix, OSError if no file can be written there; what
    `check_matplotlib` says, before anything is computed.
    """
    if path is None:
        return None
    target = writable(path, name)
    if target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{name} is {str(target)!r}; expected a name that ends in {', '.join(_SUFFIXES)}")
    check_matplotlib()
    return target


def check_matplotlib() -> None:
    """ImportError, with how to install it, without Matplotlib; ValueError where MPLBACKEND keeps it from starting."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("pictures need Matplotlib; install it with: python -m pip install matplotlib") from error
    except ValueError as error:  # it looks at the variable when it is imported, whether it shows anything or not
        raise ValueError(
            f"Matplotlib does not start with MPLBACKEND={os.environ.get('MPLBACKEND')!r}: {error}"
        ) from error


def write_picture(figure: "Figure", target: Path | None) -> "Figure":
    """Write a figure in the format of its name, if there is one; an older picture stays until the new one is whole."""
    if target is not None:
        with replacing(target) as file:
            figure.savefig(file, format=target.suffix[1:].lower())
    return figure
