"""
The preset for tables, and boosting
===================================

``nnkit.tabular`` makes a network and the options of its training, with settings that are good untuned. Here it stands
beside scikit-learn's MLP and its gradient boosting, each with its defaults, on five sets that scikit-learn has: one
split of each, so that differences of a point or two mean nothing.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine, make_friedman1, make_friedman2
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

import nnkit

warnings.simplefilter("ignore", ConvergenceWarning)  # MLP's defaults often end before they have converged
sets = {
    "breast cancer": load_breast_cancer(return_X_y=True),
    "wine": load_wine(return_X_y=True),
    "diabetes": load_diabetes(return_X_y=True),
    "friedman 1": make_friedman1(600, noise=1.0, random_state=0),
    "friedman 2": make_friedman2(600, noise=1.0, random_state=0),
}
found = {}
for name, (X, y) in sets.items():
    X, y, X_test, y_test = nnkit.data.split(X, y, seed=0)
    regression = y.dtype.kind == "f"
    net, options = nnkit.tabular(X, y, seed=0)
    net.fit(X, y, **options | {"epochs": 96, "progress": False})
    mlp = MLPRegressor(random_state=0) if regression else MLPClassifier(random_state=0)
    boosting = HistGradientBoostingRegressor() if regression else HistGradientBoostingClassifier()
    found[name] = [net.score(X_test, y_test), *(m.fit(X, y).score(X_test, y_test) for m in (mlp, boosting))]
    print(f"{name:14} {'R²' if regression else 'accuracy':9}", " ".join(f"{score:6.3f}" for score in found[name]))

figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
for k, label in enumerate(["nnkit.tabular", "MLP's defaults", "gradient boosting"]):
    heights = [max(scores[k], 0) for scores in found.values()]
    axes.bar(np.arange(len(found)) + 0.27 * (k - 1), heights, 0.25, label=label)
axes.set(xticks=range(len(found)), xticklabels=list(found), ylabel="accuracy or R²")
axes.legend(frameon=False, loc="lower left")
plt.show()
