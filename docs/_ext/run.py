"""The directive `run`: Python that runs when the page is made, with what it prints and draws below it.

The blocks of a page share their names and a temporary folder, in which they run. An exception in a block ends the
build, unless the block says which one it shows: `:raises: ValueError`.
"""

import ast
import contextlib
import io
import os
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives


class Page:
    """The names and the folder of a page's blocks."""

    def __init__(self, name: str) -> None:
        self.name, self.names = name.replace("/", "-"), {"__name__": "__main__"}
        self.folder = tempfile.TemporaryDirectory(prefix="nnkit-docs-")
        self.pictures, self.figures = 0, list[Any]()

    def run(self, code: str) -> str:
        """Run a block; returns what it prints, with the value of its last line, unless that is a figure."""
        printed, before = io.StringIO(), Path.cwd()
        tree = ast.parse(code)
        last = tree.body[-1] if tree.body else None
        last = last if isinstance(last, ast.Expr) else None
        tree.body = tree.body[:-1] if last is not None else tree.body
        silent = code.rstrip().endswith(";")
        os.chdir(self.folder.name)
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(tree, self.name, "exec"), self.names)
                if last is not None:
                    value = eval(compile(ast.Expression(last.value), self.name, "eval"), self.names)
                    if hasattr(value, "savefig"):
                        self.figures.append(value)
                    elif value is not None and not silent:
                        print(repr(value))
        finally:
            os.chdir(before)
        return printed.getvalue()

    def pictures_of(self, folder: Path) -> list[str]:
        """Save the figures that the block has drawn; returns their names below the sources."""
        if "matplotlib.pyplot" in sys.modules:
            import matplotlib.pyplot as plt

            self.figures += map(plt.figure, plt.get_fignums())
            plt.close("all")
        found = []
        for figure in self.figures:
            self.pictures += 1
            path = folder / f"{self.name}-{self.pictures}.png"
            path.parent.mkdir(exist_ok=True)
            figure.savefig(path, dpi=110)
            found.append(f"/{path.parent.name}/{path.name}")
        self.figures.clear()
        return found


class Run(Directive):
    """`{run}`: run the block, and show it with its output."""

    has_content = True
    option_spec = {  # noqa: RUF012  docutils declares it so
        "raises": directives.unchanged,
        "hide-code": directives.flag,
        "hide-output": directives.flag,
        "alt": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        pages = env.temp_data.setdefault("nnkit_pages", {})
        if env.docname not in pages:
            pages[env.docname] = Page(env.docname)
        page = pages[env.docname]
        code = "\n".join(self.content)
        expected = self.options.get("raises")
        try:
            printed = page.run(code)
            if expected:
                raise self.error(f"the block raises no {expected}")
        except Exception as error:
            if expected is None or type(error).__name__ != expected:
                raise self.error("".join(traceback.format_exception(error))) from None
            printed = "\n".join(textwrap.wrap(f"{expected}: {error}", 100))
        shown = code.rstrip().removesuffix(";")
        made: list[nodes.Node] = []
        if "hide-code" not in self.options:
            made.append(nodes.literal_block(shown, shown, language="python"))
        if printed.strip() and "hide-output" not in self.options:
            text = nodes.literal_block(printed, printed.rstrip(), language="text")
            made.append(nodes.container("", text, classes=["output"]))
        alt = self.options.get("alt", "what the code above draws")
        made += [nodes.image(uri=uri, alt=alt) for uri in page.pictures_of(Path(env.srcdir, "_plots"))]
        return made


def setup(app: Any) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("run", Run)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
