"""Small images side by side on one pair of axes, in units of inches."""

from collections.abc import Sequence
from math import ceil, isqrt, log
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Grid(NamedTuple):
    """A grid of images: the numbers of columns and rows, and the distances between neighbours in inches."""

    columns: int
    rows: int
    step_x: float
    step_y: float

    @property
    def width(self) -> float:
        """The width of the grid in inches."""
        return self.columns * self.step_x

    @property
    def height(self) -> float:
        """The height of the grid in inches."""
        return self.rows * self.step_y

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
    return min(grids, key=lambda grid: _unsuited(grid, count))


def _unsuited(grid: Grid, count: int) -> float:
    empty = (grid.columns * grid.rows - count) / count
    shape = log(grid.width / grid.height)
    return 3.5 * empty + (shape if shape >= 0 else -1.2 * shape)


def draw_images(axes: "Axes", images: NDArray[np.float64], grid: Grid, size: tuple[float, float], **style: Any) -> Any:
    """Draw images (n, height, width), each `size` (height, width) inches large and at the upper middle of its place.

    Returns the artist of the last image.
    """
    drawn = None
    for place, image in enumerate(images):
        x, y = grid.corner(place)
        x += (grid.step_x - size[1]) / 2
        drawn = axes.imshow(image, extent=(x, x + size[1], y + size[0], y), interpolation="nearest", **style)
    axes.set_xlim(0, grid.width)
    axes.set_ylim(grid.height, 0)
    axes.set_aspect("equal", anchor="NW")
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn
