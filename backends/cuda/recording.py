"""The passes over a recording on a GPU: fewer launches, and fewer arrays that are read and written.

    cast_factors  products that want other types than their factors' read copies, which they share and which kernels of
                  nnkit write beside what they compute
    chain         a kernel goes on with what the kernel before it computes
    begin_sums    a kernel begins to sum the columns of the matrix that it computes

Each moves work only where no node between would see the difference, and is right alone and in any order; in this order
they find the most. A GPU's compiler may round a product and a sum that meet in a kernel once instead of twice: the bits
are those of the recording, with a graph and without, and may be others than those of calls outside of one.
"""

from functools import partial
from typing import Any

from nnkit.backends.cuda.cublas import Product
from nnkit.backends.cuda.elementwise_call import ElementwiseCall
from nnkit.backends.cuda.launch import overlap, same
from nnkit.backends.recording import Node, Nodes, nodes_of


class ColumnSums:
    """The call `out ← sums of a's columns`, or with α `out ← out + α sums`; at the end of a recording it is kernels."""

    def __init__(self, device: Any, a: Any, out: Any, alpha: Any = None) -> None:
        self.device, self.a, self.out, self.alpha = device, a, out, alpha

    def __call__(self) -> None:
        self.device.sum_columns(self.a, self.out, self.alpha)


def cast_factors(nodes: Nodes) -> Nodes:
    """Copies of factors in the type in which products read them.

    One serves a matrix and its transpose for as long as nothing is written there. It is made right behind the kernel
    that gives the matrix, where that is one of nnkit's, so that `chain` can make one kernel of both.
    """
    done: Nodes = []
    copies: list[tuple[Any, str, Any]] = []  # each with the matrix and the type
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
    """One kernel of two neighbours, where the second takes a result of the first."""
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
    """Sums of columns as kernels; where it can be from what the kernel has summed that gives the matrix."""
    done: Nodes = []
    for node in nodes:
        sums = node.call
        if not isinstance(sums, ColumnSums):
            done.append(node)
            continue
        place = _place_of_kernel(done, sums.a)
        begun = None if place is None else _begun(done[place].call, sums.a)
        if place is None or begun is None:
            done += nodes_of(sums)
        else:
            kernel, some = begun
            done[place] = kernel.node
            done += nodes_of(partial(sums.device.finish_sums, some, sums.out, sums.alpha))
    return done


PASSES = (cast_factors, chain, begin_sums)


def _begun(call: Any, matrix: Any) -> tuple[ElementwiseCall, Any] | None:
    """The kernel that begins the sums of a matrix too, if it gives it and can, and the (rows, columns) of them."""
    given = (number for number, out in enumerate(call.outs) if same(out, matrix))
    number = next(given, None)
    return None if number is None else call.with_sums(number)


def _place_of_kernel(nodes: Nodes, array: Any) -> int | None:
    """The place of the last node that may write to an array, if that is a formula's kernel."""
    last = next((place for place in reversed(range(len(nodes))) if _writes(nodes[place], array)), None)
    return last if last is not None and isinstance(nodes[last].call, ElementwiseCall) else None


def _writes(node: Node, array: Any) -> bool:
    return node.written is None or any(overlap(array, written) for written in node.written if written.size)
