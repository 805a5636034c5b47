"""Parameters in one flat vector: all weights first, then all biases, with W and b of each layer as views.

So one kernel updates everything, and weight decay, which spares the biases, is one slice. Each start is a multiple of
64 bytes, for aligned loads and tensor cores; the padding stays zero. The first layer's W, which no product needs as it
is on the way back, lies column by column where the backend's products want it so.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import ITEMSIZE

ALIGNMENT = 64  # bytes


class Parameters:
    """The weights and biases of dense layers, or their gradients.

    Attributes:
        flat: the vector, (size,), with its padding.
        starts: where each W and then each b starts in it.
        weights: the part of `flat` that holds weights; biases: the rest.
        W: per layer a view (d_out, d_in). b: per layer a view (d_out,). The first W may lie column by column: write
            into it as `W[0][...] = values`, since its `reshape(-1)` is a copy then.
    """

    def __init__(self, backend: Backend, shapes: Sequence[tuple[int, int]], dtype: str) -> None:
        self.backend = backend
        self.shapes = list(shapes)
        self.dtype = dtype
        lengths = [d_out * d_in for d_out, d_in in shapes] + [d_out for d_out, _ in shapes]
        starts = _starts(lengths, ALIGNMENT // ITEMSIZE[dtype])
        self.starts, split = starts[:-1], starts[len(shapes)]
        self.flat = backend.zeros((starts[-1],), dtype)
        self.weights, self.biases = self.flat[:split], self.flat[split:]
        views = [self.flat[start : start + length] for start, length in zip(starts, lengths, strict=False)]
        count = len(shapes)
        self.W = [backend.xp.reshape(v, shape) for v, shape in zip(views[:count], shapes, strict=True)]
        self.b = views[count:]
        d_out, d_in = shapes[0]
        self._by_columns = backend.by_columns(d_out, d_in, dtype)
        if self._by_columns:
            self.W[0] = backend.xp.reshape(views[0], (d_in, d_out)).mT

    def assign(self, values: Iterable[tuple[Array, Array]]) -> None:
        """Write (W, b) of each layer, from NumPy or this backend's arrays; ValueError for other shapes."""
        for i, (W, b, pair) in enumerate(zip(self.W, self.b, values, strict=True)):
            for name, view, values_of_layer in zip("Wb", (W, b), pair, strict=True):
                array = self.backend.asarray(values_of_layer, self.dtype)
                if array.shape != view.shape:  # a smaller array would be repeated
                    hint = "; W is (d_out, d_in); is it transposed?" if array.shape == view.shape[::-1] else ""
                    raise ValueError(f"{name} of layer {i} has shape {array.shape}; expected {view.shape}{hint}")
                self.backend.copy(array, view)

    def saved(self, flat: Array) -> np.ndarray:
        """A vector of this arrangement as files have it: on the host, each W row by row."""
        host = np.array(self.backend.to_numpy(flat))
        if self._by_columns:
            d_out, d_in = self.shapes[0]
            first = host[: d_out * d_in]
            first[...] = first.reshape(d_in, d_out).T.reshape(-1)
        return host

    def restored(self, saved: np.ndarray) -> Array:
        """What `saved` gave as a vector of this arrangement, on the device; ValueError for another length."""
        if saved.shape != self.flat.shape:
            raise ValueError(f"shape {saved.shape}; expected {tuple(self.flat.shape)}")
        host = np.array(saved)
        if self._by_columns:
            d_out, d_in = self.shapes[0]
            first = host[: d_out * d_in]
            first[...] = first.reshape(d_out, d_in).T.reshape(-1)
        return self.backend.asarray(host, self.dtype)

    def clear_padding(self) -> None:
        """Make the padding 0 again: a step that left NaN everywhere, as `clip_norm` can, left it there too."""
        lengths = [d_out * d_in for d_out, d_in in self.shapes] + [d_out for d_out, _ in self.shapes]
        for start, length, end in zip(self.starts, lengths, [*self.starts[1:], self.flat.shape[0]], strict=True):
            if start + length < end:
                self.flat[start + length : end] = 0

    @property
    def count(self) -> int:
        """How many numbers these are, padding not counted."""
        return sum(d_out * (d_in + 1) for d_out, d_in in self.shapes)


def _starts(lengths: Sequence[int], step: int) -> list[int]:
    """Where each of these pieces starts, in multiples of `step` entries, and last the whole length."""
    starts = [0]
    for length in lengths:
        starts.append(-(-(starts[-1] + length) // step) * step)
    return starts
