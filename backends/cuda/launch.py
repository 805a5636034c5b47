"""The launch of a kernel as an object, and which arrays on a device overlap: what passes over recordings ask."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nnkit.backends.recording import Composite, Node, Nodes

THREADS = 256  # in a block
BLOCKS_PER_MULTIPROCESSOR = 16  # enough for any GPU; threads use grid-stride loops


def extent(array: Any, pointer: int) -> tuple[int, int]:
    """The addresses of an array's first byte and after its last.

    CuPy's may_share_memory assumes that arrays from other libraries, such as by DLPack, never overlap.
    """
    before, after = reach(array.shape, array.strides, array.itemsize)
    return pointer + before, pointer + after


@lru_cache(maxsize=4096)
def reach(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """The extent of an array whose first entry is at 0."""
    reaches = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    return sum(min(reach, 0) for reach in reaches), sum(max(reach, 0) for reach in reaches) + itemsize


def meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two address ranges overlap.

    >>> meet((0, 4), (3, 9)), meet((0, 4), (4, 9))
    (True, False)
    """
    return one[0] < other[1] and other[0] < one[1]


def overlap(a: Any, b: Any) -> bool:
    """Whether two arrays on a device may share memory."""
    return meet(extent(a, a.data.ptr), extent(b, b.data.ptr))


def same(one: Any, other: Any) -> bool:
    """Whether two arrays are the same view of the same memory."""
    return bool(
        one.data.ptr == other.data.ptr
        and (one.shape, one.strides, one.dtype) == (other.shape, other.strides, other.dtype)
    )


def grid_of_rows(n: int, columns: int, lanes: int, multiprocessors: int) -> int:
    """The number of blocks for `n` entries, if the grid stride must be a multiple of `columns`.

    >>> grid_of_rows(8192 * 4096, 4096, 4, 132), grid_of_rows(8192 * 784, 784, 4, 132)
    (2112, 2107)
    """
    unit = columns // math.gcd(columns, lanes * THREADS)
    return max(1, grid(n, lanes, multiprocessors) // unit) * unit


def grid(n: int, lanes: int, multiprocessors: int) -> int:
    """The number of blocks for `n` entries.

    >>> grid(1000, 4, 132), grid(10**9, 4, 132)
    (1, 2112)
    """
    return max(1, min(-(-n // (lanes * THREADS)), multiprocessors * BLOCKS_PER_MULTIPROCESSOR))


def rows_group(columns: int) -> int:
    """The number of threads that reduce a row of this length.

    >>> rows_group(1), rows_group(10), rows_group(4096)
    (1, 16, 256)
    """
    return min(1 << max(columns - 1, 0).bit_length(), THREADS)


@dataclass(frozen=True, slots=True)
class Rider:
    """The work of one thread, which the first thread of another kernel can do as well.

    Attributes:
        types: the C types of its arguments.
        statement: C++ with `{0}`, `{1}`, ... for the arguments and `SPACE` for the namespace of `functions`.
        functions: the functions that it calls.
    """

    types: tuple[str, ...]
    statement: str
    functions: str = ""


class Launch:
    """The call of a kernel.

    Attributes:
        kind: what it does, such as "elementwise" or "take".
        name: its name for display.
        operands, outs: the arrays that it reads and writes.
    """

    kind = "kernel"
    name: str
    operands: tuple[Any, ...]
    outs: tuple[Any, ...]
    _kernel: Callable[..., object]
    _blocks: tuple[int, ...]
    _threads = THREADS
    _arguments: tuple[Any, ...]

    def __call__(self) -> None:
        self._kernel(self._blocks, (self._threads,), self._arguments)

    @property
    def read(self) -> tuple[Any, ...]:
        """All arrays that the kernel reads."""
        return self.operands

    @property
    def written(self) -> tuple[Any, ...]:
        """All arrays that the kernel writes."""
        return self.outs

    @property
    def node(self) -> Node:
        """Its node in a recording."""
        return Node(self, self.read, self.written, self.name)

    def followed_by(self, other: "Launch") -> "Launch | None":
        """The launch that does this and then another one, if both are one kernel's work; None otherwise."""
        return None

    def writing(self, copy: Any, target: Any) -> "Launch | None":
        """The launch that writes the array `copy`, of another dtype, instead of `target`; None if it cannot."""
        return None

    def by_rows(self) -> "Launch | None":
        """The same launch as a program that can be fused with those that reduce rows; None if it cannot."""
        return None

    @property
    def work(self) -> Rider | None:
        """What it does, if one thread does it."""
        return None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of its kernel."""
        return self._arguments


class ColumnSums(Composite):
    """The call `out ← column sums of a`, or with α `out ← out + α sums`, for a non-empty matrix."""

    def __init__(self, device: Any, a: Any, out: Any, alpha: Any = None) -> None:
        self.device, self.a, self.out, self.alpha = device, a, out, alpha

    def __call__(self) -> None:
        self.device.sum_columns(self.a, self.out, self.alpha)

    @property
    def node(self) -> Node:
        """Its node in a recording."""
        if self.alpha is None:
            return Node(self, (self.a,), (self.out,), "sum")
        return Node(self, (self.a, self.alpha, self.out), (self.out,), "add_column_sums")


def writes(node: Node, array: Any) -> bool:
    """Whether a node may write to an array."""
    return node.written is None or any(overlap(array, written) for written in node.written if written.size)


def reads(node: Node, array: Any) -> bool:
    """Whether a node may read an array."""
    return node.read is None or any(overlap(array, other) for other in node.read if other.size)


def touched(nodes: Nodes, read: tuple[Any, ...], written: tuple[Any, ...]) -> bool:
    """Whether any of these nodes may write what another reads, or read or write what it writes."""
    return any(
        node.read is None
        or any(writes(node, array) for array in (*read, *written))
        or any(overlap(array, other) for array in written for other in node.read if other.size)
        for node in nodes
    )
