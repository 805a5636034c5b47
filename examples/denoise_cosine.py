"""
The lecture's denoiser
======================

The lecture's denoiser (eq. 15, 16): y = W₂ σ(W₁x + b) learns to remove the noise from a cosine.

::

    python examples/denoise_cosine.py                 writes denoised-cosine.png
    NNKIT_BACKEND=cupy python examples/denoise_cosine.py
"""

import sys

import numpy as np

import nnkit
from nnkit.plots.figure import picture_path

LENGTH, HIDDEN, STEP_SIZE = 200, 10, 0.01
T = np.linspace(-3 * np.pi, 3 * np.pi, LENGTH)
CLEAN = np.cos(T)


def train(steps: int = 500, seed: int = 0) -> tuple[list[float], np.ndarray, np.ndarray]:
    """Minimize ½ Σ (y − cos t)² with new noise in each step; returns the costs, a noisy and the restored signal."""
    backend, rng = nnkit.get_backend(), np.random.default_rng(seed)
    W1, b = (backend.asarray(rng.uniform(-0.1, 0.1, shape)) for shape in ((HIDDEN, LENGTH), (HIDDEN,)))
    W2, no_bias = backend.asarray(rng.uniform(-0.1, 0.1, (LENGTH, HIDDEN))), backend.zeros((LENGTH,), "float64")
    y = backend.asarray(CLEAN[None, :])
    costs = []
    for _ in range(steps):
        x = y + backend.asarray(rng.normal(size=(1, LENGTH)))
        h = nnkit.dense_forward(x, W1, b, activation="sigmoid")  # eq. 15
        o = nnkit.dense_forward(h, W2, no_bias)  # eq. 16
        costs.append(float(nnkit.quadratic(o, y)))  # eq. 3
        delta = nnkit.quadratic_delta(o, y)  # eq. 4
        delta, dW2, _ = nnkit.dense_backward(delta, h, W2)  # eq. 5, 6
        _, dW1, db = nnkit.dense_backward(delta, x, W1, h, activation="sigmoid", need_dx=False)  # eq. 8, 10, 12
        for parameter, gradient in ((W1, dW1), (b, db), (W2, dW2)):
            parameter -= STEP_SIZE * gradient  # eq. 17
    noisy = y + backend.asarray(rng.normal(size=(1, LENGTH)))
    restored = nnkit.dense_forward(nnkit.dense_forward(noisy, W1, b, activation="sigmoid"), W2, no_bias)
    return costs, backend.to_numpy(noisy)[0], backend.to_numpy(restored)[0]


if __name__ == "__main__":
    try:
        path = picture_path(sys.argv[1] if len(sys.argv) > 1 else "denoised-cosine.png")
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    costs, noisy, restored = train()
    print(f"cost {costs[0]:.2f} -> {costs[-1]:.4f} in {len(costs)} steps on {nnkit.get_backend().name}, seed 0")
    nnkit.plots.denoised(CLEAN, noisy, restored, T, path, title="A network learns to denoise a cosine")
    print(f"picture written to {path}")
