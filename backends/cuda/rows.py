"""Rows of CuPy arrays: kernels read the first row's index on the device, without synchronization."""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nnkit.backends.cuda.device import CupyDevice
from nnkit.backends.cuda.formula_text import PRELUDE, STORAGE
from nnkit.backends.cuda.launch import Launch, Rider, grid, overlap, same
from nnkit.backends.cuda.layouts import row_step, strides_of
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.recording import perform

INTEGERS = {
    "bool": "unsigned char", "uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short",
    "int16": "short", "uint32": "unsigned int", "int32": "int", "uint64": "unsigned long long", "int64": "long long",
}  # fmt: skip
_BYTES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}
_HALVES = ("float16", "bfloat16")
_EXACT = ("float32", "bool", "uint8", "int8", "uint16", "int16")  # in float32

# `there` is an entry of the large array, with `stride` between rows and `step` between entries; `here` is an entry of
# the selected rows in C order. A row has `packs` packs of LANES entries.
_MOVE = """\
namespace partPART {
typedef S_TYPE S; typedef D_TYPE D; typedef O_TYPE O; typedef I_TYPE I;
__device__ inline void move(
    const S *from, D *to, const long long *start, const O *order, I n, I packs, long long stride, long long step) {
    typedef Pack<S, LANES> Source;
    typedef Pack<D, LANES> Target;
    const long long first = start ? *start : 0;
    for (I i = (I)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (I)gridDim.x * blockDim.x) {
        const long long row = first + i / packs, chosen = order ? (long long)order[row] : row;
        const long long there = chosen * stride + i % packs * LANES * step, here = (long long)i * LANES;
        const Source x = *reinterpret_cast<const Source *>(from + FROM);
        Target y;
        for (int k = 0; k < LANES; ++k) VALUE;
        *reinterpret_cast<Target *>(to + TO) = y;
    }
}
}
"""
_PARAMETERS = """\
    const partPART::S *fromPART, partPART::D *toPART, const long long *startPART, const partPART::O *orderPART,
    partPART::I nPART, partPART::I packsPART, long long stridePART, long long stepPART"""
_CALL = "    partPART::move(fromPART, toPART, startPART, orderPART, nPART, packsPART, stridePART, stepPART);\n"
ADVANCE = 'extern "C" __global__ void nnkit_advance(long long *start, long long count) { *start += count; }\n'
_PARTS = 4  # of one kernel


@dataclass(frozen=True, slots=True)
class RowSignature:
    """The parameters of the source: C types, entries per access, gather or scatter (`puts`), and the index type."""

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
    """The C types of two dtypes and the expression that converts an `x` of the first; None if unsupported."""
    if source == target:
        storage = _BYTES.get(source.itemsize)
        return None if storage is None else (storage, storage, "y.lane[k] = x.lane[k]")
    from_name, to_name = dtype_name(source), dtype_name(target)
    if to_name == "bfloat16" and from_name in _EXACT:
        return (STORAGE | INTEGERS)[from_name], STORAGE[to_name], "narrow((float)x.lane[k], y.lane[k])"
    if to_name not in ("float32", "float64") or from_name not in STORAGE | INTEGERS:
        return None
    value = "y.lane[k] = (D)widen(x.lane[k])" if from_name in _HALVES else "y.lane[k] = (D)x.lane[k]"
    return (STORAGE | INTEGERS)[from_name], STORAGE[to_name], value


def lanes_of(width: int, stride: int, step: int, places: list[tuple[int, int]]) -> int:
    """The number of entries of a row of `width` that can be moved at a time.

    `places` are the addresses and item sizes of both arrays; `stride` and `step`, in entries, are of the large array.

    >>> lanes_of(784, 784, 1, [(0, 4), (512, 4)]), lanes_of(10, 10, 1, [(0, 4), (512, 4)]), lanes_of(8, 1, 9, [(0, 4)])
    (4, 2, 1)
    """
    lanes = 16 // max(size for _, size in places) if step == 1 else 1
    while lanes > 1 and (width % lanes or stride % lanes or any(place % (size * lanes) for place, size in places)):
        lanes //= 2
    return lanes


@functools.cache
def rows_source(*parts: RowSignature) -> str:
    """The CUDA source for each part's (from, to, start, order, n, packs, stride, step); start and order may be null."""
    moves = []
    for number, s in enumerate(parts):
        there, here = ("here", "there") if s.puts else ("there", "here")
        text = _MOVE.replace("LANES", str(s.lanes)).replace("VALUE", s.value).replace("FROM", there).replace("TO", here)
        for name, kind in (("S_TYPE", s.source), ("D_TYPE", s.target), ("O_TYPE", s.order), ("I_TYPE", s.index)):
            text = text.replace(name, kind)
        moves.append(text.replace("PART", str(number)))
    parameters, calls = (
        separator.join(text.replace("PART", str(number)) for number in range(len(parts)))
        for separator, text in ((",\n", _PARAMETERS), ("", _CALL))
    )
    head = f'extern "C" __global__ void {parts[0].name}(\n{parameters}) {{\n'
    return PRELUDE + "".join(moves) + head + calls + "}\n"


class Part(NamedTuple):
    """A move of rows: of `source` from the row `start` on (None: 0), by `order` if given, to `target`; or to there."""

    source: Any
    target: Any
    start: Any
    order: Any
    signature: RowSignature
    n: int
    width: int

    @classmethod
    def of(cls, source: Any, target: Any, start: Any, order: Any, puts: bool = False) -> "Part | None":
        """The move with the widest possible accesses; None if the dtypes are not supported."""
        large, few = (target, source) if puts else (source, target)
        types = conversion(source.dtype, target.dtype)
        if types is None:
            return None
        width, strides = math.prod(large.shape[1:]), strides_of(large)
        step = row_step(large.shape, strides) or 0
        lanes = lanes_of(width, strides[0], step, [(a.data.ptr, a.itemsize) for a in (source, target)])
        n, integer = few.size // lanes, "long long" if order is None else INTEGERS[dtype_name(order.dtype)]
        index = "unsigned int" if n < 2**31 else "long long"
        return cls(source, target, start, order, RowSignature(*types, integer, lanes, puts, index), n, width)

    @property
    def read(self) -> tuple[Any, ...]:
        """The arrays that it reads."""
        return tuple(array for array in (self.source, self.start, self.order) if array is not None)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of the kernel."""
        large, number = (self.target if self.signature.puts else self.source), np.int64
        strides, count = strides_of(large), np.uint32 if self.signature.index == "unsigned int" else np.int64
        places = (np.int64(0) if a is None else a for a in (self.start, self.order))  # 0 is a null pointer
        sizes = (count(self.n), count(self.width // self.signature.lanes))
        return (
            self.source,
            self.target,
            *places,
            *sizes,
            number(strides[0]),
            number(row_step(large.shape, strides) or 0),
        )


class RowMoves(Launch):
    """The call that takes rows of arrays ("take"), or puts them there ("put"): its `parts` in one kernel."""

    def __init__(self, device: Any, parts: tuple[Part, ...]) -> None:
        signatures = [part.signature for part in parts]
        self.device, self.parts = device, parts
        self.kind = self.name = "put" if signatures[0].puts else "take"
        self.operands = tuple(array for part in parts for array in part.read)
        self.outs = tuple(part.target for part in parts)
        self._arguments = tuple(argument for part in parts for argument in part.arguments)
        self._blocks = (grid(max(part.n for part in parts), 1, device.multiprocessors),)
        self._kernel = device.kernel(rows_source(*signatures), signatures[0].name)

    def followed_by(self, other: Launch) -> "RowMoves | None":
        """The call that also takes other rows, if neither overwrites arrays of the other."""
        if not isinstance(other, RowMoves) or self.kind != other.kind or len(self.parts) + len(other.parts) > _PARTS:
            return None
        touched = any(overlap(out, array) for out in self.outs for array in (*other.operands, *other.outs))
        if touched or any(overlap(out, array) for out in other.outs for array in self.operands):
            return None
        return RowMoves(self.device, self.parts + other.parts)

    def writing(self, copy: Any, target: Any) -> "RowMoves | None":
        """The call that takes rows to another array instead of `target`; None if the dtypes are not supported."""
        made = tuple(
            Part.of(part.source, copy, part.start, part.order) if same(part.target, target) else part
            for part in self.parts
        )
        taken = self.kind == "take" and any(same(part.target, target) for part in self.parts)
        if not taken or None in made or any(overlap(copy, array) for array in (*self.operands, *self.outs)):
            return None
        return RowMoves(self.device, tuple(part for part in made if part is not None))


class Advance(Launch):
    """The call `start ← start + count`."""

    kind = name = "advance"
    _blocks, _threads = (1,), 1

    def __init__(self, device: Any, start: Any, count: int) -> None:
        self.operands = self.outs = (start,)
        self._arguments = (start, np.int64(count))
        self._kernel = device.kernel(ADVANCE, "nnkit_advance")

    @property
    def work(self) -> Rider:
        return Rider(("long long *", "long long "), "*{0} += {1};")


class CupyRows(CupyDevice):
    """The row operations, with one launch each."""

    def take(self, rows: Any, indices: Any, out: Any = None) -> Any:
        indices = self.asarray(indices)
        shape = (*indices.shape, *rows.shape[1:])
        out = self.empty(shape, rows.dtype) if out is None else out
        if out.shape != shape:
            raise ValueError(f"take: out has shape {out.shape}; expected {shape}")
        return self._take(rows, None, out, indices)

    def take_at(self, rows: Any, start: Any, out: Any, order: Any = None) -> Any:
        if out.shape not in (rows.shape[1:], (*out.shape[:1], *rows.shape[1:])):
            raise ValueError(f"take_at: out has shape {out.shape}; expected rows of {rows.shape}, or one row")
        return self._take(rows, start, out, order)

    def put_at(self, values: Any, start: Any, out: Any) -> Any:
        if values.shape[1:] != out.shape[1:]:
            raise ValueError(f"put_at: values have shape {values.shape}; expected rows of {out.shape}")
        with self.here():
            if row_step(out.shape, strides_of(out)) is None:
                raise ValueError(f"rows of an array of shape {out.shape} and strides {out.strides} cannot be written")
            if conversion(values.dtype, out.dtype) is None:
                values = self.copy(values, self.empty(values.shape, out.dtype))
            self._move(self.contiguous(values), out, start, None, puts=True)
        return out

    def advance(self, start: Any, count: int) -> None:
        if dtype_name(start.dtype) != "int64":
            raise TypeError(f"start has dtype {start.dtype}; expected int64")
        with self.here():
            perform(*Advance(self, start, count).node)

    def _take(self, rows: Any, start: Any, out: Any, order: Any) -> Any:
        with self.here():
            if row_step(rows.shape, strides_of(rows)) is None:
                rows = self.contiguous(rows)
            dtype = rows.dtype if conversion(rows.dtype, out.dtype) is None else out.dtype
            direct = out.flags.c_contiguous and dtype == out.dtype and not overlap(out, rows)
            target = out if direct else self.empty(out.shape, dtype)
            self._move(rows, target, start, order, puts=False)
            if target is not out:
                self.copy(target, out)
        return out

    def _move(self, source: Any, target: Any, start: Any, order: Any, puts: bool) -> None:
        """Move rows of `source` to `target`; the smaller array is in C order."""
        order = None if order is None else self.contiguous(order)
        part = Part.of(source, target, start, order, puts)
        if part is None:
            raise TypeError(f"rows of {source.dtype} cannot be copied to {target.dtype}")
        if part.n:
            perform(*RowMoves(self, (part,)).node)
