"""The sum of the gradients of all shares of a minibatch, recorded as part of a step.

Without shards, MPI or NCCL adds one gradient per rank, in an order of its own that depends on their number. Fixed
shards are added in one binary tree. Each rank adds the largest subtrees that are all its own, the ranks exchange these
sums, and each adds the rest of the tree: the same sums, and so the same bits, on any number of ranks.
"""

from collections.abc import Mapping, Sequence

from nnkit.backends.base import Array, Backend
from nnkit.kernels.arithmetic import scaled_sum
from nnkit.parallel.division import Team
from nnkit.parameters import Parameters

Node = tuple[int, int]  # of the tree: the sum of shards [first, stop)


class Exchange:
    """Adds the gradients of this rank's shares and those of the other ranks."""

    def __init__(self, backend: Backend, gradients: Sequence[Parameters], team: Team) -> None:
        self._backend, self._gradients, self._team = backend, gradients, team
        ranks = range(team.communicator.size)
        self._subtrees = [_subtrees(team.shares_of(rank), 0, team.divisor) for rank in ranks]
        own = gradients[0].message
        rows = sum(map(len, self._subtrees))
        self._rows = None if team.shards is None or rows == 1 else backend.zeros((rows, own.shape[0]), own.dtype)

    def record(self, out: Array) -> None:
        """Write the sum of all gradients to `out`, recorded where a tape records; overwrites those of this rank."""
        first, communicator, backend = self._gradients[0], self._team.communicator, self._backend
        if self._team.shards is None:
            communicator.add_up(backend, first.message)
            if out is not first.flat:
                backend.copy(first.flat, out)
            return
        leaves = {(n, n + 1): g.flat for n, g in zip(self._team.mine, self._gradients, strict=True)}
        if self._rows is not None:
            words, counts = first.flat.shape[0], [len(some) for some in self._subtrees]
            nodes = [node for some in self._subtrees for node in some]
            rows = {node: self._rows[i, :words] for i, node in enumerate(nodes)}
            for node in self._subtrees[communicator.rank]:
                self._add(node, leaves, rows[node])
            communicator.gather(backend, self._rows, counts)
            leaves = rows
        self._add((0, self._team.divisor), leaves, out)

    def _add(self, node: Node, leaves: Mapping[Node, Array], out: Array | None = None) -> Array:
        """Add a subtree, from its leaves, in the array of its first leaf or in `out`."""
        if node in leaves:
            return leaves[node] if out is None else self._backend.copy(leaves[node], out)
        left, right = _halves(*node)
        a, b = self._add(left, leaves), self._add(right, leaves)
        return self._backend.elementwise(scaled_sum, (a, b, 1.0), out=a if out is None else out)


def _halves(first: int, stop: int) -> tuple[Node, Node]:
    middle = (first + stop) // 2
    return (first, middle), (middle, stop)


def _subtrees(shares: range, first: int, stop: int) -> list[Node]:
    """The largest nodes of the tree below [first, stop) that contain only these shares."""
    if shares.start <= first and stop <= shares.stop:
        return [(first, stop)]
    if stop <= shares.start or shares.stop <= first:
        return []
    return [node for half in _halves(first, stop) for node in _subtrees(shares, *half)]
