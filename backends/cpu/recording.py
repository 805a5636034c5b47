"""Recordings on NumPy: their pass, and the lowering of nodes to ufuncs and BLAS, with separate scratch arrays."""

from typing import Any

import numpy as np

from nnkit.backends.accumulate import Accumulate, inside_products
from nnkit.backends.cpu.blocks import same_entries
from nnkit.backends.cpu.calls import Elementwise, Scratch, ufunc_calls
from nnkit.backends.cpu.native.compiler import enabled
from nnkit.backends.cpu.native.nodes import in_runs, native_calls_of
from nnkit.backends.cpu.native.rows import in_rows
from nnkit.backends.cpu.products import AddColumnSums, AddProduct, AddProducts, blas_function, one_thread
from nnkit.backends.recording import Call, Node, Nodes

MANY = 256  # rows; above, NumPy's product and a separate update are as fast as SciPy's product that adds


def adding(node: Node, out: np.ndarray, x: np.ndarray, alpha: np.ndarray) -> Node | None:
    """The node that adds α times a product or column sums to `out` by SciPy's BLAS; None if that is not faster."""
    if getattr(node.call, "func", None) not in (np.dot, np.matmul) or node.read is None or node.written is None:
        return None
    a, *b = node.read  # column sums, a product with ones, read only a
    if a.ndim == 3:
        return _adding_stacks(node, out, x, alpha)
    fits = out.ndim == 1 + len(b) and (node.written[0] is x or same_entries(node.written[0], x)) and out.dtype.isnative
    if not fits or not all(array.flags.forc and array.dtype == out.dtype for array in (*node.read, out)):
        return None
    terms = node.read[-1].shape[0]
    if out.dtype == np.float32 and terms > MANY and not enabled():
        return None
    call: Call = AddProduct(a, b[0], out, alpha) if b else AddColumnSums(a, out, alpha)
    return Node(call, (*node.read, alpha, out), (out,), "add_product" if b else "add_column_sums")


def _adding_stacks(node: Node, out: np.ndarray, x: np.ndarray, alpha: np.ndarray) -> Node | None:
    """The node for stacks of products, which native code adds; NumPy's products and one sum are faster than calls."""
    a, b = node.read or ()
    if not enabled() or node.written is None or not same_entries(node.written[0], x):
        return None
    call = AddProducts(a, b, out, alpha)
    return Node(call, (a, b, alpha, out), (out,), "add_products") if native_calls_of(call) else None


def accumulate(nodes: Nodes) -> Nodes:
    """Turn products and column sums into accumulating ones, if SciPy's BLAS can be used next to NumPy's."""
    alpha = next((node.call.alpha for node in nodes if isinstance(node.call, Accumulate)), None)
    # That requires one thread each; checked before SciPy is imported, and again with SciPy's own threads.
    if alpha is None or not one_thread() or blas_function("gemm", alpha.dtype.name) is None or not one_thread():
        return nodes
    return inside_products(nodes, adding, np.may_share_memory)


PASSES = (accumulate,)


def lowered(nodes: Nodes) -> list[Call]:
    """The calls of the nodes: native code, in runs of one call, where that is enabled and there is some; else ufuncs.

    SciPy's BLAS adds biases only if a node uses it anyway, since importing it and checking its threads takes time.
    """
    scratch, calls, compiles = Scratch(), list[Call](), enabled()
    adds_rows = any(isinstance(node.call, AddProduct) for node in nodes)
    given: list[Any] = [node.call for node in nodes]
    for call in in_rows(given) if compiles else given:
        found = native_calls_of(call) if compiles else None
        if found is not None:
            calls += found
        elif isinstance(call, Elementwise):
            calls += ufunc_calls(call.program, call.operands, call.outs, scratch, adds_rows)
        else:
            calls.append(call)
    return in_runs(calls) if compiles else calls
