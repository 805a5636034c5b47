"""
A surrogate and its Jacobian
============================

A network stands in for a slow simulation, here of a robot's arm with two joints: from the angles of the joints to the
position of the hand. Its derivatives are exact, ``net.jacobian(x)``, so that Newton's method can invert it: which
angles bring the hand to a given place?
"""

import matplotlib.pyplot as plt
import numpy as np

import nnkit

LENGTHS = np.array([1.0, 0.7])


def hand(angles: np.ndarray) -> np.ndarray:
    """The position (n, 2) of the hand for angles (n, 2): what the network learns."""
    total = np.cumsum(angles, axis=1)
    return np.stack([np.cos(total) @ LENGTHS, np.sin(total) @ LENGTHS], axis=1)


def slopes(angles: np.ndarray) -> np.ndarray:
    """Its exact derivatives, (n, 2, 2), to compare with."""
    total = np.cumsum(angles, axis=1)
    each = np.stack([-np.sin(total) * LENGTHS, np.cos(total) * LENGTHS], axis=1)
    return np.cumsum(each[:, :, ::-1], axis=2)[:, :, ::-1]  # an angle turns all that comes after it


rng = np.random.default_rng(0)
samples = rng.uniform([0.0, 0.3], [1.6, 2.4], (400, 2))
net = nnkit.Network([2, 24, 24, 2], "tanh", "quadratic", seed=0, dtype="float64")
net.minimize(samples, hand(samples), options={"maxiter": 1000})

new = rng.uniform([0.1, 0.4], [1.5, 2.3], (1000, 2))
position_error = float(np.abs(net.predict(new) - hand(new)).max())
jacobian_error = float(np.abs(net.jacobian(new) - slopes(new)).max())
print(f"largest error of the position {position_error:.4f}, of its derivatives {jacobian_error:.4f}")

# Newton's method on the network, for five places at once: angles <- angles - J⁻¹ (position - place)
wanted = rng.uniform([0.5, 0.8], [1.2, 2.0], (5, 2))
places, angles = hand(wanted), np.full((5, 2), [0.8, 1.3])
for step in range(6):
    missed = net.predict(angles) - places
    print(f"step {step}: {np.abs(missed).max():.1e} from the places")
    angles = angles - np.linalg.solve(net.jacobian(angles), missed[:, :, None])[:, :, 0]
reached = float(np.abs(hand(angles) - places).max())
print(f"the arm itself is {reached:.4f} from them")

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
for bent in angles:
    total = np.cumsum(bent)
    elbow = LENGTHS[0] * np.array([np.cos(total[0]), np.sin(total[0])])
    x, y = np.stack([[0.0, 0.0], elbow, hand(bent[None])[0]]).T
    axes.plot(x, y, "o-", color="0.6")
axes.plot(*places.T, "kx", markersize=10, label="places to reach")
axes.set(aspect="equal", xlabel="x", ylabel="y")
axes.legend(frameon=False)
plt.show()
