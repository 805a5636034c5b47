"""What fits: where each array of a training step lies in the shared memory of a block, and how many blocks share it.

The blocks of a cluster divide the columns of the first layer's weights and of the minibatch, the largest arrays of a
network that fits. All other layers stand in each block, which computes them for itself, with the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nnkit.backends.cuda.cluster import BlockLimits
from nnkit.one_launch.recipe import Recipe

THREADS = 256  # in a block
_LARGEST_TILE = 8  # rows that a thread computes together: more would need more registers than are left

# Estimates, in clock cycles (some 1.7 to 2 a nanosecond), counted from the text and not measured yet. For 784-30-10 and
# batches of 10, eight blocks take 1400 for the products, 1250 for the barriers and 800 to exchange sums: about 2 µs.
_PRODUCTS_PER_CYCLE = 50  # of a block: reading shared memory, 128 bytes a cycle, is what limits the loops
_BARRIER = 250  # what each phase of a step takes beside its products: latencies, the barrier, idle threads
_EXCHANGE = 800  # a barrier of the cluster, and reading from other blocks
_GRAPH_NODE = 1700  # the least that a kernel in a captured graph takes, about 1 µs; a step is some 2 + 5 a layer


@dataclass(frozen=True, slots=True)
class Array:
    """A shared array of float32: its byte offset, and the length of a row in entries."""

    offset: int
    rows: int
    row: int


@dataclass(frozen=True)
class Layout:
    """A network's step in the shared memory of `blocks` blocks.

    Attributes:
        columns: how many of the first layer's inputs each block owns, a multiple of 4; the last ones may own fewer.
        rows: of the arrays of a minibatch; at least the batch size, so that tiles of rows end within them.
        tiles: for each layer the rows that a thread computes together, forward, and backward to its inputs.
        arrays: by name: `x` and `y`, both twice as the next minibatch is read during a step, the numbers of its samples
            `index` (of 8 bytes), `W0`, `b0`, `h0`, `z0`, `delta0`, ..., `v0_W0` for the first vector of the optimizer,
            `partial`, and `exponential`, `error`, `p` for softmax.
        bytes: of shared memory for a block.
        cycles: an estimate of the clock cycles of a step.
    """

    blocks: int
    batch_size: int
    columns: int
    rows: int
    tiles: tuple[tuple[int, int], ...]
    arrays: dict[str, Array]
    bytes: int
    cycles: int

    @property
    def pays(self) -> bool:
        """Whether a step is expected to take less time than a captured graph's: a rule by estimates, not measured."""
        return self.cycles <= _GRAPH_NODE * (2 + 5 * len(self.tiles))


def layout_for(recipe: Recipe, batch_size: int, limits: BlockLimits) -> Layout | None:
    """The layout that is expected to be the fastest of those that fit; None if none does."""
    quads = -(-recipe.widths[0] // 4)
    sizes = [blocks for blocks in (1, 2, 4, 8) if blocks <= min(limits.cluster, quads)]
    made = [layout(recipe, batch_size, blocks) for blocks in sizes]
    return min((m for m in made if m.bytes <= limits.shared_bytes), key=lambda m: m.cycles, default=None)


def layout(recipe: Recipe, batch_size: int, blocks: int) -> Layout:
    """The layout for a number of blocks, whether it fits or not.

    >>> from nnkit.one_launch.recipe import recipe_of
    >>> net = nnkit.Network([784, 30, 10], cost="cross_entropy", seed=0)
    >>> made = layout(recipe_of(net, net.optimizer_state()), 10, blocks=8)
    >>> made.columns, made.arrays["W0"].row, made.bytes
    (100, 100, 27376)
    """
    widths = recipe.widths
    columns = 4 * -(-widths[0] // (4 * blocks))
    backward = [1, *(_tile(width, batch_size) for width in widths[1:-1])]  # nothing is before the first layer
    tiles = tuple(zip((_tile(width, batch_size) for width in widths[1:]), backward, strict=True))
    largest = max(max(pair) for pair in tiles)
    rows = -(-batch_size // largest) * largest
    arrays, end = {}, 0
    for name, count, row in _arrays(recipe, columns, rows, blocks):
        arrays[name] = Array(end, count, row)
        end += -(-4 * count * row // 16) * 16
    return Layout(blocks, batch_size, columns, rows, tiles, arrays, end, _cycles(widths, batch_size, columns, blocks))


def _arrays(recipe: Recipe, columns: int, rows: int, blocks: int) -> list[tuple[str, int, int]]:
    """The name, the rows and the length of a row of each array."""
    widths, last = recipe.widths, len(recipe.widths) - 2
    found = [("index", 2, 2 * rows), ("x", 2 * rows, padded(columns)), ("y", 2, rows * widths[-1])]
    if blocks > 1:
        found.append(("partial", rows, padded(widths[1])))
    for i, (inputs, units) in enumerate(_pairs(widths)):
        row = padded(columns if i == 0 else inputs)
        for prefix in ("", *(f"v{j}_" for j in range(len(recipe.vectors)))):
            found += [(f"{prefix}W{i}", units, row), (f"{prefix}b{i}", 1, units)]
        found.append((f"delta{i}", rows, padded(units)))
        if i < last:
            found += [(f"{name}{i}", rows, padded(units)) for name in ("h", "z")[: 1 + recipe.saves_z[i]]]
    if recipe.softmax:
        found += [(f"z{last}", rows, padded(widths[-1])), ("exponential", rows, padded(widths[-1]))]
    if recipe.pullback:
        found += [(name, rows, padded(widths[-1])) for name in ("p", "error")]
    return found


def padded(length: int) -> int:
    """The length of a row in shared memory: an odd number of 16 bytes (see `machine.LOOPS`).

    >>> padded(30), padded(100), padded(1)
    (36, 100, 4)
    """
    return 4 * (-(-length // 4) | 1)


def _pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise(widths))


def _tile(width: int, batch_size: int) -> int:
    """The fewest rows that a thread has to compute together for one round of the block's threads to do them all."""
    tile = 1
    while tile < min(_LARGEST_TILE, batch_size) and width * -(-batch_size // tile) > THREADS:
        tile *= 2
    return tile


def _cycles(widths: Sequence[int], batch_size: int, columns: int, blocks: int) -> int:
    products = 2 * columns * widths[1] + sum(3 * inputs * units for inputs, units in _pairs(widths[1:]))
    phases = 2 * len(widths) - 1
    return batch_size * products // _PRODUCTS_PER_CYCLE + _BARRIER * phases + _EXCHANGE * (blocks > 1)
