"""Several networks as one model for `nnkit.step.Step`: its arrays are those of all members, side by side."""

from collections.abc import Sequence

import numpy as np

from nnkit.backends.base import Array
from nnkit.backends.cpu.products import NARROW
from nnkit.ensembles.blocks import Blocks, StackDropout, StackOutput, by_member
from nnkit.ensembles.updates import StackState
from nnkit.layers import Dense, Dropout
from nnkit.model import Model
from nnkit.optimizers import OptimizerState
from nnkit.parameters import Parameters
from nnkit.placement import Placement

# Of the first layer's weights, that each step reads and writes: those of a stack stay in an L2 cache of 2 MB, also with
# Adam's means. At 784-30-10 (94 kB a network, batch 10) a network and step took in native code 11.8, 11.3 and 10.9 µs
# with plain descent in stacks of 2, 4 and 8, and 23.4, 22.5 and 26.8 with Adam, where the network alone took 15.6 and
# 29.5; without native code 11.6 with plain descent in stacks of 4 (alone 19.9), and 16.5 in stacks of 8 (alone 23.0).
BYTES = 400_000
# OpenBLAS has fast products of row-major matrices for results of so few entries (784 × 120, batch 10).
FEW = 1200


# Members with minibatches of their own share nothing but the calls: above this size of these weights, each is a stack.
# At 784-30-10, 64-100-10 and 13-7-3 stacks of several took 1.0, 1.0 and 0.5 times as long as the networks alone in
# native code, 1.1, 0.5 and 0.2 times without.
ALONE = 50_000


def stack_sizes(first: Model, count: int, same_batches: bool) -> list[int]:
    """How many of `count` members are in each stack: as equal numbers as possible, which fit the cache of a CPU."""
    if first.backend.name != "numpy":
        return [count]
    layer = first.dense[0]
    size = layer.inputs * layer.units * np.dtype(first.dtype).itemsize
    together = 1 if not same_batches and size > ALONE else max(1, BYTES // size)
    stacks = -(-count // together)
    return [count // stacks + (i < count % stacks) for i in range(stacks)]


class Stack(Model):
    """The members as one model with copies of their parameters and training states.

    `same_batches` means that all members take the same minibatches, (n, d_in); else theirs lie side by side. Targets
    and logits always do: (n, count · d_out).

    Attributes:
        members: the networks. updates: the state of all.
    """

    def __init__(
        self,
        members: Sequence[Model],
        states: Sequence[OptimizerState],
        same_batches: bool,
        own_rates: bool,
        batch_size: int,
    ) -> None:
        first, count = members[0], len(members)
        vars(self).update(vars(first))
        layers = [Blocks(count, layer) if isinstance(layer, Dense) else layer for layer in first.layers]
        last = Blocks(count, first.dense[-1], "identity")
        vars(self).update(
            layers=layers, to_logits=[*layers[:-1], last], output=StackOutput(first.output, first.d_out),
            d_in=first.d_in if same_batches else count * first.d_in, d_out=count * first.d_out,
        )  # fmt: skip
        self.members, self.states, self.count, self.same_batches = members, states, count, same_batches
        blocks = [layer for layer in layers if isinstance(layer, Blocks)]
        by_columns = None if same_batches and count * blocks[0].units * batch_size > FEW else False
        if count == 1 or (blocks[0].inputs <= NARROW and same_batches):
            by_columns = None
        self.placement = Placement(first.backend, blocks, first.dtype, 0, by_columns)
        if any(isinstance(layer, Dropout) for layer in first.layers):
            drops = [member.dropout for member in members if member.dropout is not None]
            self.placement.dropout = StackDropout(first.backend, first.dtype, drops, same_batches)
        self.updates = StackState(states, self.parameters, own_rates)
        self.state = self.updates
        self._pairs = [self._pairs_of(k) for k in range(count)]
        for k in range(count):
            self.read(k)

    def read(self, k: int) -> None:
        """Copy the parameters and the training state of member k to this stack."""
        for own, here in self._pairs[k]:
            self.backend.copy(own, here)

    def write(self, k: int) -> None:
        """Copy them back to member k."""
        for own, here in self._pairs[k]:
            self.backend.copy(here, own)

    def finite(self) -> np.ndarray:
        """Whether all parameters of each member are finite, (count,) on the host."""
        xp, found = self.backend.xp, np.ones(self.count, bool)
        for layer in self.parameters.layers:
            for array in layer.values():
                right = xp.isfinite(by_member(self.backend, array, self.count))
                found &= self.backend.to_numpy(xp.all(right, axis=tuple(range(1, right.ndim))))
        return found

    def _pairs_of(self, k: int) -> list[tuple[Array, Array]]:
        """The arrays of member k, and their places here."""
        member, state = self.members[k], self.states[k]
        named = self.updates.vectors.items()
        same = [(member.parameters, self.parameters)]
        same += [(state.vectors[name], vector) for name, vector in named if name in state.vectors]
        if state.average is not None and self.updates.average is not None:
            same.append((state.average, self.updates.average))
        pairs = [pair for own, here in same for pair in self._arrays(own, here, k)]
        if state.average is not None:
            pairs.append((state.share, self.updates.share))
        if "t" in state.numbers:
            pairs.append((state.numbers["t"], self.updates.count_of(k)))
        dropout = self.dropout
        if isinstance(dropout, StackDropout) and member.dropout is not None:
            pairs += dropout.pairs(k, member.dropout)
        return pairs

    def _arrays(self, own: Parameters, here: Parameters, k: int) -> list[tuple[Array, Array]]:
        layers = zip(own.layers, here.layers, strict=True)
        return [
            (array, by_member(self.backend, there[name], self.count)[k, ...])
            for mine, there in layers
            for name, array in mine.items()
        ]
