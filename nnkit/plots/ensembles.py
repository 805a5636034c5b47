"""How sure an ensemble is: means with their spread for regression, disagreement between the members for classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.classes import class_indices
from nnkit.inputs import as_labels, on_host
from nnkit.plots.figure import (
    BLUE,
    GREY,
    LABEL,
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

_MOST = 1000  # samples drawn


def _checked(ensemble: Any) -> Any:
    """The ensemble; TypeError for anything else."""
    if not hasattr(ensemble, "members"):
        raise TypeError(f"ensemble is a {type(ensemble).__name__}; expected an nnkit.Ensemble")
    return ensemble


def predictions(ensemble: Any, X: Any, y: Any = None, path: File = None, title: str | None = None) -> "Figure":
    """Draw the mean predictions of a regression, a band of two standard deviations over the members, and each member.

    With one feature they are drawn over it; with several over the samples, from the lowest mean to the highest, without
    the members. There is a panel for each output. Of more than 1000 samples, that many are drawn, evenly spaced.

    Args:
        ensemble: an `nnkit.Ensemble` for regression; TypeError for classes.
        X: samples (n, width).
        y: targets (n,) or (n, d_out), drawn as dots if given.
        path, title: as of all plots (`nnkit.plots`).

    >>> ensemble = nnkit.Ensemble([1, 4, 1], seeds=range(3), cost="quadratic")
    >>> figure = predictions(ensemble, [[0.0], [0.5], [1.0]], [0.0, 0.4, 1.2])
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['mean of 3 networks', 'mean ± 2 standard deviations', 'each network', 'targets']
    """
    target = picture_path(path)
    first = _checked(ensemble).members[0]
    if first.classifies:
        raise TypeError(f"{first.cost.name} is for classes; use disagreement")
    each = np.stack([on_host(member.forward(X)).astype(np.float64) for member in ensemble.members])  # (K, n, d_out)
    mean, spread, count = each.mean(axis=0), each.std(axis=0), each.shape[1]
    wanted = None if y is None else _targets(first, y, count)
    figure = new_figure(7.4 * first.d_out, 4.6, title)
    for column in range(first.d_out):
        axes = figure.add_subplot(1, first.d_out, column + 1)
        over = np.arange(count, dtype=np.float64)
        order = np.argsort(mean[:, column], kind="stable")
        if first.width == 1:
            over = np.asarray(on_host(first.checked(X)), np.float64)[:, 0]
            order = np.argsort(over, kind="stable")
            over = over[order]
        kept = np.unique(np.linspace(0, count - 1, min(count, _MOST)).round().astype(int))
        at, rows = over[kept], order[kept]
        low, high = (mean + sign * 2 * spread for sign in (-1, 1))
        label = f"mean of {len(each)} networks"
        axes.plot(at, mean[rows, column], color=BLUE, linewidth=2.2, label=label if column == 0 else None, zorder=3)
        axes.fill_between(
            at, low[rows, column], high[rows, column], color=BLUE, alpha=0.25, linewidth=0,
            label="mean ± 2 standard deviations" if column == 0 else None,
        )  # fmt: skip
        if first.width == 1:
            for k, member in enumerate(each):
                style: dict[str, Any] = {"color": BLUE, "linewidth": 0.8, "alpha": 0.5}
                axes.plot(at, member[rows, column], label="each network" if k == column == 0 else None, **style)
        if wanted is not None:
            dots: dict[str, Any] = {
                "color": VERMILION,
                "linestyle": "none",
                "marker": "o",
                "markersize": 3,
                "alpha": 0.6,
            }
            axes.plot(at, wanted[rows, column], label="targets" if column == 0 else None, zorder=2, **dots)
        names = first.target_names or [f"Output {column}" if first.d_out > 1 else "Prediction"] * first.d_out
        feature = first.features[0] if first.features else "x"
        style_lines(axes, names[column], feature if first.width == 1 else "Samples, by their mean prediction")
        axes.margins(x=0.01)
    add_legend(figure)
    return write_picture(figure, target)


def _targets(first: Any, y: Any, count: int) -> NDArray[np.float64]:
    """The targets (count, d_out) of a regression; ValueError for another shape, also of as many numbers."""
    given, expected = first.answers(y), f"targets ({count}, {first.d_out})"
    if first.d_out == 1 and len(given.shape) == 1:
        given = given[:, None]
    wanted = finite_numbers(given, "y", 2, expected)
    if wanted.shape[1] != first.d_out:
        raise ValueError(f"y has shape {wanted.shape}; expected {expected}")
    if len(wanted) != count:
        raise ValueError(f"y has {len(wanted)} targets; expected {count}, as many as X has samples")
    return wanted


def disagreement(ensemble: Any, X: Any, y: Any = None, path: File = None, title: str | None = None) -> "Figure":
    """Draw how many samples have which share of members that predict another class than the ensemble.

    With labels, a second panel shows which percentage of these samples the ensemble gets wrong.

    Args:
        ensemble: an `nnkit.Ensemble` for classes; TypeError for regression.
        X: samples (n, width).
        y: labels (n,), if known, as `Ensemble.evaluate` takes them; raises like it for others.
        path, title: as of all plots (`nnkit.plots`).

    >>> ensemble = nnkit.Ensemble([4, 3], seeds=range(3))
    >>> figure = disagreement(ensemble, [[0.0, 0.0, 1.0, 0.5]], [1])
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Samples', 'Of these wrong (%)']
    """
    target = picture_path(path)
    shares = np.asarray(on_host(_checked(ensemble).disagreement(X)), np.float64)
    wrong = None if y is None else _wrong(ensemble, X, y, shares.shape)
    count = len(ensemble.members)
    votes = np.rint(shares * count).astype(int)
    levels = np.arange(count + 1)  # the class of the mean may be that of no member
    samples = np.bincount(votes, minlength=count + 1)
    figure = new_figure(5.8 if y is None else 11.2, 4.5, title)
    axes = figure.add_subplot(1, 1 if y is None else 2, 1)
    axes.bar(levels, samples, color=BLUE, width=0.8)
    for level, number in zip(levels, samples, strict=True):
        if number and count <= 12:
            axes.annotate(f"{number}", (level, number), (0, 3), textcoords="offset points", ha="center", color=BLUE,
                          fontsize=LABEL)  # fmt: skip
    many = samples.max() > 20
    axes.set_yscale("log" if many else "linear")
    axes.set_ylim(*((0.7, 2.0 * samples.max()) if many else (0, 1.15 * samples.max())))
    _style(axes, "Samples", count)
    if wrong is not None:
        rates = [100 * float(wrong[votes == level].mean()) if samples[level] else np.nan for level in levels]
        axes = figure.add_subplot(1, 2, 2)
        axes.bar(levels, np.nan_to_num(rates), color=VERMILION, width=0.8)
        for level, rate in zip(levels, rates, strict=True):
            if np.isfinite(rate) and count <= 12:
                text = f"{rate:.3g}"
                axes.annotate(text, (level, rate), (0, 3), textcoords="offset points", ha="center", color=VERMILION,
                              fontsize=LABEL)  # fmt: skip
        axes.set_ylim(0, max(5.0, float(np.nanmax(rates)) * 1.15))
        _style(axes, "Of these wrong (%)", count)
    return write_picture(figure, target)


def _wrong(ensemble: Any, X: Any, y: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether the ensemble is wrong about each sample: classes are compared by number, as names have several types."""
    first = ensemble.members[0]
    given = tuple(first.answers(y).shape)
    if given != shape:
        raise ValueError(f"y has shape {given}; expected labels ({shape[0]},)")
    labels = on_host(as_labels(first.backend, first.targets(y, shape[0], check=True)))
    found = ensemble.predict(X)
    if first.classes is not None:
        found = class_indices(first.classes, found, "X")
    return np.asarray(on_host(found) != labels)


def _style(axes: Axes, heading: str, count: int) -> None:
    style_lines(axes, heading, f"Networks of {count} that predict another class")
    step = max(1, -(-count // 12))
    axes.set_xticks(range(0, count + 1, step))
    axes.tick_params(colors=GREY)
