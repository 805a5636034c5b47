"""Curves: the learning curve of one training, the spread of several, and a denoised signal."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from nnkit.plots.figure import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    Axes,
    Figure,
    File,
    add_legend,
    finite_numbers,
    new_figure,
    picture_path,
    style_lines,
    write_picture,
)

_FEW = 4  # with fewer runs, quartiles would be interpolated between two or three numbers


def learning_curve(
    history: History, path: File = None, title: str | None = None, *, metrics: Sequence[str] = ()
) -> "Figure":
    """Draw the cost, and the accuracy if there is one, over the epochs: training solid, validation dashed.

    The cost axis is logarithmic if the costs span more than a factor of 20. The last value of each line is written at
    its end.

    Args:
        history: one number per epoch under "cost" and, where present, "validation_cost", "accuracy" and
            "validation_accuracy" (accuracies from 0 to 1), all as long as "cost". None, NaN, infinities and values
            beyond 1e100 are omitted, and the line connects their neighbours. Other keys are ignored, as are lists
            without a value to draw.
        path, title: as of all plots (`nnkit.plots`).
        metrics: names of other lists to draw, such as ("top_5",), each in its own panel, with its "validation_" list if
            there is one.

    >>> figure = learning_curve({"cost": [0.9, 0.4, 0.3], "accuracy": [0.6, 0.85, 0.9]})
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Cost', 'Accuracy (%)']
    """
    target = picture_path(path)
    epochs = count_epochs(history)
    names = ["cost", "accuracy", *_asked(history, metrics)]
    panels = {name: curves for name in names if (curves := _curves_of(history, name)) or name == "cost"}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(5.6 * columns, 4.2 * rows, title)
    for place, (name, curves) in enumerate(panels.items(), start=1):
        _draw_metric(figure.add_subplot(rows, columns, place), name, curves, epochs)
    return write_picture(figure, target)


def _asked(history: History, metrics: Sequence[str]) -> list[str]:
    """The requested metrics; raises ValueError if the history lacks one."""
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise TypeError(f'metrics is {metrics!r}; expected a list of names, such as ("top_5",)')
    known = dict.fromkeys(str(key).removeprefix("validation_") for key in history)
    for name in metrics:
        if not isinstance(name, str) or name not in known:
            raise unknown_name("metric", name, known)
    return list(metrics)


def _curves_of(history: History, metric: str) -> list[Curve]:
    """The curves of a metric that have at least one value to draw."""
    curves = [curve(history, key) for key in (metric, f"validation_{metric}") if key in history]
    return [drawn for drawn in curves if drawn.values]


def _draw_metric(axes: Axes, metric: str, curves: list[Curve], epochs: int) -> None:
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
    ends = [End(_end_text(metric, drawn), COLORS[drawn.label], drawn.epochs[-1], drawn.values[-1]) for drawn in curves]
    label_ends(axes, ends, epochs)


def _end_text(metric: str, drawn: Curve) -> str:
    last = drawn.values[-1]
    return f"{drawn.label}\n" + (f"{last:.2f} %" if is_share(metric) else three_digits(last))


def seed_spread(histories: Sequence[History], path: File = None, title: str | None = None) -> "Figure":
    """Draw several runs and their spread: the median, a band between the quartiles, and each run as a thin line.

    The panels show the cost, and the accuracy if there is one: on the validation data if the runs have any, else on
    the training data. With two or three runs, the band extends from the lowest to the highest value, as the legend
    says. Quartiles (`numpy.quantile`) lie between the runs' values: mean ± standard deviation may reach impossible
    costs or accuracies. Median and band are drawn at the epochs at which every run has a value; the last ones are
    written at the end.

    Args:
        histories: one history per run, as for `learning_curve`.
        path, title: as of all plots (`nnkit.plots`).

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
    panels = {metric: curves for metric in ("cost", "accuracy") if (curves := _curve_of_each(histories, metric))}
    figure = new_figure(5.8 * len(panels) if len(panels) > 1 else 7.4, 4.5, title)
    for place, (metric, curves) in enumerate(panels.items(), start=1):
        _draw_spread(figure.add_subplot(1, len(panels), place), metric, curves, epochs)
    add_legend(figure, handles=_legend(len(histories)))
    return write_picture(figure, target)


def _curve_of_each(histories: Sequence[History], metric: str) -> list[Curve]:
    """One curve per run, on the validation data if the runs have any; an empty list if they lack the metric."""
    for key in (f"validation_{metric}", metric):
        having = [run for run, history in enumerate(histories) if key in history]
        if len(having) == len(histories):
            return [curve(history, key, f"histories[{run}]") for run, history in enumerate(histories)]
        if having:
            lacking = next(run for run in range(len(histories)) if run not in having)
            raise ValueError(f'histories[{lacking}] lacks "{key}", which histories[{having[0]}] has')
    return []


def _draw_spread(axes: Axes, metric: str, curves: list[Curve], epochs: int) -> None:
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
        end = End(_band_text(metric, low[-1], median[-1], high[-1]), color, common[-1], float(median[-1]))
        label_ends(axes, [end], epochs)


def _legend(runs: int) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if runs == 1:
        return [Line2D([], [], color=GREY, linewidth=2.2, label="one run")]
    return [
        Line2D([], [], color=GREY, linewidth=2.2, label=f"median of {runs} runs"),
        Patch(facecolor=GREY, alpha=0.25, label="middle half (quartiles)" if runs >= _FEW else "lowest to highest"),
        Line2D([], [], color=GREY, linewidth=1, alpha=0.6, label="each run"),
    ]


def _band_text(metric: str, low: float, median: float, high: float) -> str:
    r"""Format a median and, on a second line, the edges of its band if they differ.

    >>> _band_text("cost", 0.0213, 0.03, 0.13), _band_text("accuracy", 97.5, 98.0, 98.25)
    ('0.0300\n(0.0213 to 0.130)', '98.00 %\n(97.50 to 98.25)')
    >>> _band_text("cost", 0.5, 0.5, 0.5)
    '0.500'
    """
    share = is_share(metric)
    last, *edges = (f"{value:.2f}" if share else three_digits(value) for value in (median, low, high))
    unit = " %" if share else ""
    return f"{last}{unit}\n({edges[0]} to {edges[1]})" if high > low else f"{last}{unit}"


def denoised(
    clean: Any, noisy: Any, restored: Any, t: Any = None, path: File = None, title: str | None = None
) -> "Figure":
    """Draw a clean signal, its noisy version as dots, and what a network restored from it (eq. 15, 16).

    The legend shows the mean squared errors, (1/n) Σ (v − clean)², of the noisy and the restored signal.

    Args:
        clean, noisy, restored: the signals (n,), of any real dtype and backend.
        t: the sampling points (n,); by default 0 to n − 1.
        path, title: as of all plots (`nnkit.plots`).

    >>> figure = denoised([0.0, 1.0], [0.5, 0.5], [0.0, 0.8])
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['clean', 'noisy, mean squared error 0.25', 'restored, mean squared error 0.02']
    """
    target = picture_path(path)
    signals = {"clean": clean, "noisy": noisy, "restored": restored}
    arrays = {name: finite_numbers(signal, name, 1, "(n,)") for name, signal in signals.items()}
    n = len(arrays["clean"])
    arrays["t"] = np.arange(n, dtype=np.float64) if t is None else finite_numbers(t, "t", 1, "(n,)")
    for name, array in arrays.items():
        if len(array) != n:
            raise ValueError(f"{name} has {len(array)} values; expected {n}, as many as clean")
    figure = new_figure(9, 4.6, title)
    axes = figure.add_subplot()
    _draw_signals(axes, arrays)
    style_lines(axes, "", "Sample" if t is None else "t")
    axes.margins(x=0)
    add_legend(figure)
    return write_picture(figure, target)


def _draw_signals(axes: Axes, arrays: dict[str, NDArray[np.float64]]) -> None:
    lines: dict[str, dict[str, Any]] = {
        "clean": {"color": BLACK, "linewidth": 1.6, "linestyle": (0, (4, 1.6)), "zorder": 3},
        "noisy": {"color": BLUE, "linestyle": "none", "marker": "o", "markersize": 4, "alpha": 0.5},
        "restored": {"color": VERMILION, "linewidth": 2.4},
    }
    for name, style in lines.items():
        error = float(np.mean((arrays[name] - arrays["clean"]) ** 2))
        label = name if name == "clean" else f"{name}, mean squared error {error:.2g}"
        axes.plot(arrays["t"], arrays[name], label=label, clip_on=False, **style)
