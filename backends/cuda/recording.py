"""The passes over a recording on a GPU: fewer launches, and fewer arrays read and written.

    accumulate    fuses an update into the product that computes it (`inside_products`)
    cast_factors  products share cast copies of their factors, which nnkit's kernels write as additional results
    chain         fuses consecutive formulas into one kernel
    begin_sums    a kernel also starts the column sums of the matrix that it computes

Each moves work only if no node in between is affected, and is correct alone and in any order; this order finds the most
fusions. In a kernel, the compiler may contract a product and a sum (fused multiply-add, rounded once): recordings give
the same bits with and without a graph, which can differ from those of calls without recording.
"""

from functools import partial
from typing import Any

from nnkit.backends.cuda.cublas import Product
from nnkit.backends.cuda.elementwise import ElementwiseCall, overlap, same
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.recording import Composite, Node, Nodes, inside_products, nodes_of


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
    computes the matrix, if that is nnkit's, so that `chain` can fuse both.
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
        copies = [entry for entry in copies if not _writes(node, entry[0])]
        done.append(node)
    return done


def chain(nodes: Nodes) -> Nodes:
    """Fuse adjacent kernels if the second reads a result of the first."""
    done: Nodes = []
    for node in nodes:
        last, both = done[-1].call if done else None, None
        if isinstance(last, ElementwiseCall) and isinstance(node.call, ElementwiseCall):
            both = last.followed_by(node.call)
        if both is None:
            done.append(node)
        else:
            done[-1] = both.node
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


PASSES = (accumulate, cast_factors, chain, begin_sums)


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
    last = next((place for place in reversed(range(len(nodes))) if _writes(nodes[place], array)), None)
    return last if last is not None and isinstance(nodes[last].call, ElementwiseCall) else None


def _writes(node: Node, array: Any) -> bool:
    return node.written is None or any(overlap(array, written) for written in node.written if written.size)
