"""Sources of an epoch's minibatches: arrays on the device and arrays that stay on the host.

Arrays are copied to the device once; images of bytes are converted there per minibatch. Arrays on disk
(`numpy.memmap`, `nnkit.data.open_npy`, HDF5) or too large for the device stay where they are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from copy import copy
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from nnkit.backends.base import Array
from nnkit.inputs import are_labels, one_class_each
from nnkit.kernels.arithmetic import product
from nnkit.model import Model
from nnkit.parallel.division import Division, Part, Team, part
from nnkit.preprocessing import precision
from nnkit.step import Step
from nnkit.training.exact import Exact, exact_of
from nnkit.training.weights import ClassWeight, weights_of, without_masked


class Minibatch(ABC):
    """A minibatch of samples.

    Attributes:
        samples: their number. y: their targets, (samples, d_out).
        weights: weights in the cost, with mean 1 over all samples: None, (samples, 1), or (samples, d_out) per output.
        metric_weights: weights in accuracy, without class weights: None or (samples, 1).
        exact: targets and weights for metrics.
        one_class: whether each sample has one class, so that the prediction is the largest output.
        part: where the samples are in a minibatch that several shares divide; None if they are all of it.
    """

    part: Part | None = None
    samples: int
    y: Array
    weights: Array | None
    metric_weights: Array | None = None
    exact: Exact = Exact()
    one_class: bool = True

    @abstractmethod
    def inputs(self, out: Array = None) -> Array:
        """The inputs of the first layer, (samples, d_in); in `out` if it is given."""

    @property
    def weight_columns(self) -> int:
        """How many weights a sample has."""
        return 0 if self.weights is None else int(self.weights.shape[1])

    def write(self, step: Step) -> None:
        """Copy these samples to a step, and their scale if they have weights."""
        backend = step.backend
        self.inputs(step.x)
        backend.copy(self.y, step.y)
        if self.weights is not None:
            backend.elementwise(product, (self.weights, step.share), out=step.scale)


class Known(NamedTuple):
    """The attributes of a `Minibatch` for all samples, if known when a pass begins; None otherwise.

    `exact` are in the order of the data; `order` is that of the pass.
    """

    y: Array = None
    weights: Array | None = None
    metric_weights: Array | None = None
    one_class: bool | None = None
    exact: Exact = Exact()
    order: np.ndarray | None = None


class Source(ABC):
    """Checked samples with their targets and weights, for one network.

    Attributes:
        samples: their number; None if it is known only at the end of a pass.
        repeatable: whether a pass can be repeated.
        prints: fingerprints of samples, targets and weights, by name, if requested.
    """

    samples: int | None = None
    repeatable = True
    prints: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def start(self, order: np.ndarray | None) -> Known:
        """Begin a pass in an order of the samples (None: as given); returns the known targets and weights in it."""

    @abstractmethod
    def batches(self, size: int) -> Iterator[Minibatch]:
        """The minibatches of the pass."""

    @abstractmethod
    def evaluated_by(self, team: Team) -> "list[Source]":
        """A source for each of this rank's shares of all samples."""


class ArraySource(Source):
    """Inputs of the first layer on the device, (n, d_in), with targets (n, d_out) and weights."""

    on_device = True
    division: Division | None = None  # of the minibatches, if this is one share of them

    def __init__(self, model: Model, X: Any, given: Known, first: int = 0) -> None:
        self.model, self.backend, self.X, self.given = model, model.backend, X, given
        self.samples: int = given.y.shape[0]
        self.order: Any = None
        self.in_order = given
        self.first = first  # the row of the first sample in X

    def divided(self, batch_size: int, team: Team) -> "list[ArraySource]":
        """A source for each of this rank's shares of the minibatches."""
        if team.alone:
            return [self]
        shares = []
        for number in team.mine:
            share = copy(self)
            share.division = Division(self.samples, batch_size, number, team.divisor)
            share.samples = share.division.samples
            shares.append(share)
        return shares

    def evaluated_by(self, team: Team) -> "list[Source]":
        if team.alone:
            return [self]
        parts = [part(self.samples, number, team.divisor) for number in team.mine]
        return [self._rows(each.first, each.first + each.samples) for each in parts]

    def _rows(self, start: int, stop: int) -> Source:
        columns = (None if a is None else a[start:stop, ...] for a in self.given[:3])
        exact = self.given.exact.rows(slice(start, stop))
        y, weights, others = columns
        given = self.given._replace(y=y, weights=weights, metric_weights=others, exact=exact)
        return type(self)(self.model, self.X, given, self.first + start)

    @property
    def weight_columns(self) -> int:
        """How many weights a sample has."""
        return 0 if self.given.weights is None else int(self.given.weights.shape[1])

    def start(self, order: np.ndarray | None) -> Known:
        if self.division is not None:
            order = self.division.own(order)
        if order is None:
            self.order, self.in_order = None, self.given
            return self.given
        backend, indices, arrays = self.backend, self.backend.asarray(order), self.given[:3]
        if self.order is None:  # these arrays stay: recorded minibatches read them
            self.order = backend.empty(order.shape, indices.dtype)
            y, weights, others = (
                None if a is None else backend.empty((*order.shape, *a.shape[1:]), a.dtype) for a in arrays
            )
            others = weights if self.given.metric_weights is self.given.weights else others
            self.in_order = self.given._replace(y=y, weights=weights, metric_weights=others)
        backend.copy(indices, self.order)
        for array, out in zip(arrays, self.in_order, strict=False):
            if array is not None:
                backend.take(array, self.order, out=out)
        return self.in_order._replace(order=order)

    def gather(self, start: Array, step: Step) -> None:
        """Copy the samples from place `start` in the order, 0-d int64, to a step; to be recorded."""
        self.backend.take_at(self.in_order.y, start, step.y)
        self.gather_inputs(start, step)
        if self.given.weights is not None:
            weights = self.backend.empty(step.scale.shape, self.model.dtype)
            self.backend.take_at(self.in_order.weights, start, weights)
            self.backend.elementwise(product, (weights, step.share), out=step.scale)

    def gather_inputs(self, start: Array, step: Step) -> None:
        """The part of `gather` for the inputs."""
        self.backend.take_at(self.X, start, step.x, self.order)

    def batches(self, size: int) -> Iterator[Minibatch]:
        if self.division is None:
            for start in range(0, self.samples, size):
                yield _Slice(self, start, min(start + size, self.samples))
            return
        start = 0
        for own in self.division.parts():
            yield _Slice(self, start, start + own.samples, own)
            start += own.samples

    def inputs(self, start: int, stop: int, out: Array) -> Array:
        """The inputs of the first layer at these places in the order."""
        if self.order is None:
            rows = self.X[self.first + start : self.first + stop, ...]
            return rows if out is None else self.backend.copy(rows, out)
        return self.backend.take(self.X, self.order[start:stop], out=out)


class BytesSource(ArraySource):
    """Samples (n, width) of single bytes on the device, converted and preprocessed for each minibatch."""

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
    """Samples (n, width) that are read for each minibatch, by increasing row numbers."""

    on_device = False

    def start(self, order: np.ndarray | None) -> Known:
        known = super().start(order)
        self._order = known.order  # on the host, which reads the rows
        return known

    def inputs(self, start: int, stop: int, out: Array) -> Array:
        start, stop = self.first + start, self.first + stop
        rows = self.X[start:stop] if self._order is None else _rows_at(self.X, self._order[start:stop])
        return self.model.preprocessed(np.asarray(rows), out)


class _Slice(Minibatch):
    """The samples of an array source at some places in its order."""

    __slots__ = ("part", "samples", "source", "start", "weights", "y")

    def __init__(self, source: ArraySource, start: int, stop: int, own: Part | None = None) -> None:
        self.source, self.start, self.samples, self.part = source, start, stop - start, own
        y, weights, *_ = source.in_order
        self.y = y[start:stop, ...]
        self.weights = None if weights is None else weights[start:stop, ...]

    def inputs(self, out: Array = None) -> Array:
        return self.source.inputs(self.start, self.start + self.samples, out)


def known_of(
    model: Model,
    y: Any,
    n: int,
    sample_weight: Any,
    class_weight: ClassWeight,
    called: str,
    scaled: bool = True,
    check: bool = True,
) -> tuple[Array, Known]:
    """The targets of n samples, checked, and what a source knows of them; errors call an argument `called`."""
    y = model.answers(y, called.format("y"))
    targets, name = model.targets(y, n, called.format("y"), check=check), called.format("sample_weight")
    one_label = are_labels(y) or targets.shape[1] == 1
    weights = for_metrics = None
    if sample_weight is not None or class_weight is not None:
        weights = for_metrics = weights_of(model, targets, one_label, sample_weight, class_weight, name, scaled)
    if class_weight is not None:
        for_metrics = weights_of(model, targets, one_label, sample_weight, None, name, scaled)
    one_class = one_label or one_class_each(model.backend, targets, model.cost, for_metrics)
    exact = exact_of(model.dtype, model.cost, model.d_out, y, sample_weight)
    of_cost = without_masked(model, targets, exact.weights)
    if of_cost is not targets and exact.y is None:  # metrics get the targets as they are
        exact = Exact(np.array(model.backend.to_numpy(targets), np.float64), exact.weights)
    return targets, Known(model.cost.smoothed(model.backend, of_cost), weights, for_metrics, one_class, exact)


def _rows_at(X: Any, indices: np.ndarray) -> np.ndarray:
    """The rows at these indices, read in increasing order and once each, as files require."""
    increasing, where = np.unique(indices, return_inverse=True)
    rows: np.ndarray = np.asarray(X[increasing])
    return rows[where]
