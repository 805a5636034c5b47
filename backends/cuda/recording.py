"""The passes over a recording on a GPU: fewer launches, and fewer arrays read and written.

    accumulate    fuses an update into the product that computes it (`inside_products`)
    cast_factors  products share cast copies of their factors, which nnkit's kernels write as additional results
    chain         fuses consecutive formulas into one kernel, and the moves of rows of several arrays
    by_rows       fuses sums and maxima of rows with the formulas around them, such as softmax with its output error
    carry_casts   an update also writes the cast copies of parameters, for the next of many replays
    into_products large products also add the bias and apply ReLU, or its derivative (`nnkit.backends.cuda.epilogues`)
    begin_sums    a kernel also starts the column sums of the matrix that it computes
    put_beside    a kernel also writes its result to the rows of a larger array to which it is copied
    take_cast     rows are taken to the cast copy of a matrix, instead of to the matrix
    ride          a kernel's first thread also does the work of a launch of one thread, such as moving a counter
    leave_unread  kernels do not write what nothing reads

Each moves work only if no node in between is affected, and is correct alone and in any order; this order finds the most
fusions. In a kernel, the compiler may contract a product and a sum (fused multiply-add, rounded once): recordings give
the same bits with and without a graph, which can differ from those of calls without recording.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nnkit.backends.accumulate import inside_products
from nnkit.backends.cuda.cublas import Product
from nnkit.backends.cuda.elementwise import ElementwiseCall
from nnkit.backends.cuda.epilogues import into_products
from nnkit.backends.cuda.launch import ColumnSums, Launch, extent, overlap, reads, same, touched, writes
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.formula import Formula
from nnkit.backends.recording import (
    Discard,
    First,
    Node,
    Nodes,
    Repeated,
    nodes_of,
)  # fmt: skip

ROUNDED = Formula(lambda xp, a: a, "rounded", ["a"])  # casts a matrix to the dtype of the result


def adding(node: Node, out: Any, x: Any, alpha: Any) -> Node | None:
    """The node that adds α times a product or column sums to `out`; None if there is none."""
    call = node.call
    if isinstance(call, Product) and same(call.out, x):
        made = call.added_to(out, alpha)
        return None if made is None else made.node
    if isinstance(call, ColumnSums) and call.alpha is None and same(call.out, x) and out.flags.c_contiguous:
        types = {dtype_name(array.dtype) for array in (call.a, x, out, alpha)}
        return ColumnSums(call.device, call.a, out, alpha).node if len(types) == 1 else None
    return None


def accumulate(nodes: Nodes) -> Nodes:
    """Turn products and column sums followed by an update into accumulating ones."""
    return inside_products(nodes, adding, overlap)


def cast_factors(nodes: Nodes) -> Nodes:
    """Cast factors to the dtype in which products read them.

    One copy is for a matrix and its transpose until the matrix is overwritten. It directly follows the kernel that
    computes the matrix, if that is nnkit's, so that `chain` can fuse both. A formula that only asks for the signs of a
    matrix, such as the derivative of ReLU, reads the copy.
    """
    done: Nodes = []
    copies: list[tuple[Any, str, Any]] = []  # (matrix, dtype, copy)
    for node in nodes:
        product = node.call
        if isinstance(product, Product) and (sources := product.to_cast()):
            for source in sources:
                if not any(same(source, a) and kind == product.kind for a, kind, _ in copies):
                    copy = product.device.empty(source.shape, product.kind)
                    place = _place_of_kernel(done, source)
                    place = len(done) if place is None else place + 1
                    done[place:place] = nodes_of(partial(product.device.round, source, copy))
                    copies.append((source, product.kind, copy))
            node = product.reading([(a, copy) for a, kind, copy in copies if kind == product.kind]).node
        elif isinstance(product, ElementwiseCall) and copies:
            node = product.reading_signs([(a, copy) for a, kind, copy in copies if kind == "bfloat16"]).node
        copies = [entry for entry in copies if not writes(node, entry[0])]
        done.append(node)
    return done


def _joined(nodes: Nodes, join: Callable[[Launch, Launch], Any]) -> Nodes:
    """Join each kernel to the one before it, where `join` makes one of both."""
    done: Nodes = []
    for node in nodes:
        last, both = done[-1].call if done else None, None
        if isinstance(last, Launch) and isinstance(node.call, Launch):
            both = join(last, node.call)
        if both is None:
            done.append(node)
        else:
            done[-1] = both.node
    return done


def chain(nodes: Nodes) -> Nodes:
    """Fuse adjacent kernels if the second reads a result of the first."""
    return _joined(nodes, lambda last, call: last.followed_by(call))


def by_rows(nodes: Nodes) -> Nodes:
    """Fuse sums and maxima of rows with the kernels before and after them, which read or give what they reduce."""

    def join(last: Launch, call: Launch) -> Any:
        first, second = last.by_rows(), call.by_rows()
        if isinstance(first, ElementwiseCall) and isinstance(second, ElementwiseCall):
            return first.followed_by(second)
        return None

    return _joined(nodes, join)


def put_beside(nodes: Nodes) -> Nodes:
    """A kernel also writes its result to the rows of a larger array to which it is then copied."""
    done: Nodes = []
    for node in nodes:
        place = made = None
        if isinstance(node.call, Launch) and node.call.kind == "put" and len(node.call.outs) == 1:
            values, start, out = *node.call.operands[:2], node.call.outs[0]
            place = _place_of_kernel(done, values)
            if place is not None and not touched(done[place + 1 :], (start,), (out,)):
                kernel: Any = done[place].call
                number = kernel.gives(values)
                made = None if number is None else kernel.placing(number, start, out)
        if place is None or made is None:
            done.append(node)
        else:
            done[place] = made.node
    return done


def ride(nodes: Nodes) -> Nodes:
    """The first thread of a kernel also does the work of a launch of one thread that follows it."""
    done: Nodes = []
    for node in nodes:
        made, place, call = None, len(done), node.call
        if isinstance(call, Launch) and call.work is not None:
            while made is None and place > 0 and not touched(done[place - 1 : place], call.read, call.written):
                place -= 1
                kernel = done[place].call
                made = kernel.carrying(call) if isinstance(kernel, ElementwiseCall) else None
        if made is None:
            done.append(node)
        else:
            done[place] = made.node
    return done


def take_cast(nodes: Nodes) -> Nodes:
    """Rows are taken to the cast copy of a matrix that nothing else reads."""
    discarded = [array for node in nodes if isinstance(node.call, Discard) for array in node.call.arrays]
    done = list(nodes)
    for cast in nodes if discarded else ():
        if not isinstance(cast.call, ElementwiseCall) or not cast.call.copies:
            continue
        (matrix,), (copy,) = cast.call.operands, cast.call.outs
        number = next(i for i, node in enumerate(done) if node is cast)
        place = next((i for i in reversed(range(number)) if writes(done[i], matrix)), None)
        take = None if place is None else done[place].call
        if place is None or not isinstance(take, Launch) or not any(same(matrix, array) for array in discarded):
            continue
        others = done[number + 1 :] + done[:number]
        if any(reads(node, matrix) for node in others) or touched(done[place + 1 : number], (), (copy,)):
            continue
        made = take.writing(copy, matrix)
        if made is not None:
            done[place] = made.node
            del done[number]
    return done


def carry_casts(nodes: Nodes) -> Nodes:
    """An update also writes the cast copy of its parameters that the next of many replays reads.

    The copy for the first of them is cast before.
    """
    done = list(nodes)
    updates = [node.call for node in nodes if isinstance(node.call, ElementwiseCall)]
    for update in updates if any(isinstance(node.call, Repeated) for node in nodes) else ():
        for number, out in enumerate(update.outs):
            calls = [node.call for node in done if isinstance(node.call, ElementwiseCall)]
            casts = [call for call in calls if _is_carried(done, call, update, number)]
            if casts:
                copy = update.device.empty(out.shape, "bfloat16")
                parts = [(cast.outs[0], _part(copy, out, cast.operands[0])) for cast in casts]
                done = [_with_copy(node, update, number, copy, parts) for node in done if node.call not in casts]
                done.append(Node(First(nodes_of(partial(update.device.round, out, copy))), (), (), "note"))
                break
    return done


def _is_carried(nodes: Nodes, cast: ElementwiseCall, update: ElementwiseCall, number: int) -> bool:
    """Whether a call casts a part of an update's result, which only that writes, for products before the update."""
    if cast.program is not ROUNDED.program() or not cast.copies or not update.can_copy(number):
        return False
    (source,), (copy,), out = cast.operands, cast.outs, update.outs[number]
    (start, end), (first, last) = extent(source, source.data.ptr), extent(out, out.data.ptr)
    if out.ndim != 1 or not first <= start < end <= last or not source.flags.c_contiguous:
        return False
    places = {id(node.call): place for place, node in enumerate(nodes)}
    begin, end = places[id(cast)], places[id(update)]
    for place, node in enumerate(nodes):
        call = node.call
        if (place != end and writes(node, source)) or (place != begin and writes(node, copy)):
            return False
        between = begin < place < end
        if reads(node, copy) and not (between and isinstance(call, Product) and call.reads(copy)):
            return False
    return begin < end


def _part(copy: Any, out: Any, source: Any) -> Any:
    """The part of a copy of `out` that is the copy of `source`."""
    start = (source.data.ptr - out.data.ptr) // out.itemsize
    return copy[start : start + source.size].reshape(source.shape)


def _with_copy(node: Node, update: ElementwiseCall, number: int, copy: Any, parts: Sequence[tuple[Any, Any]]) -> Node:
    """The update that also writes the copy, the products that read parts of it, and other nodes as they are."""
    if node.call is update:
        return update.also_rounding(number, copy).node
    if isinstance(node.call, Product) and any(node.call.reads(old) for old, _ in parts):
        return node.call.instead_of(parts).node
    return node


def leave_unread(nodes: Nodes) -> Nodes:
    """Kernels do not write what nothing reads (`nnkit.backends.recording.discard`)."""
    discarded = [array for node in nodes if isinstance(node.call, Discard) for array in node.call.arrays]
    done = list(nodes)
    for place, node in enumerate(nodes):
        call = node.call
        if discarded and isinstance(call, ElementwiseCall):
            later = done[place + 1 :] + done[: place + 1]  # of this replay and the next
            unread = [
                number
                for number, out in enumerate(call.outs)
                if any(same(out, array) for array in discarded) and not _is_read(later, out)
            ]
            if unread and len(unread) < len(call.outs):
                done[place] = call.without(unread).node
    return done


def begin_sums(nodes: Nodes) -> Nodes:
    """Finish column sums from partial sums of the kernel that computes the matrix."""
    done: Nodes = []
    for node in nodes:
        begun = _begun(done, node.call) if isinstance(node.call, ColumnSums) else None
        if begun is None:
            done.append(node)
        else:
            place, kernel, rest = begun
            done[place] = kernel
            done += rest
    return done


PASSES = (
    accumulate, cast_factors, chain, by_rows, carry_casts, into_products, begin_sums, put_beside, take_cast, ride,
    leave_unread,
)  # fmt: skip


def _begun(nodes: Nodes, sums: ColumnSums) -> tuple[int, Node, Nodes] | None:
    """The index of a matrix's kernel, the kernel that also starts its sums, and the nodes that finish them."""
    place = _place_of_kernel(nodes, sums.a)
    if place is None:
        return None
    call: Any = nodes[place].call
    numbers = [number for number, out in enumerate(call.outs) if same(out, sums.a)]
    made = call.with_sums(numbers[0]) if numbers else None
    if made is None:
        return None
    kernel, some = made
    return place, kernel.node, nodes_of(partial(sums.device.finish_sums, some, sums.out, sums.alpha))


def _place_of_kernel(nodes: Nodes, array: Any) -> int | None:
    """The index of the last node that may write to an array, if it is a formula's kernel."""
    last = next((place for place in reversed(range(len(nodes))) if writes(nodes[place], array)), None)
    return last if last is not None and isinstance(nodes[last].call, ElementwiseCall) else None


def _is_read(nodes: Nodes, array: Any) -> bool:
    """Whether any of these nodes may read an array before one overwrites it."""
    for node in nodes:
        if reads(node, array) or node.written is None:
            return True
        if any(same(array, written) for written in node.written):
            return False
    return False
