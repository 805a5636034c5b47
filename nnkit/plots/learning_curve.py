"""The learning curve: what a training was like, epoch by epoch."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnkit.kernels.names import unknown_name
from nnkit.pictures import picture_path, write_picture
from nnkit.plots.epoch_panel import COLORS, End, finish_panel, label_ends, three_digits
from nnkit.plots.histories import Curve, History, count_epochs, curve, is_share
from nnkit.plots.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def learning_curve(
    history: History,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    *,
    metrics: Sequence[str] = (),
) -> "Figure":
    """Draw the cost, and the accuracy if there is one, over the epochs: training solid, validation dashed.

    The cost's axis is logarithmic where the costs span more than a factor of 20. The last value of each line
    is written at its end. Needs Matplotlib, but neither a display nor pyplot.

    Args:
        history: one number per epoch under "cost" and, as far as there are any, "validation_cost",
            "accuracy" and "validation_accuracy" (accuracies from 0 to 1), all as long as "cost". None, NaN,
            infinite entries and those beyond 1e100 are left out, and the line goes from neighbour to
            neighbour. Other keys are ignored, and so is a list with nothing left.
        path: where to write the picture, a name ending in .png, .svg or .pdf; by default nowhere. The file
            appears whole or not at all.
        title: a heading for the whole picture.
        metrics: names of other lists to draw, each in a panel of its own, with its "validation_" list if there is
            one: ("top_5",) for example.

    Returns:
        The Matplotlib figure.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: history is not a mapping from names to lists of numbers, metrics not a list of names, or path not
            a path.
        ValueError: "cost" is missing or empty, history has no such metric, a list has another length, an accuracy is
            outside 0 to 1, or path has another suffix.
        FileNotFoundError: the folder of path does not exist.

    Example:
        >>> figure = learning_curve({"cost": [0.9, 0.4, 0.3], "accuracy": [0.6, 0.85, 0.9]})
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Cost', 'Accuracy (%)']

    """
    target = picture_path(path)
    epochs = count_epochs(history)
    names = ["cost", "accuracy", *_asked(history, metrics)]
    panels = {name: _curves(history, name) for name in names}
    panels = {name: curves for name, curves in panels.items() if curves or name == "cost"}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(5.6 * columns, 4.2 * rows, title)
    for place, (name, curves) in enumerate(panels.items(), start=1):
        _draw(figure.add_subplot(rows, columns, place), name, curves, epochs)
    return write_picture(figure, target)


def _asked(history: History, metrics: Sequence[str]) -> list[str]:
    """The metrics that were asked for, all of which the history has."""
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise TypeError(f'metrics must be a list of names, such as ("top_5",), got {metrics!r}')
    known = dict.fromkeys(str(key).removeprefix("validation_") for key in history)
    for name in metrics:
        if name not in known:
            raise unknown_name("metric", name, known)
    return list(metrics)


def _curves(history: History, metric: str) -> list[Curve]:
    """The curves of a metric, without those that have nothing to draw."""
    curves = [curve(history, key) for key in (metric, f"validation_{metric}") if key in history]
    return [drawn for drawn in curves if drawn.values]


def _draw(axes: "Axes", metric: str, curves: list[Curve], epochs: int) -> None:
    for label, at, values in curves:
        axes.plot(
            at,
            values,
            color=COLORS[label],
            linestyle="-" if label == "training" else (0, (4, 1.6)),  # the dashes survive printing
            linewidth=2.2 if epochs <= 100 else 1.6,
            # Markers while they stand apart: they show which epochs have a value.
            marker="o" if len(values) <= 15 else None,
            markersize=5,
            clip_on=False,
        )
    finish_panel(axes, metric, [value for drawn in curves for value in drawn.values], epochs)
    ends = [End(_written(metric, drawn), COLORS[drawn.label], drawn.epochs[-1], drawn.values[-1]) for drawn in curves]
    label_ends(axes, ends, epochs)


def _written(metric: str, drawn: Curve) -> str:
    last = drawn.values[-1]
    return f"{drawn.label}\n" + (f"{last:.2f} %" if is_share(metric) else three_digits(last))
