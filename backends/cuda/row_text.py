"""Rows of an array as CUDA text: read or written where numbers on the device say, up to 16 bytes at a time."""

import functools
from dataclasses import dataclass
from typing import Any

from nnkit.backends.cuda.formula_text import PRELUDE, STORAGE
from nnkit.backends.dtypes import dtype_name

THREADS = 256  # in a block
INTEGERS = {
    "bool": "unsigned char", "uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short",
    "int16": "short", "uint32": "unsigned int", "int32": "int", "uint64": "unsigned long long", "int64": "long long",
}  # fmt: skip
_BYTES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}
_HALVES = ("float16", "bfloat16")

# `there` is an entry of the large array, whose rows are `stride` and their entries `step` apart; `here` one of the
# few rows in C order. `packs` of LANES entries make a row.
_KERNEL = """\
extern "C" __global__ void NAME(
    const S *from, D *to, const long long *start, const O *order, I n, I packs, long long stride, long long step) {
    typedef Pack<S, LANES> Source;
    typedef Pack<D, LANES> Target;
    const long long first = start ? *start : 0;
    for (I i = (I)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (I)gridDim.x * blockDim.x) {
        const long long row = first + i / packs, chosen = order ? (long long)order[row] : row;
        const long long there = chosen * stride + i % packs * LANES * step, here = (long long)i * LANES;
        const Source x = *reinterpret_cast<const Source *>(from + FROM);
        Target y;
        for (int k = 0; k < LANES; ++k) y.lane[k] = VALUE;
        *reinterpret_cast<Target *>(to + TO) = y;
    }
}
"""
ADVANCE = 'extern "C" __global__ void nnkit_advance(long long *start, long long count) { *start += count; }\n'


@dataclass(frozen=True, slots=True)
class RowSignature:
    """What the text depends on: C types, entries at a time, whether rows are taken or put, and the index type."""

    source: str
    target: str
    value: str
    order: str = "long long"
    lanes: int = 1
    puts: bool = False
    index: str = "long long"

    @property
    def name(self) -> str:
        """The C name of the kernel."""
        return "nnkit_put_rows" if self.puts else "nnkit_take_rows"


def conversion(source: Any, target: Any) -> tuple[str, str, str] | None:
    """The C types of two dtypes and the value of the second for an `x` of the first; None where the kernel has none."""
    if source == target:
        storage = _BYTES.get(source.itemsize)
        return None if storage is None else (storage, storage, "x.lane[k]")
    from_name, to_name = dtype_name(source), dtype_name(target)
    if to_name not in ("float32", "float64") or from_name not in STORAGE | INTEGERS:
        return None
    value = "(D)widen(x.lane[k])" if from_name in _HALVES else "(D)x.lane[k]"
    return (STORAGE | INTEGERS)[from_name], STORAGE[to_name], value


def lanes_of(width: int, stride: int, step: int, places: list[tuple[int, int]]) -> int:
    """How many entries of a row of `width` can be moved at a time.

    `places` are address and item size of both sides; `stride` and `step`, in entries, those of the large array.

    >>> lanes_of(784, 784, 1, [(0, 4), (512, 4)]), lanes_of(10, 10, 1, [(0, 4), (512, 4)]), lanes_of(8, 1, 9, [(0, 4)])
    (4, 2, 1)
    """
    lanes = 16 // max(size for _, size in places) if step == 1 else 1
    while lanes > 1 and (width % lanes or stride % lanes or any(place % (size * lanes) for place, size in places)):
        lanes //= 2
    return lanes


@functools.cache
def rows_source(signature: RowSignature) -> str:
    """The CUDA text for a signature: (from, to, start, order, n, packs, stride, step), start and order maybe null."""
    s = signature
    there, here = ("here", "there") if s.puts else ("there", "here")
    text = _KERNEL.replace("LANES", str(s.lanes)).replace("VALUE", s.value).replace("NAME", s.name)
    text = text.replace("FROM", there).replace("TO", here)
    types = f"typedef {s.source} S; typedef {s.target} D; typedef {s.order} O; typedef {s.index} I;\n"
    return PRELUDE + types + text
