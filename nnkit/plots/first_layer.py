"""The weights of the first layer as images, which show what each unit responds to."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.plots.arguments import finite_numbers
from nnkit.plots.figure import (
    BLUE,
    DARK_BLUE,
    DARK_VERMILION,
    VERMILION,
    add_color_bar,
    new_figure,
    picture_path,
    shades,
    style_image,
    write_picture,
)
from nnkit.plots.images import draw_images, grid_of, image_shape, image_size

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
    """Draw the rows of the first layer's weights as images, one per unit.

    A unit's image is its row of W in h = f(Wx + b) (eq. 2): ink raises h̄ in orange areas and lowers it in blue ones.
    All images share one colour scale, symmetric about 0, that ends at the 99.5th percentile of |W|. At most 100 units
    are drawn.

    Args:
        network: a `Network`, or weights W (units, inputs) of any real dtype and backend.
        shape: (height, width) of the images in pixels; square by default.
        path: the file to write, ending in .png, .svg or .pdf; by default none. It is written completely or not at all.
        title: a title for the figure, which is returned.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: W does not contain real numbers, or path is not a path.
        ValueError: W is not two-dimensional or contains NaN or infinities, shape does not fit the number of inputs or
            is missing where that is not a square, or path has another suffix.
        FileNotFoundError: the directory of path does not exist.

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
    # A few large weights would make all others pale; they lie beyond the ends of the colour bar.
    largest = float(np.abs(images).max())
    most = float(np.quantile(np.abs(images), 0.995)) or largest or 1.0
    colors = shades(DARK_BLUE, BLUE, "white", VERMILION, DARK_VERMILION)
    drawn = draw_images(axes, images, grid, size, cmap=colors, vmin=-most, vmax=most)
    shown = f"{len(images)} of {len(W)} units" if len(W) > _MOST else f"{len(W)} unit{'s' if len(W) > 1 else ''}"
    style_image(axes, f"Weights of {shown}")
    ends = "both" if largest > most else "neither"
    add_color_bar(axes, drawn, (grid.width, grid.height), below=_GAP, extend=ends)  # a gap follows the last row
    return write_picture(figure, target)
