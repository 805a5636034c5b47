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
    """Adds the gradients of this rank's shares and those of the other ranks.

    With `each`, every share has a gradient of its own until `record`. Otherwise they are added as soon as they can be:
    shares use few gradients, in turn, which stay in the CPU's cache.

    Attributes:
        places: the number of the gradient of each share of this rank, among those given to `record` and `add`.
    """

    def __init__(self, backend: Backend, gradient: Parameters, team: Team, each: bool) -> None:
        self._backend, self._team, self._words = backend, team, gradient.flat.shape[0]
        ranks = range(team.communicator.size)
        self._subtrees = [_subtrees(team.shares_of(rank), 0, team.divisor) for rank in ranks]
        rows, size = sum(map(len, self._subtrees)), gradient.message.shape[0]
        self._rows = None if team.shards is None or rows == 1 else backend.zeros((rows, size), gradient.flat.dtype)
        self.places, self._additions, self._nodes = _stacked(team.mine, team.divisor)
        if each:
            self.places, self._nodes = list(range(len(team.mine))), [(n, n + 1) for n in team.mine]

    def add(self, number: int, gradients: Sequence[Parameters]) -> None:
        """Add what can be added after the gradient of this rank's share `number`."""
        for place in self._additions[number]:
            a, b = (gradients[i].flat for i in (place, place + 1))
            self._backend.elementwise(scaled_sum, (a, b, 1.0), out=a)

    def record(self, gradients: Sequence[Parameters], out: Array) -> None:
        """Write the sum of all gradients to `out`; overwrites those of this rank."""
        first, communicator, backend = gradients[0], self._team.communicator, self._backend
        if self._team.shards is None:
            communicator.add_up(backend, first.message)
            if out is not first.flat:
                backend.copy(first.flat, out)
            return
        leaves = {node: own.flat for node, own in zip(self._nodes, gradients, strict=False)}
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


def _stacked(shares: range, count: int) -> tuple[list[int], list[list[int]], list[Node]]:
    """How to add shares on a stack: their places, after each the places to which the next one is added, and the rest.

    >>> _stacked(range(0, 5), 8)
    ([0, 1, 1, 2, 1], [[], [0], [], [1, 0], []], [(0, 4), (4, 5)])
    """
    pairs, nodes = set(), [(0, count)]
    for node in nodes:
        if node[1] - node[0] > 1:
            pairs.add(_halves(*node))
            nodes += _halves(*node)
    places, additions, stack = [], [], list[Node]()
    for number in shares:
        places.append(len(stack))
        stack.append((number, number + 1))
        additions.append(list[int]())
        while len(stack) > 1 and (stack[-2], stack[-1]) in pairs:
            stack[-2:] = [(stack[-2][0], stack[-1][1])]
            additions[-1].append(len(stack) - 1)
    return places, additions, stack
