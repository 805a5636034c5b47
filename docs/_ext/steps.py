"""The directive `{steps}`: one training step as nodes, on NumPy, as native code and as a CUDA graph.

The step is recorded when the page is made, like `Network.explain_step` does it. The CUDA graph's nodes come from the
emulation of a GPU that the tests use, so that no GPU is needed. Each is drawn as an SVG whose nodes answer to touch.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

import nnkit
from nnkit.backends import selection
from nnkit.step import NodeExplanation, Step

SIZES, BATCH = (784, 100, 10), 64
VARIANTS = {
    "numpy": ("NumPy", "each node is one or several calls from Python"),
    "native": ("Native code", "all nodes are one call of code that numba has compiled"),
    "cuda": ("CUDA graph", "all nodes are one launch"),
}
_KINDS = {"product": "matrix product", "formula": "formula", "sum": "sum", "update": "update of the parameters"}


@dataclass
class Piece:
    """A node of a step, as the page shows it.

    `after` has the numbers of the earlier nodes whose results it reads.
    """

    name: str
    kind: str
    equation: str
    reads: str
    writes: str
    bytes: int
    flops: int
    after: list[int]


def pieces(variant: str) -> tuple[list[Piece], int]:
    """The nodes of a step, and from how many calls Python runs it."""
    if variant == "numpy" and os.environ.get("NNKIT_NATIVE") != "0":
        done = subprocess.run(
            [sys.executable, "-m", __name__], env=os.environ | {"NNKIT_NATIVE": "0"}, capture_output=True, check=True
        )
        found, calls = json.loads(done.stdout)
        return [Piece(**made) for made in found], calls
    backend: Any = "numpy"
    if variant == "cuda":
        import cupy

        from tests.support.host_device import HostDevice

        backend = selection._made["cupy"] = HostDevice(cupy)
    try:
        net = nnkit.Network(list(SIZES), "sigmoid", cost="cross_entropy", seed=0, backend=backend)
        step = Step(net, BATCH, nnkit.SGD(0.5).start(net.parameters))
        calls = 1 if variant == "cuda" else len(step._tape.calls)
        return _described(step, on_device=variant == "cuda"), calls
    finally:
        if variant == "cuda":
            del selection._made["cupy"]


def _described(step: Step, on_device: bool) -> list[Piece]:
    found: list[Piece] = []
    written: list[tuple[int, int, int]] = []  # first and last address, and the node that wrote there
    for number, node in enumerate(step.nodes):
        told = NodeExplanation.of(node)
        reads, writes = told.read or (), told.written or ()
        spans = [_span(array, on_device) for array in node.read or ()]
        after = {n for low, high in spans for a, b, n in written if a < high and low < b}
        kind = _kind(told.name)
        piece = Piece(
            told.name, kind, _equation(told), _shapes(reads), _shapes(writes),
            told.bytes_read + told.bytes_written, _flops(node, told), sorted(after),
        )  # fmt: skip
        found.append(piece)
        for array in node.written or ():
            low, high = _span(array, on_device)
            written = [(a, b, n) for a, b, n in written if not (low <= a and b <= high)] + [(low, high, number)]
    return found


def _span(array: Any, on_device: bool) -> tuple[int, int]:
    if on_device:
        return int(array.data.ptr), int(array.data.ptr) + array.nbytes
    low, high = np.lib.array_utils.byte_bounds(array)
    return int(low), int(high)


def _kind(name: str) -> str:
    if name in ("matmul", "add_product"):
        return "update" if name == "add_product" else "product"
    if name in ("sum", "max", "add_column_sums"):
        return "update" if name == "add_column_sums" else "sum"
    return "formula"


def _equation(told: NodeExplanation) -> str:
    """The lecture's equations of a node, from its name and shapes."""
    name, written = told.name, (told.written or ((),))[0]
    if name in ("matmul", "add_product"):
        weights = [(b, a) for a, b in pairwise(SIZES)]
        if written in weights:
            return "5, 10 with 17" if name == "add_product" else "5, 10"
        inputs = (told.read or ((),))[0][-1:]
        return "6" if inputs == SIZES[-1:] else "2, 9"
    if name in ("add_column_sums", "sum"):
        return "5, 12 with 17" if name == "add_column_sums" or len(told.read or ()) > 1 else "5, 12"
    parts = {"sigmoid_grad": "8, 13", "biased_sigmoid": "2, 7, 9", "biased": "2, 9", "delta_terms": "19"}
    numbers = ", ".join(number for part, number in parts.items() if part in name)
    return {"2, 7, 9, 2, 9": "2, 7, 9"}.get(numbers, numbers) or "17"


def _flops(node: Any, told: NodeExplanation) -> int:
    """Additions and multiplications of a product or sum; operations of a formula, of which an exponential is one."""
    if told.name in ("matmul", "add_product"):
        rows, inner = (told.read or ())[0]
        columns = math.prod((told.written or ())[0]) // rows
        return 2 * rows * inner * columns
    program = getattr(node.call, "program", None)
    if program is None:
        return math.prod((told.read or ((),))[0])
    operations = sum(value.op not in ("operand", "constant") for value in program.values)
    return operations * max(math.prod(shape) for shape in told.written or ((),))


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" × ".join(map(str, shape)) for shape in shapes if shape) or "numbers"


class Steps(Directive):
    """`{steps}`: the pictures and the tables of a step's nodes."""

    def run(self) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        tables: list[nodes.Node] = []
        for variant, (title, what) in VARIANTS.items():
            try:
                found, calls = pieces(variant)
            except ImportError:
                text = f"{title}: not shown, as CuPy was not installed where this page was made."
                made.append(nodes.paragraph(text, text))
                continue
            total, flops = sum(piece.bytes for piece in found), sum(piece.flops for piece in found)
            said = f"{title}: {len(found)} nodes, {calls} call{'s' * (calls > 1)} from Python; {what}"
            said += f". {total / 1e6:.2f} MB read and written, {flops / 1e6:.1f} million operations."
            made.append(nodes.raw("", _figure(variant, title, said, found), format="html"))
            lines = ["| | node | equation | reads | writes | bytes | operations |", "|---|---|---|---|---|---|---|"]
            for number, piece in enumerate(found, 1):
                numbers = f"{piece.bytes:,} | {piece.flops:,}"
                lines.append(
                    f"| {number} | `{piece.name}` | {piece.equation} | {piece.reads} | {piece.writes} | {numbers} |"
                )
            holder = nodes.container(classes=["numbers"])
            self.state.nested_parse(StringList(lines, source="steps"), self.content_offset, holder)
            begin = f'<details class="code"><summary>{escape(title)}: the table of its nodes</summary>'
            tables += [nodes.raw("", begin, format="html"), holder, nodes.raw("", "</details>", format="html")]
        return made + tables


_ROW, _WIDTH, _LEFT = 38, 400, 96


def _figure(variant: str, title: str, said: str, found: list[Piece]) -> str:
    """The picture of a step: its nodes from top to bottom, with arcs from those whose results they read."""
    height = _ROW * len(found) + 12
    longest = math.log(max(piece.bytes for piece in found))
    parts = []
    for number, piece in enumerate(found):
        for before in piece.after:
            a, b = _ROW * before + 22, _ROW * number + 22
            reach = min(14 + 9 * (number - before), _LEFT - 8)
            path = f"M{_LEFT} {a} C{_LEFT - reach} {a} {_LEFT - reach} {b} {_LEFT} {b}"
            parts.append(f'<path class="arc" data-from="{before}" data-to="{number}" d="{path}"/>')
    if variant != "numpy":
        parts.append(
            f'<rect class="call" x="{_LEFT - 6}" y="2" width="{_WIDTH - _LEFT + 2}" height="{height - 4}" rx="8"/>'
        )
    for number, piece in enumerate(found):
        y, width = _ROW * number + 8, (_WIDTH - _LEFT - 10) * max(math.log(piece.bytes) / longest, 0.1)
        told = [
            f"{number + 1}. {piece.name}, a {_KINDS[piece.kind]}: equation {piece.equation}",
            f"reads {piece.reads}; writes {piece.writes}",
            f"{piece.bytes:,} bytes, {piece.flops:,} operations",
        ]
        label = escape(" · ".join(told), quote=True)
        parts.append(
            f'<g class="node {piece.kind}" tabindex="0" role="button" aria-label="{label}" data-n="{number}" '
            f'data-told="{escape("|".join(told), quote=True)}">'
            f'<rect class="whole" x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT - 10}" height="28" rx="5"/>'
            f'<rect class="bar" x="{_LEFT}" y="{y + 24}" width="{width:.0f}" height="4" rx="2"/>'
            f'<text x="{_LEFT + 10}" y="{y + 18}">{escape(piece.name)}</text></g>'
        )
    return (
        f'<figure class="step" data-title="{escape(title)}"><figcaption>{escape(said)}</figcaption>'
        f'<svg class="drawing" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="group" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg><p class="told" aria-live="polite"></p></figure>'
    )


def setup(app: Any) -> dict[str, Any]:
    """Add the directive, with the script of its pictures."""
    app.add_directive("steps", Steps)
    app.add_js_file("step.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    found, calls = pieces("numpy")
    print(json.dumps([[asdict(piece) for piece in found], calls]))
