"""
A training loop of your own
===========================

A custom training loop in two ways: with recorded steps, and with gradients only.

::

    python examples/own_loop.py
"""

import numpy as np

import nnkit

BATCH, RATE = 32, 0.1


def minibatches(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The indices of n samples in a new order, in groups of 32."""
    order = rng.permutation(n)
    return [order[start : start + BATCH] for start in range(0, n, BATCH)]


def with_steps(net: nnkit.Network, X: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """`train_step` does everything: forward, backward, update. It is recorded once for each number of samples."""
    optimizer = nnkit.SGD(RATE)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for places in minibatches(len(X), rng):
            net.train_step(X[places], y[places], optimizer)


def with_gradients(net: nnkit.Network, X: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """`gradients` returns δW and δb of each layer for any update, here eq. 17."""
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for places in minibatches(len(X), rng):
            _, gradients = net.gradients(X[places], y[places])
            for W, b, (dW, db) in zip(net.parameters.W, net.parameters.b, gradients, strict=True):
                W -= RATE * dW
                b -= RATE * db


def main(epochs: int = 20) -> list[float]:
    """Train the same network both ways; returns the two accuracies on the test images."""
    X, y, X_test, y_test = nnkit.data.split(*nnkit.data.digits(), seed=0)
    found = []
    for way in (with_steps, with_gradients):
        net = nnkit.Network([64, 50, 10], "tanh", "softmax_cross_entropy", seed=0)
        way(net, X, y, epochs)
        found.append(net.evaluate(X_test, y_test)["accuracy"])
        print(f"{way.__name__:<14}  test accuracy {found[-1]:.4f} after {epochs} epochs on {net.backend.name}, seed 0")
    return found


if __name__ == "__main__":
    main()
