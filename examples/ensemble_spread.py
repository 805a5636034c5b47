"""
The spread of an ensemble
=========================

Ten networks from ten seeds, trained in one pass on 40 noisy points. Where there are points they agree; where there are
none, each continues in its own way, and their spread says so: an uncertainty that a single network does not have.
"""

import matplotlib.pyplot as plt
import numpy as np

import nnkit

rng = np.random.default_rng(0)
x = np.concatenate([rng.uniform(-3, -1, 20), rng.uniform(0.5, 3, 20)])
y = np.sin(2 * x) + rng.normal(0, 0.1, 40)

ensemble = nnkit.Ensemble([1, 32, 32, 1], "tanh", "quadratic", seeds=range(10))
ensemble.fit(x[:, None], y, epochs=600, optimizer=nnkit.Adam(0.01), progress=False)

line = np.linspace(-4, 4, 200)
mean = np.asarray(ensemble.predict(line[:, None])).ravel()
spread = np.asarray(ensemble.spread(line[:, None])).ravel()

figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for member in ensemble.members:
    axes.plot(line, np.asarray(member.predict(line[:, None])).ravel(), color="0.7", linewidth=0.8)
axes.fill_between(line, mean - 2 * spread, mean + 2 * spread, alpha=0.3, label="mean ± 2 deviations")
axes.plot(line, mean, label="mean of ten networks")
axes.plot(x, y, "k.", label="samples")
axes.set(ylim=(-2.5, 2.5), xlabel="x", ylabel="y")
axes.legend(frameon=False, ncols=3)
for where, chosen in (("between samples", (line > 0.5) & (line < 3)), ("outside", np.abs(line) > 3.2)):
    print(f"mean deviation {where}: {spread[chosen].mean():.3f}")
plt.show()
