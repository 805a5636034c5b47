"""A pass that puts an update inside the product that it waits for: gradient descent without a gradient in memory.

W ← W − ε δW with δW = δh̄ᵀx (eq. 10 in eq. 17) is one product that adds to W, where a BLAS can do that: the gradient is
neither written nor read again, which for a small network is most of an update's time.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nnkit.backends.recording import Call, Composite, Node, Nodes

Adding = Callable[[Node, Any, Any, Any], Node | None]
Overlap = Callable[[Any, Any], bool]


class Accumulate(Composite):
    """The call `out ← out + α x` for several pairs (out, x) at once; nothing reads their x before it is written again.

    `add` does it. `alpha` is a 0-d array, read at each call. Its node writes to all of `out` and x.
    """

    def __init__(self, add: Call, pairs: Sequence[tuple[Any, Any]], alpha: Any) -> None:
        self.add, self.pairs, self.alpha = add, pairs, alpha

    def __call__(self) -> None:
        self.add()


def inside_products(nodes: Nodes, adding: Adding, overlap: Overlap) -> Nodes:
    """Nodes that add to `out` what others write to x, in the place of those and of an `Accumulate`: for all its pairs.

    `adding(node, out, x, alpha)` is the node that adds what a node writes to x, or None if there is none such.
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
    """These nodes with every sum of an `Accumulate` inside one of them; None where that is not so, or not safe."""
    nodes, first = list(nodes), len(nodes)
    for out, x in call.pairs:
        place = _last_that_touches(nodes, x, near)
        if place is None:
            return None
        made, factors = adding(nodes[place], out, x, call.alpha), nodes[place].read or ()
        if made is None or any(overlap(out, array) for array in factors):
            return None
        # It adds behind what still reads `out`, where what it reads must be the same.
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
    """`overlap` for parts of some arrays; asks once whether another one overlaps them at all: most of a step do not."""
    known: dict[int, bool] = {}

    def near(part: Any, other: Any) -> bool:
        number = id(other)  # of an array that a node keeps alive
        if number not in known:
            known[number] = any(overlap(array, other) for array in all_pairs)
        return known[number] and overlap(part, other)

    return near


def _last_that_touches(nodes: Nodes, array: Any, overlap: Overlap, start: int = 0) -> int | None:
    """The place, from `start` on, of the last node that may read or write an array; None if none does."""
    for place in range(len(nodes) - 1, start - 1, -1):
        node = nodes[place]
        if node.read is None or node.written is None:
            return place
        for other in (*node.written, *node.read):
            if overlap(array, other):
                return place
    return None


def _writes(nodes: Nodes, array: Any, overlap: Overlap, start: int, end: int) -> bool:
    """Whether one of these nodes may write to an array."""
    written = [node.written for node in nodes[start:end]]
    return any(arrays is None or any(overlap(array, other) for other in arrays) for arrays in written)
