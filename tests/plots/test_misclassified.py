from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nnkit.plots import misclassified
from tests.conftest import Arrays

X = np.random.default_rng(0).uniform(size=(40, 16))
Y = np.arange(40) % 10
PREDICTED = np.where(np.arange(40) % 3 == 0, (Y + 1) % 10, Y)  # 14 of 40 are wrong
WRONG = list(range(0, 40, 3))


def test_misclassified_images_are_drawn_with_both_labels() -> None:
    [axes] = misclassified(X, Y, PREDICTED).axes
    assert axes.get_title(loc="left") == "14 of 40 images misclassified"
    assert [text.get_text() for text in axes.texts] == [f"{Y[i]} → {PREDICTED[i]}" for i in WRONG]
    for image, i in zip(axes.images, WRONG, strict=True):
        np.testing.assert_array_equal(image.get_array(), X[i].reshape(4, 4))


@pytest.mark.parametrize("name", ["{}", "a longer name {}"])
def test_each_label_is_below_its_image_and_covers_none(name: str) -> None:
    y, predicted = ([name.format(label) for label in labels] for labels in (Y, PREDICTED))
    figure = misclassified(X, y, predicted)
    FigureCanvasAgg(figure).draw()
    [axes] = figure.axes
    images = [image.get_window_extent() for image in axes.images]
    for image, text in zip(images, axes.texts, strict=True):
        label = text.get_window_extent()
        assert (label.x0 + label.x1) / 2 == pytest.approx((image.x0 + image.x1) / 2, abs=1)
        assert image.y0 - 20 < label.y1 < image.y0  # pixels
        assert not any(label.overlaps(other) for other in images)


def test_ink_is_black_on_white_and_the_scale_is_common() -> None:
    axes = misclassified(X * 8 - 3, Y, PREDICTED).axes[0]
    assert {image.get_clim() for image in axes.images} == {(8 * X[WRONG].min() - 3, 8 * X[WRONG].max() - 3)}
    assert axes.images[0].cmap(0.0)[:3] == (1, 1, 1)
    assert axes.images[0].cmap(1.0)[:3] == (0, 0, 0)


@pytest.mark.parametrize(
    ("count", "drawn", "end"),
    [(1, 1, "; the first"), (5, 5, "; the first 5"), (14, 14, ""), (np.int64(100), 14, "")],
)
def test_at_most_count_images_are_drawn(count: int, drawn: int, end: str) -> None:
    axes = misclassified(X, Y, PREDICTED, count=count).axes[0]
    assert len(axes.images) == len(axes.texts) == drawn
    assert axes.get_title(loc="left") == f"14 of 40 images misclassified{end}"


def test_without_errors_the_picture_says_so() -> None:
    [axes] = misclassified(X, Y, Y).axes
    assert [text.get_text() for text in axes.texts] == ["All 40 images were classified correctly"]
    assert not axes.images
    assert misclassified(X[:1], [0], [0]).axes[0].texts[0].get_text() == "The image was classified correctly"
    assert misclassified(X[:1], [0], [1]).axes[0].get_title(loc="left") == "1 of 1 image misclassified"


def test_long_labels_are_wrapped_and_not_parsed() -> None:
    axes = misclassified(X[:2], ["ankle boot", "$hirt$"], ["sandal", "coat"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["ankle boot\n→ sandal", "$hirt$\n→ coat"]
    assert not any(text.get_parse_math() for text in axes.texts)


def test_labels_beyond_int64_are_written_as_they_are() -> None:
    y = np.array([2**63 + 5, 3], np.uint64)
    axes = misclassified(X[:2], y, [3, 3]).axes[0]
    assert [text.get_text() for text in axes.texts] == [f"{2**63 + 5}\n→ 3"]


def test_arrays_of_any_backend_are_accepted(arrays: Arrays) -> None:
    labels, predicted = (arrays.backend.asarray(v, "int64") for v in (Y, PREDICTED))
    axes = misclassified(arrays(X, "float32"), labels, predicted, shape=(2, 8)).axes[0]
    np.testing.assert_array_equal(axes.images[1].get_array(), X[3].astype(np.float32).reshape(2, 8))
    ints = misclassified(np.asfortranarray(X * 255, np.uint8), Y, PREDICTED).axes[0]
    np.testing.assert_array_equal(ints.images[1].get_array(), (X[3] * 255).astype(np.uint8).reshape(4, 4))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": X[:3]}, ValueError, "X has 3 images and y 40 labels; expected equal lengths"),
        ({"X": X[0]}, ValueError, r"X has shape \(16,\); expected \(images, pixels\)"),
        ({"X": X.astype(str)}, TypeError, "X has dtype <U32; expected real numbers"),
        ({"X": X[:, :10]}, ValueError, r"X has 10 pixels per image; expected a square or shape=\(height"),
        ({"shape": (3, 5)}, ValueError, r"shape is \(3, 5\), 15 pixels; expected 16, as in X"),
        ({"predicted": Y[:5]}, ValueError, "y has 40 labels and predicted 5; expected equal lengths"),
        ({"y": Y + 0.5}, TypeError, "y has dtype float64; expected integer or string labels"),
        ({"count": 0}, ValueError, "count is 0; expected a whole number of at least 1"),
        ({"count": 2.5}, ValueError, "count is 2.5; expected a whole number of at least 1"),
        ({"count": True}, ValueError, "count is True; expected a whole number of at least 1"),
        ({"X": np.where(X[3, 5] == X, np.nan, X)}, ValueError, r"X\[y != predicted\] holds nan at \[1, 5\]"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        misclassified(**{"X": X, "y": Y, "predicted": PREDICTED, **change})
