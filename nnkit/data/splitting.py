"""Samples divided into a training part and a test part."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.tables import as_array, is_table, table_numbers, text_array


def split(
    X: ArrayLike, y: ArrayLike, test_fraction: float = 0.25, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Shuffle the samples and divide them into a training part and a test part.

    The test part has `n * test_fraction` samples, rounded to the nearest integer. If y holds labels, which
    is when it is (n,) integers, booleans or text, each class keeps its share in both parts: the test part gets
    class c's share of its samples rounded down or up, up for the largest remainders, so that the total is
    exact. Otherwise the samples are only shuffled. Equal arguments give equal results on every machine.

    Args:
        X: (n, ...) numbers, two or more axes; sample i is X[i]. Or a table of numbers, of pandas for example.
        y: (n,) or (n, ...) numbers or text, the label or the target of each sample.
        test_fraction: the part of the samples that goes to the test part, between 0 and 1.
        seed: the seed of `numpy.random.default_rng`, 0 or more.

    Returns:
        X_train, y_train, X_test, y_test: NumPy arrays of the types of X and y, copies.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: X and y have the wrong shape or different numbers of samples; test_fraction or seed
            is out of range; or one part would be empty.

    Example:
        >>> X = np.arange(12).reshape(6, 2)
        >>> X_train, y_train, X_test, y_test = split(X, [0, 0, 0, 0, 1, 1], test_fraction=0.5)
        >>> X_train.shape, sorted(y_train.tolist()), sorted(y_test.tolist())
        ((3, 2), [0, 0, 1], [0, 0, 1])

    """
    samples = _array("X", X, "biuf", "real numbers")
    targets = _array("y", y, "biufU", "real numbers or text")
    if samples.ndim < 2:
        raise ValueError(f"X must have two or more axes (samples, features), got shape {samples.shape}")
    if targets.ndim < 1:
        raise ValueError(f"y must have one axis or more, the first for the samples, got {y!r}")
    if len(samples) != len(targets):
        raise ValueError(f"X and y must have as many samples, got {len(samples)} and {len(targets)}")
    size = _test_size(len(samples), test_fraction)
    order = np.random.default_rng(_valid_seed(seed)).permutation(len(samples))
    if targets.ndim == 1 and targets.dtype.kind in "biuU":
        in_test = _stratified(targets[order], size)
    else:
        in_test = np.arange(len(order)) < size
    train, test = order[~in_test], order[in_test]
    return samples[train], targets[train], samples[test], targets[test]


def _array(name: str, value: Any, kinds: str, what: str) -> NDArray[Any]:
    if name == "X" and is_table(value):
        return table_numbers(value, name)
    if not isinstance(value, list | tuple) and not np.isscalar(value):  # the shape of a number is refused below
        value = as_array(value, name)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of {what} on the host: {error}") from error
    if "U" in kinds and array.dtype.kind in "OU" and not (array is value and array.dtype.kind == "U"):
        objects = np.asarray(value, object)  # NumPy makes text of the 1 in [1, "a"], and objects of pandas' text
        if all(isinstance(label, str) for label in objects.flat):
            return text_array(objects.ravel().tolist()).reshape(objects.shape)
        array = objects
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} must be an array of {what}, got dtype {array.dtype}")
    return array


def _test_size(count: int, fraction: float) -> int:
    if isinstance(fraction, bool) or not isinstance(fraction, Real):
        raise TypeError(f"test_fraction must be a number between 0 and 1, got {fraction!r}")
    if not 0 < fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, both excluded, got {fraction}")
    size = round(count * float(fraction))
    if not 0 < size < count:
        raise ValueError(
            f"test_fraction {fraction} of {count} samples leaves {count - size} for training and {size} for "
            "testing; each part needs at least one"
        )
    return size


def _valid_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    return int(seed)


def _stratified(labels: NDArray[Any], size: int) -> NDArray[np.bool_]:
    """Mark `size` of the shuffled labels (n,) for the test part: of each class its share, its first ones."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # In integers: a quota in floating point could round two equal remainders differently.
    quotas, remainders = np.divmod(counts * size, len(labels))
    largest_first = np.argsort(-remainders, kind="stable")
    quotas[largest_first[: size - int(quotas.sum())]] += 1
    by_class = np.argsort(inverse, kind="stable")
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    in_test = np.zeros(len(labels), dtype=bool)
    in_test[by_class] = rank_in_class < np.repeat(quotas, counts)
    return in_test
