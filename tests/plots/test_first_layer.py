from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.backends.backend_agg import FigureCanvasAgg

import nnkit
from nnkit.plots import first_layer
from tests.conftest import Arrays

W = np.random.default_rng(0).normal(size=(12, 64))


def test_each_unit_is_an_image_of_its_row() -> None:
    [axes] = first_layer(W).axes
    assert axes.get_title(loc="left") == "Weights of 12 units"
    assert len(axes.images) == 12
    for unit, image in enumerate(axes.images):
        np.testing.assert_array_equal(image.get_array(), W[unit].reshape(8, 8))


def test_images_are_arranged_in_rows_with_gaps() -> None:
    axes = first_layer(W).axes[0]
    boxes = [image.get_extent() for image in axes.images]  # left, right, bottom, top; y goes down
    assert len({round(left, 6) for left, *_ in boxes}) == 4
    for (left, right, bottom, top), (its_left, _, its_bottom, its_top) in pairwise(boxes):
        assert (its_left > right and its_top == top) or (its_left < left and its_top > bottom)
        assert right - left == pytest.approx(bottom - top)
        assert its_bottom - its_top == pytest.approx(bottom - top)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_the_first_weight_is_at_the_upper_left() -> None:
    figure = first_layer(np.eye(4)[:1])  # one unit of 2×2 inputs, the first alone is not 0
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    pixels = np.asarray(canvas.buffer_rgba())[::-1]  # from below, as Matplotlib counts
    colors = []
    for x, y in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]:
        at = axes.transData.transform((left + x * (right - left), top + y * (bottom - top)))
        colors.append(pixels[int(at[1]), int(at[0]), :3].astype(int).tolist())
    assert colors[1:] == [[255, 255, 255]] * 3
    assert colors[0][0] > colors[0][2] + 50  # red above blue


def test_colors_are_symmetric_about_zero_and_common() -> None:
    lopsided = np.abs(W)
    images = first_layer(lopsided).axes[0].images
    limits = {image.get_clim() for image in images}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high
    assert high == pytest.approx(np.quantile(lopsided, 0.995))
    assert images[0].cmap(0.5)[:3] == (1, 1, 1)
    red, blue = images[0].cmap(0.75), images[0].cmap(0.25)
    assert red[0] > red[2]
    assert blue[0] < blue[2]


def test_there_is_one_color_bar_with_labelled_ends() -> None:
    [bar] = first_layer(W).axes[0].child_axes
    assert bar.get_ylim() == pytest.approx(np.quantile(np.abs(W), 0.995) * np.array([-1, 1]))
    assert len(bar.patches) == 2  # the points: some weights are beyond
    assert len(first_layer(np.ones((2, 4))).axes[0].child_axes[0].patches) == 0


@pytest.mark.parametrize("units", [1, 4, 30, 100])
@pytest.mark.parametrize("shape", [(8, 8), (1, 64), (16, 4)])
@pytest.mark.parametrize("pointed", [False, True])
def test_the_color_bar_is_as_high_as_the_images(units: int, shape: tuple[int, int], pointed: bool) -> None:
    weights = np.random.default_rng(1).normal(size=(units, 64)) if pointed else np.ones((units, 64))
    figure = first_layer(weights, shape)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    [bar] = axes.child_axes
    assert len(bar.patches) == (2 if pointed else 0)
    parts = [bar.get_window_extent(), *(part.get_window_extent() for part in bar.patches)]
    images = [image.get_window_extent() for image in axes.images]
    within = figure.dpi / 72  # a point
    assert max(part.y1 for part in parts) == pytest.approx(max(image.y1 for image in images), abs=within)
    assert min(part.y0 for part in parts) == pytest.approx(min(image.y0 for image in images), abs=within)


def test_a_layer_of_zeros_can_be_drawn() -> None:
    assert first_layer(np.zeros((2, 9))).axes[0].images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("units", "drawn", "heading"),
    [
        (1, 1, "Weights of 1 unit"),
        (100, 100, "Weights of 100 units"),
        (101, 100, "Weights of 100 of 101 units"),
        (256, 100, "Weights of 100 of 256 units"),
    ],
)
def test_the_title_counts_the_units(units: int, drawn: int, heading: str) -> None:
    axes = first_layer(np.ones((units, 4))).axes[0]
    assert len(axes.images) == drawn
    assert axes.get_title(loc="left") == heading


def test_a_network_gives_its_first_layer(arrays: Arrays) -> None:
    net = nnkit.Network([16, 5, 3], seed=0, backend=arrays.backend)
    images: Any = first_layer(net).axes[0].images
    expected = arrays.backend.to_numpy(net.parameters.W[0])
    np.testing.assert_array_equal([image.get_array().ravel() for image in images], expected)


def test_weights_of_any_backend_and_order_are_accepted(arrays: Arrays) -> None:
    for weights in (arrays(W, "float32"), np.asfortranarray(W, np.float32)):
        images = first_layer(weights, shape=(4, 16)).axes[0].images
        np.testing.assert_array_equal(images[3].get_array(), W[3].astype(np.float32).reshape(4, 16))


def test_rectangular_images_keep_their_shape() -> None:
    left, right, bottom, top = first_layer(W, shape=(4, 16)).axes[0].images[0].get_extent()
    assert right - left == pytest.approx(4 * (bottom - top))
    left, right, bottom, top = first_layer(np.ones((3, 200)), shape=(1, 200)).axes[0].images[0].get_extent()
    assert right - left == pytest.approx(8 * (bottom - top))  # stretched, to be seen


@pytest.mark.parametrize(
    ("weights", "shape", "error", "message"),
    [
        (
            np.ones((3, 10)),
            None,
            ValueError,
            r"W has 10 pixels per image; expected a square or shape=\(height, width",
        ),
        (np.ones((3, 10)), (3, 4), ValueError, r"shape is \(3, 4\), 12 pixels; expected 10, as in W"),
        (np.ones((3, 10)), (10,), ValueError, r"shape is \(10,\); expected \(height, width\)"),
        (np.ones((3, 10)), (-2, -5), ValueError, r"shape is \(-2, -5\); expected"),
        (np.ones((3, 10)), (2.0, 5.0), ValueError, r"shape is \(2.0, 5.0\); expected"),
        (np.ones(9), None, ValueError, r"W has shape \(9,\); expected \(units, inputs\)"),
        (np.ones((0, 9)), None, ValueError, r"W has shape \(0, 9\); expected \(units, inputs\)"),
        (np.ones((2, 9)) * 1j, None, TypeError, "W has dtype complex128; expected real numbers"),
        ([["a"]], None, TypeError, "W has dtype object; expected real numbers"),
        ([[1.0, 2.0], [1.0]], None, ValueError, "W: "),
        ([[0.0, 1.0, np.nan, 0.0]], None, ValueError, r"W holds nan at \[0, 2\]; expected finite numbers"),
        ([[0.0], [-np.inf]], None, ValueError, r"W holds -inf at \[1, 0\]; expected finite numbers"),
    ],
)
def test_bad_weights_are_named(weights: Any, shape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        first_layer(weights, shape)
