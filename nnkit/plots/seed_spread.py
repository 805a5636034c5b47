"""The spread of several runs that differ only in their seeds."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
from nnkit.plots.figure import GREY, LABEL, new_figure, picture_path, write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEW = 4  # with fewer runs, quartiles would be interpolated between two or three numbers


def seed_spread(
    histories: Sequence[History],
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw several runs and their spread: the median, a band between the quartiles, and each run as a thin line.

    The panels show the cost, and the accuracy if there is one: on the validation data if the runs have any, else on
    the training data. With two or three runs, the band extends from the lowest to the highest value; the legend says
    which band it is. Quartiles are those of `numpy.quantile`: they lie between the runs' values, so that the band never
    reaches impossible costs or accuracies, as mean ± standard deviation would. Median and band are drawn at the epochs
    at which every run has a value. The last median and the edges of its band are written at the end.

    Args:
        histories: one history per run, as for `learning_curve`.
        path: the file to write, ending in .png, .svg or .pdf; by default none. It is written completely or not at all.
        title: a title for the figure, which is returned.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: histories is not a list of histories, or path is not a path.
        ValueError: histories is empty, a history lacks a list that another has, a history is not valid for
            `learning_curve`, or path has another suffix.
        FileNotFoundError: the directory of path does not exist.

    >>> runs = [{"cost": [0.9, 0.4, 0.3]}, {"cost": [0.8, 0.5, 0.2]}]
    >>> seed_spread(runs).axes[0].texts[0].get_text().splitlines()
    ['0.250', '(0.200 to 0.300)']
    """
    target = picture_path(path)
    if isinstance(histories, str) or not isinstance(histories, Sequence):
        raise TypeError(f"histories is a {type(histories).__name__}; expected a list of histories")
    if not histories:
        raise ValueError("histories is empty; expected at least one history")
    epochs = max(count_epochs(history, f"histories[{run}]") for run, history in enumerate(histories))
    panels = {metric: _curves(histories, metric) for metric in ("cost", "accuracy")}
    panels = {metric: curves for metric, curves in panels.items() if curves}
    figure = new_figure(5.8 * len(panels) if len(panels) > 1 else 7.4, 4.5, title)
    for place, (metric, curves) in enumerate(panels.items(), start=1):
        _draw(figure.add_subplot(1, len(panels), place), metric, curves, epochs)
    _add_legend(figure, len(histories))
    return write_picture(figure, target)


def _curves(histories: Sequence[History], metric: str) -> list[Curve]:
    """One curve per run, on the validation data if the runs have any; an empty list if they lack the metric."""
    for key in (f"validation_{metric}", metric):
        having = [run for run, history in enumerate(histories) if key in history]
        if len(having) == len(histories):
            return [curve(history, key, f"histories[{run}]") for run, history in enumerate(histories)]
        if having:
            lacking = next(run for run in range(len(histories)) if run not in having)
            raise ValueError(f'histories[{lacking}] lacks "{key}", which histories[{having[0]}] has')
    return []


def _draw(axes: "Axes", metric: str, curves: list[Curve], epochs: int) -> None:
    label, color = curves[0].label, COLORS[curves[0].label]
    common = sorted(set.intersection(*(set(drawn.epochs) for drawn in curves)))
    lookup = [dict(zip(drawn.epochs, drawn.values, strict=True)) for drawn in curves]
    values = np.array([[run[epoch] for epoch in common] for run in lookup])  # (runs, epochs)
    edges = (0.25, 0.75) if len(curves) >= _FEW else (0, 1)
    low, median, high = np.quantile(values, [edges[0], 0.5, edges[1]], axis=0)
    if len(curves) > 1:
        style: dict[str, Any] = {"color": color, "linewidth": 1, "alpha": 0.5, "markersize": 4, "clip_on": False}
        for drawn in curves:
            axes.plot(drawn.epochs, drawn.values, marker="o" if len(drawn.values) == 1 else None, **style)
        if len(common) == 1:  # a band without width would be invisible
            axes.vlines(common, low, high, color=color, alpha=0.3, linewidth=10)
        else:
            axes.fill_between(common, low, high, color=color, alpha=0.25, linewidth=0)
    axes.plot(common, median, color=color, linewidth=2.2, clip_on=False)
    finish_panel(axes, metric, [value for drawn in curves for value in drawn.values], epochs, label.capitalize())
    if common:
        end = End(_written(metric, low[-1], median[-1], high[-1]), color, common[-1], float(median[-1]))
        label_ends(axes, [end], epochs)


def _add_legend(figure: "Figure", runs: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Line2D | Patch]
    if runs == 1:
        handles = [Line2D([], [], color=GREY, linewidth=2.2, label="one run")]
    else:
        handles = [
            Line2D([], [], color=GREY, linewidth=2.2, label=f"median of {runs} runs"),
            Patch(facecolor=GREY, alpha=0.25, label="middle half (quartiles)" if runs >= _FEW else "lowest to highest"),
            Line2D([], [], color=GREY, linewidth=1, alpha=0.6, label="each run"),
        ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=LABEL, labelcolor=GREY)


def _written(metric: str, low: float, median: float, high: float) -> str:
    r"""Format a median and, on a second line, the edges of its band if they differ.

    >>> _written("cost", 0.0213, 0.03, 0.13), _written("accuracy", 97.5, 98.0, 98.25), _written("cost", 0.5, 0.5, 0.5)
    ('0.0300\n(0.0213 to 0.130)', '98.00 %\n(97.50 to 98.25)', '0.500')
    """
    share = is_share(metric)
    last, *edges = (f"{value:.2f}" if share else three_digits(value) for value in (median, low, high))
    unit = " %" if share else ""
    return f"{last}{unit}\n({edges[0]} to {edges[1]})" if high > low else f"{last}{unit}"
