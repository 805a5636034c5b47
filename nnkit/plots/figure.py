"""What all plots share: checked arguments, figures with their colours and fonts, and the files they are written to."""

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import check_finite
from nnkit.files import replacing, writable
from nnkit.inputs import on_host
from nnkit.tables import as_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure as Figure
else:  # Matplotlib is imported when something is drawn
    Axes = Colormap = Figure = object

File = str | os.PathLike[str] | None

# From Okabe and Ito's palette for colour-blind readers; one is darker, so they differ in black and white, too.
BLUE, VERMILION = "#0072B2", "#D55E00"
DARK_BLUE, DARK_VERMILION = "#003657", "#6B2F00"
BLACK, GREY, LIGHT_GREY = "#000000", "#555555", "#E4E4E4"
# In points, on a figure of 6 to 12 inches: legible from the last row.
TITLE, HEADING, LABEL, TICK = 15, 13, 12, 11

_SUFFIXES = (".png", ".svg", ".pdf")


# --- files ------------------------------------------------------------------------------------------------------------


@overload
def picture_path(path: None, name: str = "path") -> None: ...
@overload
def picture_path(path: str | os.PathLike[str], name: str = "path") -> Path: ...
def picture_path(path: File, name: str = "path") -> Path | None:
    """The validated path of a picture, called `name` in errors; None, for no file, stays None.

    Raises TypeError if it is not a path, ValueError for another suffix, OSError if no file can be written there, and
    the errors of `check_matplotlib`: all before anything is computed.
    """
    if path is None:
        return None
    target = writable(path, name)
    if target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{name} is {str(target)!r}; expected a name that ends in {', '.join(_SUFFIXES)}")
    check_matplotlib()
    return target


def check_matplotlib() -> None:
    """Raise ImportError with the installation command without Matplotlib, ValueError if MPLBACKEND disables it."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("pictures need Matplotlib; install it with: python -m pip install matplotlib") from error
    except ValueError as error:  # it reads the variable when it is imported, whether it shows anything or not
        variable = os.environ.get("MPLBACKEND")
        raise ValueError(f"Matplotlib does not start with MPLBACKEND={variable!r}: {error}") from error


def write_picture(figure: Figure, target: Path | None) -> Figure:
    """Write a figure, if there is a path, in the format of its suffix; an existing file is replaced atomically."""
    if target is not None:
        with replacing(target) as file:
            figure.savefig(file, format=target.suffix[1:].lower())
    return figure


# --- figures ----------------------------------------------------------------------------------------------------------


def new_figure(width: float, height: float, title: str | None) -> Figure:
    """An empty figure, `width` by `height` inches, with a title that is wrapped if it is too long."""
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


def style_lines(axes: Axes, heading: str, xlabel: str) -> None:
    """Style axes for lines: a heading instead of a y label, a thin grid instead of a frame."""
    axes.set_title(heading, loc="left", fontsize=HEADING)
    axes.set_xlabel(xlabel, fontsize=LABEL, color=GREY)
    axes.tick_params(which="both", length=0, pad=7, labelsize=TICK, labelcolor=GREY)
    axes.grid(axis="y", color=LIGHT_GREY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#999999")


def style_image(axes: Axes, heading: str) -> None:
    """Style axes for images: a heading, no ticks and no frame."""
    axes.set_title(heading, loc="left", fontsize=HEADING)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def add_legend(figure: Figure, **items: Any) -> None:
    """Add a legend below all axes, of the labelled lines or of other `handles`."""
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=LABEL, labelcolor=GREY, **items)


def shades(*colors: str) -> Colormap:
    """A colormap that interpolates linearly between equally spaced colours."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("nnkit", colors, N=257)  # odd, so that the middle colour is included


def add_color_bar(axes: Axes, drawn: Any, size: tuple[float, float], below: float = 0.0, **style: Any) -> Any:
    """Add a colour bar to the right of axes of this size (width, height) in inches.

    It extends from their top to `below` inches above their bottom.
    """
    width, height = size
    place = axes.inset_axes((1 + 0.2 / width, below / height, 0.18 / width, 1 - below / height))
    bar = axes.figure.colorbar(drawn, cax=place, **style)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=TICK, labelcolor=GREY)
    return bar


# --- arguments: arrays of any backend become NumPy arrays -------------------------------------------------------------


def real_numbers(values: Any, name: str, axes: int, expected: str) -> NDArray[Any]:
    """A nonempty array of real numbers with `axes` dimensions; error messages describe its shape as `expected`."""
    array = np.asarray(on_host(as_array(values, name)))
    if array.dtype.kind not in "biuf" and array.size:
        raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
    if array.ndim != axes or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    return array


def finite_numbers(values: Any, name: str, axes: int, expected: str) -> NDArray[np.float64]:
    """Like `real_numbers`, but finite and converted to float64."""
    array = real_numbers(values, name, axes, expected).astype(np.float64)
    check_finite(array, name)
    return array


def label_pair(y: Any, predicted: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """True and predicted labels (n,), both integers or both strings, with n at least 1."""
    pair = _labels(y, "y"), _labels(predicted, "predicted")
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"y has {len(pair[0])} labels and predicted {len(pair[1])}; expected equal lengths")
    if (pair[0].dtype.kind == "U") != (pair[1].dtype.kind == "U"):
        kinds = ["strings" if labels.dtype.kind == "U" else "integers" for labels in pair]
        raise TypeError(f"y holds {kinds[0]} and predicted {kinds[1]}; expected the same type")
    return pair


def _labels(values: Any, name: str) -> NDArray[Any]:
    array = np.asarray(on_host(as_array(values, name)))
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected labels (n,), at least one")
    if array.dtype.kind in "biu":
        return array.astype(np.uint64 if array.dtype == np.uint64 else np.int64)  # which has no room for all of uint64
    if array.dtype.kind not in "UT" and not all(isinstance(label, str) for label in array):
        raise TypeError(f"{name} has dtype {array.dtype}; expected integer or string labels")
    return array.astype(str)
