"""The lecture's pages: `{equation} 8` shows what computes an equation, its error, and its code in three languages.

The errors are those of `nnkit verify`, measured when the page is made. The notebook of the examples becomes a page
whose cells are run then.
"""

import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList

from docs._ext.api import write
from nnkit.backends.cpu.native.formulas import native_source
from nnkit.backends.cuda.formula_text import formula_source
from nnkit.backends.formula import Formula, list_formulas
from nnkit.commands.reports import functions
from nnkit.data.preprocessing import Whitening
from nnkit.kernels import dense
from nnkit.verify import BOUND, Row, verify

# The lines that compute a function which is more than formulas, without its checks.
_LINES: dict[str, list[Callable[..., Any]]] = {
    "dense_forward": [dense.layer_forward],
    "dense_backward": [dense.layer_backward],
    "Network.jacobian": [importlib.import_module("nnkit.jacobian")._pulled_back],
    "data.Whitening": [Whitening.fit, Whitening._constants, Whitening._compute],
}


@cache
def measured() -> tuple[Row, ...]:
    """The rows of `nnkit verify` on NumPy."""
    rows = tuple(verify("numpy"))
    if failed := [row.function for row in rows if not row.passed]:
        raise ValueError(f"{', '.join(failed)}: the error is above {BOUND}")
    return rows


def formulas_of(name: str) -> tuple[Callable[..., Any], list[Formula]]:
    """A function of `nnkit verify`, and its formulas."""
    entries = functions()
    if name in entries:
        return entries[name].function, entries[name].formulas
    made = next(made for full, made in list_formulas().items() if full.rpartition(".")[2] == name)
    return made, [made]


class Equation(Directive):
    """`{equation} 8, 13`: the rows of `nnkit verify` with this number, and the code of their functions."""

    required_arguments, final_argument_whitespace = 1, True
    option_spec = {"function": directives.unchanged}  # noqa: RUF012  docutils declares it so

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        wanted = self.options.get("function", "").split()
        rows = [
            row for row in measured() if row.equation == self.arguments[0] and (not wanted or row.function in wanted)
        ]
        if not rows:
            raise self.error(f"nnkit verify has no row {self.arguments[0]} {' '.join(wanted)}")
        shown = env.metadata.setdefault(env.docname, {}).setdefault("equations", [])
        shown += [(row.equation, row.statement) for row in rows]
        lines = ["| what it says | function, in file | error |", "|---|---|---|"]
        for row in rows:
            made, _ = formulas_of(row.function)
            home = inspect.getmodule(getattr(made, "function", made))
            where = "" if home is None else f"`{home.__name__.replace('.', '/')}.py`"
            name = (
                f"{{py:obj}}`{row.function} <nnkit.{row.function}>`" if _public(row.function) else f"`{row.function}`"
            )
            said = row.statement.replace("|", r"\|").replace("_", r"\_")
            lines.append(f"| {said} | {name} {where} | {row.error:.1e} |")
        holder = nodes.container(classes=["equation"])
        self.state.nested_parse(StringList(lines, source=env.docname), self.content_offset, holder)
        return [holder, *self._texts(dict.fromkeys(row.function for row in rows))]

    def _texts(self, names: Iterable[str]) -> list[nodes.Node]:
        """A function's own lines, and its formulas in Python, CUDA C++ and the loop that numba compiles, folded."""
        made: list[nodes.Node] = []
        for name in names:
            if lines := _LINES.get(name):
                code = "\n\n".join(textwrap.dedent(inspect.getsource(inspect.unwrap(line))) for line in lines)
                made += folded(f"{name}: its matrix products, in Python", [_literal(code, "python")])
            texts: list[nodes.Node] = []
            for formula in formulas_of(name)[1]:
                texts += [_literal(python(formula), "python"), _literal(kernel(formula), "cuda")]
                texts.append(_literal(native_source(formula, "float32"), "python"))
            if texts:
                made += folded(f"{name} in Python, in CUDA and as a loop for the CPU", texts)
        return made


def python(formula: Formula) -> str:
    """The source of a formula."""
    return inspect.getsource(inspect.unwrap(formula.function))


def kernel(formula: Formula) -> str:
    """The text of a formula's CUDA kernel, without the types before it, which all share."""
    text = formula_source(formula, "float32")
    return text[text.index("typedef float R;") :].strip() if "typedef float R;" in text else text


def _literal(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text.rstrip(), language=language)


def folded(title: str, content: list[nodes.Node]) -> list[nodes.Node]:
    """What opens at a click, without a script."""
    begin = f'<details class="code"><summary>{escape(title)}</summary>'
    return [nodes.raw("", begin, format="html"), *content, nodes.raw("", "</details>", format="html")]


def _public(name: str) -> bool:
    head, _, tail = name.partition(".")
    found = getattr(importlib.import_module("nnkit"), head, None)
    return found is not None and (not tail or hasattr(found, tail))


def notebook(path: Path) -> str:
    """A notebook as a page: its text, and its cells to run."""
    pieces = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
            pieces.append(f"````{{run}}\n{code}\n````")
        else:
            pieces.append(re.sub(r"\]\((\w+)\.py\)", r"](../gallery/\1.rst)", text))
    return "\n\n".join(pieces) + "\n"


def _begin(app: Any) -> None:
    folder = Path(app.srcdir)
    write(folder / "lecture" / "notebook.md", notebook(folder.parent / "examples" / "equations.ipynb"))


def _check(app: Any, env: Any) -> None:
    """Every row of `nnkit verify` is on a page."""
    shown = {tuple(row) for found in env.metadata.values() for row in found.get("equations", [])}
    missing = {(row.equation, row.statement) for row in measured()} - shown
    if missing:
        raise ValueError(f"no page shows the equations {sorted(missing)}")


def setup(app: Any) -> dict[str, Any]:
    """Add the directive, and make the notebook's page when the build begins."""
    app.add_directive("equation", Equation)
    app.connect("builder-inited", _begin)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
