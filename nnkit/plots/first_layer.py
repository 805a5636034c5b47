"""The weights of the first layer, which show what in an image its units look for."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.pictures import picture_path, write_picture
from nnkit.plots.arguments import finite_numbers
from nnkit.plots.images import draw_images, grid_of, image_shape, image_size
from nnkit.plots.style import (
    BLUE,
    DARK_BLUE,
    DARK_VERMILION,
    VERMILION,
    add_color_bar,
    new_figure,
    shades,
    style_image,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 100  # units; more would be too small to see
_GAP = 0.06  # inches between images


def first_layer(
    network: Any,
    shape: Sequence[int] | None = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw the rows of the first layer's weights as images, one a unit: what the unit looks for.

    A unit's image is its row of W in h = f(Wx + b) (eq. 2): ink raises h̄ where it is orange and lowers it where it is
    blue. All share one scale of colours, symmetric about 0, that reaches to the 99.5th percentile of |W|. The first 100
    units are drawn.

    Args:
        network: a `Network`, or weights W (units, inputs), any real type and backend.
        shape: (height, width) of the images in pixels; by default they are squares.
        path: where to write the picture, a name ending in .png, .svg or .pdf; by default nowhere. The file
            appears whole or not at all.
        title: a heading for the whole picture.

    Returns:
        The Matplotlib figure.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: W is not real numbers, or path not a path.
        ValueError: W has not two axes or holds NaN or infinities, the inputs are no square and no shape is given,
            shape does not fit, or path has another suffix.
        FileNotFoundError: the folder of path does not exist.

    Example:
        >>> net = nnkit.Network([64, 12, 10], seed=0)
        >>> first_layer(net).axes[0].get_title(loc="left")
        'Weights of 12 units'

    """
    target = picture_path(path)
    W = network.parameters.W[0] if hasattr(network, "parameters") else network
    W = finite_numbers(W, "W", 2, "(units, inputs)")
    images = W[:_MOST].reshape(-1, *image_shape(W.shape[1], shape, "W"))
    size = image_size(images.shape[1:], min(1.5, 7 / np.sqrt(len(images))))
    grid = grid_of(len(images), size[1] + _GAP, size[0] + _GAP)
    figure = new_figure(max(4.0, grid.width + 1.4), grid.height + (0.7 if title is None else 1.1), title)
    axes = figure.add_subplot()
    # A few large weights would leave the others pale; they are beyond the ends of the bar.
    largest = float(np.abs(images).max())
    most = float(np.quantile(np.abs(images), 0.995)) or largest or 1.0
    colors = shades(DARK_BLUE, BLUE, "white", VERMILION, DARK_VERMILION)
    drawn = draw_images(axes, images, grid, size, cmap=colors, vmin=-most, vmax=most)
    shown = f"{len(images)} of {len(W)} units" if len(W) > _MOST else f"{len(W)} unit{'s' if len(W) > 1 else ''}"
    style_image(axes, f"Weights of {shown}")
    ends = "both" if largest > most else "neither"
    add_color_bar(axes, drawn, (grid.width, grid.height), below=_GAP, extend=ends)  # below the last row is a gap
    return write_picture(figure, target)
