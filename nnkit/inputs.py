"""Validation of user data and conversion to arrays of one backend and dtype."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit import checks
from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import FLOATS, dtype_name
from nnkit.backends.selection import owner_of
from nnkit.checks import first_of
from nnkit.kernels.cost import OutputPair
from nnkit.kernels.costs import Cost
from nnkit.preprocessing import Preprocessing
from nnkit.tables import as_array, as_samples

_FOR_NUMBERS = 'for real-valued targets, give the network cost="quadratic"'
SHARES = 1e-3  # tolerance of the sum of class probabilities
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_NAMES = "; if the classes have other names, give the network these as classes"


def on_host(values: Any) -> Any:
    """Convert an array of any library to NumPy; other objects are returned unchanged."""
    owner = owner_of(values)
    return values if owner is None else owner.to_numpy(values)


def checked_samples(width: int, x: Any, name: str) -> Any:
    """Check samples (n, width), any array, list or DLPack object; returns an array of the same library.

    Raises ValueError for another rank or width or no samples, TypeError unless they are real numbers.
    """
    array = as_samples(x, name)
    if len(array.shape) != 2 or array.shape[1] != width:
        hint = f"; for one sample, reshape it to (1, {width})" if tuple(array.shape) == (width,) else ""
        raise ValueError(f"{name} has shape {tuple(array.shape)}; expected (samples, {width}){hint}")
    if array.shape[0] == 0:
        raise ValueError(f"{name} has no samples; expected at least one")
    return _real(array, name)


def on_disk(array: Any) -> bool:
    """Whether the rows of an array are read on demand: `numpy.memmap`, HDF5, `nnkit.data.open_npy`, Dask."""
    if isinstance(array, np.ndarray):
        return isinstance(array, np.memmap)
    return hasattr(array, "shape") and owner_of(array) is None and not hasattr(array, "__dlpack__")


def targets(backend: Backend, dtype: str, cost: Cost, width: int, y: Any, n: int, name: str) -> Array:
    """Targets (n, width) from integer labels (n,) or a matrix; with width 1, (n,) is its column.

    In that case, integers on the host must be 0 or 1 if the cost's targets are in [0, 1]. Raises ValueError for another
    shape or a label outside 0 ... width − 1, TypeError unless they are real numbers.
    """
    raw = as_samples(y, name)
    if on_disk(raw):  # or a column of a table
        raw = np.asarray(raw)
    if len(raw.shape) == 1 and raw.shape[0] == n:
        if width == 1:
            if cost.domain == "unit" and isinstance(raw, np.ndarray) and raw.dtype.kind in "iu" and raw.size:
                _check_range(raw, 2, name)
            return backend.xp.reshape(_numbers(backend, dtype, raw, name), (n, 1))
        if not cost.classifies and dtype_name(raw.dtype) in FLOATS:
            raise ValueError(f"{name} has shape ({n},); expected targets ({n}, {width}), or integer labels ({n},)")
        return _one_hot(backend, dtype, raw, width, name)
    array = _numbers(backend, dtype, raw, name)
    if tuple(array.shape) != (n, width):
        hint = f"; for labels use nnkit.data.one_hot(y, {width})" if is_label_column(raw) and width > 1 else ""
        expected = f"expected labels ({n},) or targets ({n}, {width}){hint}"
        raise ValueError(f"{name} has shape {tuple(array.shape)}; {expected}")
    return array


def are_labels(y: Any, name: str = "y") -> bool:
    """Whether these are labels (n,) rather than a matrix of targets."""
    return len(as_array(y, name).shape) == 1


def is_label_column(y: Any) -> bool:
    """Whether an array is a column (n, 1) of labels: integers, text or other objects, but not floating-point."""
    if len(getattr(y, "shape", ())) != 2 or y.shape[1] != 1:
        return False
    kind = dtype_name(y.dtype)
    return kind in _INTEGERS or kind == "object" or kind.lower().startswith(("str", "bytes"))


def as_labels(backend: Backend, outputs: Array) -> Array:
    """The class (n,) of outputs or targets (n, d_out): the largest entry's; for one column, whether it exceeds ½."""
    return _largest(backend, outputs, 0.5)


def predicted_labels(backend: Backend, output: OutputPair, logits: Array) -> Array:
    """The class (n,) predicted by logits (n, d_out)."""
    return _chosen(backend, logits if output.by_logits else output.outputs(backend, logits), output)


def labels_of(backend: Backend, values: Array, output: OutputPair) -> Array:
    """The class (n,) predicted by values (n, d_out): logits if they determine it, else outputs.

    Raises ValueError for NaN, except on a device, where the check would synchronize.
    """
    if backend.name == "numpy" and not surely_finite(values) and np.isnan(values).any():
        row, *_ = first_of(np.isnan(values))
        raise ValueError(
            f"the outputs of sample {row} are NaN: a parameter is NaN, or X is too large; no class is predicted"
        )
    return _chosen(backend, values, output)


def threshold_of(output: OutputPair) -> float:
    """Above which a single value is class 1: the logit if that decides, else the output."""
    return output.cost.threshold if output.logit_threshold is None else output.logit_threshold


def _chosen(backend: Backend, values: Array, output: OutputPair) -> Array:
    return _largest(backend, values, threshold_of(output))


def all_right(backend: Backend, output: OutputPair, logits: Array, y: Array) -> Array:
    """Whether all outputs (n, d_out) of a sample are on the same side of the threshold as the targets, as bool (n,)."""
    values, limit = logits, output.logit_threshold
    if limit is None:
        values, limit = output.outputs(backend, logits), output.cost.threshold
    return backend.xp.all((values > limit) == (y > 0.5), axis=1)


def one_class_each(backend: Backend, y: Array, cost: Cost, weights: Array | None) -> bool:
    """Whether each row of targets (n, d_out) is one class or a probability distribution; waits for the device.

    Rows with a weight of 0, in (n, 1), do not count.
    """
    if cost.domain == "distribution" or y.shape[1] == 1:
        return True
    xp = backend.xp
    wrong = xp.abs(xp.sum(y, axis=1) - 1) > SHARES
    return not bool(xp.any(wrong if weights is None else wrong & (weights[:, 0] > 0)))


def checked_weights(sample_weight: Any, n: int, name: str) -> NDArray[np.float64]:
    """Sample weights (n,) on the host; raises ValueError unless they are n finite numbers of at least 0."""
    given = on_host(as_array(sample_weight, name))
    if not is_real(given):
        raise TypeError(f"{name} has dtype {given.dtype}; expected real numbers")
    weights = np.asarray(given, np.float64)
    if weights.shape != (n,):
        raise ValueError(f"{name} has shape {weights.shape}; expected ({n},), one weight per sample")
    right = np.isfinite(weights) & (weights >= 0)
    if not right.all():
        (first,) = first_of(~right)
        raise ValueError(f"{name} holds {weights[first]} at [{first}]; expected finite numbers of at least 0")
    return weights


def is_real(array: Any) -> bool:
    """Whether an array on the host has a real dtype."""
    return array.dtype.kind in "biuf" or dtype_name(array.dtype) in FLOATS


def check_samples(
    backend: Backend, raw: Any, samples: Array, preprocessing: Preprocessing | None, name: str, first: int = 0
) -> None:
    """Raise ValueError for samples (n, d_in) that are not finite after the preprocessing, if any, of `raw`, (n, width).

    The error names the first such entry of `raw`; `first` is the index of its first row.
    """
    if preprocessing is None:
        check_finite(backend, samples, name, first)
        return
    if bool(backend.xp.all(backend.xp.isfinite(samples))):
        return
    host = backend.to_numpy(samples)
    row, *_ = first_of(~np.isfinite(host))
    given = np.asarray(on_host(raw))[row].astype(np.float64)
    if not hasattr(preprocessing, "encode"):  # for which NaN is a missing number
        checks.check_finite(given[None], name, first=first + row)
    made = f"the {preprocessing.kind} of sample {first + row} holds {host[row][~np.isfinite(host[row])][0]}"
    raise ValueError(f"{name}: {made}; expected finite numbers in {host.dtype.name}")


def check_finite(backend: Backend, array: Array, name: str, first: int = 0) -> None:
    """Raise ValueError that names the first NaN or infinity of an array, if any; waits for the device.

    `first` is the index of its first row.
    """
    if surely_finite(array) or bool(backend.xp.all(backend.xp.isfinite(array))):
        return
    host = backend.to_numpy(array)
    checks.check_finite(host, name, f"finite numbers in {host.dtype.name}", first)


_ONE_THREAD = 8192  # entries, less than the 10 000 from which OpenBLAS divides a sum


def surely_finite(x: Any) -> bool:
    """True if a NumPy array is certainly finite, also in float32; False if unknown.

    The sum of squares takes 1 µs for small arrays, and a tenth of the time of `numpy.isfinite` for large ones. BLAS
    gets parts that it sums on this thread: its other threads look for work for 0.1 s after a sum, and delay a training.
    """
    if type(x) is not np.ndarray:
        return False
    if x.dtype.kind in "biu":
        return True
    if x.dtype.char not in "fd":
        return False
    flat, limit = x.ravel("K"), 1e37
    for start in range(0, flat.size, _ONE_THREAD):
        part = flat[start : start + _ONE_THREAD]
        limit -= float(np.vdot(part, part))  # the only product that never warns
    return limit > 0


_BELOW_1 = ("unit", "distribution")


def check_targets(backend: Backend, y: Array, cost: Cost, name: str) -> None:
    """Raise ValueError that names the first of the targets (n, d_out) not finite or outside the cost's domain."""
    check_finite(backend, y, name)
    if cost.domain == "any":
        return
    host = backend.to_numpy(y)
    outside = (host <= 0 if cost.domain == "positive" else host < 0) | (
        host > (1 if cost.domain in _BELOW_1 else np.inf)
    )
    if outside.any():
        at = first_of(outside)
        expected = {"nonnegative": "of at least 0", "positive": "above 0"}.get(cost.domain, "in [0, 1]")
        hint = f"; {_FOR_NUMBERS}{'' if host[at] % 1 else _NAMES}" if cost.classifies else ""
        raise ValueError(f"{name} holds {host[at]} at {list(at)}; expected targets {expected} for {cost.name}{hint}")
    if cost.domain != "distribution":
        return
    sums = host.sum(axis=1)
    wrong = np.abs(sums - 1) > SHARES
    if wrong.any():
        (first,) = first_of(wrong)
        raise ValueError(
            f"{name}: the targets of sample {first} sum to {sums[first]:.6g}; expected 1 for {cost.name}; "
            f'for several classes per sample, give the network cost="cross_entropy"; {_FOR_NUMBERS}'
        )


def _numbers(backend: Backend, dtype: str, values: Any, name: str) -> Array:
    """Convert real numbers to an array of the backend and dtype."""
    return backend.asarray(_real(as_array(values, name), name), dtype)


def _real(array: Any, name: str) -> Any:
    kind = dtype_name(array.dtype)
    if kind not in FLOATS and kind not in _INTEGERS:
        raise TypeError(f"{name} has dtype {kind}; expected real numbers")
    return array


def _largest(backend: Backend, values: Array, threshold: float) -> Array:
    if values.shape[1] == 1:
        return backend.xp.astype(values[:, 0] > threshold, backend.xp.int64)
    return backend.xp.argmax(values, axis=1)


def label_rows(labels: NDArray[Any], classes: int, dtype: DTypeLike) -> NDArray[Any]:
    """One-hot rows (n, classes) for labels (n,) on the host, integers from 0 to classes − 1."""
    indices = labels.astype(np.int64, copy=False)
    if classes * classes <= len(labels):  # the rows of the identity matrix, in a fifth of the time
        return np.eye(classes, dtype=dtype).take(indices, axis=0)
    rows = np.zeros((len(labels), classes), dtype)
    rows[np.arange(len(labels)), indices] = 1
    return rows


def _check_range(labels: NDArray[Any], classes: int, name: str) -> None:
    """Raise ValueError that names the first label outside 0 to classes − 1, if any."""
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        (first,) = first_of((labels < 0) | (labels >= classes))
        raise ValueError(f"{name} holds label {labels[first]} at [{first}]; expected 0 to {classes - 1}{_NAMES}")


def _one_hot(backend: Backend, dtype: str, labels: Any, classes: int, name: str) -> Array:
    """One-hot rows for labels."""
    kind = dtype_name(labels.dtype)
    if kind not in _INTEGERS:
        if kind in FLOATS:
            missing = np.isnan(on_host(labels))
            if missing.any():
                (first,) = first_of(missing)
                raise ValueError(f"{name} holds nan at [{first}]; expected integer labels, none missing")
            shape = tuple(labels.shape)
            raise TypeError(f"{name} has dtype {kind} and shape {shape}; expected integer labels; {_FOR_NUMBERS}")
        raise TypeError(f"{name} holds {labels.tolist()[0]!r} at [0]; expected integer labels{_NAMES}")
    host = on_host(labels)
    _check_range(host, classes, name)
    return backend.asarray(label_rows(host, classes, dtype), dtype)
