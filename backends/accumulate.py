"""A pass of all devices: updates inside the products that compute them.

W ← W − ε δW with δW = δh̄ᵀx (eq. 10 in eq. 17) is one product that adds to W, if the BLAS supports it: the gradient is
neither written nor read, which takes most of the time of an update of a small network.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nnkit.backends.recording import Call, Composite, Node, Nodes

Adding = Callable[[Node, Any, Any, Any], Node | None]
Overlap = Callable[[Any, Any], bool]


class Accumulate(Composite):
    """The call `out ← out + α x` for several pairs (out, x); nothing reads x before it is overwritten.

    `add` executes it. `alpha` is a 0-d array, read at each call. Its node writes to all `out` and x.
    """

    def __init__(self, add: Call, pairs: Sequence[tuple[Any, Any]], alpha: Any) -> None:
        self.add, self.pairs, self.alpha = add, pairs, alpha

    def __call__(self) -> None:
        self.add()


def inside_products(nodes: Nodes, adding: Adding, overlap: Overlap) -> Nodes:
    """Replace each `Accumulate`, and the nodes that write its x, by nodes that add to `out`: for all pairs or none.

    `adding(node, out, x, alpha)` returns the node that adds to `out` what `node` writes to x, or None.
    """
    done: Nodes = []
    for node in nodes:
        moved = None
        if isinstance(node.call, Accumulate) and node.written is not None:
            near = _near(node.written, overlap)
            moved = _all_inside(done, node.call, adding, overlap, near)
        if moved is None:
            done.append(node)
        else:
            done = moved
    return done


def _all_inside(nodes: Nodes, call: Accumulate, adding: Adding, overlap: Overlap, near: Overlap) -> Nodes | None:
    """The nodes with all sums of an `Accumulate` inside them; None if impossible or unsafe."""
    nodes, first = list(nodes), len(nodes)
    for out, x in call.pairs:
        place = _last_that_touches(nodes, x, near)
        if place is None:
            return None
        made, factors = adding(nodes[place], out, x, call.alpha), nodes[place].read or ()
        if made is None or any(overlap(out, array) for array in factors):
            return None
        # It must add after the last use of `out`; until then its factors must not change.
        behind = _last_that_touches(nodes, out, near, place + 1)
        if behind is None:
            nodes[place] = made
        elif any(_writes(nodes, array, overlap, place + 1, behind + 1) for array in factors):
            return None
        else:
            nodes[behind + 1 : behind + 1] = [made]
            del nodes[place]
        first = min(first, place)
    return None if _writes(nodes, call.alpha, overlap, first, len(nodes)) else nodes


def _near(all_pairs: tuple[Any, ...], overlap: Overlap) -> Overlap:
    """`overlap` with parts of some arrays; caches whether an array overlaps any of them: most do not."""
    known: dict[int, bool] = {}

    def near(part: Any, other: Any) -> bool:
        number = id(other)  # valid, as a node keeps the array alive
        if number not in known:
            known[number] = any(overlap(array, other) for array in all_pairs)
        return known[number] and overlap(part, other)

    return near


def _last_that_touches(nodes: Nodes, array: Any, overlap: Overlap, start: int = 0) -> int | None:
    """The index, at least `start`, of the last node that may read or write an array, or None."""
    for place in range(len(nodes) - 1, start - 1, -1):
        node = nodes[place]
        if node.read is None or node.written is None:
            return place
        for other in (*node.written, *node.read):
            if overlap(array, other):
                return place
    return None


def _writes(nodes: Nodes, array: Any, overlap: Overlap, start: int, end: int) -> bool:
    """Whether any of these nodes may write to an array."""
    written = [node.written for node in nodes[start:end]]
    return any(arrays is None or any(overlap(array, other) for other in arrays) for arrays in written)
