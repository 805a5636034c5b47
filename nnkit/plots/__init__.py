"""Plots of training histories, network weights and classified samples; each function returns a Matplotlib figure.

Matplotlib is imported when something is drawn; neither a display nor pyplot is needed. Arguments of all functions:

    path: the file to write, ending in .png, .svg or .pdf; by default none. It is written completely or not at all.
    title: a title for the figure.

All raise ImportError if Matplotlib is not installed, TypeError if path is not a path, ValueError if it has another
suffix, FileNotFoundError if its directory does not exist, and TypeError and ValueError for data that cannot be drawn,
which the errors name.
"""

from nnkit.plots.confusion_matrix import confusion_matrix
from nnkit.plots.curves import denoised, learning_curve, seed_spread
from nnkit.plots.ensembles import disagreement, predictions
from nnkit.plots.images import first_layer, misclassified

__all__ = [
    "confusion_matrix", "denoised", "disagreement", "first_layer", "learning_curve", "misclassified", "predictions",
    "seed_spread",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
