"""Figures: their colours and fonts, and the files that they are written to."""

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from nnkit.files import replacing, writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
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


# From Okabe and Ito's palette for colour-blind readers; one is darker, so they differ in black and white, too.
BLUE, VERMILION = "#0072B2", "#D55E00"
DARK_BLUE, DARK_VERMILION = "#003657", "#6B2F00"
BLACK, GREY, LIGHT_GREY = "#000000", "#555555", "#E4E4E4"
# In points, on a figure of 6 to 12 inches: legible from the last row.
TITLE, HEADING, LABEL, TICK = 15, 13, 12, 11


def new_figure(width: float, height: float, title: str | None) -> "Figure":
    """An empty figure, `width` by `height` inches, with a title that is wrapped if it is too long.

    It needs neither a display nor pyplot. Raises ImportError, with the install command, if Matplotlib is missing.
    """
    if not isinstance(title, str | None):
        raise TypeError(f"title is {title!r}; expected a string")
    check_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.06, hspace=0.06)
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout=layout)
    if title is not None:
        letters = int((width - 0.3) / 0.13)
        lines = [textwrap.fill(line, letters) for line in title.splitlines()]
        figure.suptitle("\n".join(lines), x=0.12 / width, ha="left", fontsize=TITLE, fontweight="bold")
    return figure


def style_lines(axes: "Axes", heading: str, xlabel: str) -> None:
    """Style axes for lines: a heading instead of a y label, a thin grid instead of a frame."""
    axes.set_title(heading, loc="left", fontsize=HEADING)
    axes.set_xlabel(xlabel, fontsize=LABEL, color=GREY)
    axes.tick_params(which="both", length=0, pad=7, labelsize=TICK, labelcolor=GREY)
    axes.grid(axis="y", color=LIGHT_GREY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#999999")


def style_image(axes: "Axes", heading: str) -> None:
    """Style axes for images: a heading, no ticks and no frame."""
    axes.set_title(heading, loc="left", fontsize=HEADING)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def shades(*colors: str) -> "Colormap":
    """A colormap that interpolates linearly between equally spaced colours."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("nnkit", colors, N=257)  # odd, so that the middle colour is included


def add_color_bar(axes: "Axes", drawn: Any, size: tuple[float, float], below: float = 0.0, **style: Any) -> Any:
    """Add a colour bar to the right of axes of this size (width, height) in inches.

    It extends from their top to `below` inches above their bottom.
    """
    width, height = size
    place = axes.inset_axes((1 + 0.2 / width, below / height, 0.18 / width, 1 - below / height))
    bar = axes.figure.colorbar(drawn, cax=place, **style)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=TICK, labelcolor=GREY)
    return bar
