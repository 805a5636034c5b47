"""Two streams for the calls of a recording: calls that do not depend on each other run side by side in its graph.

δW and δb of a layer need not wait for each other, nor the way back for them. Which calls depend on each other follows
from what they read and write: every pair of calls of which one writes what the other reads or writes keeps its order.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nnkit.backends.cuda.launch import extent, meet
from nnkit.backends.recording import Call, Node

Ranges = list[tuple[int, int]]


class Placed(NamedTuple):
    """A call on one of two streams, which first waits for some of the calls placed before it on the other one."""

    call: Call
    stream: int
    waits: tuple[int, ...]


def dependences(nodes: Sequence[Node]) -> list[set[int]]:
    """For each node the earlier ones that must be done before it; all, if it is unknown what it reads or writes."""
    touched = [None if node.read is None else (_ranges(node.read), _ranges(node.written)) for node in nodes]
    found = []
    for number, own in enumerate(touched):
        found.append({other for other in range(number) if own is None or _depends(own, touched[other])})
    return found


def _ranges(arrays: tuple[Any, ...] | None) -> Ranges:
    return [extent(array, array.data.ptr) for array in arrays or () if array.size]


def _depends(own: tuple[Ranges, Ranges], earlier: tuple[Ranges, Ranges] | None) -> bool:
    """Whether one of two calls writes what the other reads or writes; of each, what it reads and what it writes."""
    if earlier is None:
        return True
    pairs = ((own[0], earlier[1]), (own[1], earlier[0]), (own[1], earlier[1]))
    return any(meet(one, other) for ours, theirs in pairs for one in ours for other in theirs)


def on_two_streams(nodes: Sequence[Node]) -> list[Placed]:
    """The calls in an order in which two streams can take them, those before which most calls wait first.

    Each call counts as much as any other. All are on stream 0 if a second stream does not shorten the longest chain.
    """
    before = dependences(nodes)
    height = [1] * len(nodes)
    for number in reversed(range(len(nodes))):
        for other in before[number]:
            height[other] = max(height[other], height[number] + 1)
    order, streams = _schedule(before, height)
    if chain_length(before, order, streams) == len(nodes):
        order, streams = list(range(len(nodes))), dict.fromkeys(range(len(nodes)), 0)
    place = {number: i for i, number in enumerate(order)}
    seen, placed = [-1, -1], list[Placed]()  # the last call of the other stream that each stream has waited for
    for number in order:
        own = streams[number]
        latest = max((place[other] for other in before[number] if streams[other] != own), default=-1)
        waits = (latest,) if latest > seen[own] else ()
        seen[own] = max(seen[own], latest)
        placed.append(Placed(nodes[number].call, own, waits))
    return placed


def _schedule(before: Sequence[set[int]], height: Sequence[int]) -> tuple[list[int], dict[int, int]]:
    """An order of the calls, and the stream of each: the one on which it can start first."""
    order, streams, ends, free = list[int](), dict[int, int](), dict[int, int](), [0, 0]
    left = list(range(len(before)))
    while left:
        number = min((n for n in left if before[n] <= ends.keys()), key=lambda n: (-height[n], n))
        ready = max((ends[other] for other in before[number]), default=0)
        latest = max(before[number], key=lambda other: ends[other], default=None)
        preferred = 0 if latest is None else streams[latest]
        own = min((preferred, 1 - preferred), key=lambda stream: max(free[stream], ready))
        free[own] = ends[number] = max(free[own], ready) + 1
        streams[number] = own
        order.append(number)
        left.remove(number)
    return order, streams


def chain_length(before: Sequence[set[int]], order: Sequence[int], streams: dict[int, int]) -> int:
    """The number of calls in the longest chain of calls that wait for each other, or for their stream."""
    ends, free = dict[int, int](), [0, 0]
    for number in order:
        ready = max((ends[other] for other in before[number]), default=0)
        free[streams[number]] = ends[number] = max(free[streams[number]], ready) + 1
    return max(free)
