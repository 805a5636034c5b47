"""The directive `{house}`: a drawing of the modules and their imports, made from the sources.

Each package is a column, and each module a dot above all that it imports. A touched module tells what it imports and
which modules import it.
"""

import ast
import math
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

_ROOT = Path(__file__).resolve().parents[2]
_COLUMNS = (
    "nnkit.backends", "nnkit.backends.formulas", "nnkit.backends.cpu", "nnkit.backends.cuda", "nnkit.kernels", "nnkit",
    "nnkit.data", "nnkit.training", "nnkit.parallel", "nnkit.ensembles", "nnkit.one_launch", "nnkit.plots",
    "nnkit.verify", "nnkit.sklearn", "nnkit.commands",
)  # fmt: skip
_DOT, _ROW, _NAME = 13, 17, 140


def modules() -> dict[str, set[str]]:
    """Each module with the modules that it imports, anywhere in it; a package is what its `__init__` imports."""
    files = {}
    for folder, package in (("nnkit", "nnkit"), ("backends", "nnkit.backends")):
        for path in sorted((_ROOT / folder).rglob("*.py")):
            inside = path.relative_to(_ROOT / folder).with_suffix("").parts
            if folder == "nnkit" and inside[0] == "backends":  # the link
                continue
            files[".".join([package, *(part for part in inside if part != "__init__")])] = path
    found = {}
    for name, path in files.items():
        used: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                used.update(one if one in files else str(node.module) for one in full)
        found[name] = used & files.keys() - {name}
    return found


def levels(used: dict[str, set[str]]) -> dict[str, int]:
    """The height of each module: one more than the highest that it imports."""
    known: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in known:
            known[name] = 1 + max(map(level, used[name]), default=-1)
        return known[name]

    for name in used:
        level(name)
    return known


def column(name: str) -> str:
    """The column of a module: the longest package name that it begins with."""
    return max((c for c in _COLUMNS if name == c or name.startswith(c + ".")), key=len)


def drawing() -> str:
    """The SVG, with the list of packages above it."""
    used = modules()
    height = levels(used)
    cells: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in used:
        cells[column(name), height[name]].append(name)
    columns = [c for c in _COLUMNS if any(key[0] == c for key in cells)]
    slots = {c: max(math.ceil(len(names) / 2) for key, names in cells.items() if key[0] == c) for c in columns}
    left, x = {}, 8.0
    for c in columns:
        left[c] = x
        x += max(slots[c] * _DOT, 16) + 10
    top = max(height.values())
    tall = (top + 1) * _ROW + _NAME
    place = {}
    for (c, level), names in cells.items():
        for i, name in enumerate(sorted(names)):
            place[name] = (left[c] + 8 + (i // 2) * _DOT, (top - level) * _ROW + 12 + (i % 2) * 7)
    parts = []
    for i, c in enumerate(columns):
        wide = max(slots[c] * _DOT, 16) + 8
        parts.append(f'<rect class="band" x="{left[c] - 2}" y="2" width="{wide}" height="{tall - _NAME}" rx="4"/>')
        label = c.removeprefix("nnkit.")
        at = f"{left[c] + wide / 2 - 2} {tall - _NAME + 14}"
        parts.append(f'<text class="c{i}" transform="translate({at}) rotate(60)">{escape(label)}</text>')
    for name, below in used.items():
        for other in sorted(below):
            (x1, y1), (x2, y2) = place[name], place[other]
            parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" data-from="{name}" data-to="{other}"/>')
    importers = defaultdict(list)
    for name, below in used.items():
        for other in below:
            importers[other].append(name)
    for name, (a, b) in place.items():
        told = [
            name,
            "imports " + (", ".join(sorted(used[name])) or "nothing of nnkit"),
            "is imported by " + (", ".join(sorted(importers[name])) or "none"),
        ]
        parts.append(
            f'<circle cx="{a}" cy="{b}" r="3.2" class="c{columns.index(column(name))}" data-name="{name}" '
            f'data-told="{escape("|".join(told), quote=True)}"><title>{name}</title></circle>'
        )
    edges = sum(map(len, used.values()))
    said = f"{len(used)} modules on {top + 1} levels, with {edges} imports, all of which lead down."
    return (
        f'<figure class="house"><figcaption>{said}</figcaption>'
        f'<svg class="drawing" viewBox="0 0 {x + 50:.0f} {tall}" width="{x + 50:.0f}" height="{tall}" role="img" '
        f'aria-label="{said}">{"".join(parts)}</svg><p class="told" aria-live="polite">Touch a dot.</p></figure>'
    )


class House(Directive):
    """`{house}`: the drawing."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", drawing(), format="html")]


def setup(app: Any) -> dict[str, Any]:
    """Add the directive, with the script of its drawing."""
    app.add_directive("house", House)
    app.add_js_file("house.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
