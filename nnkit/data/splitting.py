"""Division of samples into a training and a test or validation set."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import in_range, whole
from nnkit.inputs import on_disk
from nnkit.tables import as_array, is_table, rows_of, text_array


def split(X: Any, y: Any, test_fraction: float = 0.25, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Shuffle samples and divide them into a training and a test set; returns X_train, y_train, X_test, y_test.

    X: numbers (n, ...), of two or more axes, or a table of them. y: labels or targets (n, ...), numbers or strings. The
    test set has n · test_fraction samples, rounded to the nearest integer; ValueError for none or all. If y contains
    labels, that is, (n,) integers, booleans or strings, the split is stratified: each class contributes its share to
    the test set, rounded up or down at random, so that the total is exact and each sample has an equal chance. Integer
    targets of a regression, mostly distinct, are thus divided at random. Equal arguments give equal results on every
    machine.

    The results are copies, NumPy arrays with the dtypes of X and y. Tables, and a column of one as y, stay tables and
    columns of their library, with their names, as in scikit-learn's train_test_split. Raises TypeError for arguments of
    other types, ValueError for shapes that do not fit and numbers out of range.

    >>> X = np.arange(12).reshape(6, 2)
    >>> X_train, y_train, X_test, y_test = split(X, [0, 0, 0, 0, 1, 1], test_fraction=0.5)
    >>> X_train.shape, sorted(y_train.tolist()), sorted(y_test.tolist())
    ((3, 2), [0, 0, 1], [0, 0, 1])
    """
    samples = X if is_table(X) else _array("X", X, "biuf", "real numbers")
    targets = _array("y", y, "biufU", "real numbers or text")
    if len(samples.shape) < 2:
        raise ValueError(f"X has shape {samples.shape}; expected at least two axes, (samples, features)")
    if targets.ndim < 1:
        raise ValueError(f"y is {y!r}; expected at least one axis, the samples")
    count = samples.shape[0]
    if count != len(targets):
        raise ValueError(f"X has {count} samples and y {len(targets)}; expected equal lengths")
    size = _test_size(count, test_fraction)
    rng = np.random.default_rng(whole("", "seed", seed, 0))
    order = rng.permutation(count)
    if targets.ndim == 1 and targets.dtype.kind in "biuU":
        in_test = _stratified(targets[order], size, int(rng.integers(count)))
    else:
        in_test = np.arange(len(order)) < size
    X, y = X if is_table(X) else samples, y if is_table(y) or hasattr(type(y), "to_frame") else targets
    train, test = order[~in_test], order[in_test]
    return rows_of(X, train), rows_of(y, train), rows_of(X, test), rows_of(y, test)


def split_off(labels: NDArray[Any], share: float, seed: int, **given: Any) -> list[list[Any]]:
    """X, y and sample_weight for training, and for validation (`fit`), as arrays or tables of their libraries.

    `labels` (n, ...) on the host decide whether the split is stratified, as in `split`. Raises ValueError for a share
    that leaves a part empty and for arrays of another length, TypeError for samples that are not in memory.
    """
    for name, values in given.items():
        if isinstance(values, np.memmap) or (name == "X" and not is_table(values) and on_disk(values)):
            raise TypeError(f"validation_split: {name} is on disk; give validation_data, or read it into memory")
    arrays = {name: a if a is None or is_table(a) else as_array(a, name) for name, a in given.items()}
    for name, values in arrays.items():
        if values is not None and tuple(values.shape[:1]) != labels.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(values.shape)}; expected {len(labels)} samples, as in y")
    kept = labels if labels.ndim == 1 and labels.dtype.kind in "biuU" else np.zeros(len(labels))
    try:
        parts = split(np.arange(len(labels))[:, None], kept, share, seed)[::2]
    except ValueError as error:
        text = str(error).replace("test_fraction", "validation_split").replace("testing", "validation")
        raise ValueError(text) from None
    return [[_rows(values, rows[:, 0]) for values in arrays.values()] for rows in parts]


def _rows(values: Any, indices: NDArray[np.int64]) -> Any:
    """Some rows of an array or table."""
    if values is None or is_table(values) or isinstance(values, np.ndarray):
        return None if values is None else rows_of(values, indices)
    from array_api_compat import array_namespace, device

    xp = array_namespace(values)
    return xp.take(values, xp.asarray(indices, device=device(values)), axis=0)


def _array(name: str, value: Any, kinds: str, what: str) -> NDArray[Any]:
    if not isinstance(value, list | tuple) and not np.isscalar(value):  # scalars are rejected later, by their shape
        value = as_array(value, name)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is not an array on the host; expected {what}: {error}") from error
    if "U" in kinds and array.dtype.kind in "OU" and not (array is value and array.dtype.kind == "U"):
        objects = np.asarray(value, object)  # NumPy converts the 1 in [1, "a"] to text, and pandas' text to objects
        if all(isinstance(label, str) for label in objects.flat):
            return text_array(objects.ravel().tolist()).reshape(objects.shape)
        array = objects
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} has dtype {array.dtype}; expected {what}")
    return array


def _test_size(count: int, fraction: float) -> int:
    size = round(count * in_range("", "test_fraction", fraction, 1.0, above=True))
    if not 0 < size < count:
        raise ValueError(
            f"test_fraction is {fraction}, which leaves {count - size} of {count} samples for training and {size} for "
            "testing; expected at least one for each"
        )
    return size


def _stratified(labels: NDArray[Any], size: int, start: int) -> NDArray[np.bool_]:
    """Select `size` of the n shuffled labels (n,) for the test set, by systematic sampling from a start in [0, n).

    The classes, in the order of their first labels here, form one row, of which each (n/size)-th sample is taken. So a
    class gets its share, rounded up or down, and each sample has the chance size/n (Madow 1949, Ann. Math. Stat. 20),
    also where classes are smaller than that.
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    steps = (np.arange(len(labels) + 1) * size + start) // len(labels)  # of integers: rounding has no part in it
    in_test = np.zeros(len(labels), dtype=bool)
    in_test[np.argsort(first[inverse], kind="stable")] = np.diff(steps) > 0
    return in_test
