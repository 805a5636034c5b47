"""What native text can use: memory by address, selections without branches, the bits of numbers, calls by address.

Only the compiler imports this module, as it imports numba. Nothing here needs a symbol of Python, numba or the C
library, so the object code can be loaded without them.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_SCOPES = 32  # arrays that a text can distinguish with `load` and `store`


def _pointers(entry: types.Type) -> Any:
    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(entry)(types.int64), generate

    return pointer


def _apart(module: Any, scope: int) -> tuple[Any, Any]:
    """Metadata of an access to array number `scope`, which overlaps none of the others."""
    domain = module.add_metadata([ir.MetaDataString(module, "nnkit")])
    scopes = [module.add_metadata([ir.MetaDataString(module, f"array {i}"), domain]) for i in range(_SCOPES)]
    others = [s for i, s in enumerate(scopes) if i != scope]
    return module.add_metadata([scopes[scope]]), module.add_metadata(others)


def _access(builder: Any, pointer: Any, index: Any, scope: Any) -> tuple[Any, Any]:
    place = builder.gep(pointer, [index], inbounds=True)
    return place, _apart(builder.module, scope.literal_value)


@intrinsic(prefer_literal=True)
def load(typing: Any, pointer: Any, index: Any, scope: Any) -> Any:
    """`pointer[index]`, of an array that no other scope overlaps: LLVM vectorizes without checking."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, (own, others) = _access(builder, arguments[0], arguments[1], scope)
        loaded = builder.load(place)
        loaded.set_metadata("alias.scope", own)
        loaded.set_metadata("noalias", others)
        return loaded

    return pointer.dtype(pointer, types.int64, scope), generate


@intrinsic(prefer_literal=True)
def store(typing: Any, pointer: Any, index: Any, value: Any, scope: Any) -> Any:
    """`pointer[index] = value`, likewise."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, (own, others) = _access(builder, arguments[0], arguments[1], scope)
        stored = builder.store(arguments[2], place)
        stored.set_metadata("alias.scope", own)
        stored.set_metadata("noalias", others)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, pointer.dtype, scope), generate


def _calling(result: types.Type) -> Any:
    @intrinsic
    def call(typing: Any, address: Any, *given: Any) -> Any:
        """Call the C function at an address; the arguments are integers of 64 bits, such as addresses."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word, void = ir.IntType(64), result == types.void
            kind = ir.FunctionType(ir.VoidType() if void else context.get_value_type(result), [word] * len(given))
            function = builder.inttoptr(arguments[0], kind.as_pointer())
            returned = builder.call(function, [builder.extract_value(arguments[1], i) for i in range(len(given))])
            return context.get_dummy_value() if void else returned

        return result(types.int64, types.StarArgTuple([types.int64] * len(given))), generate

    return call


@intrinsic
def select(typing: Any, condition: Any, chosen: Any, otherwise: Any) -> Any:
    """The second argument where the condition is true, else the third, without a branch."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return chosen(types.boolean, chosen, chosen), generate


def _operation(name: str) -> Any:
    """An operation that LLVM knows, of floats of one type."""

    @intrinsic
    def operation(typing: Any, *given: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = [builder.extract_value(arguments[0], i) for i in range(len(given))]
            kind = values[0].type
            whole = ir.FunctionType(kind, [kind] * len(given))
            return builder.call(builder.module.declare_intrinsic(name, [kind], whole), values)

        return given[0](types.StarArgTuple(given)), generate

    return operation


def _bitcast(given: types.Type, result: types.Type) -> Any:
    @intrinsic
    def cast(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(result))

        return result(given), generate

    return cast


@intrinsic
def from_half(typing: Any, x: Any) -> Any:
    """The float32 of a float16's bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def to_half(typing: Any, x: Any) -> Any:
    """The bits of a float32 rounded to float16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


_FLUSHING = 0x8040  # of the register MXCSR: results and operands that are subnormal are 0


@intrinsic
def flush_subnormals(typing: Any, keep: Any) -> Any:
    """Set subnormal numbers to 0 from here on, on x86-64; the mode before is stored at an address of 8 bytes."""
    return types.void(types.int64), _mode(_FLUSHING)


@intrinsic
def restore_mode(typing: Any, kept: Any) -> Any:
    """Set the mode that `flush_subnormals` has stored."""
    return types.void(types.int64), _mode(0)


def _mode(bits: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if builder.module.triple.startswith("x86_64"):
            word, address = ir.IntType(32), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [address])
            read, write = (
                builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
                for name in ("llvm.x86.sse.stmxcsr", "llvm.x86.sse.ldmxcsr")
            )
            place = builder.inttoptr(arguments[0], word.as_pointer())
            if bits:
                builder.call(read, [builder.bitcast(place, address)])
                mode = builder.load(place)
                place = builder.gep(place, [ir.Constant(word, 1)])
                builder.store(builder.or_(mode, ir.Constant(word, bits)), place)
            builder.call(write, [builder.bitcast(place, address)])
        return context.get_dummy_value()

    return generate


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def exchange(typing: Any, address: Any, expected: Any, value: Any) -> Any:
    """Replace the word at an address if it is the expected one, at once for all threads; whether it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, order = _word(builder, arguments[0]), "seq_cst"
        return builder.extract_value(builder.cmpxchg(place, arguments[1], arguments[2], order, order), 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def read(typing: Any, address: Any) -> Any:
    """The word at an address, and after it all that another thread wrote before this word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_word(builder, arguments[0]), "acquire", 8)

    return types.int64(types.int64), generate


def _plain(builder: Any, name: str, result: Any) -> Any:
    """A call of one of LLVM's functions that have no arguments."""
    found = builder.module.globals.get(name)
    return builder.call(found or ir.Function(builder.module, ir.FunctionType(result, []), name), [])


@intrinsic
def pause(typing: Any) -> Any:
    """Tell an x86 CPU that this thread waits in a loop."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _plain(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def cycles(typing: Any) -> Any:
    """The CPU's counter of time."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _plain(builder, "llvm.readcyclecounter", ir.IntType(64))

    return types.int64(), generate


ENTRIES = ("uint8", "uint16", "int32", "uint32", "int64", "float32", "float64")

# Names of the text: float32s(address) is a pointer p with entries p[i]; float32(x) converts.
NAMES: dict[str, Any] = {
    "inf": np.inf,
    "nan": np.nan,
    **{f"{name}s": _pointers(getattr(types, name)) for name in ENTRIES},
    **{name: getattr(np, name) for name in ENTRIES},
    **{f.__name__: f for f in (load, store, select, from_half, to_half, flush_subnormals, restore_mode)},
    **{f.__name__: f for f in (exchange, read, pause, cycles)},
    "call": _calling(types.void),
    "call_float32": _calling(types.float32),  # of a function that returns such a number
    "call_float64": _calling(types.float64),
    "sqrt": _operation("llvm.sqrt"),
    "absolute": _operation("llvm.fabs"),
    "floor": _operation("llvm.floor"),
    "rint": _operation("llvm.rint"),
    "copysign": _operation("llvm.copysign"),
    "fused": _operation("llvm.fmuladd"),  # a b + c, rounded once if the CPU has such an instruction, else twice
    "bits32": _bitcast(types.float32, types.int32),
    "from_bits32": _bitcast(types.int32, types.float32),
    "bits64": _bitcast(types.float64, types.int64),
    "from_bits64": _bitcast(types.int64, types.float64),
}
