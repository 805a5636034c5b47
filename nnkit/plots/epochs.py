"""Panels over the epochs: which values of a history can be drawn, the axes, and the labels at the ends of the lines."""

import math
import re
from collections.abc import Mapping, Sequence, Sized
from numbers import Real
from typing import Any, NamedTuple

from nnkit.plots.figure import BLUE, GREY, HEADING, LABEL, VERMILION, Axes, style_lines

History = Mapping[str, Sequence[float | None]]

# Above it, and below its inverse on a logarithmic axis, Matplotlib's margins overflow.
LARGEST = 1e100
_HEADINGS = {"r2": "R²", "mae": "Mean absolute error", "rmse": "Root mean squared error"}


class Curve(NamedTuple):
    """One line: "training" or "validation", the epochs (from 1) that have a drawable value, and the values."""

    label: str
    epochs: list[int]
    values: list[float]


def is_share(metric: str) -> bool:
    """Whether a metric ranges from 0 to 1 and is drawn in percent: the accuracy and the top-k accuracies."""
    return re.fullmatch(r"(validation_)?(accuracy|top_\d+)", metric) is not None


def heading(metric: str) -> str:
    """The heading of a metric's panel.

    >>> [heading(name) for name in ("cost", "accuracy", "top_5", "r2", "my_metric")]
    ['Cost', 'Accuracy (%)', 'Top-5 accuracy (%)', 'R²', 'My metric']
    """
    if metric.startswith("top_") and is_share(metric):
        return f"Top-{metric[4:]} accuracy (%)"
    words = _HEADINGS.get(metric, metric.replace("_", " ").capitalize())
    return f"{words} (%)" if is_share(metric) else words


def count_epochs(history: Any, name: str = "history") -> int:
    """The number of epochs in a history; raises TypeError if it is not a mapping, ValueError if it has no costs."""
    if not isinstance(history, Mapping):
        raise TypeError(f"{name} is a {type(history).__name__}; expected a mapping from names to lists")
    costs = history.get("cost")
    if not isinstance(costs, Sized) or len(costs) == 0:
        raise ValueError(f'{name}["cost"] is {costs!r}; expected one number per epoch')
    return len(costs)


def curve(history: History, key: str, name: str = "history") -> Curve:
    """The values under `key` that can be drawn, shares in percent.

    Raises TypeError if a value is not a number, ValueError if the list differs in length from the costs or a share is
    outside [0, 1].
    """
    values, epochs = history[key], len(history["cost"])
    if not isinstance(values, Sized) or len(values) != epochs:
        found = f"has {len(values)} entries" if isinstance(values, Sized) else f"is {values!r}"
        raise ValueError(f'{name}["{key}"] {found}; expected a list of {epochs}, as long as "cost"')
    drawn = Curve("validation" if key.startswith("validation") else "training", [], [])
    share = is_share(key)
    for index, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, Real):
            raise TypeError(f'{name}["{key}"][{index}] is {value!r}; expected a number or None')
        number = float(value)
        if abs(number) <= LARGEST:
            if share and not 0 <= number <= 1:
                raise ValueError(f'{name}["{key}"][{index}] is {value}; expected a number from 0 to 1')
            drawn.epochs.append(index + 1)
            drawn.values.append(100 * number if share else number)
    return drawn


COLORS = {"training": BLUE, "validation": VERMILION}
_LOGARITHMIC = ("cost", "mae", "rmse")  # if they fall far: their small values matter most


class End(NamedTuple):
    """The last point of a line and its label."""

    text: str
    color: str
    epoch: int
    value: float


def finish_panel(axes: Axes, metric: str, values: list[float], epochs: int, prefix: str = "") -> None:
    """Set the heading, ticks and limits of a panel whose lines, through `values`, are drawn."""
    from matplotlib.ticker import MaxNLocator

    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, f"no finite {metric}", transform=axes.transAxes, ha="center", color=GREY, fontsize=LABEL)
    words = heading(metric)
    style_lines(axes, f"{prefix} {words[0].lower()}{words[1:]}" if prefix else words, "Epoch")
    axes.set_xlim((1, epochs) if epochs > 1 else (0.5, 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.margins(y=0.08 if epochs > 1 else 0.3)
    if is_share(metric):
        # The automatic limits of a constant line would include impossible shares.
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, -0.5), min(top, 100.5))
    elif metric in _LOGARITHMIC and values and 1 / LARGEST < min(values) < max(values) / 20:
        _log_scale(axes, math.log10(max(values) / min(values)))
    axes.set_ylim(axes.get_ylim())  # fixed, so that the labels stay at their heights


def _log_scale(axes: Axes, decades: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_title(f"{axes.get_title(loc='left')} (logarithmic axis)", loc="left", fontsize=HEADING)
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    if decades < 4:
        # 0.01 reads faster than a power of ten, and one tick per decade would leave two or three in all.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def label_ends(axes: Axes, ends: list[End], epochs: int) -> None:
    """Mark and label the ends of at most two lines, without overlap."""
    to_axes = axes.transData + axes.transAxes.inverted()
    texts = [end.text + (f"\n(epoch {end.epoch})" if end.epoch < epochs else "") for end in ends]
    heights = [float(to_axes.transform((end.epoch, end.value))[1]) for end in ends]
    gap = 0.085 * max((text.count("\n") + 1 for text in texts), default=0)
    for end, text, height in zip(ends, texts, _apart(heights, gap), strict=True):
        axes.plot(end.epoch, end.value, "o", color=end.color, markersize=7, clip_on=False)
        # A single epoch is in the middle of the panel; otherwise the lines end at its right edge.
        anchor = (0.5 if epochs == 1 else 1, height)
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        style: dict[str, Any] = {"color": end.color, "fontsize": LABEL, "va": "center", "bbox": white}
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


def three_digits(value: float) -> str:
    """Format a number with three significant digits, or with all digits before the decimal point if those are more.

    >>> [three_digits(value) for value in (0.6, 0.02131, 123.4, 54321.0, 1.5e-7)]
    ['0.600', '0.0213', '123', '54321', '1.50e-07']
    """
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:#.3g}".rstrip(".")
