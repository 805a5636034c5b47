"""Every picture in several sizes: no text covers another, none is cut off at the figure's edge."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from nnkit import plots

LONG = ["ankle boot", "a bag that is carried by hand", "coat"]


def texts_of(figure: Figure) -> Iterator[Text]:
    """All texts that can be seen, those of the tick labels inside of the axes' limits only."""
    panels = [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]
    ticks = {text for axes in panels for axis in (axes.xaxis, axes.yaxis) for text in labels_of(axis)}
    of_axes = {text for axes in panels for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
    names = {axis.label for axes in panels for axis in (axes.xaxis, axes.yaxis)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and (text not in of_axes or text in ticks or text in names):
            yield text


def labels_of(axis: Any) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def check_texts(figure: Figure) -> None:
    figure.draw_without_rendering()
    boxes = {text: text.get_window_extent() for text in texts_of(figure)}
    assert boxes
    for text, box in boxes.items():
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, f"{text.get_text()!r} is cut off"
    upright = [text for text in boxes if not text.get_rotation() % 90]  # the boxes of slanted ones are too large
    x0, y0, x1, y1 = np.array([boxes[text].extents for text in upright]).T
    covered = (x0[:, None] < x1) & (y0[:, None] < y1) & (x1[:, None] > x0) & (y1[:, None] > y0)
    np.fill_diagonal(covered, False)
    pairs = [(upright[i].get_text(), upright[j].get_text()) for i, j in np.argwhere(covered)]
    assert not pairs


def check_epochs(axes: Axes, epochs: int) -> None:
    ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    assert ticks
    assert all(tick == int(tick) and 1 <= tick <= epochs for tick in ticks)


def run(epochs: int, validation: bool = True, seed: int = 0) -> dict[str, list[float]]:
    costs = [0.03 + (0.9 + 0.05 * seed) / epoch for epoch in range(1, epochs + 1)]
    history = {"cost": costs, "accuracy": [1 - cost / 4 for cost in costs], "top_5": [1.0] * epochs}
    return history | {f"validation_{key}": [0.99 * v for v in values] for key, values in history.items() if validation}


@pytest.mark.parametrize("epochs", [1, 2, 3, 400])
@pytest.mark.parametrize(("validation", "metrics"), [(False, ()), (True, ("top_5",))])
def test_learning_curve(epochs: int, validation: bool, metrics: tuple[str, ...]) -> None:
    figure = plots.learning_curve(run(epochs, validation), title="A title", metrics=metrics)
    check_texts(figure)
    for axes in figure.axes:
        check_epochs(axes, epochs)


@pytest.mark.parametrize(("runs", "epochs"), [(1, 1), (5, 2), (2, 30), (1, 400), (5, 400)])
def test_seed_spread(runs: int, epochs: int) -> None:
    for keys in (["cost"], ["cost", "accuracy"], ["cost", "validation_cost", "accuracy", "validation_accuracy"]):
        histories = [{key: run(epochs, seed=seed)[key] for key in keys} for seed in range(runs)]
        figure = plots.seed_spread(histories, title="A title")
        check_texts(figure)
        for axes in figure.axes:
            check_epochs(axes, epochs)


@pytest.mark.parametrize(
    ("units", "shape"), [(1, (1, 64)), (1, (8, 8)), (4, (16, 4)), (30, (8, 8)), (100, (1, 64)), (256, (8, 8))]
)
def test_first_layer(units: int, shape: tuple[int, int]) -> None:
    W = np.random.default_rng(0).normal(size=(units, 64))
    check_texts(plots.first_layer(W, shape))
    check_texts(plots.first_layer(W, shape, title="A title that is longer than a small picture is wide"))


@pytest.mark.parametrize(
    ("classes", "samples"), [(n, samples) for n in (1, 2, 10) for samples in (1, 10**5)] + [(26, 1), (50, 10**5)]
)
def test_confusion_matrix(classes: int, samples: int) -> None:
    y = np.arange(classes).repeat(samples // classes + 1)
    predicted = np.random.default_rng(0).permutation(y)
    if classes <= 10:
        check_texts(plots.confusion_matrix(y, predicted))
    names = [f"{LONG[i % 3]} {i}" for i in range(classes)]
    check_texts(plots.confusion_matrix(y, predicted, names, title="A title"))


@pytest.mark.parametrize("wrong", [0, 1, 2, 25])
@pytest.mark.parametrize("names", [list("abc"), LONG])
def test_misclassified(wrong: int, names: list[str]) -> None:
    X = np.random.default_rng(0).uniform(size=(100, 64))
    y = np.array(names)[np.arange(100) % 3]
    predicted = np.where(np.arange(100) < wrong, np.roll(y, 1), y)
    for shape in ((8, 8), (4, 16), (64, 1)):
        check_texts(plots.misclassified(X, y, predicted, shape))
        check_texts(plots.misclassified(X, y, predicted, shape, title="A title"))


def test_denoised() -> None:
    t = np.linspace(-9, 9, 200)
    check_texts(plots.denoised(np.cos(t), np.cos(t) + 1e-7, 1e9 * np.cos(t), t, title="A title"))
    check_texts(plots.denoised([1.0], [2.0], [3.0]))
