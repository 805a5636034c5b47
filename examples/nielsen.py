"""
Nielsen's results
=================

Nielsen's results (Neural Networks and Deep Learning, chapters 1 and 3), published and reproduced.

::

    python examples/nielsen.py                          every row with three seeds: a quarter of an hour
    python examples/nielsen.py --rows 1 5 --seeds 7     some of them

NNKIT_DATA=directory is the directory of MNIST's files, which `nnkit.data.mnist(download=True)` downloads with pooch.

Sigmoid everywhere, minibatches of 10, pixels/255, the first 50 000 training images for training and the other 10 000
for validation. λ is L2 as (1 − ηλ/n) w, so l2 is λ/n here. "large" weights are N(0, 1), "new" ones N(0, 1/n_in). A row
with two accuracies lists the first one for each seed, then the second. With the quadratic cost and large weights, a
class may stay dead, so compare the best of several seeds in such a row.
"""

import argparse
import sys
import time
from typing import NamedTuple

import nnkit

NEEDS_MNIST = (
    "this example needs MNIST; download it with: "
    'python -m pip install pooch && python -c "import nnkit; nnkit.data.mnist(download=True)"'
)


class Row(NamedTuple):
    """A network, its training, its published accuracy in percent, and how that accuracy is defined."""

    hidden: int
    cost: str
    init: str
    eta: float
    lam: float
    epochs: int
    published: str
    measured: str  # best, last or first epoch, and the set of images
    images: int = 50_000


ROWS = [
    Row(30, "cross_entropy", "large", 0.5, 0, 30, "95.49", "best test"),
    Row(100, "cross_entropy", "large", 0.5, 0, 30, "96.82", "best test"),
    Row(30, "cross_entropy", "large", 0.5, 0, 400, "82.27; 100", "best test; last training", images=1000),
    Row(30, "cross_entropy", "large", 0.5, 0.1, 400, "87.1", "best test", images=1000),
    Row(30, "cross_entropy", "large", 0.5, 5, 30, "96.49", "best test"),
    Row(100, "cross_entropy", "new", 0.5, 5, 30, "97.92", "best validation"),
    Row(100, "cross_entropy", "new", 0.1, 5, 60, "98.04", "best validation"),
    Row(30, "cross_entropy", "new", 0.1, 5, 30, "92.70; 96.50", "first validation; best validation"),
    Row(30, "cross_entropy", "large", 0.1, 5, 30, "86.43; 96.37", "first validation; best validation"),
    Row(30, "quadratic", "large", 3.0, 0, 30, "95.42", "best test"),
    Row(100, "quadratic", "large", 3.0, 0, 30, "96.59", "best test"),
]


def run(row: Row, data: nnkit.data.MNIST, seed: int, epochs: int) -> list[float]:
    """Train one network; returns the row's accuracies in percent."""
    X, y = data.X_train[: row.images], data.y_train[: row.images]
    tests = {"validation": (data.X_train[50_000:], data.y_train[50_000:]), "test": (data.X_test, data.y_test)}
    which = "validation" if "validation" in row.measured else "test"
    net = nnkit.Network(
        [784, row.hidden, 10],
        cost=row.cost,
        output_activation="sigmoid",
        init=f"nielsen_{row.init}",
        seed=seed,
        preprocessing=nnkit.data.Normalization.pixels(784),
    )
    optimizer = nnkit.SGD(row.eta, l2=row.lam / len(X))
    history = net.fit(
        X, y, epochs=epochs, batch_size=10, optimizer=optimizer, validation_data=tests[which], metrics=["accuracy"]
    )
    if history.interrupted:
        sys.exit(130)
    accuracies = {"training": history["accuracy"], which: history["validation_accuracy"]}
    found = []
    for when, images in (what.split() for what in row.measured.split("; ")):
        values = accuracies[images]
        found.append(100 * {"best": max(values), "first": values[0], "last": values[-1]}[when])
    return found


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description="Reproduce published results of Nielsen on MNIST.")
    numbers = range(1, len(ROWS) + 1)
    parser.add_argument("--rows", type=int, nargs="+", choices=numbers, default=numbers, help="rows (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each (default: 0 1 2)")
    parser.add_argument("--epochs", type=int, help="number of epochs, to run fewer")
    options = parser.parse_args()
    try:
        data = nnkit.data.mnist()
    except FileNotFoundError:
        print(NEEDS_MNIST, file=sys.stderr)
        sys.exit(2)
    seeds = ", ".join(map(str, options.seeds))
    print(f"| net | cost, weights | η, λ, epochs | accuracy in % | published | reproduced, seeds {seeds} | run time |")
    print("|---|---|---|---|---|---|---|")
    for row in [ROWS[number - 1] for number in options.rows]:
        started, epochs = time.perf_counter(), row.epochs if options.epochs is None else options.epochs
        runs = [run(row, data, seed, epochs) for seed in options.seeds]
        obtained = "; ".join(", ".join(f"{accuracy:.2f}" for accuracy in found) for found in zip(*runs, strict=True))
        images = "" if row.images == 50_000 else f", {row.images} images"
        seconds = (time.perf_counter() - started) / len(runs)
        print(
            f"| 784-{row.hidden}-10{images} | {row.cost}, {row.init} | {row.eta}, {row.lam}, {epochs} | {row.measured} "
            f"| {row.published} | {obtained} | {seconds:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
