"""Register allocation for a formula's program on NumPy: the array that holds each value.

It is computed once per signature (shapes, dtypes, which operands share memory with which results). A value is stored
in a result's memory if nothing there is still needed, else in scratch arrays, which are reused.
"""

import functools
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from nnkit.backends.cpu.blocks import same_entries
from nnkit.backends.dtypes import compute_type, dtype_name
from nnkit.backends.formulas.program import Program, Value

Shape = tuple[int, ...]


class Place(NamedTuple):
    """The array of a value: `kind` is operand, constant, out or scratch, and `number` which one."""

    kind: str
    number: int
    shape: Shape
    dtype: str


class Signature(NamedTuple):
    """The key of an allocation.

    `shared[j]` are the operands whose memory overlaps result j, `same[j]` those identical to result j, entry by entry.
    """

    shapes: tuple[Shape, ...]
    dtypes: tuple[np.dtype, ...]
    out_shape: Shape
    out_dtypes: tuple[np.dtype, ...]
    shared: tuple[frozenset[int], ...]
    same: tuple[frozenset[int], ...] = ()


_SHAPE, _DTYPE = attrgetter("shape"), attrgetter("dtype")


def signature_of(operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> Signature:
    """The signature of a call with these arrays."""
    shared, same = [], []
    for out in outs:
        overlapping, equal = set(), set()
        apart = out.flags.owndata
        for i, operand in enumerate(operands):
            if operand is out:
                overlapping.add(i)
                equal.add(i)
            elif not (apart and operand.flags.owndata) and np.may_share_memory(operand, out):
                overlapping.add(i)
                if same_entries(operand, out):
                    equal.add(i)
        shared.append(frozenset(overlapping))
        same.append(frozenset(equal))
    shapes, dtypes = tuple(map(_SHAPE, operands)), tuple(map(_DTYPE, operands))
    return Signature(shapes, dtypes, outs[0].shape, tuple(map(_DTYPE, outs)), tuple(shared), tuple(same))


class Move(NamedTuple):
    """One ufunc call, a copy (`op` is `"copy"`), or the two masked copies of `"where"`."""

    op: str
    arguments: tuple[Place, ...]
    result: Place


class _Allocator:
    """A linear scan over a program: each value gets a place that is free while the value is live."""

    def __init__(self, program: Program, signature: Signature) -> None:
        self.program = program
        self.signature = signature
        self.real = compute_type(np.result_type(*map(_known, map(dtype_name, signature.dtypes))).name)
        self.last_use = program.last_uses()
        self.places: dict[int, Place] = {}
        self.free: list[Place] = []
        self.scratch_count = 0
        self.moves: list[Move] = []

    def run(self) -> list[Move]:
        for number, value in enumerate(self.program.values):
            if value.op == "operand":
                self._operand(number)
            elif value.op == "constant":
                self.places[number] = Place("constant", number, (), self._dtype(value))
            else:
                self._instruction(number)
        for j, number in enumerate(self.program.outputs):
            if self.places[number] != self._out(j):
                self.moves.append(Move("copy", (self.places[number],), self._out(j)))
        return self.moves

    def _operand(self, number: int) -> None:
        shape, dtype = self.signature.shapes[number], dtype_name(self.signature.dtypes[number])
        place = Place("operand", number, shape, dtype)
        if dtype != self.real:  # widened once, not at every use; besides, exp of float32 would stay float32
            wide = self._new(shape, self.real)
            self.moves.append(Move("copy", (place,), wide))
            place = wide
        elif self._overwritten_by_another(number):
            kept = self._new(shape, dtype)
            self.moves.append(Move("copy", (place,), kept))
            place = kept
        self.places[number] = place

    def _overwritten_by_another(self, number: int) -> bool:
        """Whether an operand that is a result overlaps the memory of a different result, as in a swap."""
        outputs = self.program.outputs
        return number in outputs and any(
            number in shared and (output != number or outputs.count(number) > 1)
            for output, shared in zip(outputs, self.signature.shared, strict=True)
        )

    def _instruction(self, number: int) -> None:
        value = self.program.values[number]
        arguments = tuple(self.places[a] for a in value.arguments)
        shape = np.broadcast_shapes(*(a.shape for a in arguments))
        dtype = self._dtype(value)
        dying = {a for a in value.arguments if self.last_use[a] == number}
        if value.op != "where":  # masked copies, unlike ufuncs, overwrite entries before reading all operands
            self._release(dying)
        self.places[number] = result = self._place(number, shape, dtype)
        if value.op == "where":
            self._release(dying)
        self.moves.append(Move(value.op, arguments, result))

    def _place(self, number: int, shape: Shape, dtype: str) -> Place:
        """The result's memory if the value can be stored there, else free scratch, else new scratch."""
        wanted = [j for j, output in enumerate(self.program.outputs) if output == number]
        occupied = {place for place in self.places.values() if place not in self.free}
        for j in wanted or range(len(self.program.outputs)):
            out = self._out(j)
            if (out.shape, out.dtype) == (shape, dtype) and out not in occupied and self._unread(j, number):
                if out in self.free:
                    self.free.remove(out)
                return out
        for place in self.free:
            # A result is never kept in another result's memory, where the final copies could overwrite it.
            if (place.shape, place.dtype) == (shape, dtype) and not (wanted and place.kind == "out"):
                self.free.remove(place)
                return place
        return self._new(shape, dtype)

    def _unread(self, j: int, number: int) -> bool:
        """Whether no operand in the memory of result j is read later; a ufunc may read the array it overwrites."""
        same = self.signature.same[j] if self.signature.same else frozenset()
        careful = self.program.values[number].op == "where"  # it overwrites some entries before it reads others
        return all(
            self.last_use.get(i, -1) + (1 if careful and i not in same else 0) <= number
            for i in self.signature.shared[j]
        )

    def _dtype(self, value: Value) -> str:
        return {"real": self.real, "bool": "bool", "bits": "uint32"}[value.kind]

    def _release(self, numbers: set[int]) -> None:
        for number in numbers:
            if self.places[number].kind in ("scratch", "out") and self.places[number] not in self.free:
                self.free.append(self.places[number])

    def _new(self, shape: Shape, dtype: str) -> Place:
        self.scratch_count += 1
        return Place("scratch", self.scratch_count, shape, dtype)

    def _out(self, j: int) -> Place:
        return Place("out", j, self.signature.out_shape, dtype_name(self.signature.out_dtypes[j]))


def _known(dtype: str) -> np.dtype:
    # NumPy cannot promote bfloat16; float16 has the same promotion rules, and both are computed in float32.
    return np.dtype("float16" if dtype == "bfloat16" else dtype)


@functools.lru_cache(maxsize=1024)
def moves(program: Program, signature: Signature) -> tuple[Move, ...]:
    """The moves of a program for a signature."""
    return tuple(_Allocator(program, signature).run())
