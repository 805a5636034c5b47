"""The images that a network misclassifies."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import whole
from nnkit.plots.arguments import finite_numbers, label_pair, real_numbers
from nnkit.plots.figure import GREY, HEADING, LABEL, VERMILION, new_figure, picture_path, style_image, write_picture
from nnkit.plots.images import draw_images, grid_of, image_shape, image_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_LETTER = 0.1  # approximate width of a label's character in inches


def misclassified(
    X: Any,
    y: Any,
    predicted: Any,
    shape: Sequence[int] | None = None,
    count: int = 25,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw the first misclassified images, each with "true → predicted" below it.

    The largest value of all drawn pixels is black, the smallest white. The figure says so if no image is misclassified.

    Args:
        X: the images (n, pixels), row by row, of any real dtype and scale.
        y: the true labels (n,), integers or strings. predicted: the predicted labels, of the same type.
        shape: (height, width) of the images in pixels; square by default.
        count: the maximum number of images.
        path: the file to write, ending in .png, .svg or .pdf; by default none. It is written completely or not at all.
        title: a title for the figure, which is returned.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: X does not contain real numbers, labels are neither integers nor strings or differ in type, or path
            is not a path.
        ValueError: X, y and predicted differ in length or are empty, a drawn image contains NaN or infinities, shape
            does not fit the number of pixels or is missing where that is not a square, count is not a positive integer,
            or path has another suffix.
        FileNotFoundError: the directory of path does not exist.

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


def _draw(images: NDArray[np.float64], labels: list[tuple[str, str]], heading: str, title: str | None) -> "Figure":
    size = image_size(images.shape[1:], max(0.6, min(2.2, 5.5 / np.sqrt(len(images)))))
    between = " → " if max(len(true + predicted) for true, predicted in labels) < 8 else "\n→ "
    texts = [between.join(pair) for pair in labels]
    lines = [line for text in texts for line in text.split("\n")]
    step_x = max(size[1], _LETTER * max(map(len, lines))) + 0.15
    grid = grid_of(len(images), step_x, size[0] + 0.36 + 0.2 * between.count("\n"))
    width = max(3.6, grid.width, _LETTER * len(heading)) + 0.4
    figure = new_figure(width, grid.height + (0.7 if title is None else 1.1), title)
    axes = figure.add_subplot()
    draw_images(axes, images, grid, size, cmap="gray_r", vmin=images.min(), vmax=images.max())
    # Labels are not math text, whatever characters they contain.
    style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": LABEL, "color": VERMILION, "parse_math": False}
    for place, text in enumerate(texts):
        x, y = grid.corner(place)
        axes.text(x + grid.step_x / 2, y + size[0] + 0.05, text, **style)
    style_image(axes, heading)
    return figure


def _nothing_wrong(count: int, title: str | None) -> "Figure":
    figure = new_figure(6, 2.4, title)
    text = f"All {count} images were classified correctly" if count > 1 else "The image was classified correctly"
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=HEADING, color=GREY)
    return figure
