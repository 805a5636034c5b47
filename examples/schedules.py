"""
Learning rate schedules
=======================

A schedule multiplies the optimizer's learning rate by a factor that depends on the epoch: by steps that are constant
within an epoch, or smoothly, anew for each minibatch. ``warmup`` goes before another one; any function of the epoch is
a schedule, too.
"""

import matplotlib.pyplot as plt
import numpy as np

import nnkit
from nnkit import schedules

EPOCHS = 30
shown = {
    "step(10)": schedules.step(10),
    "halving(5)": schedules.halving(5),
    "exponential(0.9)": schedules.exponential(0.9),
    "cosine()": schedules.cosine(),
    'warmup(5, "cosine")': schedules.warmup(5, "cosine"),
    "one_cycle()": schedules.one_cycle(),
}
epochs = np.linspace(0, EPOCHS, 301)
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for name, schedule in shown.items():
    axes.plot(epochs, [schedule.factor(epoch, EPOCHS, {}) for epoch in epochs], label=name)
axes.set(xlabel="epoch", ylabel="factor on the learning rate")
axes.legend(frameon=False, ncols=2)

# %%
# What they do to a training of a classifier of digits:

X, y, X_test, y_test = nnkit.data.split(*nnkit.data.digits(), seed=0)
for name, schedule in {"constant()": schedules.constant(), **shown}.items():
    net = nnkit.Network([64, 64, 10], "relu", seed=0)
    history = net.fit(X, y, epochs=EPOCHS, optimizer=nnkit.SGD(0.5), schedule=schedule, progress=False)
    test = net.evaluate(X_test, y_test)
    print(
        f"{name:20} cost {history['cost'][-1]:.5f}, on the test part {test['cost']:.3f}, {100 * test['accuracy']:.1f} %"
    )
plt.show()
