"""Two plots of a result: the time relative to the floor by contender and size, and the time by batch size."""

from typing import TYPE_CHECKING, Any

from bench.report import ratio
from nnkit.plots.figure import BLACK, BLUE, DARK_VERMILION, GREY, LABEL, TICK, VERMILION, new_figure, style_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The rest of Okabe and Ito's palette for the peers; further variants of nnkit are dotted.
_COLORS = {
    "floor": BLACK, "nnkit": BLUE, "numpy": GREY, "jax": "#009E73", "torch": VERMILION,
    "torch-compiled": DARK_VERMILION, "thinc": "#CC79A7", "scikit-learn": "#A07800",
}  # fmt: skip


def by_contender(result: dict[str, Any], sizes: list[str]) -> "Figure":
    """A panel per size with a bar per contender: its time divided by the floor's, for the minima, starting at 1."""
    names = [name for name in result["contenders"] if name != "floor"]
    names = [n for n in names if any("minimum" in result["sizes"][s]["contenders"].get(n, {}) for s in sizes)]
    columns = min(3, len(sizes))
    rows = -(-len(sizes) // columns)
    title = f"A training step, in multiples of the time of its matrix products alone\n{_where(result)}"
    figure = new_figure(2.2 + 3.6 * columns, 1.3 + rows * (0.9 + 0.34 * len(names)), title)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, size in zip(panels, sizes, strict=False):
        _bars(axes, size, result, names)
    for axes in panels[max(0, len(sizes) - columns) : len(sizes)]:
        axes.set_xlabel("time / floor; bars start at 1", fontsize=LABEL, color=GREY)
        axes.tick_params(labelbottom=True)  # also if the place below is empty
    for axes in panels[len(sizes) :]:
        axes.set_visible(False)
    return figure


def by_batch(result: dict[str, Any], sizes: list[str]) -> "Figure":
    """The time of a step per sample by batch size, with a line per contender, for one network."""
    measured = sorted((result["sizes"][size] for size in sizes), key=lambda m: m["batch"])
    network = "-".join(map(str, measured[0]["widths"]))
    figure = new_figure(9, 6, f"A training step of {network} by batch size\n{_where(result)}")
    axes = figure.subplots()
    ends = []
    for name, about in result["contenders"].items():
        rows = [(m["batch"], m["contenders"][name]["minimum"]) for m in measured if "minimum" in m["contenders"][name]]
        if not rows:
            continue
        color, (x, y) = _COLORS.get(name), zip(*((n, seconds / n * 1e6) for n, seconds in rows), strict=True)
        width = 2.2 if name in ("floor", "nnkit") else 1.4
        axes.plot(x, y, color=color or BLUE, linestyle="-" if color else ":", linewidth=width, marker="o", markersize=4)
        ends.append((y[0], about["label"], color or BLUE))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    style_lines(axes, "µs for each sample", "batch size")
    axes.set_xticks([m["batch"] for m in measured], [str(m["batch"]) for m in measured])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    _label(axes, measured[0]["batch"], ends)
    return figure


def _bars(axes: "Axes", size: str, result: dict[str, Any], names: list[str]) -> None:
    measured = result["sizes"][size]["contenders"]
    style_lines(axes, size.replace("x", ", batch "), "")
    axes.grid(visible=False)
    for place, name in enumerate(names):
        value = ratio(measured[name], measured["floor"], "minimum")
        if value is None:
            axes.text(1.03, place, "–", va="center", fontsize=TICK, color=GREY)
            continue
        axes.barh(place, value - 1, left=1, height=0.62, color=BLUE if name.startswith("nnkit") else "#B5B5B5")
        text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
        axes.text(max(value, 1) * 1.06, place, text, va="center", fontsize=TICK, color=BLACK)
    axes.axvline(1, color=BLACK, linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), [result["contenders"][name]["label"] for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    every = [r for m in result["sizes"].values() for r in _ratios(m["contenders"])]
    largest = max(every, default=2.0)
    axes.set_xlim(0.97 * min([1.0, *every]), max(2.0, 2 * largest))
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500) if t <= max(2, largest)]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()


def _ratios(measured: dict[str, Any]) -> list[float]:
    found = [ratio(row, measured["floor"], "minimum") for row in measured.values()]
    return [value for value in found if value is not None]


def _label(axes: "Axes", x: float, ends: list[tuple[float, str, str]]) -> None:
    """Names at the left ends of the lines, moved apart to avoid overlap."""
    low, high = axes.get_ylim()
    apart = (high / low) ** 0.045
    ends, last = sorted(ends), 0.0
    for y, label, color in ends:
        last = max(y, last * apart)
        axes.annotate(
            label, (x, last), (-12, 0), textcoords="offset points", ha="right", va="center", fontsize=LABEL, color=color
        )
    right = axes.get_xlim()[1]
    axes.set_xlim(x / (right / x) ** 0.3, right)  # room for the names


def _where(result: dict[str, Any]) -> str:
    settings = result["settings"]
    threads = "1 thread" if settings["threads"] == 1 else f"{settings['threads']} threads"
    return f"{result['machine']['cpu'].split(',')[0]}, {threads}, {settings['dtype']}, {settings['optimizer']}, minima"
