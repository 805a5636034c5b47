"""The sum of the gradients of all shares of a minibatch, recorded as part of a step.

Without shards, MPI or NCCL adds one gradient per rank, in an order of its own that depends on their number. Fixed
shards are added in one binary tree. Each rank adds the largest subtrees that are all its own, the ranks exchange these
sums, and each adds the rest of the tree: the same sums, and so the same bits, on any number of ranks.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from nnkit.backends.base import Array, Backend
from nnkit.backends.formula import Formula
from nnkit.parallel.division import Team
from nnkit.parameters import Parameters

Node = tuple[int, int]  # of the tree: the sum of shards [first, stop)
MOST = 8  # arrays that one pass over memory adds


class Exchange:
    """Adds the gradients of this rank's shares and those of the other ranks."""

    def __init__(self, backend: Backend, gradient: Parameters, team: Team) -> None:
        self._backend, self._team, self._words = backend, team, gradient.flat.shape[0]
        ranks = range(team.communicator.size)
        self._subtrees = [_subtrees(team.shares_of(rank), 0, team.divisor) for rank in ranks]
        rows, size = sum(map(len, self._subtrees)), gradient.message.shape[0]
        self._rows = None if team.shards is None or rows == 1 else backend.zeros((rows, size), gradient.flat.dtype)

    def record(self, gradients: Sequence[Parameters], out: Array) -> None:
        """Write the sum of all gradients to `out`; overwrites those of this rank."""
        first, communicator, backend = gradients[0], self._team.communicator, self._backend
        if self._team.shards is None:
            communicator.add_up(backend, first.message)
            if out is not first.flat:
                backend.copy(first.flat, out)
            return
        leaves = {(n, n + 1): own.flat for n, own in zip(self._team.mine, gradients, strict=True)}
        if self._rows is not None:
            counts, nodes = [len(some) for some in self._subtrees], [node for some in self._subtrees for node in some]
            rows = {node: self._rows[i, : self._words] for i, node in enumerate(nodes)}
            for node in self._subtrees[communicator.rank]:
                self._add(node, leaves, rows[node])
            communicator.gather(backend, self._rows, counts)
            leaves = rows
        self._add((0, self._team.divisor), leaves, out)

    def _add(self, node: Node, leaves: Mapping[Node, Array], out: Array | None = None) -> Array:
        """Add a subtree, from its leaves, in the array of its first leaf or in `out`."""
        if node in leaves:
            return leaves[node] if out is None or out is leaves[node] else self._backend.copy(leaves[node], out)
        first, stop = node
        below = {(a, b): array for (a, b), array in leaves.items() if first <= a and b <= stop}
        if len(below) > MOST:
            below = {half: self._add(half, below) for half in _halves(first, stop)}
        arrays = list(below.values())
        return self._backend.elementwise(_tree(node, tuple(below)), arrays, out=arrays[0] if out is None else out)


@lru_cache
def _tree(root: Node, leaves: tuple[Node, ...]) -> Formula:
    """The sum of a tree's leaves as a formula."""

    def add(xp: Any, *arrays: Any) -> Any:
        given = dict(zip(leaves, arrays, strict=True))

        def total(node: Node) -> Any:
            if node in given:
                return given[node]
            left, right = map(total, _halves(*node))
            return left + right

        return total(root)

    return Formula(add, "tree_sum", [f"g{i}" for i in range(len(leaves))])


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
