"""
Early stopping
==============

A network with more parameters than samples fits noise if it is trained for long: its validation cost falls, and then
rises. ``EarlyStopping`` ends the training when that has gone on for ``patience`` epochs, and restores the parameters of
the best epoch.
"""

import matplotlib.pyplot as plt
import numpy as np

import nnkit

rng = np.random.default_rng(0)
X = rng.normal(size=(240, 20))
y = (X[:, 0] * X[:, 1] + 0.8 * rng.normal(size=240) > 0).astype(int)  # noise that no network can predict
train, validation = (X[:120], y[:120]), (X[120:], y[120:])

figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for rule in (None, nnkit.EarlyStopping("validation_cost", patience=15)):
    net = nnkit.Network([20, 64, 1], "relu", seed=0)
    history = net.fit(
        *train, epochs=120, optimizer=nnkit.Adam(0.003), validation_data=validation, early_stopping=rule, progress=False
    )
    found = net.evaluate(*validation)
    print(f"{history.stopped} after {history.epochs} epochs: validation cost {found['cost']:.3f}")
    if rule is None:
        axes.plot(history["cost"], label="training cost")
        axes.plot(history["validation_cost"], label="validation cost")
    else:
        best = int(np.argmin(history["validation_cost"]))
        axes.axvline(best, color="k", linestyle=":", label=f"restored: epoch {best + 1}")
        axes.axvline(history.epochs - 1, color="k", linewidth=0.8, label=f"stopped: epoch {history.epochs}")
axes.set(xlabel="epoch", ylim=(0, None))
axes.legend(frameon=False)
plt.show()
