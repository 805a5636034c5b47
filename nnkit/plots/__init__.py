"""Plots of training histories, network weights and misclassified samples; each function returns a Matplotlib figure.

Matplotlib is imported when something is drawn; neither a display nor pyplot is needed.
"""

from nnkit.plots.confusion_matrix import confusion_matrix
from nnkit.plots.denoised import denoised
from nnkit.plots.first_layer import first_layer
from nnkit.plots.learning_curve import learning_curve
from nnkit.plots.misclassified import misclassified
from nnkit.plots.seed_spread import seed_spread

__all__ = ["confusion_matrix", "denoised", "first_layer", "learning_curve", "misclassified", "seed_spread"]


def __dir__() -> list[str]:
    return sorted(__all__)
