"""From a user's data, arrays or iterables of minibatches, to sources, and to the names that a network learns.

Iterables are generators, data loaders of other libraries, data sets larger than memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np

from nnkit.backends import get_backend
from nnkit.backends.base import Array
from nnkit.backends.dtypes import dtype_name
from nnkit.classes import names_in
from nnkit.inputs import check_samples, on_disk
from nnkit.model import Model
from nnkit.parallel.division import ONE, Team, part
from nnkit.preprocessing import is_custom, preprocessed
from nnkit.training.divergence import DivergenceError
from nnkit.training.fingerprints import of_array
from nnkit.training.sources import ArraySource, BytesSource, HostSource, Known, Minibatch, Source, known_of
from nnkit.training.weights import ClassWeight

_BYTES = ("uint8", "int8", "bool")
_CHUNK = 4096  # rows on the host checked together


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
    team: Team = ONE,
) -> Source:
    """The source for a user's data, called `which` in errors; with `check`, every number is checked.

    Of a `team`, each rank checks its own part of the rows on the host.
    With `learns`, the network learns feature names and the shape of targets from an iterable's minibatches; with
    `prints`, the source has fingerprints of the data. Raises ValueError and TypeError for data unfit for the network.
    """
    if is_stream(X):
        if y is not None or sample_weight is not None:
            raise TypeError(f"{which}X yields minibatches, which must contain y and sample_weight, as (X, y, weight)")
        stream = StreamSource(model, X, class_weight, f"{which}X", learns)
        stream.prints = {f"{which}X": "minibatches"}
        return stream
    if y is None:
        hint = ", and a list of them is given as lambda: iter(minibatches)" if isinstance(X, list | tuple) else ""
        raise TypeError(f"{which}y is missing; only an iterable of minibatches (X, y) needs none{hint}")
    raw = model.checked(X, f"{which}X")
    targets, known = known_of(model, y, raw.shape[0], sample_weight, class_weight, f"{which}{{}}", check=check)
    given = {"X": raw, "y": targets, "sample_weight": None if sample_weight is None else known.weights}
    source = ArraySource
    if _stays_on_host(model, raw):
        samples, source = raw, HostSource
        if check:
            _check_rows(model, raw, f"{which}X", team.own_rows(raw.shape[0]))
    elif dtype_name(raw.dtype) in _BYTES and not (model.preprocessing is not None and is_custom(model.preprocessing)):
        samples, source = model.backend.asarray(raw), BytesSource
    else:
        samples = model.preprocessed(raw)
        if check:
            check_samples(model.backend, raw, samples, model.preprocessing, f"{which}X")
    made = source(model, samples, known)
    if prints:
        made.prints = {f"{which}{name}": of_array(model.backend, array) for name, array in given.items()}
    return made


def is_stream(X: Any) -> bool:
    """Whether X yields minibatches: an iterable or a function, but not an array, list of rows or table.

    >>> is_stream(iter([])), is_stream(lambda: []), is_stream([[1.0]]), is_stream(np.ones((2, 3)))
    (True, True, False, False)
    """
    if hasattr(X, "shape") or hasattr(X, "__array__") or isinstance(X, list | tuple | str | bytes | dict):
        return False
    return callable(X) or hasattr(X, "__iter__")


def _stays_on_host(model: Model, X: Any) -> bool:
    return on_disk(X) or (
        isinstance(X, np.ndarray) and not model.backend.has_room(X.size * np.dtype(model.dtype).itemsize)
    )


def _check_rows(model: Model, X: Any, name: str, own: range) -> None:
    """ValueError that names the first of these rows with NaN or infinities; checks some thousand rows at a time."""
    host = get_backend("numpy")
    for start in range(own.start, own.stop, _CHUNK):
        rows = np.asarray(X[start : min(start + _CHUNK, own.stop)])
        on_host = preprocessed(host, model.dtype, model.preprocessing, rows)
        check_samples(host, rows, on_host, model.preprocessing, name, start)


@contextmanager
def learned_names(model: Model, X: Any, y: Any) -> Iterator[None]:
    """Let a network learn feature and class names, if unset, and the shape of targets.

    They, the optimizer and its state are restored if an argument is invalid or training ends by an exception in its
    first epoch; a divergence keeps the steps before it.
    """
    names = ("features", "classes", "target_names", "vector_targets", "optimizer", "state")
    before = [getattr(model, name) for name in names]
    place, trained = model.placement, model.epochs_trained
    try:
        model.learn(X, y)
        if y is not None:
            labels = model.answers(y)
            # Trained outputs have the labels 0 to k − 1, which names would change.
            trains_first = model.epochs_trained == 0 and model.state is None  # nor by train_step
            if model.classifies and model.classes is None and trains_first:
                model.classes = names_in(labels, model.d_out)
        yield
    except BaseException as error:
        resumed = model.placement is not place
        if model.epochs_trained == trained and not resumed and not isinstance(error, DivergenceError):
            for name, value in zip(names, before, strict=True):
                if getattr(model, name) is not value:  # setting can be refused, in a fit nested in an epoch
                    setattr(model, name, value)
        raise


def validation_source(model: Model, data: Any, prints: bool, team: Team = ONE) -> Source | None:
    """The source of `validation_data`, if given."""
    if data is None:
        return None
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        X, y, weight = (*data, None)[:3]
        return source_of(model, X, y, weight, which="validation ", prints=prints, team=team)
    if not is_stream(data):
        kind = type(data).__name__
        raise TypeError(f"validation_data is a {kind}; expected (X, y), (X, y, sample_weight) or an iterable of them")
    return source_of(model, data, None, which="validation ")


def rounds(sources: Sequence[Source], team: Team, size: int) -> Iterator[Sequence[Minibatch]]:
    """The minibatches of a pass, as this rank's shares of each; a stream, the only source, is divided as it is read."""
    if isinstance(sources[0], StreamSource):
        for batch in sources[0].batches(size):
            yield [batch] if team.own_streams or team.alone else [batch.shared(n, team.divisor) for n in team.mine]
    else:
        yield from zip(*(source.batches(size) for source in sources), strict=True)


class StreamSource(Source):
    """Minibatches (X, y) or (X, y, sample_weight) of an iterable, or of one that a function returns for each pass.

    Each is checked when it arrives. Weights are not normalized: their mean should be about 1.
    """

    repeatable = False

    def __init__(self, model: Model, stream: Any, class_weight: ClassWeight, name: str, learns: bool = False) -> None:
        if isinstance(class_weight, str):
            hint = "for minibatches give a dict from classes to weights"
            raise ValueError(f"class_weight={class_weight!r} needs all labels at once; {hint}")
        self.model, self.stream, self.class_weight, self.name, self.learns = model, stream, class_weight, name, learns

    def start(self, order: np.ndarray | None) -> Known:
        return Known()

    def evaluated_by(self, team: Team) -> list[Source]:
        return [self]

    def batches(self, size: int) -> Iterator["Given"]:
        number, weighted = -1, False
        for number, item in enumerate(self.stream() if callable(self.stream) else self.stream):
            given = Given(self, item, f"minibatch {number} of {self.name}")
            weighted = given.weighted if number == 0 else weighted
            if given.weighted != weighted:
                raise ValueError(f"minibatch {number} of {self.name}: give all minibatches a sample_weight, or none")
            yield given
        if number < 0:
            hint = "an iterator can be used once; for several epochs give a function that returns a new one"
            raise ValueError(f"{self.name} yielded no minibatches; {hint}")


class Given(Minibatch):
    """A minibatch from an iterable."""

    def __init__(self, source: StreamSource, item: Any, name: str) -> None:
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise TypeError(f"{name} is a {type(item).__name__}; expected (X, y) or (X, y, sample_weight)")
        model = source.model
        raw = model.checked(item[0], f"X of {name}")
        self._backend, self._x = model.backend, model.preprocessed(raw)
        check_samples(model.backend, raw, self._x, model.preprocessing, f"X of {name}")
        self.samples, weight = self._x.shape[0], item[2] if len(item) == 3 else None
        known = known_of(model, item[1], self.samples, weight, source.class_weight, f"{{}} of {name}", scaled=False)[1]
        self.y, self.weights, self.metric_weights, _, self.exact, _ = known
        self.one_class = bool(known.one_class)
        self.weighted = weight is not None
        if source.learns:
            model.learn(item[0], item[1])

    def inputs(self, out: Array = None) -> Array:
        return self._x if out is None else self._backend.copy(self._x, out)

    def shared(self, number: int, count: int) -> "Given":
        """Share `number` of `count` of these samples."""
        share, own = copy(self), part(self.samples, number, count)
        rows = slice(own.first, own.first + own.samples)
        share.samples, share.part, share._x, share.y = own.samples, own, self._x[rows, ...], self.y[rows, ...]
        arrays = (self.weights, self.metric_weights)
        share.weights, share.metric_weights = (None if a is None else a[rows, ...] for a in arrays)
        share.exact = self.exact.rows(rows)
        return share
