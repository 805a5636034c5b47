"""
What the first layer of a network sees
======================================

Each unit of the first layer weighs the 64 pixels of a digit. Drawn as an image, its weights show what it looks for: ink
where they are red, paper where they are blue. Without a penalty they keep the noise that they began with; with L2, what
no digit needs decays to 0.
"""

import matplotlib.pyplot as plt
import numpy as np

import nnkit

X, y, X_test, y_test = nnkit.data.split(*nnkit.data.digits(), seed=0)

figure, rows = plt.subplots(4, 8, figsize=(8, 4.6), layout="constrained")
for half, l2 in zip((rows[:2], rows[2:]), (0.0, 0.02), strict=True):
    net = nnkit.Network([64, 16, 10], "tanh", seed=1)
    net.fit(X, y, epochs=60, optimizer=nnkit.SGD(0.05, momentum=0.9, l2=l2), progress=False)
    weights = np.asarray(net.parameters.W[0])
    limit = np.abs(weights).max()
    for axes, weight in zip(half.flat, weights, strict=True):
        axes.imshow(weight.reshape(8, 8), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set(xticks=[], yticks=[])
    accuracy = net.evaluate(X_test, y_test)["accuracy"]
    half[0, 0].set_title(f"l2={l2}: {100 * accuracy:.1f} % of the test digits", loc="left", fontsize=10)
    print(f"l2 = {l2}: accuracy {accuracy:.3f}, mean |W| {np.abs(weights).mean():.3f}")
plt.show()
