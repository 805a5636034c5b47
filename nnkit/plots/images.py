"""Images: the first layer's weights, misclassified samples, and the grid that both are drawn on, in inches."""

from collections.abc import Sequence
from math import ceil, isqrt, log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import whole
from nnkit.plots.figure import (
    BLUE,
    DARK_BLUE,
    DARK_VERMILION,
    GREY,
    HEADING,
    LABEL,
    VERMILION,
    Axes,
    Figure,
    File,
    add_color_bar,
    finite_numbers,
    label_pair,
    new_figure,
    picture_path,
    real_numbers,
    shades,
    style_image,
    write_picture,
)

_MOST = 100  # units; more would be too small to see
_GAP = 0.06  # inches between images
_LETTER = 0.1  # approximate width of a label's character in inches


def first_layer(
    network: Any, shape: Sequence[int] | None = None, path: File = None, title: str | None = None
) -> "Figure":
    """Draw the rows of the first layer's weights as images, one per unit.

    A unit's image is its row of W in h = f(Wx + b) (eq. 2): ink raises h̄ in orange areas and lowers it in blue ones.
    All images share one colour scale, symmetric about 0, that ends at the 99.5th percentile of |W|. At most 100 units
    are drawn.

    Args:
        network: a `Network`, or weights W (units, inputs) of any real dtype and backend.
        shape: (height, width) of the images in pixels; square by default.
        path, title: as of all plots (`nnkit.plots`).

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
    figure = new_figure(max(4.0, grid.size[0] + 1.4), grid.size[1] + (0.7 if title is None else 1.1), title)
    axes = figure.add_subplot()
    # A few large weights would make all others pale; they lie beyond the ends of the colour bar.
    largest = float(np.abs(images).max())
    most = float(np.quantile(np.abs(images), 0.995)) or largest or 1.0
    colors = shades(DARK_BLUE, BLUE, "white", VERMILION, DARK_VERMILION)
    drawn = draw_images(axes, images, grid, size, cmap=colors, vmin=-most, vmax=most)
    shown = f"{len(images)} of {len(W)} units" if len(W) > _MOST else f"{len(W)} unit{'s' if len(W) > 1 else ''}"
    style_image(axes, f"Weights of {shown}")
    ends = "both" if largest > most else "neither"
    add_color_bar(axes, drawn, grid.size, below=_GAP, extend=ends)  # a gap follows the last row
    return write_picture(figure, target)


def misclassified(
    X: Any,
    y: Any,
    predicted: Any,
    shape: Sequence[int] | None = None,
    count: int = 25,
    path: File = None,
    title: str | None = None,
) -> "Figure":
    """Draw the first misclassified images, each with "true → predicted" below it.

    The largest value of all drawn pixels is black, the smallest white. The figure says so if no image is misclassified.

    Args:
        X: the images (n, pixels), row by row, of any real dtype and scale.
        y: the true labels (n,), integers or strings.
        predicted: the predicted labels, of the same type.
        shape: (height, width) of the images in pixels; square by default.
        count: the maximum number of images.
        path, title: as of all plots (`nnkit.plots`).

    >>> X = np.arange(12).reshape(3, 4)
    >>> figure = misclassified(X, [0, 1, 1], [0, 1, 0])
    >>> figure.axes[0].get_title(loc="left"), figure.axes[0].texts[0].get_text()
    ('1 of 3 images misclassified', '1 → 0')
    """
    target = picture_path(path)
    X = real_numbers(X, "X", 2, "(images, pixels)")
    y, predicted = label_pair(y, predicted)
    if len(X) != len(y):
        raise ValueError(f"X has {len(X)} images and y {len(y)} labels; expected equal lengths")
    count = whole("", "count", count, 1)
    pixels = image_shape(X.shape[1], shape, "X")
    wrong = np.flatnonzero(y != predicted)
    shown = wrong[:count]
    if len(shown) == 0:
        return write_picture(_nothing_wrong(len(y), title), target)
    heading = f"{len(wrong)} of {len(y)} image{'s' if len(y) > 1 else ''} misclassified"
    if len(shown) < len(wrong):
        heading += f"; the first {len(shown)}" if len(shown) > 1 else "; the first"
    images = finite_numbers(X[shown], "X[y != predicted]", 2, "(images, pixels)").reshape(-1, *pixels)
    labels = [(str(y[i]), str(predicted[i])) for i in shown]
    return write_picture(_draw(images, labels, heading, title), target)


def _draw(images: NDArray[np.float64], labels: list[tuple[str, str]], heading: str, title: str | None) -> Figure:
    size = image_size(images.shape[1:], max(0.6, min(2.2, 5.5 / np.sqrt(len(images)))))
    between = " → " if max(len(true + predicted) for true, predicted in labels) < 8 else "\n→ "
    texts = [between.join(pair) for pair in labels]
    lines = [line for text in texts for line in text.split("\n")]
    step_x = max(size[1], _LETTER * max(map(len, lines))) + 0.15
    grid = grid_of(len(images), step_x, size[0] + 0.36 + 0.2 * between.count("\n"))
    width = max(3.6, grid.size[0], _LETTER * len(heading)) + 0.4
    figure = new_figure(width, grid.size[1] + (0.7 if title is None else 1.1), title)
    axes = figure.add_subplot()
    draw_images(axes, images, grid, size, cmap="gray_r", vmin=images.min(), vmax=images.max())
    # Labels are not math text, whatever characters they contain.
    style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": LABEL, "color": VERMILION, "parse_math": False}
    for place, text in enumerate(texts):
        x, y = grid.corner(place)
        axes.text(x + grid.step_x / 2, y + size[0] + 0.05, text, **style)
    style_image(axes, heading)
    return figure


def _nothing_wrong(count: int, title: str | None) -> Figure:
    figure = new_figure(6, 2.4, title)
    text = f"All {count} images were classified correctly" if count > 1 else "The image was classified correctly"
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=HEADING, color=GREY)
    return figure


# --- the grid ---------------------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """A grid of images: the numbers of columns and rows, and the distances between neighbours in inches."""

    columns: int
    rows: int
    step_x: float
    step_y: float

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return self.columns * self.step_x, self.rows * self.step_y

    def corner(self, place: int) -> tuple[float, float]:
        """The upper left corner of an image; the first image is at the upper left."""
        return place % self.columns * self.step_x, place // self.columns * self.step_y


def image_shape(inputs: int, shape: Sequence[int] | None, name: str) -> tuple[int, int]:
    """Height and width of images: `shape`, or a square. Raises ValueError if they do not have `inputs` pixels."""
    if shape is None:
        side = isqrt(inputs)
        if side * side != inputs:
            raise ValueError(f"{name} has {inputs} pixels per image; expected a square or shape=(height, width)")
        return side, side
    sides = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) and side > 0 for side in sides):
        raise ValueError(f"shape is {shape!r}; expected (height, width) in pixels")
    if sides[0] * sides[1] != inputs:
        raise ValueError(f"shape is {sides}, {sides[0] * sides[1]} pixels; expected {inputs}, as in {name}")
    return int(sides[0]), int(sides[1])


def image_size(shape: Sequence[int], side: float) -> tuple[float, float]:
    """Height and width in inches of images with the area of a square of this side.

    One side is at most eight times the other: a single row of pixels is stretched to be visible.

    >>> image_size((28, 28), 1.5), image_size((1, 4), 2.0)
    ((1.5, 1.5), (1.0, 4.0))
    """
    stretch = min(max(shape[1] / shape[0], 1 / 8), 8) ** 0.5
    return side / stretch, side * stretch


def grid_of(count: int, step_x: float, step_y: float) -> Grid:
    """A grid for `count` images with few empty places, nearly square and rather wider than high.

    >>> [grid_of(count, 1.0, 1.0)[:2] for count in (1, 2, 3, 4, 10, 25, 30, 100)]
    [(1, 1), (2, 1), (3, 1), (2, 2), (5, 2), (5, 5), (6, 5), (10, 10)]
    """
    grids = [Grid(columns, ceil(count / columns), step_x, step_y) for columns in range(1, count + 1)]

    def unsuited(grid: Grid) -> float:
        empty, shape = grid.columns * grid.rows / count - 1, log(grid.size[0] / grid.size[1])
        return 3.5 * empty + (shape if shape >= 0 else -1.2 * shape)

    return min(grids, key=unsuited)


def draw_images(axes: Axes, images: NDArray[np.float64], grid: Grid, size: tuple[float, float], **style: Any) -> Any:
    """Draw images (n, height, width), each `size` (height, width) inches large and at the upper middle of its place.

    Returns the artist of the last image.
    """
    drawn = None
    for place, image in enumerate(images):
        x, y = grid.corner(place)
        x += (grid.step_x - size[1]) / 2
        drawn = axes.imshow(image, extent=(x, x + size[1], y + size[0], y), interpolation="nearest", **style)
    axes.set_xlim(0, grid.size[0])
    axes.set_ylim(grid.size[1], 0)
    axes.set_aspect("equal", anchor="NW")
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn
