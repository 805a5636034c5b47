"""The layers of several networks side by side: K members of d units are a layer of K · d units, member by member.

The first layer of members that share their minibatches is one product with all weights, side by side. All others are
block-diagonal: a batched product. What stays is that of a wide network: biases, activations, sums over samples, the
update of one flat vector.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnkit.backends.base import Array, Backend
from nnkit.backends.formula import compose
from nnkit.kernels import dropout as kernels
from nnkit.kernels.activations import get_activation
from nnkit.kernels.cost import OutputPair
from nnkit.kernels.dense import biased
from nnkit.layers import Arrays, Dense, Layer
from nnkit.placement import DropoutState


def members_first(backend: Backend, a: Array, count: int) -> Array:
    """Arrays (n, count · d) of a stack as a view (count, n, d)."""
    return backend.xp.moveaxis(backend.xp.reshape(a, (a.shape[0], count, a.shape[1] // count)), 1, 0)


def by_member(backend: Backend, array: Array, count: int) -> Array:
    """Parameters (count · units, ...) of a stack as a view (count, units, ...); in row- or column-major order."""
    xp, units = backend.xp, array.shape[0] // count
    if array.ndim == 2 and isinstance(array, np.ndarray) and not array.flags.c_contiguous:
        return xp.moveaxis(xp.reshape(array.mT, (array.shape[1], count, units)), 0, 2)
    return xp.reshape(array, (count, units, *array.shape[1:]))


class Blocks(Layer):
    """A dense layer of `count` members: W (count · units, inputs) of member k in rows k · units and following.

    Inputs are those of each member, (n, count · inputs), or the same for all, (n, inputs).
    """

    def __init__(self, count: int, layer: Dense, activation: str | None = None) -> None:
        self.count, self.inputs, self.units = count, layer.inputs, layer.units
        self.activation, self._rates = str(layer.activation) if activation is None else activation, layer.rates

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"W": (self.count * self.units, self.inputs), "b": (self.count * self.units,)}

    @property
    def rates(self) -> Mapping[str, float]:
        return self._rates

    def start(self, rng: np.random.Generator) -> Mapping[str, Any]:
        raise NotImplementedError  # the members have their values

    def forward(self, backend: Backend, x: Array, parameters: Arrays) -> tuple[Array, Any]:
        f, W = get_activation(self.activation), parameters["W"]
        h, z = (backend.empty((x.shape[0], W.shape[0]), x.dtype) for _ in range(2))
        if self._same_for_all(x):
            backend.matmul(x, W.mT, out=h)
        else:
            x3, h3 = (members_first(backend, a, self.count) for a in (x, h))
            backend.matmul(x3, by_member(backend, W, self.count).mT, out=h3)
        if f.gradient_from == "preactivation":
            backend.elementwise(compose(f.forward, biased, keep_inner=True), (h, parameters["b"]), out=(z, h))
            return h, (x, z)
        backend.elementwise(biased if f.name == "identity" else compose(f.forward, biased), (h, parameters["b"]), out=h)
        return h, (x, h)

    def backward(
        self, backend: Backend, delta: Array, saved: Any, parameters: Arrays, gradient: Arrays, need_dx: bool
    ) -> Array:
        (x, kept), f, count = saved, get_activation(self.activation), self.count
        if f.name != "identity":
            backend.elementwise(f.gradient, (kept, delta), out=delta)
        backend.sum(delta, axis=0, out=gradient["b"])
        if self._same_for_all(x):
            backend.matmul(delta.mT, x, out=gradient["W"])
            return backend.matmul(delta, parameters["W"]) if need_dx else None  # needed in a stack of one
        delta3 = members_first(backend, delta, count)
        backend.matmul(delta3.mT, members_first(backend, x, count), out=by_member(backend, gradient["W"], count))
        if not need_dx:
            return None
        dx = backend.empty(x.shape, x.dtype)
        backend.matmul(delta3, by_member(backend, parameters["W"], count), out=members_first(backend, dx, count))
        return dx

    def _same_for_all(self, x: Array) -> bool:
        return int(x.shape[1]) == self.inputs


class StackOutput(OutputPair):
    """The output pair of the members, each sample of each as a row: (n, count · d) as (n · count, d)."""

    def __init__(self, pair: OutputPair, width: int) -> None:
        super().__init__(pair.cost, pair.activation)
        self.pair, self.width = pair, width

    def rows(self, backend: Backend, a: Array) -> Array:
        """The rows of an array (n, count · width); of weights (n, count · w), each a column where w is 1."""
        return a if a.ndim == 0 else backend.xp.reshape(a, (-1, self.width))

    def outputs(self, backend: Backend, z: Array) -> Array:
        return backend.xp.reshape(self.pair.outputs(backend, self.rows(backend, z)), z.shape)

    def backward(self, backend: Backend, z: Array, h: Array, delta: Array) -> Array:
        raise NotImplementedError  # `delta` has it

    def terms(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return self._of(self.pair.terms, backend, z, y, scale)

    def delta(self, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        return self._of(self.pair.delta, backend, z, y, scale)

    def _of(self, function: Any, backend: Backend, z: Array, y: Array, scale: Array) -> Array:
        rows = [backend.xp.reshape(a, (-1, self.width)) for a in (z, y)]
        if scale.ndim:
            scale = backend.xp.reshape(scale, (rows[0].shape[0], -1))
        return backend.xp.reshape(function(backend, *rows, scale), z.shape)


class StackDropout(DropoutState):
    """The dropout masks of the members: each has its own key and counter, (count, 1), and so the masks it has alone."""

    def __init__(self, backend: Backend, dtype: str, states: Sequence[DropoutState], same_inputs: bool) -> None:
        self.backend, self.dtype, self.count, self._same_inputs = backend, dtype, len(states), same_inputs
        self.key = self._columns([state.key for state in states])
        self.step = self._columns([state.step for state in states])

    def apply(self, h: Array, rate: float, layer: int, first: int = 0) -> tuple[Array, Array]:
        """Like `DropoutState.apply` for (n, count · d), or for the inputs (n, d) of all members; (n, count · d)."""
        n, backend = h.shape[0], self.backend
        parts = 1 if layer == 0 and self._same_inputs else self.count
        d = h.shape[1] // parts
        row = backend.asarray(np.arange(first, first + n).reshape(n, 1, 1), self.dtype)
        operands = (backend.xp.reshape(h, (n, parts, d)), row, backend.asarray(np.arange(d), self.dtype))
        found = backend.elementwise(
            kernels.dropout, (*operands, *self.key, *self.step), constants={"rate": rate, "layer": float(layer)}
        )
        dropped, scale = (backend.xp.reshape(a, (n, self.count * d)) for a in found)
        return dropped, scale

    def pairs(self, k: int, state: DropoutState) -> list[tuple[Array, Array]]:
        """Member k's counter, and its place here."""
        return [(own, here[k, 0, ...]) for own, here in zip(state.step, self.step, strict=True)]

    def _columns(self, numbers: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
        high, low = (
            self.backend.asarray(np.array([[float(self.backend.to_numpy(pair[i]))] for pair in numbers]), self.dtype)
            for i in (0, 1)
        )
        return high, low
