"""Parameters in one flat vector: all weights first, then all biases, with each layer's arrays as views.

A single kernel can then update all parameters, and weight decay, which excludes the biases, applies to one slice. Each
array starts at a multiple of 64 bytes, for aligned loads and tensor cores; the padding is zero. The first layer's W,
which the backward pass does not read, is stored in column-major order if the backend's products prefer that.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import ITEMSIZE

ALIGNMENT = 64  # bytes

Shapes = Mapping[str, tuple[int, ...]]  # of a layer's arrays, by name


def in_one_vector(backend: Backend, layers: Iterable[Iterable[Array]]) -> NDArray[np.float64]:
    """The arrays of all layers, by rows, in one float64 vector on the host."""
    arrays = (backend.to_numpy(array) for layer in layers for array in layer)
    return np.concatenate([np.asarray(array, np.float64).reshape(-1) for array in arrays])


def _check_same(given: object, own: object, where: str) -> None:
    """TypeError for another array in the place of a view: the network would not see it. `view += 1` gives the view."""
    if given is not own:
        raise TypeError(
            f"{where} is part of the parameters, and another array would not be; write into it, with [...] = values"
        )


class _Views(list[Any]):
    """A list of views of the vector, which can be written to and not replaced."""

    def __setitem__(self, index: Any, value: Any) -> None:
        _check_same(value, self[index], f"the entry [{index}]")

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("these are views of the parameters; write into one: W[0][...] = values")

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return _Views, (list(self),)


class _NamedViews(dict[str, Any]):
    """Views of the vector by name, which can be written to and not replaced."""

    def __setitem__(self, name: str, value: Any) -> None:
        _check_same(value, self.get(name, value), f"the entry [{name!r}]")
        super().__setitem__(name, value)  # a copy is filled so

    def update(self, *given: Any, **named: Any) -> None:
        for name, value in dict(*given, **named).items():
            self[name] = value

    def __ior__(self, given: Any) -> Self:  # type: ignore[override,misc]
        self.update(given)
        return self

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("these are views of the parameters; write into one: layers[0]['W'][...] = values")

    pop = popitem = clear = __delitem__ = _refuse


class Parameters:
    """The parameters of a network's layers, or their gradients.

    Arrays of two or more axes are weights, which alone are penalized and decay; vectors are biases.

    Attributes:
        flat: the vector, (size,), including padding.
        message: the vector and, behind it, as many words as its `tail`, which ranks exchange with it.
        starts: the offset of each array in the vector, of all weights and then of all biases.
        weights: the part of `flat` with the weights.
        biases: the rest.
        rates: the factor of the learning rate for each array of each layer, by name; None if all are 1.
        layers: for each layer its arrays by name, views of the vector.
        W: a view (d_out, d_in) per dense layer. The first may be in column-major order: write to it as
            `W[0][...] = values`, since its `reshape(-1)` is a copy then.
        b: a view (d_out,) per dense layer.

        vector: all parameters without padding, in one float64 vector on the host, for minimizers; can be assigned.

    Raises TypeError where another array is to take the place of the vector or of a view.
    """

    def __init__(
        self,
        backend: Backend,
        shapes: Sequence[Shapes],
        dtype: str,
        rates: Sequence[Mapping[str, float]] | None = None,
        tail: int = 0,
        by_columns: bool | None = None,
    ) -> None:
        self.backend, self.shapes, self.dtype, self.rates = backend, list(shapes), dtype, rates
        arranged = [*self.arranged()]
        lengths = [math.prod(shape) for _, _, shape in arranged]
        starts = _starts(lengths, ALIGNMENT // ITEMSIZE[dtype])
        self.starts, split = starts[:-1], starts[sum(len(shape) > 1 for _, _, shape in arranged)]
        ends = [start + length for start, length in zip(starts, lengths, strict=False)]
        self._padding = [slice(*gap) for gap in zip(ends, starts[1:], strict=True) if gap[0] < gap[1]]
        self.message = backend.zeros((starts[-1] + tail,), dtype)
        self.flat = self.message[: starts[-1]]
        self.weights, self.biases = self.flat[:split], self.flat[split:]
        layers: list[dict[str, Array]] = [dict.fromkeys(layer) for layer in shapes]
        for start, length, (i, name, shape) in zip(self.starts, lengths, arranged, strict=True):
            view = self.flat[start : start + length]
            layers[i][name] = view if len(shape) == 1 else backend.xp.reshape(view, shape)
        self._by_columns = False
        if {*shapes[0]} == {"W", "b"} and len(shapes[0]["W"]) == 2:  # of a dense layer
            d_out, d_in = shapes[0]["W"]
            self._by_columns = backend.by_columns(d_out, d_in, dtype) if by_columns is None else by_columns
        if self._by_columns:
            layers[0]["W"] = backend.xp.reshape(self.flat[: d_out * d_in], (d_in, d_out)).mT
        self.layers: Sequence[dict[str, Array]] = _Views(map(_NamedViews, layers))
        self.W, self.b = (_Views(layer[name] for layer in layers if {"W", "b"} <= {*layer}) for name in "Wb")

    def like(self, tail: int = 0) -> "Parameters":
        """Zeros with this layout."""
        return Parameters(self.backend, self.shapes, self.dtype, tail=tail, by_columns=self._by_columns)

    def with_rates(self, rates: Sequence[Mapping[str, float]] | None) -> "Parameters":
        """The same arrays with other factors of the learning rate."""
        made = object.__new__(Parameters)
        vars(made).update(vars(self) | {"rates": rates})
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name in vars(self):
            _check_same(value, vars(self)[name], name)
        object.__setattr__(self, name, value)

    def arranged(self) -> Iterator[tuple[int, str, tuple[int, ...]]]:
        """The layer, name and shape of each array, in the order of the vector."""
        for biases in (False, True):
            for i, layer in enumerate(self.shapes):
                yield from ((i, name, shape) for name, shape in layer.items() if (len(shape) == 1) == biases)

    def assign(self, values: Iterable[Sequence[Array]]) -> None:
        """Set the arrays of each layer, (W, b) of a dense one; ValueError for other shapes, before any is set."""
        pairs = []
        for i, (layer, given) in enumerate(zip(self.layers, values, strict=True)):
            for (name, view), values_of_one in zip(layer.items(), given, strict=True):
                array = self.backend.asarray(values_of_one, self.dtype)
                if array.shape != view.shape:  # a smaller array would be broadcast
                    transposed = name == "W" and array.shape == view.shape[::-1]
                    hint = "; W is (d_out, d_in); is it transposed?" if transposed else ""
                    raise ValueError(f"{name} of layer {i} has shape {array.shape}; expected {view.shape}{hint}")
                pairs.append((array, view))
        for array, view in pairs:
            self.backend.copy(array, view)

    @property
    def order(self) -> str:
        """The order of the first W in memory, which depends on sizes, dtype and backend; with numba, on the CPU too."""
        return "by columns" if self._by_columns else "by rows"

    def saved(self, flat: Array) -> np.ndarray:
        """Convert a vector with this layout to the layout of files: on the host, each W in row-major order."""
        host = np.array(self.backend.to_numpy(flat))
        if self._by_columns:
            d_out, d_in = self.shapes[0]["W"]
            first = host[: d_out * d_in]
            first[...] = first.reshape(d_in, d_out).T.reshape(-1)
        return host

    def restored(self, saved: np.ndarray, dtype: str | None = None) -> Array:
        """Convert a result of `saved` back to this layout, on the device; raises ValueError for another length.

        `dtype` is that of the parameters by default.
        """
        if saved.shape != self.flat.shape:
            raise ValueError(f"shape {saved.shape}; expected {tuple(self.flat.shape)}")
        host = np.array(saved)
        if self._by_columns:
            d_out, d_in = self.shapes[0]["W"]
            first = host[: d_out * d_in]
            first[...] = first.reshape(d_out, d_in).T.reshape(-1)
        return self.backend.asarray(host, dtype or self.dtype)

    @property
    def vector(self) -> NDArray[np.float64]:
        """All parameters in one float64 vector on the host: for each layer W by rows, then b. It can be assigned.

        It is a copy: an assignment to its entries, unlike one to `flat`, does not change the parameters.
        """
        return in_one_vector(self.backend, (layer.values() for layer in self.layers))

    @vector.setter
    def vector(self, values: ArrayLike) -> None:
        given = np.asarray(values, np.float64)
        if given.shape != (self.count,):
            raise ValueError(f"vector has shape {given.shape}; expected ({self.count},)")
        start, pairs = 0, []
        for layer, shapes in zip(self.layers, self.shapes, strict=True):
            for name, shape in shapes.items():
                stop = start + math.prod(shape)
                pairs.append((self.backend.asarray(given[start:stop].reshape(shape), self.dtype), layer[name]))
                start = stop
        for array, view in pairs:
            self.backend.copy(array, view)

    def clear_padding(self) -> None:
        """Reset the padding to 0: a step that writes NaN everywhere, as with `clip_norm`, writes it there, too."""
        for padding in self._padding:
            self.flat[padding] = 0

    @property
    def count(self) -> int:
        """The number of parameters, without padding."""
        return sum(math.prod(shape) for _, _, shape in self.arranged())


def _starts(lengths: Sequence[int], step: int) -> list[int]:
    """The offset of each piece, a multiple of `step` entries, followed by the total length."""
    starts = [0]
    for length in lengths:
        starts.append(-(-(starts[-1] + length) // step) * step)
    return starts
