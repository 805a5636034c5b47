"""A clean signal, its noisy version, and the signal that a network restored."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.plots.arguments import finite_numbers
from nnkit.plots.figure import BLACK, BLUE, GREY, LABEL, VERMILION, new_figure, picture_path, style_lines, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def denoised(
    clean: Any,
    noisy: Any,
    restored: Any,
    t: Any = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw a clean signal, its noisy version as dots, and what a network restored from it (eq. 15, 16).

    The legend shows the mean squared errors, (1/n) Σ (v − clean)², of the noisy and the restored signal.

    Args:
        clean, noisy, restored: the signals (n,), of any real dtype and backend.
        t: the sampling points (n,); by default 0 to n − 1.
        path: the file to write, ending in .png, .svg or .pdf; by default none. It is written completely or not at all.
        title: a title for the figure, which is returned.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: a signal does not contain real numbers, or path is not a path.
        ValueError: a signal is not one-dimensional, differs in length from clean or contains NaN or infinities, or path
            has another suffix.
        FileNotFoundError: the directory of path does not exist.

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
    return write_picture(_draw(arrays, "Sample" if t is None else "t", title), target)


def _draw(arrays: dict[str, NDArray[np.float64]], xlabel: str, title: str | None) -> "Figure":
    figure = new_figure(9, 4.6, title)
    axes = figure.add_subplot()
    t, clean = arrays["t"], arrays["clean"]
    lines: dict[str, dict[str, Any]] = {
        "clean": {"color": BLACK, "linewidth": 1.6, "linestyle": (0, (4, 1.6)), "zorder": 3},
        "noisy": {"color": BLUE, "linestyle": "none", "marker": "o", "markersize": 4, "alpha": 0.5},
        "restored": {"color": VERMILION, "linewidth": 2.4},
    }
    for name, style in lines.items():
        error = float(np.mean((arrays[name] - clean) ** 2))
        label = name if name == "clean" else f"{name}, mean squared error {error:.2g}"
        axes.plot(t, arrays[name], label=label, clip_on=False, **style)
    style_lines(axes, "", xlabel)
    axes.margins(x=0)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=LABEL, labelcolor=GREY)
    return figure
