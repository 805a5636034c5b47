"""
Backpropagation with two kernels
================================

XOR by explicit backpropagation: only two dense layers of nnkit, forward and backward.

::

    python examples/xor.py            on NumPy
    NNKIT_BACKEND=cupy python examples/xor.py
"""

import numpy as np

import nnkit


def train(steps: int = 2000, step_size: float = 2.0, seed: int = 0) -> tuple[list[float], np.ndarray]:
    """Train 2-4-1 with tanh and sigmoid on the four cases; returns the costs and the four outputs."""
    backend, rng = nnkit.get_backend(), np.random.default_rng(seed)
    x = backend.asarray([[0, 0], [0, 1], [1, 0], [1, 1]], "float64")
    y = backend.asarray([[0], [1], [1], [0]], "float64")
    W1, b1 = backend.asarray(rng.normal(size=(4, 2))), backend.asarray(np.zeros(4))
    W2, b2 = backend.asarray(rng.normal(size=(1, 4))), backend.asarray(np.zeros(1))
    costs = []
    for _ in range(steps):
        h = nnkit.dense_forward(x, W1, b1, activation="tanh")  # eq. 2
        o = nnkit.dense_forward(h, W2, b2, activation="sigmoid")
        costs.append(float(backend.xp.mean((y - o) ** 2)) / 2)  # eq. 3
        delta = (o - y) / y.shape[0]  # eq. 4
        delta, dW2, db2 = nnkit.dense_backward(delta, h, W2, o, activation="sigmoid")  # eq. 5 to 12
        _, dW1, db1 = nnkit.dense_backward(delta, x, W1, h, activation="tanh")
        for parameter, gradient in ((W1, dW1), (b1, db1), (W2, dW2), (b2, db2)):
            parameter -= step_size * gradient  # eq. 17
    return costs, backend.to_numpy(o)


if __name__ == "__main__":
    costs, outputs = train()
    print(f"cost {costs[0]:.4f} -> {costs[-1]:.6f} on {nnkit.get_backend().name}, seed 0")
    for (a, b), output in zip([(0, 0), (0, 1), (1, 0), (1, 1)], outputs[:, 0], strict=True):
        print(f"{a} xor {b} = {output:.3f}")
