"""Iterables of minibatches as a source: generators, loaders of other libraries, sets larger than memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnkit.backends.base import Array
from nnkit.inputs import are_labels, check_samples, one_class_each
from nnkit.model import Model
from nnkit.training.minibatches import Known, Minibatch, Source
from nnkit.training.weights import ClassWeight, weights_of


class StreamSource(Source):
    """Minibatches (X, y) or (X, y, sample_weight) of an iterable, or of what a function returns for each pass.

    They are checked as they come. Weights count as they are: let their mean be about 1.
    """

    repeatable = False

    def __init__(self, model: Model, stream: Any, class_weight: ClassWeight, name: str, learns: bool = False) -> None:
        if isinstance(class_weight, str):
            hint = "for minibatches give a dict from classes to weights"
            raise ValueError(f"class_weight={class_weight!r} needs all labels at once; {hint}")
        self.model, self.stream, self.class_weight, self.name, self.learns = model, stream, class_weight, name, learns

    def start(self, order: np.ndarray | None) -> Known:
        return Known()

    def batches(self, size: int) -> Iterator[Minibatch]:
        number, columns = -1, 0
        for number, item in enumerate(self.stream() if callable(self.stream) else self.stream):
            given = _Given(self, item, f"minibatch {number} of {self.name}")
            columns = given.weight_columns if number == 0 else columns
            if given.weight_columns != columns:
                raise ValueError(f"minibatch {number} of {self.name}: give all minibatches a sample_weight, or none")
            yield given
        if number < 0:
            hint = "an iterator can be used once; for several epochs give a function that returns a new one"
            raise ValueError(f"{self.name} gave no minibatches; {hint}")


class _Given(Minibatch):
    """A minibatch as an iterable gave it."""

    def __init__(self, source: StreamSource, item: Any, name: str) -> None:
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise TypeError(f"{name} is a {type(item).__name__}; expected (X, y) or (X, y, sample_weight)")
        model = source.model
        raw = model.checked(item[0], f"X of {name}")
        self._backend, self._x = model.backend, model.preprocessed(raw)
        check_samples(model.backend, raw, self._x, model.preprocessing, f"X of {name}")
        self.samples = self._x.shape[0]
        y = model.answers(item[1], f"y of {name}")
        self.y = model.targets(y, self.samples, f"y of {name}", check=True)
        weight, label = item[2] if len(item) == 3 else None, f"sample_weight of {name}"
        one_label = are_labels(y) or self.y.shape[1] == 1
        self.weights = weights_of(model, self.y, one_label, weight, source.class_weight, label, scaled=False)
        self.metric_weights = self.weights
        if source.class_weight is not None:
            self.metric_weights = weights_of(model, self.y, one_label, weight, None, label, scaled=False)
        self.one_class = one_label or one_class_each(model.backend, self.y, model.cost)
        self.y = model.cost.smoothed(model.backend, self.y)
        if source.learns:
            model.learn_features(item[0])
            model.learn_shape(y)

    def inputs(self, out: Array = None) -> Array:
        return self._x if out is None else self._backend.copy(self._x, out)


def is_stream(X: Any) -> bool:
    """Whether X gives minibatches: an iterable or a function, but no array, list of rows or table.

    >>> is_stream(iter([])), is_stream(lambda: []), is_stream([[1.0]]), is_stream(np.ones((2, 3)))
    (True, True, False, False)
    """
    if hasattr(X, "shape") or hasattr(X, "__array__") or isinstance(X, list | tuple | str | bytes | dict):
        return False
    return callable(X) or hasattr(X, "__iter__")
