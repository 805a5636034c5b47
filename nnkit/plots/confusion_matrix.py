"""The confusion matrix: which classes are mistaken for which."""

from collections.abc import Hashable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import printable
from nnkit.plots.figure import (
    BLUE,
    DARK_BLUE,
    GREY,
    LABEL,
    TICK,
    Axes,
    Figure,
    File,
    add_color_bar,
    label_pair,
    new_figure,
    picture_path,
    shades,
    style_image,
    write_picture,
)

_MOST = 50  # classes; with more, the counts would be illegible
_LONG = 3  # characters; longer names do not fit side by side


def confusion_matrix(
    y: Any,
    predicted: Any,
    classes: Sequence[Any] | NDArray[Any] | None = None,
    path: File = None,
    title: str | None = None,
) -> "Figure":
    """Draw the number of samples for each true class (rows) and predicted class (columns), below the accuracy.

    A cell shows its count; its colour is the count as a share of its row. Colours follow the square root of the share,
    as the shares of mistakes are small. Empty cells have no number.

    Args:
        y: the true labels (n,), integers or strings.
        predicted: the predicted labels, of the same type.
        classes: the labels in the order of the rows or, for the integers 0 to k − 1, their k names; at most 50. By
            default, the labels that occur, sorted.
        path, title: as of all plots (`nnkit.plots`).

    >>> figure = confusion_matrix(["cat", "dog", "dog"], ["cat", "dog", "cat"])
    >>> figure.axes[0].get_title(loc="left")
    'Accuracy 66.67 %, 3 samples'
    """
    target = picture_path(path)
    y, predicted = label_pair(y, predicted)
    labels, names = _classes(y, predicted, classes)
    number = {label: index for index, label in enumerate(labels)}
    rows, columns = (_indices(values, number, name) for values, name in ((y, "y"), (predicted, "predicted")))
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (rows, columns), 1)
    # In inches: large enough for the count in a cell, and for the colour bar's label next to few cells.
    cell = max(0.33, 0.075 * len(str(counts.max())), 2.5 / len(labels), min(0.9, 5 / len(labels)))
    side = cell * len(labels)
    margin = 0.1 * max(map(len, names))  # for the names, in inches
    below = margin / 1.4 if margin > 0.1 * _LONG else 0.2
    figure = new_figure(max(4.2, side + margin + 2.1), side + below + (1.0 if title is None else 1.5), title)
    axes = figure.add_subplot()
    _draw(axes, counts, cell)
    accuracy = f"{100 * np.trace(counts) / len(y):.2f}"
    style_image(axes, f"Accuracy {accuracy} %, {len(y)} sample{'s' if len(y) > 1 else ''}")
    _name_classes(axes, names)
    return write_picture(figure, target)


def _classes(
    y: NDArray[Any], predicted: NDArray[Any], classes: Sequence[Any] | NDArray[Any] | None
) -> tuple[list[Any], list[str]]:
    """The labels in the order of the rows, and the names to write next to them."""
    if classes is None:
        labels = sorted({*y.tolist(), *predicted.tolist()})  # union1d makes floats of int64 and uint64
    elif isinstance(classes, str | bytes | Mapping | Set) or not hasattr(classes, "__len__"):
        raise TypeError(f"classes is {classes!r}; expected a list of labels or names")
    else:
        labels = classes.tolist() if isinstance(classes, np.ndarray) else list(classes)
        if not labels:
            raise ValueError("classes is empty; expected at least one label or name")
        if not all(isinstance(label, Hashable) for label in labels):
            raise TypeError(f"classes is {classes!r}; expected a list of labels or names")
    if len(set(labels)) != len(labels):
        raise ValueError(f"classes contains duplicates: {labels}; expected distinct labels")
    if len(labels) > _MOST:
        raise ValueError(f"there are {len(labels)} classes; expected at most {_MOST} for a confusion matrix")
    names = [printable(str(label)) for label in labels]
    named = y.dtype.kind != "U" and all(isinstance(label, str) for label in labels)
    return list(range(len(labels))) if named else labels, names


def _indices(labels: NDArray[Any], number: dict[Any, int], name: str) -> NDArray[np.int64]:
    values = labels.tolist()
    for at, label in enumerate(values):
        if label not in number:
            known = ", ".join(map(repr, number)) if len(number) <= 10 else f"one of {len(number)} classes"
            raise ValueError(f"{name} holds {label!r} at [{at}]; expected {known}")
    return np.array([number[label] for label in values])


def _draw(axes: Axes, counts: NDArray[np.int64], cell: float) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap=shades("white", BLUE, DARK_BLUE), norm=PowerNorm(0.5, 0, 1))
    letters = min(13.0, 72 * cell / (0.68 * max(3, len(str(counts.max())))))
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.2 else "black"
        # Texts inside the axes do not affect the layout, and thousands of them would slow it down.
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": letters, "in_layout": False}
        axes.text(column, row, str(counts[row, column]), color=color, **style)
    axes.set_anchor("NW")
    size = cell * len(counts), cell * len(counts)
    ticks = [0, 0.01, 0.05, 0.2, 0.5, 1]
    bar = add_color_bar(axes, drawn, size, ticks=ticks, format=PercentFormatter(1, 0, " %"))
    bar.set_label("Share of the true class", fontsize=LABEL, color=GREY)


def _name_classes(axes: Axes, names: list[str]) -> None:
    places = range(len(names))
    slanted: dict[str, Any] = {}
    if max(map(len, names)) > _LONG:
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(places, names, fontsize=TICK, parse_math=False, **slanted)
    axes.set_yticks(places, names, fontsize=TICK, parse_math=False)
    axes.set_xlabel("Predicted class", fontsize=LABEL, color=GREY)
    axes.set_ylabel("True class", fontsize=LABEL, color=GREY)
