"""Pictures of a training run."""

import math
import os
from collections.abc import Mapping, Sequence, Sized
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from nnkit.pictures import picture_path, write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and vermilion of Okabe and Ito's palette, safe for the colour-blind; the dashes also survive printing.
_COLORS = {"training": "#0072B2", "validation": "#D55E00"}
_GREY = "#555555"
# Beyond it, and below its inverse on a logarithmic axis, Matplotlib's margins overflow.
_LARGEST = 1e100


class _Curve(NamedTuple):
    """One line: the epochs (from 1) that have a drawable value, and the values."""

    label: str
    epochs: list[int]
    values: list[float]


def learning_curve(
    history: Mapping[str, Sequence[float | None]],
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
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

    Returns:
        The Matplotlib figure.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: history is not a mapping from names to lists of numbers, or path is not a path.
        ValueError: "cost" is missing or empty, a list has another length, an accuracy is outside 0 to 1, or
            path has another suffix.
        FileNotFoundError: the folder of path does not exist.

    Example:
        >>> figure = learning_curve({"cost": [0.9, 0.4, 0.3], "accuracy": [0.6, 0.85, 0.9]})
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Cost', 'Accuracy (%)']

    """
    target = None if path is None else picture_path(path)
    if not isinstance(history, Mapping):
        raise TypeError(f"history must be a mapping from names to lists, got {type(history).__name__}")
    if not isinstance(history.get("cost"), Sized) or len(history["cost"]) == 0:
        raise ValueError(f'history must have one number per epoch under "cost", got {history.get("cost")!r}')
    costs = _curves(history, "cost", "validation_cost")
    accuracies = _curves(history, "accuracy", "validation_accuracy")
    epochs = len(history["cost"])
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        message = "learning_curve needs Matplotlib; install it with: python -m pip install matplotlib"
        raise ImportError(message) from error

    panels = 2 if accuracies else 1
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.06)
    figure = Figure(figsize=(5.6 * panels, 4.2), dpi=150, facecolor="white", layout=layout)
    if title is not None:
        figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw(axes[0], "Cost", costs, epochs)
    if accuracies:
        _draw(axes[1], "Accuracy (%)", accuracies, epochs)
    if target is not None:
        write_picture(figure, target)
    return figure


def _curves(history: Mapping[str, Sequence[float | None]], *keys: str) -> list[_Curve]:
    """Return the curves of those keys that history has, without the empty ones."""
    curves = [_curve(history, key) for key in keys if key in history]
    return [curve for curve in curves if curve.values]


def _curve(history: Mapping[str, Sequence[float | None]], key: str) -> _Curve:
    """Return the drawable values under `key`, accuracies in percent."""
    values, epochs = history[key], len(history["cost"])
    if not isinstance(values, Sized) or len(values) != epochs:
        got = len(values) if isinstance(values, Sized) else repr(values)
        raise ValueError(f'history["{key}"] must have {epochs} entries, as many as "cost", got {got}')
    curve = _Curve("validation" if key.startswith("validation") else "training", [], [])
    percent = key.endswith("accuracy")
    for index, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, Real):
            raise TypeError(f'history["{key}"][{index}] must be a number or None, got {value!r}')
        if abs(value) <= _LARGEST:
            if percent and not 0 <= value <= 1:
                raise ValueError(f'history["{key}"][{index}] must be from 0 to 1, got {value}')
            curve.epochs.append(index + 1)
            curve.values.append(100 * float(value) if percent else float(value))
    return curve


def _draw(axes: "Axes", heading: str, curves: list[_Curve], epochs: int) -> None:
    for curve in curves:
        axes.plot(
            curve.epochs,
            curve.values,
            color=_COLORS[curve.label],
            linestyle="-" if curve.label == "training" else (0, (4, 1.6)),
            linewidth=2.2 if epochs <= 100 else 1.6,
            # Markers while they stand apart: they show which epochs have a value.
            marker="o" if len(curve.values) <= 15 else None,
            markersize=5,
            clip_on=False,
        )
    values = [value for curve in curves for value in curve.values]
    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite cost", transform=axes.transAxes, ha="center", color=_GREY)
    _style(axes, heading, epochs)
    if heading != "Cost":
        # The automatic limits of a constant line would include accuracies that there cannot be.
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, -0.5), min(top, 100.5))
    elif values and 1 / _LARGEST < min(values) < max(values) / 20:
        _log_scale(axes, math.log10(max(values) / min(values)))
    _label_ends(axes, curves, epochs, "" if heading == "Cost" else " %")


def _style(axes: "Axes", heading: str, epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(heading, loc="left", fontsize=13)
    axes.set_xlabel("Epoch", fontsize=12, color=_GREY)
    axes.set_xlim((1, epochs) if epochs > 1 else (0.5, 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.margins(y=0.08 if epochs > 1 else 0.3)
    axes.tick_params(which="both", length=0, pad=7, labelsize=11, labelcolor=_GREY)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#999999")


def _log_scale(axes: "Axes", decades: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_title("Cost (logarithmic axis)", loc="left", fontsize=13)
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    if decades < 4:
        # 0.01 reads faster than a power of ten, and one tick per decade would leave two or three in all.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _label_ends(axes: "Axes", curves: list[_Curve], epochs: int, unit: str) -> None:
    """Mark the last point of each curve and write its name and value beside it, without an overlap."""
    to_axes = axes.transData + axes.transAxes.inverted()
    texts, heights = [], []
    for label, at, values in curves:
        number = f"{values[-1]:.2f}" if unit else _three_digits(values[-1])
        texts.append(f"{label}\n{number}{unit}" + (f"\n(epoch {at[-1]})" if at[-1] < epochs else ""))
        heights.append(float(to_axes.transform((at[-1], values[-1]))[1]))
        axes.plot(at[-1], values[-1], "o", color=_COLORS[label], markersize=7, clip_on=False)
    gap = 0.085 * max((text.count("\n") + 1 for text in texts), default=0)
    for curve, text, height in zip(curves, texts, _apart(heights, gap), strict=True):
        # One epoch stands in the middle of the panel; otherwise the lines end at its right edge.
        anchor = (0.5 if epochs == 1 else 1, height)
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        style: dict[str, Any] = {"color": _COLORS[curve.label], "fontsize": 12, "va": "center", "bbox": white}
        axes.annotate(text, anchor, (10, 0), xycoords="axes fraction", textcoords="offset points", **style)


def _apart(heights: list[float], gap: float) -> list[float]:
    """Move at most two labels, each `gap` high (fractions of the panel), apart and into the panel.

    >>> [round(height, 3) for height in _apart([0.5, 0.48], gap=0.2)]
    [0.59, 0.39]
    >>> [round(height, 3) for height in _apart([0.01, 0.99], gap=0.2)]
    [0.1, 0.9]
    """
    if len(heights) == 2 and abs(heights[0] - heights[1]) < gap:
        middle = min(max(sum(heights) / 2, gap), 1 - gap)
        up = gap / 2 if heights[0] >= heights[1] else -gap / 2
        return [middle + up, middle - up]
    return [min(max(height, gap / 2), 1 - gap / 2) for height in heights]


def _three_digits(value: float) -> str:
    """Write a number with three significant digits, and all of those before the point.

    >>> [_three_digits(value) for value in (0.6, 0.02131, 123.4, 54321.0, 1.5e-7)]
    ['0.600', '0.0213', '123', '54321', '1.50e-07']
    """
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:#.3g}".rstrip(".")
