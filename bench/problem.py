"""The task of every contender: the network, its initial parameters, one batch, and the optimizer's hyperparameters.

The hidden layers have one activation and the outputs are sigmoids. The cost is the cross-entropy, summed over the
outputs and averaged over the batch (eq. 18). Steps of gradient descent or Adam are repeated on the same batch.
"""

from dataclasses import dataclass

import numpy as np

Parameters = list[tuple[np.ndarray, np.ndarray]]

LEARNING_RATES = {"sgd": 0.1, "adam": 1e-4}
# Adam's. Thinc and scikit-learn add ε to the root of v before the bias correction, others after it: ε is so small that
# both are equal.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-18
ACTIVATIONS = ("sigmoid", "relu")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Size:
    """The widths of a network's layers and the number of samples in its batch."""

    widths: tuple[int, ...]
    batch: int

    @property
    def network(self) -> str:
        """The widths as text, such as 784-30-10."""
        return "-".join(map(str, self.widths))

    def __str__(self) -> str:
        return f"{self.network}x{self.batch}"


def parse_sizes(text: str) -> list[Size]:
    """Parse a size such as 784-30-10x10, or several, such as 784-30-10x1,10,100 with three batch sizes.

    Raises ValueError unless widths and batch sizes are positive, and there are at least two widths and two outputs.

    >>> [str(size) for size in parse_sizes("784-30-10x1,10")]
    ['784-30-10x1', '784-30-10x10']
    """
    widths, _, batches = text.partition("x")
    try:
        sizes = [Size(tuple(map(int, widths.split("-"))), int(batch)) for batch in batches.split(",")]
    except ValueError:
        sizes = []
    if not sizes or any(min(*size.widths, size.batch) < 1 for size in sizes) or len(sizes[0].widths) < 2:
        raise ValueError(f"{text!r} is not a size; expected widths and a batch size such as 784-30-10x10")
    if sizes[0].widths[-1] < 2:
        raise ValueError(
            f"{text!r} has one output; expected at least two, as scikit-learn treats one output differently"
        )
    return sizes


@dataclass(frozen=True)
class Problem:
    """A size and all other parameters of the computation; the fixed seed makes it the same in each process.

    `device` is "cpu" or "cuda". `precision` is that of products of float32 parameters: "float32", "tf32" or "bf16".
    `rate` replaces the optimizer's usual learning rate.
    """

    size: Size
    activation: str = "sigmoid"
    optimizer: str = "sgd"
    dtype: str = "float32"
    device: str = "cpu"
    precision: str = "float32"
    rate: float | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate, of a magnitude with which training neither stagnates nor diverges."""
        return LEARNING_RATES[self.optimizer] if self.rate is None else self.rate

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """X (n, d_in) in [0, 1), like images, and one-hot Y (n, d_out)."""
        n, widths = self.size.batch, self.size.widths
        X = np.random.default_rng(1).random((n, widths[0]), np.float32)
        labels = np.random.default_rng(2).integers(widths[-1], size=n)
        Y = np.zeros((n, widths[-1]), self.dtype)
        Y[np.arange(n), labels] = 1
        return X.astype(self.dtype, copy=False), Y

    def parameters(self, seed: int = 0) -> Parameters:
        """New arrays W (d_out, d_in), normal with variance 1/d_in (2/d_in for relu), and b (d_out,), for each layer."""
        rng = np.random.default_rng(seed)
        factor = 2 if self.activation == "relu" else 1
        found = []
        for d_in, d_out in zip(self.size.widths, self.size.widths[1:], strict=False):
            W = rng.standard_normal((d_out, d_in), np.float32)
            W *= np.float32((factor / d_in) ** 0.5)
            b = 0.1 * rng.standard_normal(d_out, np.float32)
            found.append((W.astype(self.dtype, copy=False), b.astype(self.dtype, copy=False)))
        return found
