"""Samples in arrays as a source of minibatches: on the device, or left on the host and read when they are needed.

Arrays go to the device once; images of bytes stay bytes there until they are gathered into a minibatch. What is on a
disk (`numpy.memmap`, `nnkit.data.open_npy`, HDF5) or does not fit stays where it is.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnkit.backends import get_backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import dtype_name
from nnkit.inputs import are_labels, check_samples, on_disk, one_class_each
from nnkit.kernels.softmax import product
from nnkit.model import Model
from nnkit.preprocessing import precision, preprocessed
from nnkit.step import Step
from nnkit.training.fingerprints import of_array
from nnkit.training.minibatches import Known, Minibatch, Source
from nnkit.training.streams import StreamSource, is_stream
from nnkit.training.weights import ClassWeight, weights_of

_BYTES = ("uint8", "int8", "bool")
_CHUNK = 4096  # rows of the host looked at together


class ArraySource(Source):
    """Numbers on the device, (n, d_in) as the first layer gets them, with targets (n, d_out) and weights."""

    on_device = True

    def __init__(
        self,
        model: Model,
        X: Any,
        y: Array,
        weights: Array | None,
        metric_weights: Array | None = None,
        one_class: bool = True,
    ) -> None:
        self.model, self.backend = model, model.backend
        self.X, self.y, self.weights, self.metric_weights, self.one_class = X, y, weights, metric_weights, one_class
        self.samples: int = y.shape[0]
        self.order: Any = None
        self.y_in_order, self.weights_in_order, self._metric_weights_in_order = y, weights, metric_weights

    @property
    def weight_columns(self) -> int:
        """How many weights a sample has."""
        return 0 if self.weights is None else int(self.weights.shape[1])

    def start(self, order: np.ndarray | None) -> Known:
        if order is None:
            self.order, self.y_in_order, self.weights_in_order = None, self.y, self.weights
            return Known(self.y, self.weights, self.metric_weights, self.one_class)
        backend, indices = self.backend, self.backend.asarray(order)
        if self.order is None:  # these arrays stay: recorded minibatches read them
            self.order = backend.empty(order.shape, indices.dtype)
            self.y_in_order = backend.empty(self.y.shape, self.y.dtype)
            if self.weights is not None:
                self.weights_in_order = backend.empty(self.weights.shape, self.weights.dtype)
            self._metric_weights_in_order = self.weights_in_order
            if self.metric_weights is not self.weights and self.metric_weights is not None:
                self._metric_weights_in_order = backend.empty(self.metric_weights.shape, self.metric_weights.dtype)
        backend.copy(indices, self.order)
        backend.take(self.y, self.order, out=self.y_in_order)
        if self.weights is not None:
            backend.take(self.weights, self.order, out=self.weights_in_order)
        metric_weights = None if self.metric_weights is None else self._metric_weights_in_order
        if metric_weights is not None and self.metric_weights is not self.weights:
            backend.take(self.metric_weights, self.order, out=metric_weights)
        return Known(self.y_in_order, self.weights_in_order, metric_weights, self.one_class)

    def gather(self, start: Array, step: Step) -> None:
        """Give a step the samples from place `start` of the order on, 0-d int64; to be recorded."""
        self.gather_inputs(start, step)
        self.backend.take_at(self.y_in_order, start, step.y)
        if self.weights is not None:
            weights = self.backend.empty(step.scale.shape, self.model.dtype)
            share = self.backend.asarray(1 / step.x.shape[0], self.model.dtype)
            self.backend.take_at(self.weights_in_order, start, weights)
            self.backend.elementwise(product, (weights, share), out=step.scale)

    def gather_inputs(self, start: Array, step: Step) -> None:
        """The part of `gather` that brings the inputs."""
        self.backend.take_at(self.X, start, step.x, self.order)

    def batches(self, size: int) -> Iterator[Minibatch]:
        for start in range(0, self.samples, size):
            yield _Slice(self, start, min(start + size, self.samples))

    def inputs(self, start: int, stop: int, out: Array) -> Array:
        """The samples at these places of the order, as the first layer gets them."""
        if self.order is None:
            rows = self.X[start:stop, ...]
            return rows if out is None else self.backend.copy(rows, out)
        return self.backend.take(self.X, self.order[start:stop], out=out)


class BytesSource(ArraySource):
    """Samples (n, width) of single bytes on the device, made numbers and preprocessed for each minibatch."""

    def gather_inputs(self, start: Array, step: Step) -> None:
        numbers, preprocessing = step.x, self.model.preprocessing
        if preprocessing is not None:
            wide = precision(preprocessing, "uint8", self.model.dtype)
            numbers = self.backend.empty((step.x.shape[0], self.model.width), wide)
        self.backend.take_at(self.X, start, numbers, self.order)
        if preprocessing is not None:
            preprocessing.apply(self.backend, numbers, step.x)

    def inputs(self, start: int, stop: int, out: Array) -> Array:
        return self.model.preprocessed(super().inputs(start, stop, None), out)


class HostSource(ArraySource):
    """Samples (n, width) that are read, by increasing row numbers, when a minibatch needs them."""

    on_device = False

    def start(self, order: np.ndarray | None) -> Known:
        self._rows = order  # reading is the host's work
        return super().start(order)

    def inputs(self, start: int, stop: int, out: Array) -> Array:
        rows = self.X[start:stop] if self._rows is None else _rows_at(self.X, self._rows[start:stop])
        return self.model.preprocessed(np.asarray(rows), out)


class _Slice(Minibatch):
    """The samples of an array source at some places of its order."""

    __slots__ = ("samples", "source", "start", "weights", "y")

    def __init__(self, source: ArraySource, start: int, stop: int) -> None:
        self.source, self.start, self.samples = source, start, stop - start
        self.y = source.y_in_order[start:stop, ...]
        weights = source.weights_in_order
        self.weights = None if weights is None else weights[start:stop, ...]

    def inputs(self, out: Array = None) -> Array:
        return self.source.inputs(self.start, self.start + self.samples, out)


def source_of(
    model: Model,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    class_weight: ClassWeight = None,
    which: str = "",
    check: bool = True,
    learns: bool = False,
    prints: bool = False,
) -> Source:
    """The source for data as users have them, called `which` in errors; with `check` every number is looked at.

    With `learns` the network learns the names of features and the shape of targets from an iterable's minibatches; with
    `prints` the source has fingerprints of the data.
    Raises ValueError and TypeError for data that do not fit the network.
    """
    if is_stream(X):
        if y is not None or sample_weight is not None:
            raise TypeError(f"{which}X gives minibatches; their y and sample_weight come with them, as (X, y, weight)")
        stream = StreamSource(model, X, class_weight, f"{which}X", learns)
        stream.prints = {f"{which}X": "minibatches"}
        return stream
    if y is None:
        raise TypeError(f"{which}y is missing; only an iterable of minibatches (X, y) goes without")
    raw = model.checked(X, f"{which}X")
    y = model.answers(y, f"{which}y")
    targets = model.targets(y, raw.shape[0], f"{which}y", check=check)
    one_label = are_labels(y) or targets.shape[1] == 1
    weights = weights_of(model, targets, one_label, sample_weight, class_weight, f"{which}sample_weight")
    for_metrics = weights
    if class_weight is not None:
        for_metrics = weights_of(model, targets, one_label, sample_weight, None, f"{which}sample_weight")
    one_class = one_label or one_class_each(model.backend, targets, model.cost)
    given = {"X": raw, "y": targets, "sample_weight": None if sample_weight is None else weights}
    targets, source = model.cost.smoothed(model.backend, targets), ArraySource
    if _stays_on_host(model, raw):
        samples, source = raw, HostSource
        if check:
            _check_rows(model, raw, f"{which}X")
    elif dtype_name(raw.dtype) in _BYTES:
        samples, source = model.backend.asarray(raw), BytesSource
    else:
        samples = model.preprocessed(raw)
        if check:
            check_samples(model.backend, raw, samples, model.preprocessing, f"{which}X")
    made = source(model, samples, targets, weights, for_metrics, one_class)
    if prints:
        made.prints = {f"{which}{name}": of_array(model.backend, array) for name, array in given.items()}
    return made


def _stays_on_host(model: Model, X: Any) -> bool:
    return on_disk(X) or (
        isinstance(X, np.ndarray) and not model.backend.has_room(X.size * np.dtype(model.dtype).itemsize)
    )


def _check_rows(model: Model, X: Any, name: str) -> None:
    """ValueError, naming the first one, for rows that are not finite; some thousand rows at a time."""
    host = get_backend("numpy")
    for start in range(0, X.shape[0], _CHUNK):
        rows = np.asarray(X[start : start + _CHUNK])
        on_host = preprocessed(host, model.dtype, model.preprocessing, rows)
        check_samples(host, rows, on_host, model.preprocessing, name, start)


def _rows_at(X: Any, indices: np.ndarray) -> np.ndarray:
    """The rows at these places, read in increasing order and once each, as files want it."""
    increasing, where = np.unique(indices, return_inverse=True)
    rows: np.ndarray = np.asarray(X[increasing])
    return rows[where]
