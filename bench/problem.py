"""What every contender does: the network, its first parameters, one batch, and the optimizer's numbers.

Hidden layers of one activation, outputs that are sigmoids, the cross-entropy summed over the outputs and averaged over
the batch (eq. 18), one step of gradient descent or Adam on the same batch again and again.
"""

from dataclasses import dataclass

import numpy as np

Parameters = list[tuple[np.ndarray, np.ndarray]]

LEARNING_RATES = {"sgd": 0.1, "adam": 1e-4}
# Of Adam. Thinc and scikit-learn add ε to the root of v before its bias is corrected, others after: it is small enough
# for both to be the same.
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
    """The sizes that a text such as 784-30-10x10, or 784-30-10x1,10,100 with several batch sizes, names.

    ValueError if it does not: widths and batch sizes are positive, with at least two layers and two outputs.

    >>> [str(size) for size in parse_sizes("784-30-10x1,10")]
    ['784-30-10x1', '784-30-10x10']
    """
    widths, _, batches = text.partition("x")
    try:
        sizes = [Size(tuple(map(int, widths.split("-"))), int(batch)) for batch in batches.split(",")]
    except ValueError:
        sizes = []
    if not sizes or any(min(*size.widths, size.batch) < 1 for size in sizes) or len(sizes[0].widths) < 2:
        raise ValueError(f"{text!r} is no size; expected widths and a batch size such as 784-30-10x10")
    if sizes[0].widths[-1] < 2:
        raise ValueError(
            f"{text!r} has one output; expected at least two, as scikit-learn takes one as another problem"
        )
    return sizes


@dataclass(frozen=True)
class Problem:
    """One size with everything else that decides the arithmetic; the same in each process, as the seed is fixed.

    `device` is "cpu" or "cuda"; `precision` is that of the products, where parameters are float32: "float32", "tf32"
    or "bf16"; `rate` is the learning rate, if it is not the optimizer's usual one.
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
        """The step width of the optimizer: of an order that neither stands still nor diverges."""
        return LEARNING_RATES[self.optimizer] if self.rate is None else self.rate

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """X (n, d_in) in [0, 1), as images are, and Y (n, d_out), of which one number in each row is 1."""
        n, widths = self.size.batch, self.size.widths
        X = np.random.default_rng(1).random((n, widths[0]), np.float32)
        labels = np.random.default_rng(2).integers(widths[-1], size=n)
        Y = np.zeros((n, widths[-1]), self.dtype)
        Y[np.arange(n), labels] = 1
        return X.astype(self.dtype, copy=False), Y

    def parameters(self) -> Parameters:
        """New arrays W (d_out, d_in), normal with variance 1/d_in (2/d_in for relu), and b (d_out,), for each layer."""
        rng = np.random.default_rng(0)
        factor = 2 if self.activation == "relu" else 1
        found = []
        for d_in, d_out in zip(self.size.widths, self.size.widths[1:], strict=False):
            W = rng.standard_normal((d_out, d_in), np.float32)
            W *= np.float32((factor / d_in) ** 0.5)
            b = 0.1 * rng.standard_normal(d_out, np.float32)
            found.append((W.astype(self.dtype, copy=False), b.astype(self.dtype, copy=False)))
        return found
