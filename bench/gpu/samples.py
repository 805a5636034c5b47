"""The data for an epoch: MNIST, or as many random bytes if it is not available."""

import numpy as np

import nnkit

SEED = 0  # of nnkit's network, which determines the order of its minibatches


def samples(count: int, real: bool) -> tuple[np.ndarray, np.ndarray]:
    """X (count, 784) in [0, 1] and one-hot Y (count, 10), both float32."""
    if real:
        images = nnkit.data.mnist()
        found, labels = images.X_train[:count], images.y_train[:count]
    else:
        rng = np.random.default_rng(3)
        found, labels = rng.integers(256, size=(count, 784), dtype=np.uint8), rng.integers(10, size=count)
    Y = np.zeros((count, 10), np.float32)
    Y[np.arange(count), labels] = 1
    return found / np.float32(255), Y


def has_mnist() -> bool:
    """Whether nnkit finds the files of MNIST."""
    try:
        nnkit.data.mnist()
    except (FileNotFoundError, ValueError):
        return False
    return True


def order_of(epoch: int, count: int) -> np.ndarray:
    """The order of `count` samples in an epoch of nnkit; epochs start at 0."""
    order = np.arange(count)
    np.random.default_rng([SEED, 1, epoch]).shuffle(order)
    return order
