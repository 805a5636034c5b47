"""The learning curve: cost and metrics after each epoch."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnkit.checks import unknown_name
from nnkit.plots.epochs import (
    COLORS,
    Curve,
    End,
    History,
    count_epochs,
    curve,
    finish_panel,
    is_share,
    label_ends,
    three_digits,
)
from nnkit.plots.figure import new_figure, picture_path, write_picture

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

    The cost axis is logarithmic if the costs span more than a factor of 20. The last value of each line is written at
    its end. Needs Matplotlib, but neither a display nor pyplot.

    Args:
        history: one number per epoch under "cost" and, where present, "validation_cost", "accuracy" and
            "validation_accuracy" (accuracies from 0 to 1), all as long as "cost". None, NaN, infinities and values
            beyond 1e100 are omitted, and the line connects their neighbours. Other keys are ignored, as are lists
            without a value to draw.
        path: the file to write, ending in .png, .svg or .pdf; by default none. It is written completely or not at all.
        title: a title for the figure, which is returned.
        metrics: names of other lists to draw, such as ("top_5",), each in its own panel, with its "validation_" list if
            there is one.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: history is not a mapping from names to lists of numbers, metrics is not a list of names, or path is
            not a path.
        ValueError: "cost" is missing or empty, a metric is not in history, a list differs in length from the costs, an
            accuracy is outside [0, 1], or path has another suffix.
        FileNotFoundError: the directory of path does not exist.

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
    """The requested metrics; raises ValueError if the history lacks one."""
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise TypeError(f'metrics is {metrics!r}; expected a list of names, such as ("top_5",)')
    known = dict.fromkeys(str(key).removeprefix("validation_") for key in history)
    for name in metrics:
        if name not in known:
            raise unknown_name("metric", name, known)
    return list(metrics)


def _curves(history: History, metric: str) -> list[Curve]:
    """The curves of a metric that have at least one value to draw."""
    curves = [curve(history, key) for key in (metric, f"validation_{metric}") if key in history]
    return [drawn for drawn in curves if drawn.values]


def _draw(axes: "Axes", metric: str, curves: list[Curve], epochs: int) -> None:
    for label, at, values in curves:
        axes.plot(
            at,
            values,
            color=COLORS[label],
            linestyle="-" if label == "training" else (0, (4, 1.6)),  # distinct in black and white, too
            linewidth=2.2 if epochs <= 100 else 1.6,
            # Markers show which epochs have a value, as long as they do not touch.
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
