"""NumPy's shuffle of the numbers 0 to n − 1, in half the time: rejected draws, a third, are not a branch."""

from collections.abc import Sequence
from functools import cache, partial

import numpy as np

from nnkit.backends.cpu.native.calls import node, run_prepared
from nnkit.backends.cpu.native.compiler import enabled

_FEW, _MANY = 4096, 1 << 31  # numbers: loading the code takes longer than some small shuffles; more draw 64 bits
_AT_ONCE = 1 << 14  # draws of 64 bits, which stay in the cache
_SWAPS = """\
def f(arguments):
    left, order, drawn = int64s(arguments[0]), int64s(arguments[1]), uint32s(arguments[2])
    i, k, count, mask = left[0] - 1, 0, left[1], 0
    while mask < i:
        mask = 2 * mask + 1
    while i > 0 and k < count:
        j = int64(load(drawn, k, 1)) & mask
        accepted = j <= i
        j = select(accepted, j, i)
        x, y = load(order, i, 0), load(order, j, 0)
        store(order, i, y, 0)
        store(order, j, x, 0)
        i -= select(accepted, 1, 0)
        mask = select(i <= mask >> 1, mask >> 1, mask)
        k += 1
    left[0] = i + 1
"""


def shuffled(seed: Sequence[int], n: int) -> np.ndarray:
    """The numbers 0 to n − 1 (int64) as `numpy.random.default_rng(seed).shuffle` orders them."""
    order = _shuffled(seed, n) if _FEW <= n < _MANY and enabled() and _agrees() else None
    if order is None:
        order = np.arange(n)
        np.random.default_rng(seed).shuffle(order)
    return order


def _shuffled(seed: Sequence[int], n: int) -> np.ndarray | None:
    """The same by native code; None without it."""
    order, bits, left = np.arange(n, dtype=np.int64), np.random.default_rng(seed).bit_generator, np.array([n, 0])
    while left[0] > 1:
        # Usually enough: masks are on average less than 1.5 times the numbers that they hold.
        drawn = bits.random_raw(min(3 * int(left[0]) // 4 + 32, _AT_ONCE)).view(np.uint32)
        left[1] = drawn.size
        arrays = left, order, drawn
        if not run_prepared("shuffle", partial(node, _SWAPS, (), arrays), arrays):
            return None
    return order


@cache
def _agrees() -> bool:
    """Whether this NumPy shuffles so; another version may draw other numbers, as may a CPU of other byte order."""
    expected = np.arange(1000)
    np.random.default_rng([0]).shuffle(expected)
    found = _shuffled([0], 1000)
    return found is not None and np.array_equal(found, expected)
