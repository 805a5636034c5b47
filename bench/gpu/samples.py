"""What an epoch is measured on: MNIST, or where it is not there as many random bytes."""

import numpy as np

import nnkit

SEED = 0  # of nnkit's network, which decides the order of its minibatches


def samples(count: int, real: bool) -> tuple[np.ndarray, np.ndarray]:
    """X (count, 784) in [0, 1] and Y (count, 10), of which one number in each row is 1, both float32."""
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
    """Whether the files of MNIST are where nnkit looks for them."""
    try:
        nnkit.data.mnist()
    except (FileNotFoundError, ValueError):
        return False
    return True


def order_of(epoch: int, count: int) -> np.ndarray:
    """The order in which nnkit goes through that many samples in an epoch, counted from 0."""
    order = np.arange(count)
    np.random.default_rng([SEED, 1, epoch]).shuffle(order)
    return order
