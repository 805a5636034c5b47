"""
Decision boundaries by depth
============================

Two spirals, and networks with no, one, two and three hidden layers of 6 units. Without a hidden layer the boundary is a
line; each layer bends what the one before has bent. The shade is the probability of the red class.
"""

import matplotlib.pyplot as plt
import numpy as np

import nnkit

rng = np.random.default_rng(0)
turns = np.sqrt(rng.uniform(0.05, 1, 300)) * 2.2 * np.pi
labels = np.arange(300) % 2
angles = turns + np.pi * labels
X = np.column_stack([turns * np.cos(angles), turns * np.sin(angles)]) / 4 + rng.normal(0, 0.06, (300, 2))

grid = np.linspace(-2, 2, 120)
points = np.column_stack([axis.ravel() for axis in np.meshgrid(grid, grid)])

figure, panels = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained", sharey=True)
for depth, axes in enumerate(panels):
    net = nnkit.Network([2, *[6] * depth, 1], "tanh", seed=2)
    net.fit(X, labels, epochs=300, batch_size=50, optimizer=nnkit.Adam(0.02), progress=False)
    red = np.asarray(net.predict_proba(points)).reshape(120, 120)
    axes.imshow(red, extent=(-2, 2, -2, 2), origin="lower", cmap="RdBu_r", alpha=0.6, vmin=0, vmax=1)
    axes.scatter(*X.T, c=labels, cmap="RdBu_r", s=8)
    accuracy = net.evaluate(X, labels)["accuracy"]
    axes.set(title=f"{depth} hidden: {100 * accuracy:.0f} %", xticks=[], yticks=[])
    print(f"{depth} hidden layers, {net.parameters.vector.size} parameters: accuracy {accuracy:.3f}")
plt.show()
