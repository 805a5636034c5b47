"""
MNIST with ReLU and halved steps
================================

784-256-128-10 with ReLU on MNIST, step size 0.1 halved each epoch, minibatches of 100: 97 % in 5 epochs.

::

    python examples/relu_halving.py

NNKIT_DATA=directory is the directory of MNIST's files, which `nnkit.data.mnist(download=True)` downloads with pooch.
"""

import sys

import nnkit

NEEDS_MNIST = (
    "this example needs MNIST; download it with: "
    'python -m pip install pooch && python -c "import nnkit; nnkit.data.mnist(download=True)"'
)


def train(data: nnkit.data.MNIST, seed: int = 0, images: int = 60_000, epochs: int = 5) -> float:
    """Train one network; returns its accuracy on the test images."""
    net = nnkit.Network(
        [784, 256, 128, 10], "relu", "softmax_cross_entropy", seed=seed,
        preprocessing=nnkit.data.Normalization.fit(data.X_train[:images], per_feature=False),
    )  # fmt: skip
    history = net.fit(
        data.X_train[:images],
        data.y_train[:images],
        epochs=epochs,
        batch_size=100,
        optimizer=nnkit.SGD(0.1),
        schedule=nnkit.schedules.halving(),
    )
    if history.interrupted:
        sys.exit(130)
    return net.evaluate(data.X_test, data.y_test)["accuracy"]


if __name__ == "__main__":
    try:
        data = nnkit.data.mnist()
    except FileNotFoundError:
        print(NEEDS_MNIST, file=sys.stderr)
        sys.exit(2)
    for seed in range(3):
        print(f"seed {seed}: test accuracy {train(data, seed):.4f} after 5 epochs")
