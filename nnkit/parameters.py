"""Parameters in one flat vector: all weights first, then all biases, with W and b of each layer as views.

A single kernel can then update all parameters, and weight decay, which excludes the biases, applies to one slice. Each
array starts at a multiple of 64 bytes, for aligned loads and tensor cores; the padding is zero. The first layer's W,
which the backward pass does not read, is stored in column-major order if the backend's products prefer that.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import ITEMSIZE

ALIGNMENT = 64  # bytes


class Parameters:
    """The weights and biases of dense layers, or their gradients.

    Attributes:
        flat: the vector, (size,), including padding.
        starts: the offset of each W, then of each b, in the vector.
        weights: the part of `flat` with the weights. biases: the rest.
        W: a view (d_out, d_in) per layer. b: a view (d_out,) per layer. The first W may be in column-major order: write
            to it as `W[0][...] = values`, since its `reshape(-1)` is a copy then.
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
        """Set (W, b) of each layer from arrays of NumPy or this backend; raises ValueError for other shapes."""
        for i, (W, b, pair) in enumerate(zip(self.W, self.b, values, strict=True)):
            for name, view, values_of_layer in zip("Wb", (W, b), pair, strict=True):
                array = self.backend.asarray(values_of_layer, self.dtype)
                if array.shape != view.shape:  # a smaller array would be broadcast
                    hint = "; W is (d_out, d_in); is it transposed?" if array.shape == view.shape[::-1] else ""
                    raise ValueError(f"{name} of layer {i} has shape {array.shape}; expected {view.shape}{hint}")
                self.backend.copy(array, view)

    def saved(self, flat: Array) -> np.ndarray:
        """Convert a vector with this layout to the layout of files: on the host, each W in row-major order."""
        host = np.array(self.backend.to_numpy(flat))
        if self._by_columns:
            d_out, d_in = self.shapes[0]
            first = host[: d_out * d_in]
            first[...] = first.reshape(d_in, d_out).T.reshape(-1)
        return host

    def restored(self, saved: np.ndarray) -> Array:
        """Convert a result of `saved` back to this layout, on the device; raises ValueError for another length."""
        if saved.shape != self.flat.shape:
            raise ValueError(f"shape {saved.shape}; expected {tuple(self.flat.shape)}")
        host = np.array(saved)
        if self._by_columns:
            d_out, d_in = self.shapes[0]
            first = host[: d_out * d_in]
            first[...] = first.reshape(d_out, d_in).T.reshape(-1)
        return self.backend.asarray(host, self.dtype)

    def clear_padding(self) -> None:
        """Reset the padding to 0: a step that writes NaN everywhere, as with `clip_norm`, writes it there, too."""
        lengths = [d_out * d_in for d_out, d_in in self.shapes] + [d_out for d_out, _ in self.shapes]
        for start, length, end in zip(self.starts, lengths, [*self.starts[1:], self.flat.shape[0]], strict=True):
            if start + length < end:
                self.flat[start + length : end] = 0

    @property
    def count(self) -> int:
        """The number of parameters, without padding."""
        return sum(d_out * (d_in + 1) for d_out, d_in in self.shapes)


def _starts(lengths: Sequence[int], step: int) -> list[int]:
    """The offset of each piece, a multiple of `step` entries, followed by the total length."""
    starts = [0]
    for length in lengths:
        starts.append(-(-(starts[-1] + length) // step) * step)
    return starts
