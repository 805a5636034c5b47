"""Recordings on NumPy: each node as calls of ufuncs and BLAS, with the recording's own scratch arrays."""

from nnkit.backends.cpu.blas import AddProduct
from nnkit.backends.cpu.scratch import Scratch
from nnkit.backends.cpu.ufuncs import Elementwise, ufunc_calls
from nnkit.backends.recording import Call, Nodes


def lowered(nodes: Nodes) -> list[Call]:
    """The calls of the nodes, with formulas as ufuncs.

    SciPy's BLAS adds biases only if a node uses it anyway, since importing it and checking its threads takes time.
    """
    scratch, calls = Scratch(), list[Call]()
    adds_rows = any(isinstance(node.call, AddProduct) for node in nodes)
    for node in nodes:
        call = node.call
        if isinstance(call, Elementwise):
            calls += ufunc_calls(call.program, call.operands, call.outs, scratch, adds_rows)
        else:
            calls.append(call)
    return calls
