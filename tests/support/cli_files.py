"""Small data files, as users of the command line have them, with what is in them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPECIES = ["iris setosa", "iris, versicolor", "virginica"]  # one with the separator in it


def flowers(path: Path, count: int = 60) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """A CSV file of three kinds of flowers, not as many of each, with four measures; the samples and the kinds."""
    rng = np.random.default_rng(5)
    kinds = np.arange(count) % 7 % 3
    X = (rng.normal(size=(count, 4)) + 2.5 * np.eye(4)[kinds]).round(3)
    y = np.array(SPECIES)[kinds]
    lines = [",".join([*map(str, x), f'"{kind}"']) for x, kind in zip(X.tolist(), y.tolist(), strict=True)]
    path.write_text("\n".join(["a,b,c,d,species", *lines, ""]))
    return X, y


def houses(path: Path, count: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A CSV file of houses, the price in the middle; the samples and the prices."""
    rng = np.random.default_rng(6)
    X = np.column_stack([rng.uniform(30, 200, count), rng.integers(1, 8, count)]).round(2)
    y = np.round(X @ [0.01, 0.2] + rng.normal(0, 0.05, count), 4)
    lines = [f"{size},{price},{rooms}" for (size, rooms), price in zip(X.tolist(), y.tolist(), strict=True)]
    path.write_text("\n".join(["size,price,rooms", *lines, ""]))
    return X, y
